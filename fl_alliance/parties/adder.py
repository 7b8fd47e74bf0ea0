"""The coordinator's adder: uploads are added as they arrive, so that the sum is ready when the last one is here.

Parameters only, no key. Its memory is one sum and one upload, however many members there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fl_alliance.errors import AllianceError, BadUpload, NotAuthentic, SumRefused
from fl_alliance.protocol.ids import BlobRef, blob_ref
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.protocol.ports import Blobs
from fl_alliance.secagg import frame
from fl_alliance.secagg.cipher import RunningSum
from fl_alliance.secagg.parameters import sum_parameters


class UploadAdder:
    """Adds the uploads of one round after another. What it holds is a cache: `total` gives the same bytes without."""

    def __init__(self, plan: TrainingPlan, blobs: Blobs) -> None:
        self._parameters = sum_parameters(members=len(plan.members), bits=plan.sum.bits)
        self._blobs = blobs
        self._slots: dict[str, int] = {}
        """By the upload's digest: how many slots its header states."""
        self._forget()

    def _forget(self) -> None:
        self._sum: RunningSum | None = None
        self._size = 0
        self._added: dict[str, BlobRef] = {}

    def arrived(self, member: str, upload: BlobRef) -> None:
        """Add an upload that may be in the next `total`. What is wrong with it shows there."""
        try:
            slots = self._slots_of(member, upload)
            if self._sum is None:
                self._start(slots)
            if slots == self._size:
                self._take(member, upload)
        except AllianceError:
            return

    def total(self, uploads: Mapping[str, BlobRef]) -> bytes:
        """Return the framed sum of exactly these uploads; the next call begins a new sum.

        Uploads of another size than most have are refused: the coordinator does not know the adapter's.

        Raises:
            BadUpload: an upload is not what its sender signed, or can't be added. Call again without it.
        """
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
        if self._sum is None:
            raise SumRefused("there is no upload to add")
        data = self._sum.to_bytes()
        self._forget()
        return data

    def _start(self, slots: int) -> None:
        self._forget()
        self._sum, self._size = RunningSum(self._parameters, slots), slots

    def _take(self, member: str, upload: BlobRef) -> None:
        if self._sum is None:
            raise SumRefused("no sum was started")
        try:
            data = b"".join(self._blobs.read(upload))
            if blob_ref(data) != upload:
                raise NotAuthentic("is not the one that it signed")
            self._sum.take(data)
        except AllianceError as error:
            raise BadUpload(member, f"{type(error).__name__}: {error}") from error
        self._added[member] = upload

    def _slots_of(self, member: str, upload: BlobRef) -> int:
        if upload.digest not in self._slots:
            try:
                head = next(self._blobs.read(upload, chunk=frame.HEAD_BYTES), b"")
                self._slots[upload.digest] = frame.slots_in(head)
            except AllianceError as error:
                raise BadUpload(member, f"{type(error).__name__}: {error}") from error
        return self._slots[upload.digest]
