"""The frame around ciphertexts: exact counts and lengths, so that the cipher library sees no byte that nobody counted.

    4 bytes   "FLSC"
    1         version, 1
    1         kind: 1 upload (seed-compressed, of one member), 2 sum (of all)
    2         members         4   degree N
    1         bits            8   plain modulus t
    4         slots           4   chunks
    4 each    length of each chunk, then the chunks

All integers are big endian. A chunk is one SEAL object as SEAL 4.3.3 writes it. Of its header (little endian) magic,
version, compression (Zstandard) and its own length must be the ones expected: SEAL itself ignores what follows. This
is the one parser of foreign uploads that runs outside a worker: plain Python, memory bounded by what it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final

from fl_alliance.errors import WrongCipher
from fl_alliance.protocol.limits import MAX_BLOB_BYTES
from fl_alliance.secagg.parameters import SumParameters

_MAGIC: Final = b"FLSC"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">4sBBHBIQII")
_SEAL_HEAD: Final = struct.Struct("<HBBBBHQ")
_SEAL_4_3_ZSTD: Final = (0xA15E, 16, 4, 3, 2, 0)
"""Magic, header's length, version of SEAL, compression, reserved."""
_OVERHEAD: Final = 1024
"""More than SEAL and Zstandard add to the coefficients of a ciphertext."""

HEAD_BYTES: Final = _HEAD.size
"""Bytes of the header, which `slots_in` needs."""

MAX_SLOTS: Final = MAX_BLOB_BYTES // 8
"""No upload of more slots fits into a blob. Bounds the table of lengths before it is read."""


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


def read(kind: Kind, data: bytes, parameters: SumParameters, slots: int) -> list[bytes]:
    """Return the chunks of a frame of exactly this kind, parameters and size.

    Raises:
        WrongCipher: anything differs, or bytes are missing or left over. Nothing else escapes.
    """
    return list(split(kind, (data,), parameters, slots))


def split(kind: Kind, pieces: Iterable[bytes], parameters: SumParameters, slots: int) -> Iterator[bytes]:
    """Yield the chunks of a frame that comes in pieces; at most a piece and a chunk are held here.

    A chunk may be yielded before the end of the frame was seen: use none before this iterator is exhausted. `pieces` is
    then exhausted too, so that an error which it raises at its end (another digest) comes in time.

    Raises:
        WrongCipher: as `read`.
    """
    if not 1 <= slots <= MAX_SLOTS:
        raise WrongCipher(f"header of {slots} slots, expected 1 to {MAX_SLOTS}")
    source = _Source(pieces)
    count = chunks_of(slots, parameters)
    expected = write(kind, parameters, slots, [])[: _HEAD.size - 4] + struct.pack(">I", count)
    head = source.take(_HEAD.size, "the header")
    if head != expected:
        raise WrongCipher(f"header {head.hex()} of a {kind.name.lower()}, expected {expected.hex()}")
    lengths = struct.unpack(f">{count}I", source.take(4 * count, f"the table of {count} lengths"))
    largest = max_chunk(parameters)
    if max(lengths) > largest:
        raise WrongCipher(f"a chunk of {max(lengths)} bytes, at most {largest} are possible")
    for length in lengths:
        chunk = source.take(length, "a chunk")
        _require_seal_header(chunk)
        yield chunk
    source.require_end()


def chunks_of(slots: int, parameters: SumParameters) -> int:
    """Return how many ciphertexts so many slots need."""
    return -(-slots // parameters.degree)


def max_chunk(parameters: SumParameters) -> int:
    """Return a bound in bytes of one ciphertext: two polynomials of 8 bytes a coefficient, and headers."""
    return 2 * 8 * parameters.degree + _OVERHEAD


def slots_in(data: bytes) -> int:
    """Return the number of slots that an upload's or a sum's header states; `read` checks everything else.

    Raises:
        WrongCipher: too short for a header, another magic or version, or a number that no blob can hold.
    """
    if len(data) < _HEAD.size or data[:5] != _MAGIC + bytes([_VERSION]):
        raise WrongCipher(f"{len(data)} bytes do not begin with a header of version {_VERSION}")
    slots = int(_HEAD.unpack_from(data)[7])
    if not 1 <= slots <= MAX_SLOTS:
        raise WrongCipher(f"header of {slots} slots, expected 1 to {MAX_SLOTS}")
    return slots


class _Source:
    """Takes exact lengths from bytes that come in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._held, self._taken = iter(pieces), bytearray(), 0

    def take(self, length: int, what: str) -> bytes:
        while len(self._held) < length:
            piece = next(self._pieces, None)
            if piece is None:
                raise WrongCipher(f"the bytes end inside {what}: {len(self._held)} of {length} are there")
            self._held += piece
        taken = bytes(self._held[:length])
        del self._held[:length]
        self._taken += length
        return taken

    def require_end(self) -> None:
        left = len(self._held) + sum(len(piece) for piece in self._pieces)
        if left:
            raise WrongCipher(f"{self._taken + left} bytes, the header and the lengths make {self._taken}")


def _require_seal_header(chunk: bytes) -> None:
    if len(chunk) < _SEAL_HEAD.size:
        raise WrongCipher(f"a chunk of {len(chunk)} bytes, SEAL's header alone has {_SEAL_HEAD.size}")
    *head, length = _SEAL_HEAD.unpack_from(chunk)
    if tuple(head) != _SEAL_4_3_ZSTD:
        raise WrongCipher(f"a chunk begins {chunk[:8].hex()}: not as SEAL 4.3 writes it, with Zstandard")
    if length != len(chunk):
        raise WrongCipher(f"a chunk of {len(chunk)} bytes states another length of itself, {length}")
