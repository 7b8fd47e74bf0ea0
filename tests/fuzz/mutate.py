"""Ways to spoil valid bytes: flips, cuts, splices, integers, JSON tokens, noise."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from random import Random

_INTEGERS = (0, 1, 2, 127, 128, 255, 256, 4095, 4096, 4097, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_FORMATS = (">B", ">H", "<H", ">I", "<I", ">Q", "<Q")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null')
_TOKENS = (
    b"null", b"true", b"-1", b"0", b"-0", b"1.0", b"1e999", b"NaN", b"Infinity", b"1e-5", b"9" * 5000, b"[]", b"{}",
    b'""', b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'"="', b'"AA=="', b'"AB=="', b'"sha256:"', b'"../x"',
    b'"' + b"a" * 9999 + b'"', b"[" * 3000, b"[" * 3000 + b"]" * 3000, b'{"kind":' * 500,
    b'"kind":"abort","kind":"abort"',
)  # fmt: skip


def flip(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    for _n in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def put(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def cut(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def grow(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    at = rng.choice((len(data), rng.randint(0, len(data))))
    data[at:at] = rng.randbytes(rng.choice((1, 2, 8, 100)))


def drop(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    del data[at : at + rng.choice((1, 2, 4, 16, 64))]


def repeat(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    at, size = rng.randint(0, len(data)), rng.choice((1, 4, 16, 64))
    data[at:at] = data[at : at + size] * rng.choice((1, 2, 50))


def splice(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    start = rng.randint(0, len(other))
    at = rng.randint(0, len(data))
    end = rng.choice((at, len(data), rng.randint(at, len(data))))
    data[at:end] = other[start : start + rng.choice((4, 32, len(other)))]


def integer(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    """Overwrite what may be a length, most often near the beginning."""
    form = rng.choice(_FORMATS)
    size = struct.calcsize(form)
    if len(data) >= size:
        last = len(data) - size
        at = min(rng.randrange(80), last) if rng.random() < 0.7 else rng.randint(0, last)
        data[at : at + size] = struct.pack(form, rng.choice(_INTEGERS) % 256**size)


def token(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    """Replace a JSON token by another kind, or by one of another message."""
    found = list(_TOKEN.finditer(data[:20_000]))
    if not found:
        return put(data, rng, seeds)
    here = rng.choice(found)
    others = _TOKEN.findall(rng.choice(seeds)[:20_000])
    new = rng.choice(others) if others and rng.random() < 0.5 else rng.choice(_TOKENS)
    data[here.start() : here.end()] = new
    return None


def noise(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    data[:] = rng.randbytes(rng.choice((0, 1, 7, 29, 200)))


_WAYS: tuple[tuple[Callable[[bytearray, Random, Sequence[bytes]], None], int], ...] = (
    (flip, 4),
    (put, 4),
    (cut, 2),
    (grow, 2),
    (drop, 2),
    (repeat, 2),
    (splice, 3),
    (integer, 4),
    (token, 6),
    (noise, 1),
)


def mutated(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of `seeds`, spoiled in one to three ways."""
    data = bytearray(rng.choice(seeds))
    ways, weights = zip(*_WAYS, strict=True)
    for way in rng.choices(ways, weights, k=rng.choice((1, 1, 1, 2, 3))):
        way(data, rng, seeds)
    return bytes(data)
