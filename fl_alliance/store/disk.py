"""Bytes that are on the disk when a call returns. What the system refuses is an `OSError`; the caller names it."""

from __future__ import annotations

import os
from pathlib import Path


def write_all(handle: int, data: bytes) -> None:
    """Write the whole of `data`: on a disk that fills up, the system writes a part and raises nothing yet."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def write_tail(handle: int, length: int, data: bytes) -> None:
    """Write `data` at `length`, cut off what is behind it, and sync the file."""
    os.ftruncate(handle, length)
    os.lseek(handle, length, os.SEEK_SET)
    write_all(handle, data)
    os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` durable: a file's own sync does not."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
