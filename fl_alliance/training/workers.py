"""Several processes for one institution's steps: the workers of rank 0, as that process sees them.

The institution's process stays the one that holds keys, reads the file, draws the sample, makes the noise and moves the
adapter. In each step it gives every worker whole units of its one sample; each clips and adds its own in float64, the
sums are added here, and then it goes on as if it had been alone. So the event that is charged, and the noise, do not
know how many processes there are (Opacus' own optimizer for DDP draws a sample in each rank and adds noise in rank 0).

A worker is a new interpreter with a bare environment, started once and kept warm. It gets the plan, and in each step
its units, by one end of a socket pair; nothing is pickled. It ends when the other end closes, so also when this process
is killed. One that dies, hangs or can't be started is `TrainingFailed`; the others then end too, and the next round
starts new ones.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import structlog
import torch
from torch import Tensor

from fl_alliance.errors import TrainingFailed
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.batches import Performance, Unit
from fl_alliance.training.ranks import CARRY_SECONDS, SECRET_BYTES, SumGroup, divide, pack_units

log = structlog.get_logger()

START_SECONDS: Final = 900.0
"""Longest wait for a worker to load the model, which this process has loaded already."""
STEP_SECONDS: Final = 900.0
"""Longest wait for a worker's part of a step once this process has done its own: they are of like work."""
READY: Final = b"y"
_MOST: Final = 4096
"""Longest word of a worker, in bytes."""
_PACKAGE: Final = str(Path(__file__).resolve().parents[2])
_COMMAND: Final = (sys.executable, "-P", "-m", "fl_alliance.training.worker_main")
_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "PYTHONHOME", "TZ", "HOME", "TMPDIR")
"""What a worker sees of the environment, and CUDA's own settings; tokens and passwords in it stay here."""


@dataclass(frozen=True)
class Step:
    """One step under way: what is to be done here, and how the sums are added."""

    mine: Sequence[Unit]
    """This process' part of the sample."""
    add: Callable[[Tensor], Tensor]
    """Takes this part's clipped sum, (d,) in float64 on the CPU, and returns the whole sample's."""


class Workers:
    """The processes besides this one that train; `performance.processes` - 1 of them, ranks 1 and up."""

    def __init__(
        self,
        folder: Path,
        plan: TrainingPlan,
        member: str,
        performance: Performance,
        *,
        command: Sequence[str] = _COMMAND,
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        """Start none yet: `meet` does. `folder` has the plan's model."""
        self._plan, self._command, self._step_seconds = encode(plan), tuple(command), step_seconds
        same = asdict(replace(performance, threads=torch.get_num_threads()))
        self._settings = {"folder": str(folder.resolve()), "member": member, "performance": same}
        self._size = performance.processes
        self._workers: list[_Worker] = []
        self._group: SumGroup | None = None

    @property
    def pids(self) -> list[int]:
        """The process of each worker that was not ended."""
        return [worker.pid for worker in self._workers]

    def meet(self) -> None:
        """Return when all workers stand ready: at once if they are there, else new ones, when they have the model.

        Raises:
            TrainingFailed: one does not come up.
        """
        if self._group is not None and all(worker.alive for worker in self._workers):
            return
        self.close()
        try:
            with tempfile.TemporaryDirectory(prefix="fl-alliance-") as meeting:  # mode 0700
                self._start(meeting)
                self._group = self._join(Path(meeting))
        except BaseException:
            self.close()
            raise

    @contextmanager
    def step(self, weights: Tensor, sample: Sequence[Unit]) -> Iterator[Step]:
        """Give each worker its part of `sample` and the `weights`, (d,) in float64 on the CPU, and let it work.

        Whatever goes wrong inside ends all workers: none is left with records, or a step behind.

        Raises:
            TrainingFailed: a worker died or hung.
        """
        group = self._group
        if group is None:
            raise TrainingFailed("the workers have not met")
        mine, *theirs = divide(sample, self._size)
        try:
            for worker, units in zip(self._workers, theirs, strict=True):
                worker.tell(pack_units(units))
            group.broadcast(weights)
            yield Step(mine, lambda own: self._add(group, own))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        self._workers, self._group = [], None

    def _add(self, group: SumGroup, own: Tensor) -> Tensor:
        """Wait for everybody before the vectors travel: a worker that is gone by then is named."""
        for worker in self._workers:
            worker.require_ready(self._step_seconds, "in a step")
        for worker in self._workers:
            worker.tell(READY)
        group.reduce(own)
        return own

    def _start(self, meeting: str) -> None:
        for rank in range(1, self._size):
            self._workers.append(worker := _Worker(self._command, rank, self._size))
            worker.tell(json.dumps(self._settings | {"rank": rank, "meeting": meeting}).encode())
            worker.tell(self._plan)

    def _join(self, meeting: Path) -> SumGroup:
        secret = secrets.token_bytes(SECRET_BYTES)
        for worker in self._workers:
            worker.require_ready(START_SECONDS, "while it loaded the model")
        for worker in self._workers:
            worker.tell(secret)
        return SumGroup(meeting, 0, self._size, secret)


class _Worker:
    """One worker process and this process' end of the talk."""

    def __init__(self, command: tuple[str, ...], rank: int, size: int) -> None:
        self._name = f"training worker {rank} of {size - 1}"
        ours, theirs = socket.socketpair()
        patience = struct.pack("ll", int(CARRY_SECONDS), 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)  # one that is stopped takes no more bytes
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # an interrupt at the terminal is this process' to handle
            )
        except OSError as error:
            ours.close()
            raise TrainingFailed(f"{self._name} can't be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._talk = Connection(ours.detach())
        self._end = weakref.finalize(self, _end, self._process, self._talk)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def tell(self, message: bytes) -> None:
        """Send a message (TrainingFailed: it is gone, or does not listen)."""
        try:
            self._talk.send_bytes(message)
        except BlockingIOError:
            raise TrainingFailed(f"{self._name} did not listen for {CARRY_SECONDS:g} s") from None
        except OSError:
            raise TrainingFailed(f"{self._name} {self._ended()}") from None

    def require_ready(self, seconds: float, when: str) -> None:
        """Wait until it says that it is ready (TrainingFailed: it is gone, or late)."""
        try:
            if not self._talk.poll(seconds):
                raise TrainingFailed(f"{self._name} was not ready after {seconds:g} s, {when}")
            word = self._talk.recv_bytes(_MOST)
        except (EOFError, OSError):
            raise TrainingFailed(f"{self._name} {self._ended()}, {when}") from None
        if word != READY:
            kind, _, places = word.decode().partition(" ")
            log.warning("training_worker_ended", kind=kind, said=places)
            raise TrainingFailed(f"{self._name} ended by an error that this institution's log names, {when}")

    def close(self) -> None:
        """End it."""
        self._end()

    def _ended(self) -> str:
        """Say how it ended."""
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its end"
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("CUDA_")}
    path = os.pathsep.join(part for part in (_PACKAGE, os.environ.get("PYTHONPATH", "")) if part)
    return kept | {"PYTHONPATH": path}


def _end(process: subprocess.Popen[bytes], talk: Connection) -> None:
    talk.close()
    process.kill()
    process.wait()
