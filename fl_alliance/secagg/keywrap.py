"""The alliance key on its way to another member: HPKE (RFC 9180), relayed blind by the coordinator.

Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode. HPKE's base mode does not say who wrapped:
the message around it is signed, and the key's fingerprint is in it.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from fl_alliance.errors import NotAuthentic, SecretUnavailable

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def generate_wrap_key() -> tuple[bytes, bytes]:
    """Return a new X25519 key pair: private key and public key, 32 bytes each."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def wrap_key(key: bytes, public: bytes, info: str) -> bytes:
    """Return `key` sealed to the holder of `public`, bound to `info` (alliance, job, recipient).

    Returns: 48 bytes more than `key`.

    Raises:
        NotAuthentic: `public` is not 32 bytes or a point of small order.
    """
    try:
        return _SUITE.encrypt(key, X25519PublicKey.from_public_bytes(public), info.encode())
    except ValueError:
        raise NotAuthentic(f"{len(public)} bytes are no X25519 public key to wrap for") from None


def unwrap_key(wrapped: bytes, private: bytes, info: str) -> bytes:
    """Return the key that was wrapped for `private` under the same `info`.

    Raises:
        SecretUnavailable: wrapped for another key or another `info`, or changed on the way.
    """
    try:
        return _SUITE.decrypt(wrapped, X25519PrivateKey.from_private_bytes(private), info.encode())
    except (InvalidTag, ValueError):
        raise SecretUnavailable(
            f"the wrapped key of {len(wrapped)} bytes does not open with this key and info"
        ) from None
