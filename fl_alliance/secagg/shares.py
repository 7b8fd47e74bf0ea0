"""Shamir shares of a member's seeds, sealed between members (Bonawitz et al. 2017, figure 4, rounds 1 and 4).

Shamir 1979 over GF(2^128) is pycryptodome's; sealing is X25519, HKDF and ChaCha20-Poly1305 of `cryptography`. A
member's index is its place in the sorted roster, from 1, and is never taken from the wire alone.

For a member whose upload is in the sum, the others give their shares of its self seed; for one that dealt shares and
then vanished, those of its mask seed. Both of one member would open its upload: `reveal_shares` takes the survivors and
the dealers and gives for each dealer one or the other. That it is asked once a round is held by `rounds`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fl_alliance.errors import BadPlan, NotAuthentic, SecretUnavailable, SumRefused
from fl_alliance.protocol.limits import MIN_MEMBERS
from fl_alliance.secagg.derive import RoundContext, exchange, join, key_for
from fl_alliance.secagg.interpolation import secrets_at_zero
from fl_alliance.secagg.masks import SEED_BYTES, RoundPublic, RoundSecrets, require_roster, require_seed
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


_PAIR_BYTES: Final = 4 + 2 * SEED_BYTES


def pairs_to_bytes(pairs: Mapping[str, SharePair]) -> bytes:
    """Return `pairs`, by member, in the clear, for the institution's vault."""
    parts = []
    for name, pair in sorted(pairs.items()):
        label = name.encode()
        parts += [bytes([len(label)]), label, pair.index.to_bytes(4, "big"), pair.self_share, pair.mask_share]
    return b"".join(parts)


def pairs_from_bytes(data: bytes) -> dict[str, SharePair]:
    """Return what `pairs_to_bytes` wrote.

    Raises:
        SecretUnavailable: it is cut short.
    """
    pairs: dict[str, SharePair] = {}
    while data:
        length = 1 + data[0]
        label, body, data = data[1:length], data[length : length + _PAIR_BYTES], data[length + _PAIR_BYTES :]
        if len(body) != _PAIR_BYTES:
            raise SecretUnavailable(f"{len(body)} bytes are no pair of shares ({_PAIR_BYTES} bytes)")
        pairs[label.decode()] = SharePair(
            index=int.from_bytes(body[:4], "big"),
            self_share=body[4 : 4 + SEED_BYTES],
            mask_share=body[4 + SEED_BYTES :],
        )
    return pairs


