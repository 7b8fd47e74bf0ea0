"""Double masks of Bonawitz et al. 2017 (CCS, figure 4), inside the plaintext of the cipher.

A member adds a self mask and, for each other member, a pairwise mask: plus towards higher names, minus towards lower
ones. In the sum of all members the pairwise masks cancel; the self masks, and the pairwise masks with members that
vanished, are taken off with seeds that the members rebuild from shares (`shares`). Names are compared as Python
strings, that is by code point.

Not checked here: that the public keys are signed by their members, and that a round's masks are used for one upload
only. The machine of `rounds` holds both; a second vector under the same masks would give away the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fl_alliance.errors import BadPlan, MalformedMessage, NotAuthentic, OutOfRange, SecretUnavailable
from fl_alliance.protocol.limits import MIN_MEMBERS
from fl_alliance.secagg.derive import RoundContext, exchange, key_for, keystream, public_of
from fl_alliance.secagg.secret import Secret

__all__ = [
    "RoundContext",
    "RoundPublic",
    "RoundSecrets",
    "add_masks",
    "remove_pairwise_masks",
    "remove_self_masks",
    "require_roster",
    "require_seed",
]

SEED_BYTES: Final = 16
_KEY_BYTES: Final = 32
_MAGIC: Final = b"FLRS\x01"


@dataclass(frozen=True, kw_only=True)
class RoundPublic:
    """What a member advertises in a round: two X25519 public keys of 32 bytes (figure 4, round 0).

    Raises:
        MalformedMessage: a key has another length.
    """

    mask: bytes
    channel: bytes

    def __post_init__(self) -> None:
        for name, key in (("mask", self.mask), ("channel", self.channel)):
            if len(key) != _KEY_BYTES:
                raise MalformedMessage(f"{name} key of {len(key)} bytes, X25519 has {_KEY_BYTES}")


class RoundSecrets(Secret):
    """A member's secrets of one round.

    The mask key is derived from a seed of 128 bits, so that Shamir shares a seed of one block and not a private key.
    """

    __slots__ = ("channel_private", "mask_seed", "self_seed")

    def __init__(self, *, mask_seed: bytes, self_seed: bytes, channel_private: bytes) -> None:
        self.mask_seed = mask_seed
        self.self_seed = self_seed
        self.channel_private = channel_private

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes] = os.urandom) -> Self:
        """Draw new secrets; `random_bytes` is asked for 16, 16 and 32 bytes."""
        return cls(
            mask_seed=random_bytes(SEED_BYTES),
            self_seed=random_bytes(SEED_BYTES),
            channel_private=random_bytes(_KEY_BYTES),
        )

    def to_bytes(self) -> bytes:
        """Return the secrets in the clear, 69 bytes, for the institution's vault."""
        return _MAGIC + self.mask_seed + self.self_seed + self.channel_private

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the secrets that `to_bytes` wrote.

        Raises:
            SecretUnavailable: another length or version.
        """
        length = len(_MAGIC) + 2 * SEED_BYTES + _KEY_BYTES
        if len(data) != length or not data.startswith(_MAGIC):
            raise SecretUnavailable(f"{len(data)} bytes are not round secrets of version 1 ({length} bytes)")
        body = data[len(_MAGIC) :]
        return cls(mask_seed=body[:16], self_seed=body[16:32], channel_private=body[32:])

    @property
    def mask_private(self) -> bytes:
        """The X25519 private key behind the pairwise masks, 32 bytes."""
        return key_for("mask-private", self.mask_seed, None)

    @property
    def public(self) -> RoundPublic:
        """What is advertised."""
        return RoundPublic(mask=public_of(self.mask_private), channel=public_of(self.channel_private))


def add_masks(
    slots: NDArray[np.uint64],
    *,
    secrets: RoundSecrets,
    me: str,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
    modulus_bits: int,
) -> NDArray[np.uint64]:
    """Return `slots` plus the self mask and all pairwise masks, modulo 2^modulus_bits (figure 4, round 2).

    Guarantees: without at least one of the keys used, the result is uniform whatever `slots` are.

    Args:
        slots: uint64 array of shape (slots,), each value in [0, 2^modulus_bits - 1].
        secrets: mine.
        me: my name.
        publics: round keys of the members whose masks go in (all that dealt shares), mine among them.
        context: what the keys are bound to.
        modulus_bits: m of the parameters.

    Returns: uint64 array of shape (slots,).

    Raises:
        OutOfRange: a value is not below 2^modulus_bits.
        BadPlan: fewer than 3 members.
        NotAuthentic: my keys are missing or changed, a key stands twice, or one is a point of small order.
    """
    require_roster(publics, me, secrets)
    largest = np.uint64((1 << modulus_bits) - 1)
    if slots.size and slots.max() > largest:
        raise OutOfRange(f"a slot is above 2^{modulus_bits} - 1")
    total = slots + keystream(key_for("self-mask", secrets.self_seed, context, me), slots.size, modulus_bits)
    private = secrets.mask_private
    for other in sorted(set(publics) - {me}):
        shared = exchange(private, publics[other].mask, other)
        low, high = sorted((me, other))
        mask = keystream(key_for("pairwise-mask", shared, context, low, high), slots.size, modulus_bits)
        total = total + mask if me == low else total - mask
    return total & largest


def remove_self_masks(
    total: NDArray[np.uint64], *, self_seeds: Mapping[str, bytes], context: RoundContext, modulus_bits: int
) -> NDArray[np.uint64]:
    """Return `total` minus the self masks of all members in `self_seeds`, modulo 2^modulus_bits (figure 4, round 4).

    Args:
        total: uint64 array of shape (slots,), a sum of masked vectors.
        self_seeds: seed of 16 bytes for each member whose upload is in `total`.
        context: as in `add_masks`.
        modulus_bits: m of the parameters.

    Returns: uint64 array of shape (slots,), the sum in the clear if no upload is missing and every seed is right;
        noise otherwise, which `packing.unpack` refuses.
    """
    for name, seed in sorted(self_seeds.items()):
        total = total - keystream(key_for("self-mask", seed, context, name), total.size, modulus_bits)
    return total & np.uint64((1 << modulus_bits) - 1)


def remove_pairwise_masks(
    total: NDArray[np.uint64],
    *,
    mask_seeds: Mapping[str, bytes],
    survivors: Collection[str],
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
    modulus_bits: int,
) -> NDArray[np.uint64]:
    """Return `total` minus what the survivors' uploads hold of pairwise masks with members that vanished (round 4).

    Args:
        total: uint64 array of shape (slots,), the sum of the survivors' masked vectors.
        mask_seeds: seed of 16 bytes of each member that dealt shares and did not upload.
        survivors: members whose upload is in `total`.
        publics: round keys of all of them.
        context: as in `add_masks`.
        modulus_bits: m of the parameters.

    Returns: uint64 array of shape (slots,).

    Raises:
        SecretUnavailable: a seed does not give the mask key that its member advertised.
    """
    for gone, seed in sorted(mask_seeds.items()):
        private = require_seed(gone, seed, publics[gone])
        for there in sorted(survivors):
            shared = exchange(private, publics[there].mask, there)
            low, high = sorted((gone, there))
            mask = keystream(key_for("pairwise-mask", shared, context, low, high), total.size, modulus_bits)
            total = total - mask if there == low else total + mask
    return total & np.uint64((1 << modulus_bits) - 1)


def require_seed(name: str, seed: bytes, public: RoundPublic) -> bytes:
    """Return the X25519 private mask key (32 bytes) behind `seed`.

    Raises:
        SecretUnavailable: it is not the key that `name` advertised: a member revealed a wrong share.
    """
    private = key_for("mask-private", seed, None)
    if public_of(private) != public.mask:
        raise SecretUnavailable(f"the shares of {name} give another mask key than {name} advertised")
    return private


def require_roster(publics: Mapping[str, RoundPublic], me: str, secrets: RoundSecrets) -> None:
    """Refuse a roster in which the masks would hide nothing.

    Raises:
        BadPlan: fewer than 3 members.
        NotAuthentic: `me` is missing or has other keys than `secrets`, or a key stands twice.
    """
    if len(publics) < MIN_MEMBERS:
        raise BadPlan(f"{len(publics)} members in the roster, need {MIN_MEMBERS}")
    if publics.get(me) != secrets.public:
        raise NotAuthentic(f"the roster has no or other round keys for {me}")
    keys = [key for public in publics.values() for key in (public.mask, public.channel)]
    if len(set(keys)) != len(keys):
        raise NotAuthentic("a round key stands twice in the roster")
