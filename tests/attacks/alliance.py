"""The attacked alliance: a round of honest members in one process, and what attackers do with what they hold.

`Round` is every institution's side, with the functions of `secagg` in the order of the protocol. The functions below it
are the attackers': they take only what the docstring of the test says that the attacker holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from fl_alliance.errors import SumRefused
from fl_alliance.secagg import cipher, derive, fixedpoint, masks, packing, shares
from fl_alliance.secagg.parameters import SumParameters, sum_parameters

Slots = NDArray[np.uint64]
Digits = NDArray[np.uint64]

CLIP = 0.05
UNLIKELY = 1e-9
"""p-value below which something is not uniform. Honest noise is that unlucky once in a billion tests."""


def context(number: int = 1, roster: str = "0") -> masks.RoundContext:
    return masks.RoundContext("north", "nouns", number, "sha256:" + roster * 64)


class Round:
    """`members` institutions, each with an update, in one round."""

    def __init__(self, members: int = 3, *, threshold: int | None = None, dimension: int = 30_000) -> None:
        self.names = [f"clinic-{index}" for index in range(members)]
        self.threshold = threshold or members // 2 + 1
        self.dimension = dimension
        self.context = context()
        self.parameters: SumParameters = sum_parameters(members=members, bits=16)
        self.slots = self.parameters.slots(dimension)
        self.secrets = {name: masks.RoundSecrets.generate() for name in self.names}
        self.publics = {name: secrets.public for name, secrets in self.secrets.items()}
        self.key = cipher.AllianceKey.generate(self.parameters)
        self.digits = {name: self._update(index) for index, name in enumerate(self.names)}

    def _update(self, index: int) -> Digits:
        update = np.random.default_rng(index).normal(0, 0.01, self.dimension)
        return fixedpoint.quantise(update, clip=CLIP, bits=16)

    def session(self, me: str) -> dict[str, Any]:
        return {"secrets": self.secrets[me], "me": me, "publics": self.publics, "context": self.context}

    def masked(self, me: str) -> Slots:
        slots = packing.pack(self.digits[me], self.parameters)
        return masks.add_masks(slots, modulus_bits=self.parameters.modulus_bits, **self.session(me))

    def upload(self, me: str) -> bytes:
        return cipher.seal(self.masked(me), key=self.key, parameters=self.parameters)

    def uploads(self) -> dict[str, bytes]:
        return {name: self.upload(name) for name in self.names}

    def add(self, uploads: Collection[bytes]) -> bytes:
        return cipher.add(uploads, parameters=self.parameters, slots=self.slots)

    def dealt(self) -> dict[str, dict[str, shares.SharePair]]:
        """Who holds it -> whose it is -> the pair of shares."""
        sealed = {name: shares.deal_shares(threshold=self.threshold, **self.session(name)) for name in self.names}
        mine = {me: {sender: to[me] for sender, to in sealed.items()} for me in self.names}
        return {me: shares.open_shares(mine[me], **self.session(me)) for me in self.names}

    def revealed_by(self, me: str, pairs: Mapping[str, shares.SharePair], lists: shares.Lists) -> bytes:
        return shares.reveal_shares(pairs, lists, me=me, group_secret=self.key.to_bytes(), context=self.context)

    def recover(self, sealed: Mapping[str, bytes], lists: shares.Lists) -> shares.Seeds:
        return shares.recover_seeds(
            sealed,
            lists,
            threshold=self.threshold,
            group_secret=self.key.to_bytes(),
            publics=self.publics,
            context=self.context,
        )

    def self_seeds(self) -> dict[str, bytes]:
        return {name: secrets.self_seed for name, secrets in self.secrets.items()}

    def open(self, total: bytes, seeds: Mapping[str, bytes]) -> Digits:
        """Open, unmask, unpack: every check of these three is on."""
        opened = cipher.open_sum(total, key=self.key, parameters=self.parameters, slots=self.slots)
        clear = masks.remove_self_masks(
            opened, self_seeds=seeds, context=self.context, modulus_bits=self.parameters.modulus_bits
        )
        return packing.unpack(clear, self.parameters, self.dimension)

    def exact_sum(self, names: Collection[str]) -> Digits:
        return np.sum([self.digits[name] for name in names], 0, dtype=np.uint64)


def require_the_sum(claimed: bytes, uploads: Collection[bytes], parameters: SumParameters, slots: int) -> None:
    """What each institution does before it opens: add the signed uploads again and compare the bytes.

    Raises:
        SumRefused: `claimed` has other bytes.
    """
    if cipher.add(uploads, parameters=parameters, slots=slots) != claimed:
        raise SumRefused("what is to be opened is not the sum of the signed uploads")


# ---- the attackers


class Seen(Protocol):
    """What is public in a round."""

    names: list[str]
    parameters: SumParameters

    @property
    def publics(self) -> dict[str, masks.RoundPublic]: ...

    @property
    def context(self) -> masks.RoundContext: ...


def strip(
    masked: Slots,
    victim: str,
    seen: Seen,
    *,
    self_seed: bytes | None = None,
    privates: Mapping[str, bytes] | None = None,
    mask_seed: bytes | None = None,
) -> Slots:
    """Take off every mask of `victim` that the attacker can compute; of `seen` only what is public is used.

    Args:
        masked: the victim's slots as they are inside the cipher.
        victim: whose.
        seen: the round, for its names, public keys and parameters.
        self_seed: the victim's, if it is known.
        privates: member -> mask private key of those that collude.
        mask_seed: the victim's; with it every pairwise mask is known.
    """
    bits = seen.parameters.modulus_bits
    known = dict(privates or {})
    left = masked
    if self_seed is not None:
        key = derive.key_for("self-mask", self_seed, seen.context, victim)
        left = left - derive.keystream(key, left.size, bits)
    private = None if mask_seed is None else derive.key_for("mask-private", mask_seed, None)
    for other in set(seen.names) - {victim}:
        if private is None and other not in known:
            continue
        pair = (known[other], seen.publics[victim].mask) if private is None else (private, seen.publics[other].mask)
        mask = pairwise(pair, victim, other, seen, left.size)
        left = left - mask if victim < other else left + mask
    return left & np.uint64((1 << bits) - 1)


def pairwise(pair: tuple[bytes, bytes], one: str, other: str, seen: Seen, size: int) -> Slots:
    low, high = sorted((one, other))
    key = derive.key_for("pairwise-mask", derive.exchange(*pair, other), seen.context, low, high)
    return derive.keystream(key, size, seen.parameters.modulus_bits)


def read(slots: Slots, parameters: SumParameters, dimension: int) -> Digits:
    """Unpack without a check: what the attacker takes for the digits."""
    columns, rest = [], slots[: -(-dimension // parameters.digits)]
    for _ in range(parameters.digits):
        rest, digit = np.divmod(rest, np.uint64(parameters.radix))
        columns.append(digit)
    return np.concatenate(columns)[:dimension]


def share_read(guess: Digits, truth: Digits) -> float:
    """Return the share of coordinates that the attacker has exactly right; luck gives about 2^-16."""
    return float(np.mean(guess == truth))


def looks_uniform(slots: Slots, bits: int) -> float:
    """Return the p-value of the 64 bins of the top 6 bits being equally full."""
    return float(chisquare(np.bincount((slots >> np.uint64(bits - 6)).astype(int), minlength=64)).pvalue)


def rebuild(shared: Collection[tuple[int, bytes]]) -> bytes:
    """Combine shares, however few they are."""
    seed: bytes = shares.Shamir.combine(list(shared), ssss=False)
    return seed


# ---- test hooks


def switch_masks_off(patch: pytest.MonkeyPatch, *purposes: str) -> None:
    """Make the members add zeros for these purposes. The attackers' own derivation is not touched."""
    key_for, keystream, none = masks.key_for, masks.keystream, bytes(32)
    patch.setattr(masks, "key_for", lambda purpose, *rest: none if purpose in purposes else key_for(purpose, *rest))
    patch.setattr(
        masks,
        "keystream",
        lambda key, slots, bits: np.zeros(slots, np.uint64) if key == none else keystream(key, slots, bits),
    )


def switch_context_off(patch: pytest.MonkeyPatch) -> None:
    """Make the keys of masks no longer depend on the round, so that equal secrets give equal masks."""
    key_for, first = masks.key_for, masks.RoundContext("", "", 0, "")
    patch.setattr(masks, "key_for", lambda purpose, secret, c, *names: key_for(purpose, secret, c and first, *names))