def require_threshold(threshold: int, members: int) -> None:
    """Refuse a threshold with which two disjoint groups could both open a seed, or that can't be met.

    Raises:
        BadPlan: not members / 2 < threshold <= members (Bonawitz et al. 2017, theorem 6.5). Against members that help
            the coordinator to two lists of survivors, `TrainingPlan.confirmations` stands, not this.
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


@dataclass(frozen=True)
class Lists:
    """Whose seeds are opened, and which: the two lists that everybody confirmed.

    Raises:
        SumRefused: fewer than 3 survivors, or a member on both.
    """

    survivors: tuple[str, ...]
    """Members whose upload is in the sum, sorted: their self seeds."""
    dropped: tuple[str, ...]
    """Members that dealt shares and did not upload, sorted: their mask seeds."""

    def __post_init__(self) -> None:
        if both := sorted(set(self.survivors) & set(self.dropped)):
            raise SumRefused(f"{both} are survivors and dropped: both of a member's seeds would open its upload")
        if len(self.survivors) < MIN_MEMBERS:
            raise SumRefused(f"{len(self.survivors)} survivors, need {MIN_MEMBERS}")

    @classmethod
    def of(cls, *, dealers: Collection[str], survivors: Collection[str]) -> Lists:
        """Return the lists for these dealers and survivors (SumRefused: a survivor did not deal)."""
        there, all_dealers = sorted(set(survivors)), sorted(set(dealers))
        if strangers := [name for name in there if name not in all_dealers]:
            raise SumRefused(f"survivors that dealt no shares: {strangers}")
        return cls(tuple(there), tuple(name for name in all_dealers if name not in there))

    @property
    def names(self) -> tuple[str, ...]:
        """Survivors, then dropped: the order of shares in a revealed body."""
        return (*self.survivors, *self.dropped)

    @property
    def digest(self) -> str:
        """SHA-256 over both lists, each name with its length before it, an empty name between the lists."""
        return hashlib.sha256(join((*self.survivors, "", *self.dropped))).hexdigest()


@dataclass(frozen=True, repr=False)
class Seeds:
    """Seeds that were rebuilt, 16 bytes each. They open masks: keep them out of logs."""

    selfs: Mapping[str, bytes]
    """Of each survivor."""
    masks: Mapping[str, bytes]
    """Of each member that dropped out."""

    def __repr__(self) -> str:
        return "Seeds(***)"


def reveal_shares(
    pairs: Mapping[str, SharePair], lists: Lists, *, me: str, group_secret: bytes, context: RoundContext
) -> bytes:
    """Return my shares of the survivors' self seeds and of the dropped members' mask seeds, sealed (round 4).

    The paper sends them to the coordinator; here they go to the members, so that the coordinator can't unmask: the key
    comes from the alliance key of the job, which every institution has and the coordinator has not. A key for each
    institution would make the messages of a round grow with the cube of the members and would hide nothing more: each
    of them may open these shares. The key is bound to both lists: shares for one pair do not open under another.

    Args:
        pairs: sender -> what `open_shares` gave.
        lists: whose seeds.
        me: my name.
        group_secret: the alliance key of the job.
        context: of the round.

    Returns: nonce and ciphertext, 30 + 16 for each name.

    Raises:
        SecretUnavailable: I hold no share of a name in `lists`; names it.
    """
    if missing := [name for name in lists.names if name not in pairs]:
        raise SecretUnavailable(f"no share of {', '.join(missing)}")
    index = next(iter(pairs.values())).index
    selfs = [pairs[name].self_share for name in lists.survivors]
    masks = [pairs[name].mask_share for name in lists.dropped]
    body = index.to_bytes(_INDEX_BYTES, "big") + b"".join((*selfs, *masks))
    return _seal(key_for("revealed-shares", group_secret, context, me, lists.digest), body)


def recover_seeds(
    sealed: Mapping[str, bytes],
    lists: Lists,
    *,
    threshold: int,
    group_secret: bytes,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
) -> Seeds:
    """Rebuild the seeds that `lists` names from at least `threshold` members' revealed shares.

    Shares that do not open are left out. Where more than `threshold` open, the first and the last `threshold` of them
    and those from the second on must give the same seed, so that one wrong share is noticed; a mask seed must give the
    mask key that its member advertised. A lie among exactly `threshold` shares of a self seed gives a wrong sum, which
    `packing.unpack` refuses.

    Args:
        sealed: sender -> what it revealed; the envelope around it was signed by that sender.
        lists: as confirmed.
        threshold: of the plan.
        group_secret: the alliance key of the job.
        publics: round keys of the whole roster.
        context: of the round.

    Raises:
        SecretUnavailable: fewer than `threshold` open (names the others), or the shares of a member do not agree.
        BadPlan: `threshold` is not above half of the roster.
    """
    require_threshold(threshold, len(publics))
    opened, failed = _open_revealed(sealed, lists, group_secret, publics, context)
    if len(opened) < threshold:
        raise SecretUnavailable(f"shares of {len(opened)} members, need {threshold}; not opened: {failed or 'none'}")
    rows = _combine(lists.names, opened, threshold)
    for name in lists.dropped:
        require_seed(name, rows[name], publics[name])
    return Seeds({name: rows[name] for name in lists.survivors}, {name: rows[name] for name in lists.dropped})


def _open_revealed(
    sealed: Mapping[str, bytes],
    lists: Lists,
    group_secret: bytes,
    publics: Mapping[str, RoundPublic],
    context: RoundContext,
) -> tuple[list[tuple[int, list[bytes]]], list[str]]:
    """Return (index, shares in the order of `lists.names`) of each sender that opens, and the names of the others."""
    opened, failed = [], []
    for sender, data in sorted(sealed.items()):
        try:
            index = _index(sender, publics)
            body = _open(key_for("revealed-shares", group_secret, context, sender, lists.digest), data, sender)
            opened.append((index, _rows(body, index, len(lists.names), sender)))
        except (SecretUnavailable, NotAuthentic):
            failed.append(sender)
    return opened, failed


def _rows(body: bytes, index: int, count: int, sender: str) -> list[bytes]:
    if len(body) != _INDEX_BYTES + count * SEED_BYTES or int.from_bytes(body[:_INDEX_BYTES], "big") != index:
        raise SecretUnavailable(f"{sender} revealed {len(body)} bytes that are not {count} shares of place {index}")
    return [body[at : at + SEED_BYTES] for at in range(_INDEX_BYTES, len(body), SEED_BYTES)]


def _combine(names: tuple[str, ...], opened: list[tuple[int, list[bytes]]], threshold: int) -> dict[str, bytes]:
    """Return the seeds on which three choices of `threshold` senders agree: the first, the last, from the second on.

    One wrong share in one of two choices always shows. In both of them it shows unless its weight is the same in both
    (of 6 shares the third: in 1 to 4 and in 3 to 6), which is never so where the two differ in one share only.
    """
    indices = tuple(index for index, _ in opened)
    given = np.frombuffer(b"".join(b"".join(row) for _, row in opened), np.uint8)
    given = given.reshape(len(opened), len(names), SEED_BYTES)
    spare = len(opened) - threshold
    choices = [slice(at, at + threshold) for at in sorted({0, min(1, spare), spare})]
    first, *others = [secrets_at_zero(indices[choice], given[choice]) for choice in choices]
    for at, name in enumerate(names):
        if any((other[at] != first[at]).any() for other in others):
            raise SecretUnavailable(f"the shares of {name} do not agree: a member revealed a wrong one")
    return {name: seed.tobytes() for name, seed in zip(names, first, strict=True)}


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
) -> bytes:
    """Return the key from `sender` to `recipient`, one of which is me; to myself, from my private key alone."""
    other = recipient if sender == me else sender
    if other not in publics:
        raise NotAuthentic(f"{other} is not in the roster")
    private = secrets.channel_private
    shared = private if other == me else exchange(private, publics[other].channel, other)
    return key_for(purpose, shared, context, sender, recipient)


def _seal(key: bytes, body: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, body, None)


def _open(key: bytes, data: bytes, sender: str) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        raise SecretUnavailable(f"what {sender} sealed does not open") from None
