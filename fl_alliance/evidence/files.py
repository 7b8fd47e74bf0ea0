"""Where evidence lies: in a folder, or in a folder inside an archive. Whoever verifies it need not know which."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from fl_alliance.errors import EvidenceRefused, StoreFailed
from fl_alliance.evidence.archive import Archive


class EvidenceFiles(Protocol):
    """Files by relative name with forward slashes. `read`, `length`, `digest` raise `StoreFailed` for one not there."""

    def names(self) -> tuple[str, ...]:
        """Return every file, sorted (EvidenceRefused: step 1; something is not a plain file)."""

    def length(self, name: str) -> int:
        """Return the bytes of a file."""

    def digest(self, name: str) -> str:
        """Return the `Digest` of a file."""

    def read(self, name: str) -> bytes:
        """Return a file."""


class FolderFiles:
    """Files below a folder of the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        """See `EvidenceFiles`."""
        return tuple(sorted(self._walk()))

    def length(self, name: str) -> int:
        """See `EvidenceFiles`."""
        try:
            return (self._folder / name).stat().st_size
        except OSError as error:
            raise _failed(error) from None

    def digest(self, name: str) -> str:
        """See `EvidenceFiles`."""
        try:
            with (self._folder / name).open("rb") as file:
                return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError as error:
            raise _failed(error) from None

    def read(self, name: str) -> bytes:
        """See `EvidenceFiles`."""
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise _failed(error) from None

    def _walk(self) -> Iterator[str]:
        for here, folders, files in os.walk(self._folder, followlinks=False):
            for name in (*folders, *files):
                path = Path(here) / name
                relative = path.relative_to(self._folder).as_posix()
                if path.is_symlink():
                    raise EvidenceRefused(f"step 1, {relative}: is a symbolic link, must be a plain file")
                if name in files:
                    if not path.is_file():
                        raise EvidenceRefused(f"step 1, {relative}: is not a plain file")
                    yield relative


class ArchiveFiles:
    """Files of an archive, all of them or those below a folder of it."""

    def __init__(self, archive: Archive, folder: str = "") -> None:
        self._archive, self._prefix = archive, f"{folder}/" if folder else ""

    def names(self) -> tuple[str, ...]:
        """See `EvidenceFiles`."""
        start = len(self._prefix)
        return tuple(name[start:] for name in self._archive.names if name.startswith(self._prefix))

    def length(self, name: str) -> int:
        """See `EvidenceFiles`."""
        return self._archive.length(self._prefix + name)

    def digest(self, name: str) -> str:
        """See `EvidenceFiles`."""
        return self._archive.digest(self._prefix + name)

    def read(self, name: str) -> bytes:
        """See `EvidenceFiles`."""
        return self._archive.read(self._prefix + name)


def _failed(error: OSError) -> StoreFailed:
    return StoreFailed(error.strerror or type(error).__name__)
