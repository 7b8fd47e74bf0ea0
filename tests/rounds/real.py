"""Pure machines with real cryptography: desks that seal, mask, share and open, around updates that a test chooses.

Left out are training, ledger, signatures and files: what is summed, and whether it is summed exactly, needs none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_alliance.errors import AllianceError, BadUpload, BlobMissing
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties.adder import UploadAdder
from fl_alliance.parties.desk import InstitutionDesk
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import AllianceMembers
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.plan import Member, SumPlan, TrainingPlan
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from fl_alliance.secagg.worker import Performance
from tests.rounds.play import House, Play, make_plan

Vector = NDArray[np.float64]
CLIP = 0.5
HERE = Performance(processes=0)
"""Thousands of rounds: no worker process for each; tests/secagg and tests/parties have them."""


def names_of(members: int) -> tuple[str, ...]:
    return tuple(f"site-{number:02d}" for number in range(members))


def real_plan(members: int, bits: int, *, threshold: int | None = None, **changes: Any) -> TrainingPlan:
    t = threshold or members // 2 + 1
    return make_plan(
        members=tuple(Member(name=name, declared_units=1000) for name in names_of(members)),
        threshold=t,
        quorum=t,
        sum=SumPlan(coordinate_clip=str(CLIP), bits=bits, **changes.pop("sum", {})),
        **changes,
    )


class MemoryBlobs:
    """The `Blobs` port in a dictionary."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def put(self, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        self.data[ref.digest] = b"".join(chunks)

    def read(self, ref: BlobRef, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
        if ref.digest not in self.data:
            raise BlobMissing(f"there is no blob {ref.digest}")
        data = self.data[ref.digest][offset:]
        yield from (data[at : at + chunk] for at in range(0, max(len(data), 1), chunk))

    def has(self, ref: BlobRef) -> bool:
        return ref.digest in self.data


class FixedTrainer:
    """Gives a chosen update each round; the adapter is the running sum of the means."""

    def __init__(self, update: Vector) -> None:
        self.update, self.vector = update, np.zeros_like(update)
        self.means: list[Vector] = []

    def train_round(self) -> Vector:
        return self.update

    def apply(self, mean_update: Vector) -> None:
        self.means.append(mean_update)
        self.vector = self.vector + mean_update

    def save(self, folder: Path) -> str:
        return digest_of(self.vector.tobytes())

    def state(self) -> bytes:
        return self.vector.tobytes()

    def restore(self, state: bytes) -> None:
        self.vector = np.frombuffer(state)


class NoAccounts:
    """Stands where the ledger stands."""

    def approve(self, plan: TrainingPlan, digest: str, members: AllianceMembers, seen: Iterable[str] = ()) -> str:
        return digest_of(b"head")

    def charge(self, plan: TrainingPlan, plan_digest: str, round_number: int, *, again: bool = False) -> str:
        return digest_of(f"head {round_number}".encode())

    def state(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None:
        pass

    def require_charged_records(self) -> None:
        pass


class RealHouse(House):
    """An institution's machine with a real desk."""

    def __init__(self, name: str, plan: TrainingPlan, blobs: MemoryBlobs, update: Vector) -> None:
        super().__init__(name, plan)
        self.trainer = FixedTrainer(update)
        self.folder = tempfile.TemporaryDirectory()
        self.desk = InstitutionDesk(
            name=name,
            identity=IdentityKey.generate(),
            jobs=Path(self.folder.name),
            blobs=blobs,
            accounts=NoAccounts(),  # type: ignore[arg-type]
            trainer=lambda _: self.trainer,
            public_documents={},
            performance=HERE,
        )
        self.desk._plan, self.desk._digest = plan, digest_of(encode(plan))
        self.desk._members = AllianceMembers.model_construct()

    def work(self, work: i.Work) -> i.Event:
        if isinstance(work, i.Keep):
            return i.Done((digest_of(b"report") if work.last else None, None))
        try:
            return i.Done(self.desk.do(work))
        except AllianceError as error:
            return i.Failed(type(error).__name__, str(error) or "no reason")


class RealPlay(Play):
    """An alliance with real sums. `updates`: one vector for each member, shape (members, d)."""

    def __init__(self, plan: TrainingPlan, updates: Vector) -> None:
        self.blobs = MemoryBlobs()
        self.updates = dict(zip(plan.names, updates, strict=True))
        self.adder = UploadAdder(plan, self.blobs, HERE)
        super().__init__(plan)

    def house(self, name: str) -> House:
        return RealHouse(name, self.plan, self.blobs, self.updates[name])

    def added(self, effect: c.AddUploads) -> c.Event:
        try:
            total = self.adder.total(effect.uploads)
        except BadUpload as error:
            return c.UploadRefused(error.member, error.reason)
        ref = blob_ref(total)
        self.blobs.put(ref, [total])
        return c.SumAdded(ref)


def on_levels(digits: NDArray[np.int64], bits: int) -> Vector:
    """Vectors that lie on the levels `digits`: rounding at random leaves them there (but for 2^-32)."""
    top = (1 << bits) - 1
    vector: Vector = (2.0 * digits / top - 1.0) * CLIP
    return vector


def mean_of(digits: Iterable[NDArray[np.int64]], bits: int) -> Vector:
    """The mean update that the survivors' levels make, by the definition of `fixedpoint` in exact integers."""
    rows = list(digits)
    top = (1 << bits) - 1
    twice = 2 * np.sum(rows, axis=0, dtype=np.int64) - len(rows) * top
    mean: Vector = twice.astype(np.float64) * (CLIP / top) / len(rows)
    return mean
