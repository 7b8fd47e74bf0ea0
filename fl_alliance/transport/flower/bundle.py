"""The trampoline bundle: the one Flower app that an institution takes part in, known by its hash.

Flower's own builder compresses, so its result depends on the zlib of the machine. Here the files are stored as they
are, with a fixed date and system: the same bytes come out of every installation of the same version.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_APP = Path(__file__).parent / "app"
_FILES = ("pyproject.toml", "trampoline/__init__.py", "trampoline/nothing.py")
_DATE = (1980, 1, 1, 0, 0, 0)
APP_ID = "fl-alliance/trampoline"


@dataclass(frozen=True)
class Bundle:
    """What a run says it executes: Flower's app id and the SHA-256 (hex) of the bundle's bytes."""

    app: str
    sha256: str


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> str:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system = 3
    info.external_attr = 0o600 << 16
    archive.writestr(info, content)
    return f"{name},{hashlib.sha256(content).hexdigest()},{8 * len(content)}"


@cache
def trampoline() -> bytes:
    """Return the bytes of the trampoline bundle in Flower's format: files, then a manifest `.info/CONTENT`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        lines = [_add(archive, name, (_APP / name).read_bytes().replace(b"\r\n", b"\n")) for name in _FILES]
        _add(archive, ".info/CONTENT", "\n".join(lines).encode())
    return buffer.getvalue()


def installed_bundle() -> Bundle:
    """Return the only bundle whose messages an institution answers."""
    return Bundle(APP_ID, hashlib.sha256(trampoline()).hexdigest())
