"""One zip file of evidence with exactly one spelling: whatever is not as it would be written here is refused.

Files are stored, not compressed; sorted by name, each once; dated 1980-01-01; plain files of mode 0644; no extra field,
no comment, nothing before, between or after. So each byte of the file is a byte of a member, under its CRC-32 and the
digest in a signed manifest, or follows from the members' names, lengths and CRCs. Any tool for zip files opens it.

The fields are those of PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.16; where there are more than 65,534 files,
also 4.3.14 and 4.3.15, since 4.3.16 can't count them. Lengths and offsets have 32 bits: a file ends below 4 GiB.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from fl_alliance.errors import EvidenceRefused, StoreFailed
from fl_alliance.protocol.documents import FILE_NAME, MAX_FILE_NAME
from fl_alliance.protocol.limits import MAX_BUNDLE_BYTES, MAX_BUNDLE_FILES

_NAME: Final = re.compile(FILE_NAME)
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_SIGNATURE: Final = b"PK\x03\x04"
_NEEDED: Final = 10
"""Version 1.0 reads stored files; 4.5 reads the record that counts many."""
_NEEDED64: Final = 45
_MADE_BY: Final = (3 << 8) | 20
"""Unix, since the attributes are Unix'."""
_DATE: Final = (1 << 5) | 1
_PLAIN_FILE: Final = 0o100644 << 16
_MANY: Final = 0xFFFF
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    name: str
    length: int
    crc: int
    offset: int
    """Where its local header begins."""

    @property
    def start(self) -> int:
        """Where its bytes begin."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def local(self) -> bytes:
        """The header in front of its bytes."""
        fields = (_NEEDED, 0, 0, 0, _DATE, self.crc, self.length, self.length, len(self.name), 0)
        return _LOCAL.pack(_SIGNATURE, *fields) + self.name.encode()

    @property
    def central(self) -> bytes:
        """Its entry in the central directory."""
        fields = (_MADE_BY, _NEEDED, 0, 0, 0, _DATE, self.crc, self.length, self.length, len(self.name), 0, 0, 0, 0)
        return _CENTRAL.pack(b"PK\x01\x02", *fields, _PLAIN_FILE, self.offset) + self.name.encode()


def archive_of(names: Iterable[str], read: Callable[[str], bytes]) -> Iterator[bytes]:
    """Yield the archive of the files `names`, one after the other in memory: the same files give the same bytes.

    Raises:
        EvidenceRefused: step 0; a name that no archive may have, twice the same, or too much in all.
        Whatever `read` raises.
    """
    members: list[Member] = []
    offset, seen = 0, _Names()
    for name in sorted(names):
        seen.add(name)
        data = read(name)
        member = Member(name, len(data), zlib.crc32(data), offset)
        offset = member.start + len(data)
        _require_room(name, offset, len(members) + 1)
        members.append(member)
        yield member.local
        yield data
    yield from (piece for _, piece in _directory(members, offset))


class Archive:
    """An archive that was read from end to end: each byte is as `archive_of` would write it. Nothing is extracted."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Read `file` of `size` bytes; it must stay open.

        Raises:
            EvidenceRefused: step 0; names the member whose bytes or headers are not as they must be.
        """
        self._file = file
        self._members = {member.name: member for member in _scanned(file, size)}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and check the archive in the file `path` (EvidenceRefused: as above, or it can't be read)."""
        try:
            file = path.open("rb")
            try:
                return cls(file, os.fstat(file.fileno()).st_size)
            except BaseException:
                file.close()
                raise
        except OSError as error:
            raise EvidenceRefused(f"step 0, archive: {path} can't be read: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Every file, sorted."""
        return tuple(self._members)

    def length(self, name: str) -> int:
        """Return the bytes of a file (StoreFailed: there is none)."""
        return self._member(name).length

    def read(self, name: str) -> bytes:
        """Return a file (StoreFailed: there is none, or it can't be read)."""
        return b"".join(self._chunks(name))

    def digest(self, name: str) -> str:
        """Return the `Digest` of a file (StoreFailed: there is none, or it can't be read)."""
        hashed = hashlib.sha256()
        for chunk in self._chunks(name):
            hashed.update(chunk)
        return f"sha256:{hashed.hexdigest()}"

    def _member(self, name: str) -> Member:
        if name not in self._members:
            raise StoreFailed("is missing")
        return self._members[name]

    def _chunks(self, name: str) -> Iterator[bytes]:
        member = self._member(name)
        try:
            self._file.seek(member.start)
            yield from _pieces(self._file, member.length)
        except OSError as error:
            raise StoreFailed(f"can't be read: {error.strerror}") from None


def _scanned(file: BinaryIO, size: int) -> list[Member]:
    """Go through the file once, from its first byte to its last."""
    if size > MAX_BUNDLE_BYTES:
        raise _refused("archive", f"{size} bytes, at most {MAX_BUNDLE_BYTES} are accepted")
    file.seek(0)
    members: list[Member] = []
    offset, seen = 0, _Names()
    while (head := file.read(_LOCAL.size)).startswith(_SIGNATURE) and len(head) == _LOCAL.size:
        member = _member_at(file, head, offset, seen)
        _require_room(member.name, min(member.start + member.length, size + 1), len(members) + 1)
        if member.start + member.length > size:
            raise _refused(member.name, f"{member.length} bytes, the archive ends before")
        crc = 0
        for piece in _pieces(file, member.length):
            crc = zlib.crc32(piece, crc)
        if crc != member.crc:
            raise _refused(member.name, f"CRC-32 {crc:08x}, its header says {member.crc:08x}")
        members.append(member)
        offset = member.start + member.length
    file.seek(offset)
    if not members:
        raise _refused("archive", "does not begin with a file of a zip archive")
    for name, piece in _directory(members, offset):
        if file.read(len(piece)) != piece:
            raise _refused(name, "the central directory is not the one that follows from the files")
    if file.read(1):
        raise _refused("archive", "something follows its end")
    return members


def _member_at(file: BinaryIO, head: bytes, offset: int, seen: _Names) -> Member:
    """Return the member whose local header begins with `head`, if the header is as it would be written."""
    fields = _LOCAL.unpack(head)
    crc, length, name_length = fields[6], fields[8], fields[9]
    if not 0 < name_length <= MAX_FILE_NAME:
        after = f"after {seen.last or 'the beginning'}"
        raise _refused("archive", f"a name of {name_length} bytes {after}, must be 1 to {MAX_FILE_NAME}")
    raw = file.read(name_length)
    name = raw.decode("ascii", errors="replace")
    seen.add(name)
    member = Member(name, length, crc, offset)
    if head + raw != member.local:
        raise _refused(name, "its local header is not the one that follows from name, length and CRC-32")
    return member


def _directory(members: list[Member], offset: int) -> Iterator[tuple[str, bytes]]:
    """Yield what stands behind the files, which end at `offset`; with each piece whom an error names."""
    size = 0
    for member in members:
        piece = member.central
        size += len(piece)
        yield member.name, piece
    count = len(members)
    if count >= _MANY:
        fields = (_END64.size - 12, _MADE_BY, _NEEDED64, 0, 0, count, count, size, offset)
        yield "archive", _END64.pack(b"PK\x06\x06", *fields)
        yield "archive", _LOCATOR.pack(b"PK\x06\x07", 0, offset + size, 1)
    short = min(count, _MANY)
    yield "archive", _END.pack(b"PK\x05\x06", 0, 0, short, short, size, offset, 0)


class _Names:
    """The names so far: sorted, each once, and no file is also a folder."""

    def __init__(self) -> None:
        self.last = ""
        self._all: set[str] = set()

    def add(self, name: str) -> None:
        """Take the next name (EvidenceRefused: it may not be here)."""
        if len(name) > MAX_FILE_NAME or not _NAME.fullmatch(name):
            raise _refused(ascii(name), "no name of evidence: lower-case, relative, no part begins with a dot")
        if self.last >= name:
            raise _refused(name, f"comes after {self.last}: names must be sorted, each once")
        for folder in _folders(name):
            if folder in self._all:
                raise _refused(name, f"{folder} is a file, not a folder")
        self.last = name
        self._all.add(name)


def _folders(name: str) -> Iterator[str]:
    for place, sign in enumerate(name):
        if sign == "/":
            yield name[:place]


def _require_room(name: str, end: int, count: int) -> None:
    if end > MAX_BUNDLE_BYTES:
        raise _refused(name, f"an archive holds at most {MAX_BUNDLE_BYTES} bytes: take fewer jobs")
    if count > MAX_BUNDLE_FILES:
        raise _refused(name, f"an archive holds at most {MAX_BUNDLE_FILES} files: take fewer jobs")


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0 and (piece := file.read(min(length, _CHUNK))):
        length -= len(piece)
        yield piece


def _refused(name: str, why: str) -> EvidenceRefused:
    return EvidenceRefused(f"step 0, {name}: {why}")
