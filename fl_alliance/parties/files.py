"""Write small files whole or not at all; and one process at a time for a party's folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fl_alliance.errors import BadConfig, StoreFailed
from fl_alliance.store import disk


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` to `path`, durably: readers see the old file or the new one, also after a crash.

    Raises:
        StoreFailed: the disk refuses, as a full one does; the old file, or none, is still there, or all of the new one.
    """
    write_pieces_atomically(path, [data], mode=mode)


def write_pieces_atomically(path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
    """Write `pieces`, one after the other, as `write_atomically`; what making them raises leaves the old file, too."""
    try:
        _write(path, pieces, mode)
    except OSError as error:
        raise StoreFailed(f"{path.name} can't be written in {path.parent}: {error.strerror}") from None


def _write(path: Path, pieces: Iterable[bytes], mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
        disk.sync_folder(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring `folder`, the files in it and its own name to the disk, so that a power cut takes none of it.

    Raises:
        StoreFailed: the disk refuses.
    """
    try:
        for path in (path for path in folder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for place in (folder, folder.parent):
            disk.sync_folder(place)
    except OSError as error:
        raise StoreFailed(f"{folder.name} can't be brought to the disk in {folder.parent}: {error.strerror}") from None


@contextlib.contextmanager
def only_process(home: Path) -> Iterator[None]:
    """Keep every other process from serving `home`. The lock goes with the process, also when it is killed.

    Raises:
        BadConfig: another process serves it, or the folder can't be written.
    """
    try:
        handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadConfig(f"{home}: can't be served ({error.strerror})") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BadConfig(f"{home}: another process serves this folder; end that one first") from None
    finally:
        os.close(handle)


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Wait until nobody else changes `folder`, in this process or another, and keep it so.

    Raises:
        BadConfig: the folder can't be written.
    """
    try:
        handle = os.open(folder / "writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadConfig(f"{folder}: can't be written ({error.strerror})") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_file(path: Path, what: str) -> bytes:
    """Return the bytes of `path`.

    Raises:
        BadConfig: it can't be read; `what` says what it should hold.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(f"{what}: {path} can't be read ({error.strerror})") from error
