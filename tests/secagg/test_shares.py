"""Shares of seeds: enough of them open, fewer do not, and none opens where it does not belong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fl_alliance.errors import BadPlan, NotAuthentic, OutOfRange, SecretUnavailable, SumRefused
from fl_alliance.secagg import cipher, derive, masks, shares
from tests.secagg.alliance import CONTEXT, Alliance

OTHERS = [replace(CONTEXT, round=2), replace(CONTEXT, job="verbs"), replace(CONTEXT, alliance="south")]
OTHERS.append(replace(CONTEXT, roster_digest="sha256:" + "1" * 64))


@lru_cache
def dealt(members: int, threshold: int | None = None) -> tuple[Alliance, dict[str, dict[str, bytes]]]:
    alliance = Alliance(members, threshold=threshold)
    return alliance, alliance.deal()


def pairs_of(alliance: Alliance, me: str, all_dealt: dict[str, dict[str, bytes]]) -> dict[str, shares.SharePair]:
    return shares.open_shares(alliance.dealt_to(me, all_dealt), **alliance.session(me))


def body_of(alliance: Alliance, data: bytes, lists: shares.Lists, sender: str) -> bytes:
    """What is inside a sealed row, with the key that only its sender's name and these lists give."""
    key = derive.key_for("revealed-shares", alliance.key.to_bytes(), CONTEXT, sender, lists.digest)
    return ChaCha20Poly1305(key).decrypt(data[:12], data[12:], None)


def seal_as(alliance: Alliance, sender: str, lists: shares.Lists, body: bytes) -> bytes:
    key = derive.key_for("revealed-shares", alliance.key.to_bytes(), CONTEXT, sender, lists.digest)
    return bytes(12) + ChaCha20Poly1305(key).encrypt(bytes(12), body, None)


# ---- enough shares


@pytest.mark.parametrize(("members", "threshold"), [(3, 2), (3, 3), (4, 3), (5, 3), (5, 5)])
def test_any_threshold_of_members_open_every_survivor(members: int, threshold: int) -> None:
    alliance, given_shares = dealt(members, threshold)
    sealed = alliance.reveal(given_shares)
    for size in range(threshold, members + 1):
        for senders in itertools.combinations(alliance.names, size):
            found = alliance.recover({name: sealed[name] for name in senders})
            assert found.selfs == alliance.self_seeds()
            assert found.masks == {}


def test_of_survivors_the_self_seed_is_opened_and_of_the_others_the_mask_seed() -> None:
    alliance, given_shares = dealt(5)
    lists = alliance.lists(["clinic-0", "clinic-2", "clinic-3"])
    found = alliance.recover(alliance.reveal(given_shares, lists), lists)
    assert found.selfs == {name: alliance.secrets[name].self_seed for name in ("clinic-0", "clinic-2", "clinic-3")}
    assert found.masks == {name: alliance.secrets[name].mask_seed for name in ("clinic-1", "clinic-4")}


def test_the_order_of_names_does_not_matter() -> None:
    alliance, given_shares = dealt(4)
    backwards = ["clinic-3", "clinic-1", "clinic-0", "clinic-1"]
    lists = shares.Lists.of(dealers=alliance.names[::-1], survivors=backwards)
    assert lists == alliance.lists(sorted(set(backwards)))
    sealed = dict(reversed(alliance.reveal(given_shares, lists).items()))
    assert alliance.recover(sealed, alliance.lists(backwards)) == alliance.seeds(lists)


def test_what_is_dealt_and_revealed_has_the_stated_size_and_is_new_each_time() -> None:
    alliance, given_shares = dealt(3)
    assert {len(data) for to in given_shares.values() for data in to.values()} == {62}
    again = alliance.deal()
    assert not {d for to in again.values() for d in to.values()} & {
        d for to in given_shares.values() for d in to.values()
    }
    revealed = alliance.reveal(given_shares)
    assert {len(data) for data in revealed.values()} == {12 + 2 + 3 * 16 + 16}
    assert not set(revealed.values()) & set(alliance.reveal(given_shares).values())


def test_a_round_from_masks_to_sum_is_exact() -> None:
    alliance, given_shares = dealt(3)
    updates = np.random.default_rng(1).normal(0, 0.03, (3, 5000))
    digits, slots = zip(*(alliance.packed(update) for update in updates), strict=True)
    uploads = [alliance.seal(alliance.masked(name, row)) for name, row in zip(alliance.names, slots, strict=True)]
    total = alliance.add(uploads, 5000)
    seeds = alliance.recover(alliance.reveal(given_shares))
    assert (alliance.open(total, seeds, 5000) == sum(digits)).all()


