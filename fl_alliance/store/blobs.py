"""Blobs in a folder: content-addressed, whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fl_alliance.errors import BlobMissing, NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.store.disk import sync_folder, write_all


class FolderBlobs:
    """The `Blobs` port over a folder; a blob's file is named by its digest and has mode 0600."""

    def __init__(self, folder: Path) -> None:
        """Open the store, made where it is not there (StoreFailed: it can't be made)."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreFailed(f"blobs in {folder}: {error.strerror}") from None
        self._folder = folder

    def put(self, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        """Store `chunks` under `ref`, durably; see `protocol.ports.Blobs`."""
        if self.has(ref):
            return
        with _named(ref):
            descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".part-")
        try:
            try:
                _copy(ref, chunks, descriptor)
                with _named(ref):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with _named(ref):
                Path(name).replace(self.path(ref))
                sync_folder(self._folder)
        finally:
            Path(name).unlink(missing_ok=True)

    def read(self, ref: BlobRef, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
        """Yield the bytes of `ref` from `offset` on."""
        if not self.has(ref):
            raise BlobMissing(f"there is no blob {ref.digest} of {ref.length} bytes")
        with _named(ref):
            file = self.path(ref).open("rb")
        with file:
            file.seek(offset)
            while block := file.read(chunk):
                yield block

    def has(self, ref: BlobRef) -> bool:
        """Say whether the whole blob is here."""
        path = self.path(ref)
        return path.is_file() and path.stat().st_size == ref.length

    def path(self, ref: BlobRef) -> Path:
        """Return where the blob is or would be."""
        return self._folder / ref.digest.removeprefix("sha256:")


def _copy(ref: BlobRef, chunks: Iterable[bytes], descriptor: int) -> None:
    for chunk in checked(ref, chunks):
        with _named(ref):
            write_all(descriptor, chunk)


def checked(ref: BlobRef, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks; end without an error only if they are the blob (NotAuthentic: another digest or length)."""
    hasher, length = hashlib.sha256(), 0
    for chunk in chunks:
        length += len(chunk)
        if length > ref.length:
            raise NotAuthentic(f"blob {ref.digest}: longer than the {ref.length} bytes stated")
        hasher.update(chunk)
        yield chunk
    seen = "sha256:" + hasher.hexdigest()
    if (seen, length) != (ref.digest, ref.length):
        raise NotAuthentic(f"blob {ref.digest} of {ref.length} bytes: got {seen} of {length} bytes")


@contextlib.contextmanager
def _named(ref: BlobRef) -> Iterator[None]:
    """Name what the disk refuses; what the source of a blob raises stays as it is."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"blob {ref.digest} of {ref.length} bytes: {error.strerror}") from None
