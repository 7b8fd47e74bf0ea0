"""The coordinator's adder: uploads are added as they arrive, so that the sum is ready when the last one is here.

Parameters only, no key. The ciphers are added in a worker, which holds one sum and one upload, however many members
there are; here an upload is only read through, piece by piece.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

from fl_alliance.errors import AllianceError, BadUpload, NotAuthentic, StoreFailed, SumRefused
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.protocol.ports import Blobs
from fl_alliance.secagg import frame
from fl_alliance.secagg.cipher import RunningSum
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.secagg.worker import ISOLATED, CipherWorker, Performance


class UploadAdder:
    """Adds the uploads of one round after another. What it holds is a cache: `total` gives the same bytes without."""

    def __init__(self, plan: TrainingPlan, blobs: Blobs, performance: Performance = ISOLATED) -> None:
        parameters = sum_parameters(members=len(plan.members), bits=plan.sum.bits)
        self._worker = CipherWorker(parameters, performance)
        self._blobs = blobs
        self._slots: dict[str, int] = {}
        """By the upload's digest: how many slots its header states."""
        self._sum: RunningSum | None = None
        self._forget()

    def _forget(self) -> None:
        if self._sum is not None:
            self._sum.close()
        self._sum = None
        self._size = 0
        self._added: dict[str, BlobRef] = {}

    def expect(self) -> None:
        """Be ready: uploads are to come."""
        self._worker.get_ready(1)

    def arrived(self, member: str, upload: BlobRef) -> None:
        """Add an upload that may be in the next `total`. What is wrong with it shows there."""
        try:
            slots = self._slots_of(member, upload)
            of_another_round = self._added.get(member, upload) != upload
            if self._sum is None or of_another_round:
                self._start(slots)
            if slots == self._size and member not in self._added:
                self._take(member, upload)
        except AllianceError:
            return

    def total(self, uploads: Mapping[str, BlobRef]) -> bytes:
        """Return the framed sum of exactly these uploads; the next call begins a new sum.

        Uploads of another size than most have are refused: the coordinator does not know the adapter's.

        Raises:
            BadUpload: an upload is not what its sender signed, or can't be added. Call again without it.
            SumRefused: there is none.
            StoreFailed: the worker can't be started or was killed from outside, twice; no member's fault.
        """
        if not uploads:
            raise SumRefused("there is no upload to add")
        try:
            return self._total(uploads)
        except StoreFailed:
            self._forget()
            return self._total(uploads)

    def close(self) -> None:
        """End the workers; a later call starts others."""
        self._forget()
        self._worker.close()

    def _total(self, uploads: Mapping[str, BlobRef]) -> bytes:
        sizes = {member: self._slots_of(member, upload) for member, upload in sorted(uploads.items())}
        usual = Counter(sizes.values()).most_common(1)[0][0]
        for member, size in sizes.items():
            if size != usual:
                raise BadUpload(member, f"{size} slots, the others have {usual}")
        if usual != self._size or not self._added.items() <= dict(uploads).items():
            self._start(usual)
        for member, upload in sorted(uploads.items()):
            if member not in self._added:
                self._take(member, upload)
        data = self._running.to_bytes()
        self._forget()
        return data

    @property
    def _running(self) -> RunningSum:
        if self._sum is None:
            raise SumRefused("no sum was started")
        return self._sum

    def _start(self, slots: int) -> None:
        self._forget()
        self._sum, self._size = self._worker.running_sum(slots), slots

    def _take(self, member: str, upload: BlobRef) -> None:
        running = self._running
        try:
            running.take(self._pieces(member, upload), "its bytes")
        except BadUpload:
            raise
        except SumRefused as error:
            raise BadUpload(member, _named(error)) from error
        finally:
            if running.lost:
                self._forget()
        self._added[member] = upload

    def _pieces(self, member: str, upload: BlobRef) -> Iterator[bytes]:
        """Yield the upload; what is wrong with the blob is its sender's fault, unlike what is wrong with a worker."""
        try:
            yield from signed_pieces(self._blobs, upload)
        except AllianceError as error:
            raise BadUpload(member, _named(error)) from error

    def _slots_of(self, member: str, upload: BlobRef) -> int:
        if upload.digest not in self._slots:
            try:
                head = next(self._blobs.read(upload, chunk=frame.HEAD_BYTES), b"")
                self._slots[upload.digest] = frame.slots_in(head)
            except AllianceError as error:
                raise BadUpload(member, _named(error)) from error
        return self._slots[upload.digest]


def signed_pieces(blobs: Blobs, ref: BlobRef) -> Iterator[bytes]:
    """Yield the bytes of `ref`, and compare them with what was signed: use nothing before the iterator is exhausted.

    Raises:
        NotAuthentic: at the end, or as soon as they are too many: other bytes than `ref` names.
        StoreFailed: the store has no such blob.
    """
    hasher, length = hashlib.sha256(), 0
    for piece in blobs.read(ref):
        hasher.update(piece)
        length += len(piece)
        if length > ref.length:
            break
        yield piece
    seen = "sha256:" + hasher.hexdigest()
    if (seen, length) != (ref.digest, ref.length):
        raise NotAuthentic(f"digest {seen} of {length} bytes, signed was {ref.digest} of {ref.length}")


def _named(error: AllianceError) -> str:
    return f"{type(error).__name__}: {error}"
