"""An institution's secrets of the job under way, as they are kept: sealed under a key that follows from its identity.

So that who runs a database for an institution, or has a backup of it, has no round's secrets and no update.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fl_alliance.errors import StoreFailed
from fl_alliance.evidence.keys import IdentityKey

_NONCE_BYTES: Final = 12


class Vault:
    """Seals small named secrets (ChaCha20-Poly1305, RFC 8439), each bound to its job and name.

    Guarantees: what `open` returns was sealed for this job under this name by the holder of the same identity.
    Not guaranteed: that it is the newest that was sealed; the journal says which that is.
    """

    def __init__(self, identity: IdentityKey) -> None:
        self._cipher = ChaCha20Poly1305(identity.derived_key("vault"))

    def seal(self, job: str, name: str, secret: bytes) -> bytes:
        """Return `secret` sealed, 28 bytes longer."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, _info(job, name))

    def open(self, job: str, name: str, sealed: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            StoreFailed: it was sealed for another job or name, under another identity, or has changed since.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _info(job, name))
        except (InvalidTag, ValueError):
            raise StoreFailed(
                f"secret {name} of job {job}: {len(sealed)} bytes that this institution did not seal for it"
            ) from None


def _info(job: str, name: str) -> bytes:
    return f"fl-alliance/1|vault|{job}|{name}".encode()
