"""Coordinator and institutions together against honest uploads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir, _Element

from fl_alliance.errors import BadPlan
from fl_alliance.secagg import shares
from fl_alliance.secagg.frame import Kind
from tests.attacks import lattice
from tests.attacks.alliance import (
    UNLIKELY,
    Round,
    Slots,
    looks_uniform,
    read,
    rebuild,
    share_read,
    strip,
    switch_masks_off,
)

# ---- one holder of the alliance key


def decrypt_and_strip(seen: Round, victim: str, holder: str, upload: bytes) -> dict[str, Slots]:
    """Decrypt an upload with the key; then take off nothing, the self mask, the self mask and the holder's pair's."""
    key = lattice.key_from_bytes(seen.key.to_bytes(), seen.parameters)
    masked = lattice.decrypt(Kind.UPLOAD, upload, key, seen.parameters, seen.slots)
    seed, mine = seen.secrets[victim].self_seed, {holder: seen.secrets[holder].mask_private}
    return {
        "nothing": masked,
        "self": strip(masked, victim, seen, self_seed=seed),
        "self and mine": strip(masked, victim, seen, self_seed=seed, privates=mine),
    }


def test_coordinator_and_one_key_holder_see_noise_in_one_upload():
    """Attacker holds: the wire, the alliance key, one member's secrets, after the opening the victim's self seed too.
    Saw: the upload decrypted, slot by slot. Learnt: uniform numbers; a coordinate in some 2^16 is right by luck.
    """
    seen = Round(3)
    for left in decrypt_and_strip(seen, "clinic-0", "clinic-1", seen.upload("clinic-0")).values():
        assert looks_uniform(left, seen.parameters.modulus_bits) > UNLIKELY
        assert share_read(read(left, seen.parameters, seen.dimension), seen.digits["clinic-0"]) < 0.001


@pytest.mark.parametrize(
    ("off", "stripped"), [(["self-mask", "pairwise-mask"], "nothing"), (["pairwise-mask"], "self")]
)
def test_without_masks_the_same_key_holder_reads_the_update(monkeypatch, off, stripped):
    """Defence off: members add no masks, or self masks only. Learnt: every coordinate, exactly."""
    switch_masks_off(monkeypatch, *off)
    seen = Round(3)
    left = decrypt_and_strip(seen, "clinic-0", "clinic-1", seen.upload("clinic-0"))[stripped]
    assert share_read(read(left, seen.parameters, seen.dimension), seen.digits["clinic-0"]) == 1.0
    assert looks_uniform(left, seen.parameters.modulus_bits) < UNLIKELY


# ---- threshold - 1 members, before anything is revealed

ALLIANCES = [(3, 2), (4, 3), (5, 3), (6, 4)]
"""(members, threshold): threshold - 1 collude, and at least two stay honest."""


def colluders_of(seen: Round, count: int) -> list[str]:
    """Return the last `count` members; the first one is the victim."""
    return seen.names[-count:]


def combine_what_they_hold(seen: Round, victim: str, colluders: list[str]) -> dict[str, float]:
    """Rebuild the victim's seeds from the colluders' shares and strip its masks with them.

    The others reveal one seed in the end: the self seed of a survivor, the mask seed of who is said to have dropped
    out. So each rebuilt seed is tried beside the revealed other one, and both beside one another.

    Returns: the share of coordinates read, by what was revealed.
    """
    dealt, truth = seen.dealt(), seen.secrets[victim]
    pairs = [dealt[name][victim] for name in colluders]
    self_seed = rebuild([(pair.index, pair.self_share) for pair in pairs])
    mask_seed = rebuild([(pair.index, pair.mask_share) for pair in pairs])
    tried = {
        "nothing": (self_seed, mask_seed),
        "self seed": (truth.self_seed, mask_seed),
        "mask seed": (self_seed, truth.mask_seed),
    }
    masked = seen.masked(victim)
    left = {what: strip(masked, victim, seen, self_seed=a, mask_seed=b) for what, (a, b) in tried.items()}
    return {what: share_read(read(s, seen.parameters, seen.dimension), seen.digits[victim]) for what, s in left.items()}


@pytest.mark.parametrize(("members", "threshold"), ALLIANCES)
def test_coordinator_and_threshold_less_one_members_cannot_open_one_upload(members, threshold):
    """Attacker holds: the wire, the alliance key, all secrets and all shares of threshold - 1 members.
    Saw: the victim's slots decrypted. Learnt: nothing; their shares rebuild neither seed, and one seed is not enough.
    """
    seen = Round(members, threshold=threshold)
    assert max(combine_what_they_hold(seen, seen.names[0], colluders_of(seen, threshold - 1)).values()) < 0.001


@pytest.mark.parametrize(("members", "threshold"), ALLIANCES)
def test_with_the_threshold_lowered_by_one_the_same_colluders_read_the_update(monkeypatch, members, threshold):
    """Defence off: shares are dealt for threshold - 1. Learnt: both seeds, and every coordinate of the victim."""
    monkeypatch.setattr(shares, "require_threshold", lambda threshold, members: None)
    seen = Round(members, threshold=threshold - 1)
    got = combine_what_they_hold(seen, seen.names[0], colluders_of(seen, threshold - 1))
    assert got == {"nothing": 1.0, "self seed": 1.0, "mask seed": 1.0}


@pytest.mark.parametrize(("members", "threshold"), [(3, 1), (4, 2), (5, 2), (6, 3), (3, 0), (3, 4)])
def test_threshold_of_half_or_less_is_not_dealt_for(members, threshold):
    seen = Round(members)
    with pytest.raises(BadPlan, match=f"threshold {threshold} must be above half of {members}"):
        shares.deal_shares(threshold=threshold, **seen.session("clinic-0"))


def test_threshold_less_one_shares_fit_every_seed_equally_well():
    """Attacker holds: two shares of a seed of threshold 3. Learnt: nothing at all, whatever its computing power: for
    any seed it may think of there is a third share with which exactly these two rebuild that seed.
    """
    seen = Round(5, threshold=3)
    held = [(pair.index, pair.self_share) for pair in (seen.dealt()[name]["clinic-0"] for name in seen.names[:2])]
    for guess in (bytes(16), b"\xff" * 16, b"any guess at all"):
        third = (3, value_at(3, [(0, guess), *held]))
        assert Shamir.combine([*held, third], ssss=False) == guess


def value_at(x: int, points: list[tuple[int, bytes]]) -> bytes:
    """Interpolate over GF(2^128)."""
    total = _Element(0)
    for index, value in points:
        term = _Element(value)
        for other, _ in points:
            if other != index:
                difference = _Element(index) + _Element(other)
                term = term * ((_Element(x) + _Element(other)) * difference.inverse())
        total = total + term
    encoded: bytes = total.encode()
    return encoded


# ---- threshold - 1 members, after the opening


def subtract_all_they_know(seen: Round, colluders: list[str]) -> tuple[Slots, dict[str, Slots]]:
    """Strip the colluders' masks and every self mask; return the sum of the honest and each honest upload."""
    privates = {name: seen.secrets[name].mask_private for name in colluders}
    bits, seeds = seen.parameters.modulus_bits, seen.self_seeds()
    left = {
        name: strip(seen.masked(name), name, seen, self_seed=seeds[name], privates=privates)
        for name in seen.names
        if name not in colluders
    }
    return np.sum(list(left.values()), 0, dtype=np.uint64) & np.uint64((1 << bits) - 1), left


