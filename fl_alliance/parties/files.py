"""Write small files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fl_alliance.errors import BadConfig


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` to `path`: readers see the old file or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def read_file(path: Path, what: str) -> bytes:
    """Return the bytes of `path`.

    Raises:
        BadConfig: it can't be read; `what` says what it should hold.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(f"{what}: {path} can't be read ({error.strerror})") from error