# ---- too few shares


@pytest.mark.parametrize(("members", "threshold"), [(3, 2), (4, 3), (5, 3), (5, 5)])
def test_one_share_too_few_opens_nothing_and_the_error_counts(members: int, threshold: int) -> None:
    alliance, given_shares = dealt(members, threshold)
    for lists in (alliance.lists(), alliance.lists(alliance.names[-3:])):
        sealed = alliance.reveal(given_shares, lists)
        for senders in itertools.combinations(alliance.names, threshold - 1):
            with pytest.raises(SecretUnavailable, match=f"shares of {threshold - 1} members, need {threshold}"):
                alliance.recover({name: sealed[name] for name in senders}, lists)


def test_the_members_whose_shares_do_not_open_are_named() -> None:
    alliance, given_shares = dealt(3)
    sealed = alliance.reveal(given_shares)
    sealed |= {"clinic-1": sealed["clinic-2"], "clinic-2": b"", "clinic-9": sealed["clinic-0"]}
    with pytest.raises(SecretUnavailable, match=r"not opened: \['clinic-1', 'clinic-2', 'clinic-9'\]"):
        alliance.recover(sealed)


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


def test_one_call_never_reveals_both_kinds_of_one_member() -> None:
    """With both seeds of a member its upload would be open. Every choice of three or more survivors of five."""
    alliance, given_shares = dealt(5)
    kept = pairs_of(alliance, "clinic-1", given_shares)
    for count in (3, 4, 5):
        for survivors in itertools.combinations(alliance.names, count):
            lists = alliance.lists(survivors)
            body = body_of(alliance, alliance.revealed_by("clinic-1", kept, lists), lists, "clinic-1")
            gone = [name for name in alliance.names if name not in survivors]
            given_away = [kept[name].self_share for name in survivors] + [kept[name].mask_share for name in gone]
            assert body == b"\0\x02" + b"".join(given_away)


# ---- shares of another round, receiver or list


@pytest.mark.parametrize("context", OTHERS, ids=["round", "job", "alliance", "roster"])
def test_dealt_shares_do_not_open_in_another(context: masks.RoundContext) -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="what clinic-0 sealed does not open"):
        shares.open_shares(alliance.dealt_to("clinic-1", given_shares), **alliance.session("clinic-1", context))


@pytest.mark.parametrize("context", OTHERS, ids=["round", "job", "alliance", "roster"])
def test_revealed_shares_do_not_open_in_another(context: masks.RoundContext) -> None:
    alliance, given_shares = dealt(3)
    sealed = alliance.reveal(given_shares)
    with pytest.raises(SecretUnavailable, match="shares of 0 members, need 2"):
        alliance.recover(sealed, context=context)


def test_shares_for_another_receiver_do_not_open() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="what clinic-0 sealed"):
        shares.open_shares(alliance.dealt_to("clinic-2", given_shares), **alliance.session("clinic-1"))


def test_revealed_shares_open_with_the_alliance_key_of_the_job_only() -> None:
    """The coordinator, who relays them, has everything but that."""
    alliance, given_shares = dealt(3)
    sealed = alliance.reveal(given_shares)
    other = cipher.AllianceKey.generate(alliance.parameters).to_bytes()
    for guess in (other, bytes(len(other)), alliance.key.to_bytes()[:-1]):
        with pytest.raises(SecretUnavailable, match="shares of 0 members"):
            alliance.recover(sealed, group_secret=guess)
    assert alliance.recover(sealed).selfs == alliance.self_seeds()


def test_a_row_of_shares_does_not_pass_for_another_sender_s() -> None:
    alliance, given_shares = dealt(3)
    sealed = alliance.reveal(given_shares)
    with pytest.raises(SecretUnavailable, match=r"shares of 1 members, need 2; not opened: \['clinic-1', 'clinic-2'\]"):
        alliance.recover({**sealed, "clinic-1": sealed["clinic-0"], "clinic-2": sealed["clinic-0"]})


def test_shares_of_another_sender_do_not_open() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="what clinic-2 sealed"):
        shares.open_shares({"clinic-2": given_shares["clinic-0"]["clinic-1"]}, **alliance.session("clinic-1"))


