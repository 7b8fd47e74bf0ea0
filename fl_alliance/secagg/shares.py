"""Shamir shares of a member's seeds, sealed from member to member (Bonawitz et al. 2017, figure 4, rounds 1 and 4).

Shamir 1979 over GF(2^128) is pycryptodome's; sealing is X25519, HKDF and ChaCha20-Poly1305 of `cryptography`. A
member's index is its place in the sorted roster, from 1, and is never taken from the wire alone.

Not built yet: opening the mask seed of a member that dropped out. Its share is dealt and kept; for one member and one
round, a share of the self seed and a share of the mask seed are never both given.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from typing import Final

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fl_alliance.errors import BadPlan, NotAuthentic, SecretUnavailable, SumRefused
from fl_alliance.protocol.limits import MIN_MEMBERS
from fl_alliance.secagg.derive import RoundContext, exchange, join, key_for
from fl_alliance.secagg.masks import SEED_BYTES, RoundPublic, RoundSecrets, require_roster
from fl_alliance.secagg.secret import Secret

_NONCE_BYTES: Final = 12
_INDEX_BYTES: Final = 2


class SharePair(Secret):
    """What one member holds of another: a share of its self seed and one of its mask seed, 16 bytes each."""

    __slots__ = ("index", "mask_share", "self_share")

    def __init__(self, *, index: int, self_share: bytes, mask_share: bytes) -> None:
        self.index = index
        self.self_share = self_share
        self.mask_share = mask_share


def require_threshold(threshold: int, members: int) -> None:
    """Refuse a threshold with which two disjoint groups could both open a seed, or that can't be met.

    Raises:
        BadPlan: not members / 2 < threshold <= members (Bonawitz et al. 2017, theorem 6.5: t > n/2 where the
            coordinator is active and at most n - t members are with it).
    """
    if not members < 2 * threshold <= 2 * members:
        raise BadPlan(f"threshold {threshold} must be above half of {members} members and at most all")


def deal_shares(
    *,
    secrets: RoundSecrets,
    me: str,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
    threshold: int,
) -> dict[str, bytes]:
    """Return for each member, me included, its sealed shares of my self seed and of my mask seed (round 1).

    Returns: recipient -> nonce and ciphertext, 62 bytes. New ones at each call: send the stored ones again.

    Raises:
        BadPlan: `threshold` is not above half of the roster, or fewer than 3 members.
        NotAuthentic: the roster is not one to share with; see `masks.require_roster`.
    """
    require_threshold(threshold, len(publics))
    require_roster(publics, me, secrets)
    names = sorted(publics)
    selfs = Shamir.split(threshold, len(names), secrets.self_seed, ssss=False)
    masks = Shamir.split(threshold, len(names), secrets.mask_seed, ssss=False)
    dealt = {}
    for name, (index, self_share), (_, mask_share) in zip(names, selfs, masks, strict=True):
        body = index.to_bytes(_INDEX_BYTES, "big") + self_share + mask_share
        dealt[name] = _seal(_key("share", secrets, me, me, name, publics, context), body)
    return dealt


def open_shares(
    sealed: Mapping[str, bytes],
    *,
    secrets: RoundSecrets,
    me: str,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
) -> dict[str, SharePair]:
    """Open what the members dealt to me.

    Args:
        sealed: sender -> what it sealed to me.

    Raises:
        SecretUnavailable: a sender's shares do not open, are of another round, recipient or index; names the sender.
        NotAuthentic: a sender is not in the roster.
    """
    require_roster(publics, me, secrets)
    index = _index(me, publics)
    pairs = {}
    for sender, data in sorted(sealed.items()):
        body = _open(_key("share", secrets, me, sender, me, publics, context), data, sender)
        if len(body) != _INDEX_BYTES + 2 * SEED_BYTES or int.from_bytes(body[:_INDEX_BYTES], "big") != index:
            raise SecretUnavailable(f"the shares of {sender} are not the ones for place {index}")
        shares = body[_INDEX_BYTES:]
        pairs[sender] = SharePair(index=index, self_share=shares[:SEED_BYTES], mask_share=shares[SEED_BYTES:])
    return pairs


def reveal_self_shares(
    pairs: Mapping[str, SharePair],
    survivors: Collection[str],
    *,
    secrets: RoundSecrets,
    me: str,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
) -> dict[str, bytes]:
    """Return for each member, me included, my shares of the survivors' self seeds, sealed (round 4).

    The paper sends them to the coordinator; here they go to the members, so that the coordinator can't unmask. The key
    is bound to the list of survivors: shares for one list do not open under another.

    Raises:
        SumRefused: fewer than 3 survivors, or one that is not in the roster.
        SecretUnavailable: I hold no share of a survivor; names it.
    """
    require_roster(publics, me, secrets)
    names = _survivors(survivors, publics)
    missing = [name for name in names if name not in pairs]
    if missing:
        raise SecretUnavailable(f"no share of {', '.join(missing)}")
    body = _index(me, publics).to_bytes(_INDEX_BYTES, "big") + b"".join(pairs[name].self_share for name in names)
    digest = _digest(names)
    return {
        name: _seal(_key("self-share", secrets, me, me, name, publics, context, digest), body)
        for name in sorted(publics)
    }


def recover_self_seeds(
    sealed: Mapping[str, bytes],
    *,
    survivors: Collection[str],
    threshold: int,
    secrets: RoundSecrets,
    me: str,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
) -> dict[str, bytes]:
    """Rebuild the survivors' self seeds from at least `threshold` members' revealed shares.

    Shares that do not open are left out. Where more than `threshold` open, the first and the last `threshold` of them
    and those from the second on must give the same seed, so that one wrong share is noticed. Exactly `threshold` shares
    can't be checked so: a lie among them gives a wrong sum, which `packing.unpack` refuses.

    Args:
        sealed: sender -> what it sealed to me.

    Returns: survivor -> seed, 16 bytes.

    Raises:
        SecretUnavailable: fewer than `threshold` open (names the others), or a survivor's shares do not agree.
        SumRefused: fewer than 3 survivors, or one that is not in the roster.
        BadPlan: `threshold` is not above half of the roster.
    """
    require_threshold(threshold, len(publics))
    require_roster(publics, me, secrets)
    names = _survivors(survivors, publics)
    opened, failed = _open_revealed(sealed, names, secrets, me, publics, context)
    if len(opened) < threshold:
        raise SecretUnavailable(f"shares of {len(opened)} members, need {threshold}; not opened: {failed or 'none'}")
    return {name: _combine(name, [(i, row[at]) for i, row in opened], threshold) for at, name in enumerate(names)}


def _open_revealed(
    sealed: Mapping[str, bytes],
    survivors: list[str],
    secrets: RoundSecrets,
    me: str,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
) -> tuple[list[tuple[int, list[bytes]]], list[str]]:
    """Return (index, shares in the order of `survivors`) of each sender that opens, and the names of the others."""
    opened, failed = [], []
    for sender, data in sorted(sealed.items()):
        try:
            index = _index(sender, publics)
            key = _key("self-share", secrets, me, sender, me, publics, context, _digest(survivors))
            opened.append((index, _rows(_open(key, data, sender), index, len(survivors), sender)))
        except (SecretUnavailable, NotAuthentic):
            failed.append(sender)
    return opened, failed


def _rows(body: bytes, index: int, count: int, sender: str) -> list[bytes]:
    if len(body) != _INDEX_BYTES + count * SEED_BYTES or int.from_bytes(body[:_INDEX_BYTES], "big") != index:
        raise SecretUnavailable(f"{sender} revealed {len(body)} bytes that are not {count} shares of place {index}")
    return [body[at : at + SEED_BYTES] for at in range(_INDEX_BYTES, len(body), SEED_BYTES)]


def _combine(name: str, shares: list[tuple[int, bytes]], threshold: int) -> bytes:
    """Return the seed that three choices of `threshold` shares agree on: the first, the last, those from the second on.

    One wrong share in one of two choices always shows. In both of them it shows unless its weight is the same in both
    (of 6 shares the third: in 1 to 4 and in 3 to 6), which is never so where the two differ in one share only.
    """
    seed: bytes = Shamir.combine(shares[:threshold], ssss=False)
    starts = {len(shares) - threshold, min(1, len(shares) - threshold)} - {0}
    if any(Shamir.combine(shares[at : at + threshold], ssss=False) != seed for at in starts):
        raise SecretUnavailable(f"the shares of {name} do not agree: a member revealed a wrong one")
    return seed


def _survivors(survivors: Collection[str], publics: Mapping[str, RoundPublic]) -> list[str]:
    names = sorted(set(survivors))
    strangers = [name for name in names if name not in publics]
    if strangers:
        raise SumRefused(f"survivors that are not in the roster: {strangers}")
    if len(names) < MIN_MEMBERS:
        raise SumRefused(f"{len(names)} survivors, need {MIN_MEMBERS}")
    return names


def _digest(survivors: list[str]) -> str:
    return hashlib.sha256(join(tuple(survivors))).hexdigest()


def _index(name: str, publics: Mapping[str, RoundPublic]) -> int:
    if name not in publics:
        raise NotAuthentic(f"{name} is not in the roster")
    return sorted(publics).index(name) + 1


def _key(
    purpose: str,
    secrets: RoundSecrets,
    me: str,
    sender: str,
    recipient: str,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
    *fields: str,
) -> bytes:
    """Return the key from `sender` to `recipient`, one of which is me; to myself, from my private key alone."""
    other = recipient if sender == me else sender
    if other not in publics:
        raise NotAuthentic(f"{other} is not in the roster")
    private = secrets.channel_private
    shared = private if other == me else exchange(private, publics[other].channel, other)
    return key_for(purpose, shared, context, sender, recipient, *fields)


def _seal(key: bytes, body: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, body, None)


def _open(key: bytes, data: bytes, sender: str) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        raise SecretUnavailable(f"what {sender} sealed does not open") from None
