"""Cipher work on foreign bytes, in worker processes under a memory limit: what they break is theirs.

A worker is a new interpreter (never a fork: SEAL's threads and the caller's model stay out of it), for one sum, one
opening or one key and ended with it; one that is started ahead knows only the parameters until then. A key goes over
one end of a socket pair, never by argument, environment or disk, and never to a worker that adds foreign uploads. Its
answers are bounded in length and never unpickled. Crash, exhausted memory and hang become errors of the caller:

    WrongCipher   the worker died, ran out of memory or out of time over foreign bytes
    StoreFailed   it can't be started, was killed from outside, or died over bytes of our own

The work on the chunks of a ciphertext is divided between `processes` workers, because the library holds Python's lock.
A sum has the same bytes whatever their number.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_alliance.errors import OutOfRange, StoreFailed, WrongCipher
from fl_alliance.secagg import cipher, frame
from fl_alliance.secagg.cipher import AllianceKey, RunningSum
from fl_alliance.secagg.parameters import SumParameters
from fl_alliance.secagg.worker_main import HEAD, OUT_OF_MEMORY, EndOfTalk, receive, send

_PACKAGE: Final = str(Path(__file__).resolve().parents[2])
_COMMAND: Final = (sys.executable, "-P", "-m", "fl_alliance.secagg.worker_main")
_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "PYTHONHOME", "TZ")
"""What a worker sees of the environment; tokens and passwords in it stay here."""
_TEXT: Final = 1000
_START_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Performance:
    """How the cipher's work is done. Changes speed and isolation, never a result, so it is in no plan."""

    processes: int = 1
    """Workers that share one piece of work. 0: no worker, everything in the caller's process, without isolation."""
    memory_bytes: int = 1 << 30
    """Address space of each worker: some 120 MB for itself and 40 bytes a slot; 1 GiB is enough for 20M slots."""
    seconds: float = 120.0
    """Longest time for one request."""


ISOLATED: Final = Performance()
"""One worker: foreign bytes are parsed there and never here."""
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Nobody's bytes send these: the system was short of memory, or a person ended the worker."""


