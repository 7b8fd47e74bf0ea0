"""Every key of a round comes from here: X25519, then HKDF-SHA256 with an info that says what the key is for.

A second implementation needs only this file: the info is the list of fields below, each as two bytes of length (big
endian) and its UTF-8 bytes; no salt.

    "fl-alliance/1/secagg"  purpose  alliance  job  round  roster_digest  then the purpose's own fields

    purpose          input                     own fields                             key for
    mask-private     mask seed                 (no context either)                    X25519 mask key of a member
    pairwise-mask    X25519 of two mask keys   lower name, higher name                AES-256-CTR, both add or subtract
    self-mask        self seed                 name                                   AES-256-CTR
    share            X25519 of channel keys    sender, recipient                      ChaCha20-Poly1305
    revealed-shares  alliance key of the job   sender, digest of the two lists        ChaCha20-Poly1305

What a member seals to itself takes its own channel private key for the X25519 result. AES-256-CTR starts from an
all-zero counter block: each such key is used for one mask of one round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fl_alliance.errors import NotAuthentic

_LABEL: Final = "fl-alliance/1/secagg"

_BLOCK: Final = 16384
"""Slots of keystream made at once. A block stays in the processor's cache, the whole stream would not: fresh pages for
it cost up to three times as much as AES itself."""


@dataclass(frozen=True)
class RoundContext:
    """What every derived key is bound to."""

    alliance: str
    job: str
    round: int
    roster_digest: str
    """Digest of the signed round keys of the round's members."""


def key_for(purpose: str, secret: bytes, context: RoundContext | None, *fields: str) -> bytes:
    """Return the 32-byte key of `purpose` (RFC 5869; table above)."""
    bound = () if context is None else (context.alliance, context.job, str(context.round), context.roster_digest)
    return HKDF(SHA256(), 32, salt=None, info=join((_LABEL, purpose, *bound, *fields))).derive(secret)


def join(fields: tuple[str, ...]) -> bytes:
    """Return `fields` as bytes that no other fields make: each with two bytes of length before it."""
    encoded = [field.encode() for field in fields]
    return b"".join(len(field).to_bytes(2, "big") + field for field in encoded)


def public_of(private: bytes) -> bytes:
    """Return the X25519 public key (32 bytes) of a private key (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def exchange(private: bytes, public: bytes, whose: str) -> bytes:
    """Return the X25519 result (RFC 7748), 32 bytes.

    Raises:
        NotAuthentic: the result is all zero: `public` is a point of small order, which no honest member sends.
    """
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise NotAuthentic(f"the X25519 key of {whose} is a point of small order") from None


def keystream(key: bytes, slots: int, modulus_bits: int) -> NDArray[np.uint64]:
    """Return `slots` values, uniform modulo 2^modulus_bits: the low bits of AES-256-CTR's 8-byte little-endian words.

    Returns: uint64 array of shape (slots,).
    """
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    largest, zeros = np.uint64((1 << modulus_bits) - 1), bytes(8 * _BLOCK)
    values = np.empty(slots, np.uint64)
    for start in range(0, slots, _BLOCK):
        part = values[start : start + _BLOCK]
        np.bitwise_and(np.frombuffer(stream.update(zeros[: 8 * part.size]), "<u8"), largest, out=part)
    return values
