"""Shares of seeds: enough of them open, fewer do not, and none opens where it does not belong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fl_alliance.errors import BadPlan, NotAuthentic, OutOfRange, SecretUnavailable, SumRefused
from fl_alliance.secagg import masks, shares
from tests.secagg.alliance import CONTEXT, Alliance

OTHERS = [replace(CONTEXT, round=2), replace(CONTEXT, job="verbs"), replace(CONTEXT, alliance="south")]
OTHERS.append(replace(CONTEXT, roster_digest="sha256:" + "1" * 64))


@lru_cache
def dealt(members: int, threshold: int | None = None) -> tuple[Alliance, dict[str, dict[str, bytes]]]:
    alliance = Alliance(members, threshold=threshold)
    return alliance, alliance.deal()


def pairs_of(alliance: Alliance, me: str, all_dealt: dict[str, dict[str, bytes]]) -> dict[str, shares.SharePair]:
    return shares.open_shares(alliance.dealt_to(me, all_dealt), **alliance.session(me))


def revealed_to(alliance: Alliance, me: str, all_dealt: Any, survivors: list[str] | None = None) -> dict[str, bytes]:
    return {sender: to[me] for sender, to in alliance.reveal(all_dealt, survivors).items()}


# ---- enough shares


@pytest.mark.parametrize(("members", "threshold"), [(3, 2), (3, 3), (4, 3), (5, 3), (5, 5)])
def test_any_threshold_of_members_open_every_survivor(members: int, threshold: int) -> None:
    alliance, given_shares = dealt(members, threshold)
    sealed = revealed_to(alliance, "clinic-1", given_shares)
    for size in range(threshold, members + 1):
        for senders in itertools.combinations(alliance.names, size):
            found = alliance.recover("clinic-1", {name: sealed[name] for name in senders})
            assert found == alliance.self_seeds()


def test_only_the_survivors_are_opened() -> None:
    alliance, given_shares = dealt(5)
    survivors = ["clinic-0", "clinic-2", "clinic-3"]
    sealed = revealed_to(alliance, "clinic-2", given_shares, survivors)
    assert alliance.recover("clinic-2", sealed, survivors) == {
        name: alliance.secrets[name].self_seed for name in survivors
    }


def test_the_order_of_the_survivors_does_not_matter() -> None:
    alliance, given_shares = dealt(3)
    sealed = revealed_to(alliance, "clinic-0", given_shares, alliance.names[::-1])
    assert alliance.recover("clinic-0", sealed, [*alliance.names, "clinic-1"]) == alliance.self_seeds()


def test_what_is_dealt_and_revealed_has_the_stated_size_and_is_new_each_time() -> None:
    alliance, given_shares = dealt(3)
    assert {len(data) for to in given_shares.values() for data in to.values()} == {62}
    again = alliance.deal()
    assert not {d for to in again.values() for d in to.values()} & {
        d for to in given_shares.values() for d in to.values()
    }
    revealed = alliance.reveal(given_shares)
    assert {len(data) for to in revealed.values() for data in to.values()} == {12 + 2 + 3 * 16 + 16}


def test_a_round_from_masks_to_sum_is_exact() -> None:
    alliance, given_shares = dealt(3)
    updates = np.random.default_rng(1).normal(0, 0.03, (3, 5000))
    digits, slots = zip(*(alliance.packed(update) for update in updates), strict=True)
    uploads = [alliance.seal(alliance.masked(name, row)) for name, row in zip(alliance.names, slots, strict=True)]
    total = alliance.add(uploads, 5000)
    for me in alliance.names:
        seeds = alliance.recover(me, revealed_to(alliance, me, given_shares))
        assert (alliance.open(total, seeds, 5000) == sum(digits)).all()


# ---- too few shares


@pytest.mark.parametrize(("members", "threshold"), [(3, 2), (4, 3), (5, 3), (5, 5)])
def test_one_share_too_few_opens_nothing_and_the_error_counts(members: int, threshold: int) -> None:
    alliance, given_shares = dealt(members, threshold)
    sealed = revealed_to(alliance, "clinic-0", given_shares)
    for senders in itertools.combinations(alliance.names, threshold - 1):
        with pytest.raises(SecretUnavailable, match=f"shares of {threshold - 1} members, need {threshold}"):
            alliance.recover("clinic-0", {name: sealed[name] for name in senders})


def test_the_members_whose_shares_do_not_open_are_named() -> None:
    alliance, given_shares = dealt(3)
    sealed = revealed_to(alliance, "clinic-0", given_shares)
    sealed |= {"clinic-1": sealed["clinic-2"], "clinic-2": b"", "clinic-9": sealed["clinic-0"]}
    with pytest.raises(SecretUnavailable, match=r"not opened: \['clinic-1', 'clinic-2', 'clinic-9'\]"):
        alliance.recover("clinic-0", sealed)


def test_fewer_shares_than_the_threshold_are_noise_whatever_the_seed_is() -> None:
    """Each member's share of one and the same seed, dealt 300 times; two shares together are noise too (t = 3)."""
    alliance = Alliance(5, threshold=3)
    seen: dict[str, list[bytes]] = {"clinic-3": [], "clinic-4": []}
    for _ in range(300):
        sealed = shares.deal_shares(threshold=3, **alliance.session("clinic-0"))
        for name, found in seen.items():
            opened = shares.open_shares({"clinic-0": sealed[name]}, **alliance.session(name))
            found.append(opened["clinic-0"].self_share)
    values = [np.frombuffer(b"".join(found), np.uint8) for found in seen.values()]
    for bytes_seen in (*values, values[0] ^ values[1]):
        assert chisquare(np.bincount(bytes_seen, minlength=256)).pvalue > 1e-6
    constant = np.frombuffer(alliance.secrets["clinic-0"].self_seed * 300, np.uint8)
    assert chisquare(np.bincount(constant, minlength=256)).pvalue < 1e-100


