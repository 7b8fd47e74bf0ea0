"""Looks for secrets in large heaps of bytes: as they are, in hexadecimal, and in base64 at each alignment."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

import numpy as np

_PIECE = 32
_PIECES = 16
_RUN = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")


class Needles:
    """Pieces of secrets, in every form in which they are looked for.

    Of each secret up to 16 pieces of 32 bytes are taken, spread over it: a sixteenth of an update is found as well.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        assert all(len(secret) >= 16 for secret in secrets.values()), "a shorter one is found by chance"
        assert all(any(_pieces(secret)) for secret in secrets.values()), "a secret that looks like anything"
        self._names = {form: name for name, secret in secrets.items() for form in _forms(secret)}
        self._starting: dict[int, list[bytes]] = {}
        for form in self._names:
            self._starting.setdefault(int.from_bytes(form[:8], "little"), []).append(form)
        self._heads = np.array(sorted(self._starting), np.uint64)
        self._doors = np.zeros((4, 1 << 16), bool)
        for n, door in enumerate(self._doors):
            door[self._heads >> np.uint64(16 * n) & np.uint64(0xFFFF)] = True

    def found_in(self, data: bytes) -> set[str]:
        """Return the names of the secrets of which a piece is in `data`."""
        maybe = ((form, at) for at, head in self._places(data) for form in self._starting[head])
        return {self._names[form] for form, at in maybe if data.startswith(form, at)}

    def _places(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield each place whose 8 bytes begin a form, with these bytes. Numpy does what a loop is too slow for."""
        for offset in (0, 1):
            pairs = np.frombuffer(data, "<u2", count=max(0, (len(data) - offset) // 2), offset=offset)
            at = np.flatnonzero(self._doors[0][pairs[:-3]])
            for n in (1, 2, 3):
                at = at[self._doors[n][pairs[at + n]]]
            heads = sum(pairs[at + n].astype(np.uint64) << np.uint64(16 * n) for n in range(4))
            for place in np.flatnonzero(np.isin(heads, self._heads)).tolist():
                yield int(at[place]) * 2 + offset, int(heads[place])


def _pieces(secret: bytes) -> Iterator[bytes]:
    """Yield pieces spread over a secret. Zeros, as at the end of a packed update, are none."""
    last = max(0, len(secret) - _PIECE)
    for wanted in sorted({max(0, last - 8) * k // (_PIECES - 1) // 8 * 8 for k in range(_PIECES)}):
        around = [secret[start : start + _PIECE] for start in range(wanted, min(wanted + 64, last) + 1, 4)]
        varied = [piece for piece in around if len(set(piece)) > 6]
        yield from sorted(varied, key=_is_common)[:1]


def _is_common(piece: bytes) -> bool:
    """Say whether a piece begins as half the memory of any program does: correct to look for, but slow."""
    return 0 in piece[:2] or len(set(piece[:8])) < 3


def _forms(secret: bytes) -> Iterator[bytes]:
    for piece in _pieces(secret):
        yield from (piece, piece.hex().encode(), piece.hex().upper().encode())
        for shift in range(3):
            text = base64.b64encode(bytes(shift) + piece)
            yield text[(0, 2, 3)[shift] : (shift + len(piece)) * 8 // 6]


def peeled(data: bytes) -> bytes:
    """Return `data` and everything that base64 hides in it, to a depth of three: JSON in envelopes in JSON."""
    layers = [data]
    for _ in range(3):
        decoded = [_decoded(run) for run in _RUN.findall(layers[-1])]
        layers.append(b"\0".join(decoded))
    return b"\0".join(layers)


def _decoded(run: bytes) -> bytes:
    text = run.rstrip(b"=")
    try:
        return base64.b64decode(text[: len(text) // 4 * 4] if len(text) % 4 == 1 else text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""