@pytest.mark.parametrize(("members", "threshold"), ALLIANCES)
def test_after_the_opening_threshold_less_one_members_know_the_sum_of_the_honest_and_no_more(members, threshold):
    """Attacker holds: as above, and now every member's self seed.
    Saw: each honest upload decrypted. Learnt: the sum of the honest, which the sum minus their own tells them anyway.
    Of any group of fewer honest members, down to one of two: uniform numbers.
    """
    seen = Round(members, threshold=threshold)
    total, left = subtract_all_they_know(seen, colluders_of(seen, threshold - 1))
    assert (read(total, seen.parameters, seen.dimension) == seen.exact_sum(left)).all()
    bits = seen.parameters.modulus_bits
    for count in range(1, len(left)):
        for group in itertools.combinations(sorted(left), count):
            partial = np.sum([left[name] for name in group], 0, dtype=np.uint64) & np.uint64((1 << bits) - 1)
            assert looks_uniform(partial, bits) > UNLIKELY
            assert share_read(read(partial, seen.parameters, seen.dimension), seen.exact_sum(group)) < 0.001


def test_without_pairwise_masks_the_same_members_read_each_honest_upload(monkeypatch):
    """Defence off: self masks only, so that a revealed self seed is the whole mask. Learnt: every update, exactly."""
    switch_masks_off(monkeypatch, "pairwise-mask")
    seen = Round(5, threshold=3)
    _, left = subtract_all_they_know(seen, [])
    bits = seen.parameters.modulus_bits
    for name, slots in left.items():
        assert share_read(read(slots, seen.parameters, seen.dimension), seen.digits[name]) == 1.0
        assert looks_uniform(slots, bits) < UNLIKELY