def test_shares_of_self_and_mask_seed_are_of_two_polynomials() -> None:
    alliance, given_shares = dealt(3)
    pairs = [pairs_of(alliance, name, given_shares)["clinic-0"] for name in alliance.names]
    assert len({pair.self_share for pair in pairs} | {pair.mask_share for pair in pairs}) == 6
    mixed = [(pairs[0].index, pairs[0].self_share), (pairs[1].index, pairs[1].mask_share)]
    assert shares.Shamir.combine(mixed, ssss=False) != alliance.secrets["clinic-0"].self_seed
    right = [(pair.index, pair.mask_share) for pair in pairs[:2]]
    assert shares.Shamir.combine(right, ssss=False) == alliance.secrets["clinic-0"].mask_seed


def test_no_share_of_a_mask_seed_is_ever_revealed() -> None:
    """With both seeds of a member its upload would be open."""
    alliance, given_shares = dealt(3)
    kept = pairs_of(alliance, "clinic-1", given_shares)
    sealed = shares.reveal_self_shares(kept, alliance.names, **alliance.session("clinic-1"))
    for receiver in alliance.names:
        body = opened_body(alliance, sealed[receiver], sender="clinic-1", me=receiver)
        assert body == b"\0\x02" + b"".join(kept[name].self_share for name in alliance.names)


def opened_body(alliance: Alliance, data: bytes, *, sender: str, me: str) -> bytes:
    session = alliance.session(me)
    digest = shares._digest(alliance.names)
    key = shares._key("self-share", session["secrets"], me, sender, me, session["publics"], session["context"], digest)
    return shares._open(key, data, sender)


# ---- shares of another round, receiver or list


@pytest.mark.parametrize("context", OTHERS, ids=["round", "job", "alliance", "roster"])
def test_dealt_shares_do_not_open_in_another(context: masks.RoundContext) -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="what clinic-0 sealed does not open"):
        shares.open_shares(alliance.dealt_to("clinic-1", given_shares), **alliance.session("clinic-1", context))


@pytest.mark.parametrize("context", OTHERS, ids=["round", "job", "alliance", "roster"])
def test_revealed_shares_do_not_open_in_another(context: masks.RoundContext) -> None:
    alliance, given_shares = dealt(3)
    sealed = revealed_to(alliance, "clinic-1", given_shares)
    with pytest.raises(SecretUnavailable, match="shares of 0 members, need 2"):
        shares.recover_self_seeds(
            sealed, survivors=alliance.names, threshold=2, **alliance.session("clinic-1", context)
        )


