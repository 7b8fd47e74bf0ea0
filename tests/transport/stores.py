"""A blob store for these tests: the transport may not import the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from fl_alliance.errors import NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import BlobRef


class FolderBlobs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        half, whole, length = self.folder / "half", hashlib.sha256(), 0
        with half.open("wb") as file:
            for chunk in chunks:
                whole.update(chunk)
                length += len(chunk)
                file.write(chunk)
        if "sha256:" + whole.hexdigest() != ref.digest or length != ref.length:
            half.unlink()
            raise NotAuthentic(ref.digest)
        half.rename(self._path(ref))

    def read(self, ref: BlobRef, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
        if not self.has(ref):
            raise StoreFailed(ref.digest)
        with self._path(ref).open("rb") as file:
            file.seek(offset)
            while block := file.read(chunk):
                yield block

    def has(self, ref: BlobRef) -> bool:
        return self._path(ref).exists() and self._path(ref).stat().st_size == ref.length

    def _path(self, ref: BlobRef) -> Path:
        return self.folder / ref.digest.removeprefix("sha256:")
