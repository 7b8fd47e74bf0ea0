"""An institution's secrets of the job under way, as they are kept: sealed under a key that follows from its identity.

So that who runs a database for an institution, or has a backup of it, has no round's secrets and no update.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fl_alliance.errors import StoreFailed
from fl_alliance.evidence.keys import IdentityKey

_NONCE_BYTES: Final = 12
_DRAWN_BYTES: Final = 8
"""Of a nonce, at random and the same in all pieces; the rest is the piece's number."""
PIECE_BYTES: Final = 64 << 20
"""Longest piece: a database's row has 1 GB at most, what a large adapter leaves is longer."""


class Vault:
    """Seals small named secrets (ChaCha20-Poly1305, RFC 8439), each bound to its alliance, job and name.

    Guarantees: what `open` returns was sealed for this alliance and job under this name by the holder of the same
    identity, at once and whole.
    Not guaranteed: that it is the newest that was sealed; the journal says which that is.
    """

    def __init__(self, identity: IdentityKey, alliance: str) -> None:
        self._cipher = ChaCha20Poly1305(identity.derived_key("vault"))
        self._alliance = alliance  # an institution may have one identity in several

    def seal(self, job: str, name: str, secret: bytes) -> tuple[bytes, ...]:
        """Return `secret` sealed in pieces, each 28 bytes longer than what it holds."""
        drawn, parts = os.urandom(_DRAWN_BYTES), max(1, -(-len(secret) // PIECE_BYTES))
        whole, info = memoryview(secret), self._info(job, name, parts)
        return tuple(
            nonce + self._cipher.encrypt(nonce, whole[number * PIECE_BYTES : (number + 1) * PIECE_BYTES], info)
            for number, nonce in enumerate(_nonces(drawn, parts))
        )

    def open(self, job: str, name: str, sealed: Sequence[bytes]) -> bytes:
        """Return what was sealed.

        Raises:
            StoreFailed: it was sealed for another alliance, job or name, under another identity, or has changed
                since; a piece is missing, or of another time.
        """
        info = self._info(job, name, len(sealed))
        try:
            nonces = _nonces(sealed[0][:_DRAWN_BYTES], len(sealed))
            return b"".join(
                self._cipher.decrypt(nonce, memoryview(piece)[_NONCE_BYTES:], info)
                for nonce, piece in zip(nonces, sealed, strict=True)
            )
        except (InvalidTag, ValueError, IndexError):
            raise StoreFailed(
                f"secret {name} of job {job}: {sum(map(len, sealed))} bytes that this institution did not seal for it"
            ) from None

    def _info(self, job: str, name: str, parts: int) -> bytes:
        return f"fl-alliance/1|vault|{self._alliance}|{job}|{name}|{parts}".encode()


def _nonces(drawn: bytes, parts: int) -> list[bytes]:
    return [drawn + number.to_bytes(_NONCE_BYTES - _DRAWN_BYTES, "big") for number in range(parts)]