class CipherWorker:
    """The work of `cipher` for one sum's parameters, done elsewhere. It holds no process but those of `get_ready`."""

    def __init__(
        self,
        parameters: SumParameters,
        performance: Performance = ISOLATED,
        *,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self._parameters, self._performance, self._command = parameters, performance, tuple(command)
        self._ready: list[_Process] = []

    def get_ready(self, works: int) -> None:
        """Start the workers of the next `works` sums or openings ahead: their start takes longer than most of those.

        Nobody waits for them, and nothing is said if they can't be started: who needs one then hears of it.
        """
        wanted = works * self._performance.processes
        with contextlib.suppress(StoreFailed):
            while len(self._ready) < wanted:
                self._ready.append(_Process(self._command, self._parameters, self._performance))

    def close(self) -> None:
        """End the workers that were started ahead; a later call starts others."""
        while self._ready:
            self._ready.pop().close()

    def running_sum(self, slots: int) -> RunningSum:
        """Return an empty sum, to be closed. Its workers start with the first upload and have no key."""
        return RunningSum(self._parameters, slots, self._chunk_sum(slots))

    def add(self, uploads: Iterable[bytes], *, slots: int, count: int | None = None) -> bytes:
        """Add uploads; see `cipher.add`, and StoreFailed."""
        return cipher.add(uploads, parameters=self._parameters, slots=slots, count=count, chunks=self._chunk_sum(slots))

    def seal(self, slots: NDArray[np.uint64], *, key: AllianceKey) -> bytes:
        """Encrypt masked slots; see `cipher.seal`, and StoreFailed.

        The bytes are our own: one process alone does it here, more than one do it in workers for speed.
        """
        if self._performance.processes < 2:
            return cipher.seal(slots, key=key, parameters=self._parameters)

        def seal_chunks(values: NDArray[np.uint64]) -> list[bytes]:
            degree = self._parameters.degree
            parts = [values[at : at + degree].tobytes() for at in range(0, len(values), degree)]
            return self._divided(b"s", parts, key, frame.max_chunk(self._parameters))

        return cipher.seal(slots, key=key, parameters=self._parameters, seal_chunks=seal_chunks)

    def open_sum(self, total: bytes, *, key: AllianceKey, slots: int) -> NDArray[np.uint64]:
        """Decrypt a sum; see `cipher.open_sum`, and StoreFailed. The key goes to new workers, which end after it."""
        if not self._performance.processes:
            return cipher.open_sum(total, key=key, parameters=self._parameters, slots=slots)

        def open_chunks(chunks: list[bytes]) -> NDArray[np.uint64]:
            size = 8 * self._parameters.degree
            values = self._divided(b"o", chunks, key, size)
            if any(len(part) != size for part in values):
                raise WrongCipher(f"the worker gave other parts than {size} bytes of a sum")
            return np.frombuffer(b"".join(values), np.uint64)

        return cipher.open_sum(total, key=key, parameters=self._parameters, slots=slots, open_chunks=open_chunks)

    def load_key(self, data: bytes) -> AllianceKey:
        """Return the key that another member made; see `AllianceKey.from_bytes`, and StoreFailed."""
        if not self._performance.processes:
            return AllianceKey.from_bytes(self._parameters, data)
        with contextlib.closing(self._start()) as worker:
            worker.request(b"k", data, foreign="the alliance key")
        return AllianceKey(data)

    def _chunk_sum(self, slots: int) -> cipher.ChunkSum:
        if not self._performance.processes:
            return cipher.LocalChunkSum(self._parameters)
        return _RemoteSum(self, frame.chunks_of(slots, self._parameters), frame.max_chunk(self._parameters))

    def start(self, most: int) -> list[_Process]:
        """Start as many workers as there are processes, `most` at most. They come up side by side."""
        return [self._start() for _ in range(max(1, min(self._performance.processes, most)))]

    def _start(self) -> _Process:
        while self._ready:
            if (ready := self._ready.pop(0)).running:
                return ready
            ready.close()
        return _Process(self._command, self._parameters, self._performance)

    def _divided(self, what: bytes, chunks: list[bytes], key: AllianceKey, largest: int) -> list[bytes]:
        """Have one request done on `chunks`, a run of them by each worker; return what they give, in order."""
        foreign = "the sum" if what == b"o" else ""
        workers = self.start(len(chunks))
        try:
            runs = [chunks[a:b] for a, b in _runs(len(chunks), len(workers))]
            for worker, run in zip(workers, runs, strict=True):
                worker.request(b"k", key.to_bytes())
                worker.tell(run, what, foreign=foreign)
            return [
                part
                for worker, run in zip(workers, runs, strict=True)
                for part in worker.answer(len(run), largest, foreign=foreign)
            ]
        finally:
            for worker in workers:
                worker.close()


class _RemoteSum:
    """A `cipher.ChunkSum` in workers: each has a run of the chunks of every upload."""

    def __init__(self, owner: CipherWorker, count: int, largest: int) -> None:
        self.lost = False
        self._owner, self._count, self._largest = owner, count, largest
        self._workers: list[_Process] = []

    def take(self, chunks: Iterable[bytes]) -> None:
        """Add one upload: all workers load their run, and only then all add it."""
        self._require_here()
        if not self._workers:
            self._workers = self._owner.start(self._count)
        try:
            self._load(iter(chunks))
            for worker in self._workers:
                worker.request(b"a", foreign="an upload")
        except (WrongCipher, StoreFailed):
            if not all(worker.alive for worker in self._workers):
                self.lost = True
                self.close()
            raise

    def _load(self, chunks: Iterator[bytes]) -> None:
        """Send each worker its run. Whatever goes wrong before all have loaded is forgotten by all."""
        try:
            for worker, (start, end) in self._divided():
                worker.hold((next(chunks) for _ in range(start, end)), foreign="an upload")
            next(chunks, None)  # the end of the frame, and whatever the pieces say at theirs
            for worker in self._workers:
                worker.tell((), b"l", foreign="an upload")
            _raise_first([_error_of(worker) for worker in self._workers])
        except BaseException:
            for worker in self._workers:
                worker.forget()
            raise

    def chunks(self) -> list[bytes]:
        """Return the sum's ciphertexts."""
        self._require_here()
        for worker in self._workers:
            worker.tell((), b"t")
        return [part for worker, (a, b) in self._divided() for part in worker.answer(b - a, self._largest)]

    def close(self) -> None:
        """End the workers, and the sum with them."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _divided(self) -> list[tuple[_Process, tuple[int, int]]]:
        return list(zip(self._workers, _runs(self._count, len(self._workers)), strict=True))

    def _require_here(self) -> None:
        if self.lost:
            raise StoreFailed("the sum was lost with its worker: begin a new one")


class _Process:
    """One worker process and the caller's end of the talk."""

    def __init__(self, command: tuple[str, ...], parameters: SumParameters, performance: Performance) -> None:
        self._seconds, self._greeted = performance.seconds, False
        self._talk, theirs = socket.socketpair()
        arguments = (performance.memory_bytes, performance.seconds, json.dumps(asdict(parameters)))
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), *map(str, arguments)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # an interrupt at the terminal is the caller's to handle
            )
        except OSError as error:
            self._talk.close()
            raise StoreFailed(f"the cipher's worker can't be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._end = weakref.finalize(self, _end, self._process, self._talk)

    @property
    def alive(self) -> bool:
        """Whether it was not ended."""
        return self._end.alive

    @property
    def running(self) -> bool:
        """Whether it has not ended by itself either."""
        return self._process.poll() is None

    def request(self, what: bytes, body: bytes = b"", *, foreign: str = "") -> None:
        """Have a request done that gives nothing. `foreign` names the bytes whose fault an end would be."""
        self.tell((), what, body, foreign=foreign)
        self.answer(0, 0, foreign=foreign)

    def tell(self, chunks: Iterable[bytes], what: bytes, body: bytes = b"", *, foreign: str = "") -> None:
        """Send chunks and a request; the answer is still to come."""
        self.hold(chunks, foreign=foreign)
        self._send(what, body, foreign)

    def hold(self, chunks: Iterable[bytes], *, foreign: str = "") -> None:
        """Send chunks for the next request."""
        for chunk in chunks:
            self._send(b"c", chunk, foreign)

    def forget(self) -> None:
        """Have chunks forgotten that no request came for."""
        if self.alive:
            with contextlib.suppress(StoreFailed):
                self._send(b"d", b"", "")

    def answer(self, count: int, largest: int, *, foreign: str = "") -> list[bytes]:
        """Return the chunks of the answer: exactly `count`, of at most `largest` bytes each."""
        parts: list[bytes] = []
        while True:
            what, body = self._receive(max(largest, _TEXT), foreign)
            if what == b"c" and len(parts) < count:
                parts.append(body)
            elif what == b"y" and len(parts) == count:
                return parts
            elif what == b"n":
                raise _refusal(body)
            else:
                raise self._gone("answered out of turn", foreign)

    def close(self) -> None:
        """End it."""
        self._end()

    def _send(self, what: bytes, body: bytes, foreign: str) -> None:
        self._greet()
        try:
            send(self._talk, what, body)
        except TimeoutError:
            raise self._gone(f"did not listen for {self._talk.gettimeout():g} s", foreign) from None
        except OSError:
            raise self._gone(None, foreign) from None

    def _receive(self, largest: int, foreign: str) -> tuple[bytes, bytes]:
        try:
            what, length = HEAD.unpack(receive(self._talk, HEAD.size))
            if length > largest:
                raise self._gone(f"answered with {length} bytes", foreign)
            return what, receive(self._talk, length)
        except TimeoutError:
            raise self._gone(f"did not finish within {self._talk.gettimeout():g} s", foreign) from None
        except (EndOfTalk, OSError):
            raise self._gone(None, foreign) from None

    def _greet(self) -> None:
        """Wait for its first word, once: an end before it is no fault of any bytes."""
        if not self._greeted:
            self._greeted = True
            self._talk.settimeout(_START_SECONDS)
            self.answer(0, 0)
            self._talk.settimeout(self._seconds)

    def _gone(self, what: str | None, foreign: str) -> WrongCipher | StoreFailed:
        """End it, and return the error to raise. None: it ended by itself."""
        status = _status(self._process) if what is None else None
        self.close()
        text = f"the cipher's worker {what or _ended(status)}"
        if foreign and (status is None or -status not in _FROM_OUTSIDE):
            return WrongCipher(f"{text} over {foreign}")
        return StoreFailed(text)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join(part for part in (_PACKAGE, os.environ.get("PYTHONPATH", "")) if part)
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _runs(count: int, workers: int) -> list[tuple[int, int]]:
    """Return for each worker the first and the end of its run of `count` chunks."""
    return [(count * at // workers, count * (at + 1) // workers) for at in range(workers)]


def _error_of(worker: _Process) -> WrongCipher | StoreFailed | OutOfRange | None:
    """Return what was wrong with an answer: the others' answers must be read all the same."""
    try:
        worker.answer(0, 0, foreign="an upload")
    except (WrongCipher, StoreFailed, OutOfRange) as error:
        return error
    return None


def _raise_first(errors: list[WrongCipher | StoreFailed | OutOfRange | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def _refusal(body: bytes) -> WrongCipher | OutOfRange:
    """Return the error that a worker tells of: one of two, whatever it says."""
    name, _, text = body.decode(errors="replace").partition(": ")
    return OutOfRange(text) if name == "OutOfRange" else WrongCipher(text)


def _status(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return None


def _ended(status: int | None) -> str:
    if status == OUT_OF_MEMORY:
        return "ran out of the memory that it may use"
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _end(process: subprocess.Popen[bytes], talk: socket.socket) -> None:
    talk.close()
    process.kill()
    process.wait()
