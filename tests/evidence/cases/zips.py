"""Zip files with a lie in any field, written from PKWARE's APPNOTE 6.3.10: the forger's own writer."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, its fields as they must be but for those that are given."""

    name: bytes
    data: bytes
    stored: bytes | None = None
    """What is written in place of the data."""
    needed: int = 10
    flags: int = 0
    method: int = 0
    date: int = 33
    extra: bytes = b""
    made_by: int = 788
    attributes: int = 0o100644 << 16
    offset: int = 0
    """Where it lies, as the directory says."""
    after: bytes = b""
    """Between this file and the next."""

    @property
    def body(self) -> bytes:
        return self.data if self.stored is None else self.stored

    @property
    def local(self) -> bytes:
        sizes = (zlib.crc32(self.data), len(self.body), len(self.data), len(self.name), len(self.extra))
        head = struct.pack("<4s5H3I2H", b"PK\3\4", self.needed, self.flags, self.method, 0, self.date, *sizes)
        return head + self.name + self.extra + self.body + self.after

    @property
    def central(self) -> bytes:
        crc = zlib.crc32(self.data)
        head = struct.pack("<4s6H", b"PK\1\2", self.made_by, self.needed, self.flags, self.method, 0, self.date)
        sizes = struct.pack("<3I3H", crc, len(self.body), len(self.data), len(self.name), len(self.extra), 0)
        return head + sizes + struct.pack("<2H2I", 0, 0, self.attributes, self.offset) + self.name + self.extra


def entries_of(files: dict[str, bytes]) -> list[Entry]:
    return [Entry(name=name.encode(), data=data) for name, data in sorted(files.items())]


def with_fields(files: dict[str, bytes], name: str, **changes: Any) -> list[Entry]:
    """All files as they must be, but one."""
    assert name in files
    return [
        replace(entry, **changes) if entry.name == name.encode() else entry for entry in entries_of(files)
    ]  # fmt: skip


def placed(entries: Sequence[Entry]) -> list[Entry]:
    """The directory of `entries`, each with the offset at which it lies: for one who changes the rest."""
    found, offset = [], 0
    for entry in entries:
        found.append(replace(entry, offset=offset))
        offset += len(entry.local)
    return found


def written(entries: Sequence[Entry], directory: Sequence[Entry] | None = None, *, comment: bytes = b"") -> bytes:
    """The zip file; `directory` names other files than are there."""
    body = b"".join(entry.local for entry in entries)
    told = placed(entries) if directory is None else directory
    central = b"".join(entry.central for entry in told)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(told), len(told), len(central), len(body), len(comment))
    return body + central + end + comment
