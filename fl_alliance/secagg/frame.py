"""The frame around ciphertexts: exact counts and lengths, so that the cipher library sees no byte that nobody counted.

    4 bytes   "FLSC"
    1         version, 1
    1         kind: 1 upload (seed-compressed, of one member), 2 sum (of all)
    2         members         4   degree N
    1         bits            8   plain modulus t
    4         slots           4   chunks
    4 each    length of each chunk, then the chunks

All integers are big endian. A chunk is one SEAL object as SEAL 4.3.3 writes it; bytes 8 to 16 of it are its own length
(little endian), which must agree, because SEAL itself ignores what follows.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Final

from fl_alliance.errors import WrongCipher
from fl_alliance.secagg.parameters import SumParameters

_MAGIC: Final = b"FLSC"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">4sBBHBIQII")
_SEAL_HEAD: Final = struct.Struct("<HBBBBHQ")

HEAD_BYTES: Final = _HEAD.size
"""Bytes of the header, which `slots_in` needs."""


class Kind(IntEnum):
    """What is in a frame."""

    UPLOAD = 1
    SUM = 2


def write(kind: Kind, parameters: SumParameters, slots: int, chunks: list[bytes]) -> bytes:
    """Return `chunks` in a frame."""
    p = parameters
    head = _HEAD.pack(_MAGIC, _VERSION, kind, p.members, p.bits, p.degree, p.plain_modulus, slots, len(chunks))
    lengths = struct.pack(f">{len(chunks)}I", *map(len, chunks))
    return b"".join((head, lengths, *chunks))


def read(kind: Kind, data: bytes, parameters: SumParameters, slots: int) -> list[memoryview]:
    """Return the chunks of a frame of exactly this kind, parameters and size, as views of `data`.

    Raises:
        WrongCipher: anything differs, or bytes are missing or left over. Nothing else escapes.
    """
    count = -(-slots // parameters.degree)
    expected = write(kind, parameters, slots, [])[: _HEAD.size - 4] + struct.pack(">I", count)
    if data[: _HEAD.size] != expected:
        raise WrongCipher(f"header {data[: _HEAD.size].hex()} of a {kind.name.lower()}, expected {expected.hex()}")
    start = _HEAD.size + 4 * count
    if len(data) < start:
        raise WrongCipher(f"{len(data)} bytes end inside the table of {count} lengths")
    lengths = struct.unpack_from(f">{count}I", data, _HEAD.size)
    ends = list(accumulate(lengths, initial=start))
    if ends[-1] != len(data):
        raise WrongCipher(f"{len(data)} bytes, the header and the lengths make {ends[-1]}")
    view = memoryview(data)
    chunks = [view[a:b] for a, b in pairwise(ends)]
    for chunk in chunks:
        _require_own_length(chunk)
    return chunks


def slots_in(data: bytes) -> int:
    """Return the number of slots that an upload's or a sum's header states; `read` checks everything else.

    Raises:
        WrongCipher: too short for a header, or another magic or version.
    """
    if len(data) < _HEAD.size or data[:5] != _MAGIC + bytes([_VERSION]):
        raise WrongCipher(f"{len(data)} bytes do not begin with a header of version {_VERSION}")
    return int(_HEAD.unpack_from(data)[7])


def _require_own_length(chunk: memoryview) -> None:
    if len(chunk) < _SEAL_HEAD.size or _SEAL_HEAD.unpack_from(chunk)[6] != len(chunk):
        raise WrongCipher(f"a chunk of {len(chunk)} bytes states another length of itself")