def test_shares_revealed_for_one_pair_of_lists_do_not_open_under_another() -> None:
    """The coordinator shows one pair of lists to some and another to the others; also one of as many names."""
    alliance, given_shares = dealt(5)
    four = alliance.names[:4]
    lists = alliance.lists(four)
    sealed = alliance.reveal(given_shares, lists)
    others = [alliance.lists(names) for names in (alliance.names, alliance.names[1:], alliance.names[:3])]
    others.append(shares.Lists.of(dealers=four, survivors=four))
    others.append(shares.Lists.of(dealers=four, survivors=four[:3]))
    for other in others:
        with pytest.raises(SecretUnavailable, match="shares of 0 members, need 3"):
            alliance.recover(sealed, other)
    assert set(alliance.recover(sealed, lists).selfs) == set(four)


def test_no_two_pairs_of_lists_have_one_digest() -> None:
    names = [f"clinic-{index}" for index in range(6)]
    pairs = {
        shares.Lists.of(dealers={*there, *gone}, survivors=there)
        for count in (3, 4)
        for there in itertools.combinations(names, count)
        for more in range(3)
        for gone in itertools.combinations(sorted(set(names) - set(there)), more)
    }
    assert len(pairs) == 20 * 7 + 15 * 4
    assert len({pair.digest for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.names == (*pair.survivors, *pair.dropped)
        assert not set(pair.survivors) & set(pair.dropped)


def test_dealt_shares_are_no_revealed_ones() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(SecretUnavailable, match="shares of 0 members"):
        alliance.recover(alliance.dealt_to("clinic-1", given_shares))
    with pytest.raises(SecretUnavailable):
        shares.open_shares(alliance.reveal(given_shares), **alliance.session("clinic-1"))


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
        alliance.recover({"clinic-0": data, "clinic-1": data})


# ---- members that lie, with good signatures and good seals


@pytest.mark.parametrize(
    ("members", "of_survivor"), [*((n, True) for n in (3, 4, 5, 6, 7, 10)), *((n, False) for n in (4, 5, 6, 7, 10))]
)
def test_one_wrong_share_is_noticed_whoever_reveals_it(members: int, of_survivor: bool) -> None:
    """Where the weights of the third of six are the same in the first and the last four, two choices would not do."""
    alliance, given_shares = dealt(members)
    lists = lists_of(alliance, of_survivor=of_survivor)
    honest = alliance.reveal(given_shares, lists)
    for liar in alliance.names:
        sealed = honest | {liar: wrong_share(alliance, liar, given_shares, lists)}
        with pytest.raises(SecretUnavailable, match="shares of clinic-2 do not agree"):
            alliance.recover(sealed, lists)


@pytest.mark.parametrize("of_survivor", [True, False])
@pytest.mark.parametrize("absent", ["clinic-0", "clinic-6", "clinic-7"])
def test_one_wrong_share_is_noticed_among_those_that_are_left(absent: str, of_survivor: bool) -> None:
    alliance, given_shares = dealt(10)
    lists = lists_of(alliance, of_survivor=of_survivor)
    honest = alliance.reveal(given_shares, lists)
    del honest[absent]
    for liar in honest:
        sealed = honest | {liar: wrong_share(alliance, liar, given_shares, lists)}
        with pytest.raises(SecretUnavailable, match="shares of clinic-2 do not agree"):
            alliance.recover(sealed, lists)


def lists_of(alliance: Alliance, *, of_survivor: bool) -> shares.Lists:
    """Everybody survives, clinic-2 too, or only clinic-2 does not."""
    return alliance.lists([name for name in alliance.names if of_survivor or name != "clinic-2"])


def wrong_share(alliance: Alliance, liar: str, given_shares: Any, lists: shares.Lists) -> bytes:
    """What `liar` reveals, with another share of clinic-2, of either kind."""
    pairs = pairs_of(alliance, liar, given_shares)
    pair = pairs["clinic-2"]
    pairs["clinic-2"] = shares.SharePair(
        index=pair.index, self_share=flipped(pair.self_share), mask_share=flipped(pair.mask_share)
    )
    return alliance.revealed_by(liar, pairs, lists)


def flipped(share: bytes) -> bytes:
    return bytes([share[0] ^ 1]) + share[1:]


def test_a_wrong_share_among_just_enough_gives_a_sum_that_is_refused() -> None:
    alliance, given_shares = dealt(3)
    sealed = alliance.reveal(given_shares)
    del sealed["clinic-2"]
    sealed["clinic-1"] = wrong_share(alliance, "clinic-1", given_shares, alliance.lists())
    seeds = alliance.recover(sealed)
    assert seeds.selfs != alliance.self_seeds()
    uploads = [alliance.seal(alliance.masked(name, alliance.packed(np.zeros(10))[1])) for name in alliance.names]
    with pytest.raises(OutOfRange, match="not as a sum of 3 updates leaves them"):
        alliance.open(alliance.add(uploads, 10), seeds, 10)


def test_a_wrong_share_of_a_mask_seed_is_noticed_even_among_just_enough() -> None:
    """There is a public key to compare with."""
    alliance, given_shares = dealt(5)
    lists = lists_of(alliance, of_survivor=False)
    sealed = alliance.reveal(given_shares, lists)
    enough = {name: sealed[name] for name in ("clinic-0", "clinic-1", "clinic-4")}
    assert alliance.recover(enough, lists) == alliance.seeds(lists)
    for liar in enough:
        changed = enough | {liar: wrong_share(alliance, liar, given_shares, lists)}
        with pytest.raises(
            SecretUnavailable, match="shares of clinic-2 give another mask key than clinic-2 advertised"
        ):
            alliance.recover(changed, lists)


def test_a_dealer_that_swaps_places_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    alliance = Alliance(3)
    split: Callable[..., list[tuple[int, bytes]]] = shares.Shamir.split
    monkeypatch.setattr(shares.Shamir, "split", staticmethod(lambda *args, **more: split(*args, **more)[::-1]))
    swapped = shares.deal_shares(threshold=2, **alliance.session("clinic-0"))
    with pytest.raises(SecretUnavailable, match="shares of clinic-0 are not the ones for place 3"):
        shares.open_shares({"clinic-0": swapped["clinic-2"]}, **alliance.session("clinic-2"))


def test_another_number_of_shares_or_another_place_is_refused() -> None:
    alliance, given_shares = dealt(3)
    sealed, lists = alliance.reveal(given_shares), alliance.lists()
    for body in (b"", b"\0\x02", b"\0\x02" + bytes(32), b"\0\x02" + bytes(49), b"\0\x03" + bytes(48)):
        lie = seal_as(alliance, "clinic-1", lists, body)
        with pytest.raises(SecretUnavailable, match=r"shares of 1 members.* \['clinic-1'\]"):
            alliance.recover({"clinic-0": sealed["clinic-0"], "clinic-1": lie})
    same = seal_as(alliance, "clinic-1", lists, body_of(alliance, sealed["clinic-1"], lists, "clinic-1"))
    assert alliance.recover({"clinic-0": sealed["clinic-0"], "clinic-1": same}).selfs == alliance.self_seeds()


# ---- what is refused before anything is opened


@pytest.mark.parametrize(("members", "threshold"), [(3, 1), (3, 4), (4, 2), (5, 2), (6, 3), (3, 0)])
def test_a_threshold_that_two_groups_could_meet_is_refused(members: int, threshold: int) -> None:
    alliance = Alliance(members)
    for refused in (
        lambda: shares.deal_shares(threshold=threshold, **alliance.session("clinic-0")),
        lambda: shares.recover_seeds(
            {}, alliance.lists(), threshold=threshold, group_secret=b"", publics=alliance.publics, context=CONTEXT
        ),
    ):
        with pytest.raises(BadPlan, match=f"threshold {threshold} must be above half of {members} members"):
            refused()


@pytest.mark.parametrize(
    ("survivors", "reason"),
    [
        (["clinic-0", "clinic-1"], "2 survivors, need 3"),
        (["clinic-0", "clinic-1", "clinic-1"], "2 survivors, need 3"),
        ([], "0 survivors, need 3"),
        (["clinic-0", "clinic-1", "clinic-2", "clinic-9"], r"dealt no shares: \['clinic-9'\]"),
    ],
)
def test_lists_that_would_show_an_update_are_refused(survivors: list[str], reason: str) -> None:
    alliance, _ = dealt(4)
    with pytest.raises(SumRefused, match=reason):
        alliance.lists(survivors)


@pytest.mark.parametrize("survivors", [["clinic-0", "clinic-1", "clinic-2"], ["clinic-0", "clinic-1", "clinic-3"]])
def test_a_member_that_dealt_me_nothing_is_named(survivors: list[str]) -> None:
    """As a survivor and as one that dropped out."""
    alliance, given_shares = dealt(4)
    pairs = pairs_of(alliance, "clinic-0", given_shares)
    del pairs["clinic-2"]
    with pytest.raises(SecretUnavailable, match="no share of clinic-2"):
        alliance.revealed_by("clinic-0", pairs, alliance.lists(survivors))


def test_a_sender_outside_the_roster_is_refused() -> None:
    alliance, given_shares = dealt(3)
    with pytest.raises(NotAuthentic, match="clinic-9 is not in the roster"):
        shares.open_shares({"clinic-9": given_shares["clinic-0"]["clinic-1"]}, **alliance.session("clinic-1"))
