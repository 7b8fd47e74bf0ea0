"""The alliance key on its way to the other members, relayed blind by the coordinator: sealed once, wrapped to each.

    alliance key   sealed under a content key of 32 random bytes    ChaCha20-Poly1305 (RFC 8439)
    content key    wrapped to each member                           HPKE (RFC 9180), base mode

HPKE's suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. Its base mode does not say who wrapped, and
ChaCha20-Poly1305 does not commit to a key: whoever knows two content keys can make one text that opens to something
else under each. Both are answered around it: the message is signed, and the fingerprint of the alliance key is in it.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from fl_alliance.errors import NotAuthentic, SecretUnavailable

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_NONCE_BYTES: Final = 12


def generate_wrap_key() -> tuple[bytes, bytes]:
    """Return a new X25519 key pair: private key and public key, 32 bytes each."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def seal_key(key: bytes, info: str) -> tuple[bytes, bytes]:
    """Seal `key` for everybody who gets the content key, bound to `info` (alliance, job, fingerprint).

    Returns: content key, 32 bytes, new at each call and to be wrapped; and what it opens, 28 bytes more than `key`.
    """
    content_key, nonce = ChaCha20Poly1305.generate_key(), os.urandom(_NONCE_BYTES)
    return content_key, nonce + ChaCha20Poly1305(content_key).encrypt(nonce, key, info.encode())


def open_key(sealed: bytes, content_key: bytes, info: str) -> bytes:
    """Return the key that was sealed under `content_key` with the same `info`.

    Raises:
        SecretUnavailable: sealed under another content key or another `info`, or changed on the way.
    """
    try:
        cipher = ChaCha20Poly1305(content_key)
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], info.encode())
    except (InvalidTag, ValueError):
        raise SecretUnavailable(
            f"the sealed key of {len(sealed)} bytes does not open with this content key and info"
        ) from None


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