def test_shares_for_another_receiver_do_not_open() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="what clinic-0 sealed"):
        shares.open_shares(alliance.dealt_to("clinic-2", given_shares), **alliance.session("clinic-1"))
    with pytest.raises(SecretUnavailable, match="shares of 0 members"):
        alliance.recover("clinic-1", revealed_to(alliance, "clinic-2", given_shares))


def test_shares_of_another_sender_do_not_open() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="what clinic-2 sealed"):
        shares.open_shares({"clinic-2": given_shares["clinic-0"]["clinic-1"]}, **alliance.session("clinic-1"))


def test_shares_revealed_for_another_list_of_survivors_do_not_open() -> None:
    """The coordinator shows one list to some and another to the others."""
    alliance, given_shares = dealt(5)
    four = alliance.names[:4]
    sealed = revealed_to(alliance, "clinic-0", given_shares, four)
    for other in (alliance.names, alliance.names[1:], alliance.names[:3]):
        with pytest.raises(SecretUnavailable, match="shares of 0 members, need 3"):
            alliance.recover("clinic-0", sealed, other)
    assert set(alliance.recover("clinic-0", sealed, four)) == set(four)


def test_dealt_shares_are_no_revealed_ones() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="shares of 0 members"):
        alliance.recover("clinic-1", alliance.dealt_to("clinic-1", given_shares))
    with pytest.raises(SecretUnavailable):
        shares.open_shares(revealed_to(alliance, "clinic-1", given_shares), **alliance.session("clinic-1"))


@given(st.integers(0, 61), st.integers(1, 255))
@settings(deadline=None)
def test_a_changed_byte_of_a_share_does_not_open(position: int, change: int) -> None:
    alliance, given_shares = dealt(3)
    good = given_shares["clinic-0"]["clinic-1"]
    changed = good[:position] + bytes([good[position] ^ change]) + good[position + 1 :]
    with pytest.raises(SecretUnavailable, match="what clinic-0 sealed does not open"):
        shares.open_shares({"clinic-0": changed}, **alliance.session("clinic-1"))


@given(st.binary(max_size=80))
@settings(deadline=None)
def test_random_bytes_raise_only_secret_unavailable(data: bytes) -> None:
    alliance, _ = dealt(3)
    with pytest.raises(SecretUnavailable):
        shares.open_shares({"clinic-0": data}, **alliance.session("clinic-1"))
    with pytest.raises(SecretUnavailable):
        alliance.recover("clinic-1", {"clinic-0": data})


# ---- members that lie, with good signatures and good seals


@pytest.mark.parametrize("members", [3, 4, 5, 6, 7, 10])
def test_one_wrong_share_is_noticed_whoever_reveals_it(members: int) -> None:
    """Where the weights of the third of six are the same in the first and the last four, two choices would not do."""
    alliance, given_shares = dealt(members)
    honest = revealed_to(alliance, "clinic-0", given_shares)
    for liar in alliance.names:
        sealed = honest | {liar: wrong_share(alliance, liar, given_shares, to="clinic-0")}
        with pytest.raises(SecretUnavailable, match="shares of clinic-2 do not agree"):
            alliance.recover("clinic-0", sealed)


@pytest.mark.parametrize("absent", ["clinic-0", "clinic-6", "clinic-7"])
def test_one_wrong_share_is_noticed_among_those_that_are_left(absent: str) -> None:
    alliance, given_shares = dealt(10)
    honest = revealed_to(alliance, "clinic-1", given_shares)
    del honest[absent]
    for liar in honest:
        sealed = honest | {liar: wrong_share(alliance, liar, given_shares, to="clinic-1")}
        with pytest.raises(SecretUnavailable, match="shares of clinic-2 do not agree"):
            alliance.recover("clinic-1", sealed)


def wrong_share(alliance: Alliance, liar: str, given_shares: Any, *, to: str) -> bytes:
    """What `liar` reveals to `to`, with another share of clinic-2."""
    pairs = pairs_of(alliance, liar, given_shares)
    pair = pairs["clinic-2"]
    wrong = bytes([pair.self_share[0] ^ 1]) + pair.self_share[1:]
    pairs["clinic-2"] = shares.SharePair(index=pair.index, self_share=wrong, mask_share=pair.mask_share)
    return shares.reveal_self_shares(pairs, alliance.names, **alliance.session(liar))[to]


