"""Recovery: whoever dealt shares and vanished, the survivors' sum comes out exactly, or the lie is named."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_alliance.errors import OutOfRange, SecretUnavailable
from fl_alliance.protocol.limits import MIN_MEMBERS
from fl_alliance.secagg import masks, packing, shares
from tests.secagg.alliance import CLIP, Alliance

Uploads = dict[str, tuple[NDArray[np.uint64], NDArray[np.uint64]]]
"""Member -> its digits, shape (20,), and its masked slots."""


@lru_cache
def dealt(members: int, threshold: int | None = None) -> tuple[Alliance, dict[str, dict[str, bytes]]]:
    alliance = Alliance(members, threshold=threshold)
    return alliance, alliance.deal()


def uploads_of(alliance: Alliance) -> Uploads:
    """Everybody's, masked towards everybody."""
    draw = np.random.default_rng(1)
    packed = {name: alliance.packed(draw.uniform(-CLIP, CLIP, 20)) for name in alliance.names}
    return {name: (digits, alliance.masked(name, slots)) for name, (digits, slots) in packed.items()}


def assert_exact(alliance: Alliance, uploads: Uploads, seeds: shares.Seeds) -> None:
    """The survivors' masked slots, unmasked with `seeds`, are the sum of their digits."""
    digits, masked = (np.sum([uploads[name][at] for name in seeds.selfs], 0, dtype=np.uint64) for at in (0, 1))
    total = masked & np.uint64((1 << alliance.parameters.modulus_bits) - 1)
    got = packing.unpack(alliance.unmasked(total, seeds), alliance.parameters, 20)
    assert (got == digits).all()


def test_whoever_vanishes_and_whoever_answers_the_sum_of_the_others_is_exact() -> None:
    """Every set of survivors of five, and every threshold of them that reveals."""
    alliance, given_shares = dealt(5, 3)
    uploads = uploads_of(alliance)
    for count in (3, 4, 5):
        for survivors in itertools.combinations(alliance.names, count):
            lists = alliance.lists(survivors)
            sealed = alliance.reveal(given_shares, lists)
            for senders in itertools.combinations(survivors, 3):
                seeds = alliance.recover({name: sealed[name] for name in senders}, lists)
                assert seeds == alliance.seeds(lists)
            assert_exact(alliance, uploads, seeds)


@st.composite
def dropouts(draw: st.DrawFn) -> tuple[int, int, list[str], list[str]]:
    """(members, threshold, survivors, those of them that reveal)."""
    members = draw(st.integers(MIN_MEMBERS, 9))
    threshold = draw(st.integers(members // 2 + 1, members))
    fewest = max(MIN_MEMBERS, threshold)
    names = draw(st.permutations([f"clinic-{index}" for index in range(members)]))
    survivors = names[: draw(st.integers(fewest, members))]
    return members, threshold, survivors, survivors[: draw(st.integers(threshold, len(survivors)))]


@given(dropouts())
@settings(deadline=None, max_examples=60)
def test_recovery_is_exact_for_any_members_threshold_and_dropouts(case: tuple[int, int, list[str], list[str]]) -> None:
    members, threshold, survivors, senders = case
    alliance, given_shares = dealt(members, threshold)
    lists = alliance.lists(survivors)
    sealed = {name: data for name, data in alliance.reveal(given_shares, lists).items() if name in senders}
    seeds = alliance.recover(sealed, lists)
    assert seeds == alliance.seeds(lists)
    assert not set(seeds.selfs) & set(seeds.masks)
    assert_exact(alliance, uploads_of(alliance), seeds)


def test_dropouts_that_are_not_taken_off_would_be_seen() -> None:
    """The two tests above have power: with one mask seed less, or another self seed, there is no sum."""
    alliance, _ = dealt(5, 3)
    uploads = uploads_of(alliance)
    right = alliance.seeds(alliance.lists(alliance.names[:3]))
    assert_exact(alliance, uploads, right)
    for less in (
        shares.Seeds(right.selfs, {"clinic-3": right.masks["clinic-3"]}),
        shares.Seeds({**right.selfs, "clinic-2": bytes(16)}, right.masks),
    ):
        with pytest.raises(OutOfRange):
            assert_exact(alliance, uploads, less)


@pytest.mark.parametrize("wrong", [bytes(16), b"\xff" * 16])
def test_a_wrong_mask_seed_is_refused_before_it_is_used(wrong: bytes) -> None:
    alliance, _ = dealt(4)
    right, public = alliance.secrets["clinic-3"].mask_seed, alliance.publics["clinic-3"]
    assert masks.require_seed("clinic-3", right, public) == alliance.secrets["clinic-3"].mask_private
    for seed in (wrong, alliance.secrets["clinic-3"].self_seed, alliance.secrets["clinic-2"].mask_seed):
        with pytest.raises(SecretUnavailable, match="clinic-3 give another mask key than clinic-3 advertised"):
            masks.require_seed("clinic-3", seed, public)
        with pytest.raises(SecretUnavailable, match="clinic-3 give another mask key"):
            alliance.unmasked(np.zeros(3, np.uint64), shares.Seeds(alliance.self_seeds(), {"clinic-3": seed}))


def test_rebuilt_seeds_are_not_printed() -> None:
    alliance, _ = dealt(4)
    seeds = alliance.seeds(alliance.lists(alliance.names[:3]))
    assert str(seeds) == repr(seeds) == f"{seeds}" == "Seeds(***)"


def test_a_dealer_whose_shares_are_of_another_mask_seed_is_named_when_it_vanishes() -> None:
    """It costs the round and no secret: what it dealt agrees with itself and not with the key that it signed."""
    alliance = Alliance(4)
    liar = alliance.secrets["clinic-3"]
    honest = alliance.deal()
    other = masks.RoundSecrets(mask_seed=bytes(16), self_seed=liar.self_seed, channel_private=liar.channel_private)
    session = {**alliance.session("clinic-3"), "secrets": other}
    session["publics"] = {**alliance.publics, "clinic-3": other.public}
    lied = {**honest, "clinic-3": shares.deal_shares(threshold=alliance.threshold, **session)}
    lists = alliance.lists(alliance.names[:3])
    assert alliance.recover(alliance.reveal(honest, lists), lists).masks == {"clinic-3": liar.mask_seed}
    with pytest.raises(SecretUnavailable, match="clinic-3 give another mask key than clinic-3 advertised"):
        alliance.recover(alliance.reveal(lied, lists), lists)
