"""What the processes of one step share: who gets which units, their bytes, and the group that adds the sums.

Rank 0 is the institution's process; the others are its workers (`workers`, `worker_main`). The group is gloo over
loopback, on GPUs too: one vector is added in a step, in float64, on the CPU, where the noise is made. Its ranks find
one another by a file in a folder of mode 0700; each listens on a free port of 127.0.0.1 while the group lives, and
nothing private goes over it before each has proved to each that rank 0 started it.
"""

from __future__ import annotations

import datetime
import hmac
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fl_alliance.errors import TrainingFailed
from fl_alliance.training.batches import Unit
from fl_alliance.training.encode import Encoded

CARRY_SECONDS: Final = 60.0
"""Longest wait for the group to form, and for one vector to be carried when all ranks stand ready."""
SECRET_BYTES: Final = 32


def divide(units: Sequence[Unit], ranks: int) -> list[list[Unit]]:
    """Give each unit to one rank, all of its records, so that the ranks have like work (longest unit first).

    Which rank has a unit changes nothing but the last bits of float32 (`dp.MARGIN` has room for them).
    """
    parts: list[list[Unit]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for unit in sorted((unit for unit in units if unit), key=_work, reverse=True):
        least = loads.index(min(loads))
        parts[least].append(unit)
        loads[least] += _work(unit)
    return parts


def _work(unit: Unit) -> int:
    return len(unit) * max(len(row.ids) for row in unit)


def pack_units(units: Sequence[Unit]) -> bytes:
    """Return `units` as 32-bit numbers: how many; of each its rows; of each row its length, ids and labels."""
    numbers = [len(units)]
    for unit in units:
        numbers.append(len(unit))
        for row in unit:
            numbers += [len(row.ids), *row.ids, *row.labels]
    return np.array(numbers, dtype="<i4").tobytes()


def unpack_units(data: bytes) -> list[Unit]:
    """Return the units that `pack_units` packed."""
    numbers = iter(np.frombuffer(data, dtype="<i4").tolist())

    def several(count: int) -> tuple[int, ...]:
        return tuple(next(numbers) for _ in range(count))

    def row() -> Encoded:
        length = next(numbers)
        return Encoded(several(length), several(length))

    return [[row() for _ in range(next(numbers))] for _ in range(next(numbers))]


class SumGroup:
    """The ranks that add one vector: gloo, over loopback alone."""

    def __init__(self, folder: Path, rank: int, size: int, secret: bytes) -> None:
        """Join the group that meets in `folder`, which only this user may read. `secret`: from rank 0.

        Raises:
            TrainingFailed: not all ranks came in time, or one of them does not know the secret.
        """
        gloo: Any = dist.ProcessGroupGloo  # of its own, not torch's one group for a process: a house may serve two jobs
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname="127.0.0.1", lazy_init=False)]
        options._timeout = datetime.timedelta(seconds=CARRY_SECONDS)
        store = dist.FileStore(str(folder / "ranks"), size)  # type: ignore[attr-defined]
        self._group: Any = _carried(lambda: gloo(store, rank, size, options), "to meet")
        self._prove(rank, size, secret)

    def broadcast(self, vector: Tensor) -> None:
        """Overwrite `vector`, (d,) on the CPU, by that of rank 0."""
        options = dist.BroadcastOptions()
        options.rootRank = options.rootTensor = 0
        _carried(lambda: self._group.broadcast([vector], options).wait(), "to get the adapter")

    def reduce(self, vector: Tensor) -> None:
        """Add the ranks' vectors, (d,) on the CPU, into that of rank 0; what is in the others then is of no use."""
        options = dist.ReduceOptions()  # its operation is the sum
        options.rootRank = 0
        _carried(lambda: self._group.reduce([vector], options).wait(), "to add the sums")

    def _prove(self, rank: int, size: int, secret: bytes) -> None:
        """Send each rank a proof that is for it alone, and check theirs: another user can reach the ports as well."""
        mine = b"".join(_proof(secret, rank, other) for other in range(size))
        theirs = b"".join(_proof(secret, other, rank) for other in range(size))
        given = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
        found = torch.empty_like(given)
        _carried(lambda: self._group.alltoall_base(found, given, [], []).wait(), "to prove who they are")
        if not hmac.compare_digest(found.numpy().tobytes(), theirs):
            raise TrainingFailed("a process that this institution did not start is among those that train")


def _proof(secret: bytes, sender: int, receiver: int) -> bytes:
    return hmac.digest(secret, f"fl-alliance/1|training rank|{sender}|{receiver}".encode(), "sha256")


def _carried(work: Callable[[], object], why: str) -> object:
    """Do what needs all ranks (TrainingFailed: one is gone or late; torch's own text names addresses)."""
    try:
        return work()
    except RuntimeError as error:
        raise TrainingFailed(f"the processes that train were waiting for one {why}: it is gone or late") from error
