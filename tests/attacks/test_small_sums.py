"""Sums of one and of two: with two, the sum minus one's own update is the other's."""

from __future__ import annotations

import numpy as np
import pytest

from fl_alliance.errors import BadPlan, OutOfRange, SumRefused
from fl_alliance.secagg import masks, parameters, shares
from tests.attacks.alliance import Digits, Round, switch_masks_off


def allow_small_sums(patch: pytest.MonkeyPatch) -> None:
    """Hook: one member is enough."""
    for module in (masks, parameters, shares):
        patch.setattr(module, "MIN_MEMBERS", 1)


def sum_minus_my_own(members: int) -> tuple[Digits, Round]:
    """Run a whole honest round and subtract the update of the last member, which is the attacker."""
    seen = Round(members, threshold=members, dimension=3000)
    pairs = seen.dealt()
    me, everybody = seen.names[-1], seen.names
    revealed = {name: shares.reveal_self_shares(pairs[name], everybody, **seen.session(name))[me] for name in everybody}
    seeds = shares.recover_self_seeds(revealed, survivors=everybody, threshold=members, **seen.session(me))
    opened = seen.open(seen.add(seen.uploads().values()), seeds)
    return opened - seen.digits[me] * np.uint64(members > 1), seen


@pytest.mark.parametrize("members", [1, 2])
def test_alliance_of_one_or_two_is_refused_before_there_is_a_key(members):
    """Attacker holds: one seat of two, or none of one. Saw: the refusal of the plan. Learnt: nothing."""
    with pytest.raises(BadPlan, match=f"members {members} must be 3"):
        sum_minus_my_own(members)


@pytest.mark.parametrize("members", [1, 2])
def test_with_small_sums_allowed_a_member_reads_the_other_one(monkeypatch, members):
    """Defence off: fewest members is one. Learnt: the other's update, exactly; of one, the one."""
    allow_small_sums(monkeypatch)
    got, seen = sum_minus_my_own(members)
    assert (got == seen.digits[seen.names[0]]).all()


def test_of_three_a_member_reads_the_sum_of_the_other_two_and_not_one_of_them():
    """Attacker holds: one seat of three. Learnt: the sum of two."""
    got, seen = sum_minus_my_own(3)
    assert (got == seen.exact_sum(seen.names[:2])).all()
    assert max(np.mean(got == seen.digits[name]) for name in seen.names[:2]) < 0.001


@pytest.mark.parametrize("members", [1, 2])
def test_roster_of_one_or_two_is_neither_masked_for_nor_dealt_to(members):
    """The coordinator shows a smaller roster than the plan's. Saw: no upload, no share."""
    seen = Round(3)
    session = {**seen.session("clinic-0"), "publics": {name: seen.publics[name] for name in seen.names[:members]}}
    with pytest.raises(BadPlan, match=f"{members} members in the roster, need 3"):
        masks.add_masks(np.zeros(9, np.uint64), modulus_bits=36, **session)
    with pytest.raises(BadPlan, match=f"{members} members in the roster, need 3"):
        shares.deal_shares(threshold=members, **session)


@pytest.mark.parametrize("count", [1, 2])
def test_list_of_one_or_two_survivors_gets_no_share(count):
    """The coordinator says that all others dropped out. Saw: no share of a self seed."""
    seen = Round(5)
    pairs = seen.dealt()["clinic-0"]
    with pytest.raises(SumRefused, match=f"{count} survivors, need 3"):
        shares.reveal_self_shares(pairs, seen.names[:count], **seen.session("clinic-0"))
    with pytest.raises(SumRefused, match=f"{count} survivors, need 3"):
        shares.recover_self_seeds(
            {}, survivors=seen.names[:count], threshold=seen.threshold, **seen.session("clinic-0")
        )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_uploads_than_members_are_not_added(count):
    seen = Round(3, dimension=100)
    with pytest.raises(SumRefused, match=f"{count} uploads, need exactly 3"):
        seen.add([seen.upload(name) for name in seen.names[:count]])


# ---- one upload, as often as there are members


def open_one_upload_thrice(seen: Round) -> Digits:
    """Pass one upload off as everybody's; a third of the sum is the victim's update."""
    upload = seen.upload("clinic-0")
    return seen.open(seen.add([upload] * 3), seen.self_seeds()) // np.uint64(3)


def test_sum_of_one_upload_thrice_does_not_open():
    """Attacker holds: the wire; institutions skip the sum check. Saw: a refusal. Learnt: nothing: masks are left."""
    with pytest.raises(OutOfRange, match="not as a sum of 3 updates leaves them"):
        open_one_upload_thrice(Round(3, dimension=3000))


def test_without_masks_a_third_of_it_is_the_update(monkeypatch):
    """Defence off: all masks, so there are no self seeds to take off either. Learnt: every coordinate."""
    switch_masks_off(monkeypatch, "self-mask", "pairwise-mask")
    seen = Round(3, dimension=3000)
    monkeypatch.setattr(seen, "self_seeds", dict)
    assert (open_one_upload_thrice(seen) == seen.digits["clinic-0"]).all()