def test_a_wrong_share_among_just_enough_gives_a_sum_that_is_refused() -> None:
    alliance, given_shares = dealt(3)
    sealed = revealed_to(alliance, "clinic-0", given_shares)
    del sealed["clinic-2"]
    sealed["clinic-1"] = wrong_share(alliance, "clinic-1", given_shares, to="clinic-0")
    seeds = alliance.recover("clinic-0", sealed)
    assert seeds != alliance.self_seeds()
    uploads = [alliance.seal(alliance.masked(name, alliance.packed(np.zeros(10))[1])) for name in alliance.names]
    with pytest.raises(OutOfRange, match="not as a sum of 3 updates leaves them"):
        alliance.open(alliance.add(uploads, 10), seeds, 10)


def test_a_dealer_that_swaps_places_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    alliance = Alliance(3)
    split: Callable[..., list[tuple[int, bytes]]] = shares.Shamir.split
    monkeypatch.setattr(shares.Shamir, "split", staticmethod(lambda *args, **more: split(*args, **more)[::-1]))
    swapped = shares.deal_shares(threshold=2, **alliance.session("clinic-0"))
    with pytest.raises(SecretUnavailable, match="shares of clinic-0 are not the ones for place 3"):
        shares.open_shares({"clinic-0": swapped["clinic-2"]}, **alliance.session("clinic-2"))


def test_shares_of_another_number_of_survivors_are_refused() -> None:
    alliance, given_shares = dealt(3)
    sealed = revealed_to(alliance, "clinic-0", given_shares)
    session = alliance.session("clinic-1")
    key = shares._key(
        "self-share", session["secrets"], "clinic-1", "clinic-1", "clinic-0", session["publics"], CONTEXT,
        shares._digest(alliance.names),
    )  # fmt: skip
    for body in (b"", b"\0\x02", b"\0\x02" + bytes(32), b"\0\x02" + bytes(49), b"\0\x03" + bytes(48)):
        with pytest.raises(SecretUnavailable, match=r"shares of 1 members.* \['clinic-1'\]"):
            alliance.recover("clinic-0", {"clinic-0": sealed["clinic-0"], "clinic-1": shares._seal(key, body)})


# ---- what is refused before anything is opened


@pytest.mark.parametrize(("members", "threshold"), [(3, 1), (3, 4), (4, 2), (5, 2), (6, 3), (3, 0)])
def test_a_threshold_that_two_groups_could_meet_is_refused(members: int, threshold: int) -> None:
    alliance = Alliance(members)
    for refused in (
        lambda: shares.deal_shares(threshold=threshold, **alliance.session("clinic-0")),
        lambda: shares.recover_self_seeds(
            {}, survivors=alliance.names, threshold=threshold, **alliance.session("clinic-0")
        ),
    ):
        with pytest.raises(BadPlan, match=f"threshold {threshold} must be above half of {members} members"):
            refused()


@pytest.mark.parametrize(
    ("survivors", "reason"),
    [
        (["clinic-0", "clinic-1"], "2 survivors, need 3"),
        (["clinic-0", "clinic-1", "clinic-1"], "2 survivors, need 3"),
        (["clinic-0", "clinic-1", "clinic-2", "clinic-9"], r"not in the roster: \['clinic-9'\]"),
    ],
)
def test_a_list_of_survivors_that_would_show_an_update_is_refused(survivors: list[str], reason: str) -> None:
    alliance, given_shares = dealt(4)
    pairs = pairs_of(alliance, "clinic-0", given_shares)
    with pytest.raises(SumRefused, match=reason):
        shares.reveal_self_shares(pairs, survivors, **alliance.session("clinic-0"))
    with pytest.raises(SumRefused, match=reason):
        alliance.recover("clinic-0", {}, survivors)


def test_a_survivor_that_dealt_me_nothing_is_named() -> None:
    alliance, given_shares = dealt(4)
    pairs = pairs_of(alliance, "clinic-0", given_shares)
    del pairs["clinic-2"]
    with pytest.raises(SecretUnavailable, match="no share of clinic-2"):
        shares.reveal_self_shares(pairs, alliance.names, **alliance.session("clinic-0"))


def test_a_sender_outside_the_roster_is_refused() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(NotAuthentic, match="clinic-9 is not in the roster"):
        shares.open_shares({"clinic-9": given_shares["clinic-0"]["clinic-1"]}, **alliance.session("clinic-1"))
