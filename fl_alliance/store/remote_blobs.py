"""Blobs in any store that fsspec knows: an S3-compatible one, first of all.

An S3 object shows when its multipart upload is completed, so a blob is sent in parts to its own name, and completed
once its digest is right. Elsewhere it is written beside its name and renamed. What a killed process leaves shows to
nobody: parts, which a lifecycle rule of the bucket should abort after a day, or a file `.part-`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, Final

import fsspec

from fl_alliance.errors import BadConfig, BlobMissing, StoreFailed
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.store.blobs import checked

_PIECE: Final = 8 << 20
"""Bytes that are sent or fetched at a time, and so about what a transfer takes of the memory."""
_COMPLETED_BY_COMMIT: Final = {"s3", "s3a"}
"""Protocols whose files show at `commit` and not before."""


class FsspecBlobs:
    """The `Blobs` port over an fsspec URL: `s3://bucket/prefix`, `memory://prefix`, ...

    Durable as far as the store is. Credentials and the endpoint come from the environment, as with every S3 client.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """Name the store; nothing is asked of it yet. `options` are fsspec's for this protocol.

        Raises:
            BadConfig: fsspec does not know the protocol, or its package is not installed.
        """
        try:
            self._store, path = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
        except (ValueError, ImportError) as error:
            raise BadConfig(f"blobs: {url}: {error}") from None
        self._folder = path.rstrip("/")
        protocol = self._store.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._commits = bool(protocols & _COMPLETED_BY_COMMIT)

    def put(self, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        """Store `chunks` under `ref`; see `protocol.ports.Blobs`."""
        if self.has(ref):
            return
        with self._committed(ref) if self._commits else self._renamed(ref) as file:
            for chunk in checked(ref, chunks):
                with _named(ref):
                    file.write(chunk)

    def read(self, ref: BlobRef, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
        """Yield the bytes of `ref` from `offset` on. Each piece is a request of its own: none holds the others up."""
        if not self.has(ref):
            raise BlobMissing(f"there is no blob {ref.digest} of {ref.length} bytes")
        for start in range(offset, ref.length, _PIECE):
            end = min(start + _PIECE, ref.length)
            with _named(ref):
                piece = self._store.cat_file(self._path(ref), start=start, end=end)
            if len(piece) != end - start:
                raise StoreFailed(f"blob {ref.digest}: {len(piece)} bytes from {start} on, asked for {end - start}")
            yield from (piece[at : at + chunk] for at in range(0, len(piece), chunk))

    def has(self, ref: BlobRef) -> bool:
        """Say whether the whole blob is here (StoreFailed: the store can't be asked)."""
        try:
            with _named(ref):
                return bool(self._store.info(self._path(ref))["size"] == ref.length)
        except _Absent:
            return False

    def _path(self, ref: BlobRef) -> str:
        return f"{self._folder}/{ref.digest.removeprefix('sha256:')}"

    @contextlib.contextmanager
    def _committed(self, ref: BlobRef) -> Iterator[Any]:
        """A file that shows whole when nothing went wrong, and never otherwise."""
        with _named(ref):
            file = self._store.open(self._path(ref), "wb", block_size=_PIECE, autocommit=False)
        try:
            yield file
            with _named(ref):
                file.close()
                file.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong is said; parts that stay show to nobody
                file.discard()
            file.closed = True  # or its end would begin another upload
            raise

    @contextlib.contextmanager
    def _renamed(self, ref: BlobRef) -> Iterator[Any]:
        part = f"{self._folder}/.part-{secrets.token_hex(8)}"
        with _named(ref):
            self._store.makedirs(self._folder, exist_ok=True)
            file = self._store.open(part, "wb")
        try:
            yield file
            with _named(ref):
                file.close()
                self._store.mv(part, self._path(ref))
        except BaseException:
            with contextlib.suppress(Exception):
                file.close()
                self._store.rm_file(part)
            raise


class _Absent(StoreFailed):
    """There is nothing under the blob's name."""


@contextlib.contextmanager
def _named(ref: BlobRef) -> Iterator[None]:
    """Name what the store refuses: each protocol's client has errors of its own, not all of them OSError."""
    try:
        yield
    except FileNotFoundError as error:
        raise _Absent(f"blob {ref.digest}: {error}") from None
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:300]
        raise StoreFailed(f"blob {ref.digest} of {ref.length} bytes: {said}") from None
