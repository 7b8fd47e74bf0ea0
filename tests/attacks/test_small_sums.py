"""Sums of one and of two: with two, the sum minus one's own update is the other's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest

from fl_alliance.errors import BadPlan, OutOfRange, SumRefused
from fl_alliance.rounds import institution as machine
from fl_alliance.secagg import cipher, masks, packing, parameters, shares
from tests.attacks.alliance import Digits, Round, switch_masks_off
from tests.attacks.wire import Refused, Wire


def allow_small_sums(patch: pytest.MonkeyPatch) -> None:
    """Hook: one member is enough."""
    for module in (masks, parameters, shares):
        patch.setattr(module, "MIN_MEMBERS", 1)


def sum_minus_my_own(members: int) -> tuple[Digits, Round]:
    """Run a whole honest round and subtract the update of the last member, which is the attacker."""
    seen = Round(members, threshold=members, dimension=3000)
    pairs, everybody = seen.dealt(), shares.Lists.of(dealers=seen.names, survivors=seen.names)
    revealed = {name: seen.revealed_by(name, pairs[name], everybody) for name in seen.names}
    seeds = seen.recover(revealed, everybody).selfs
    opened = seen.open(seen.add(seen.uploads().values()), seeds)
    return opened - seen.digits[seen.names[-1]] * np.uint64(members > 1), seen


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
    """The coordinator says that all others dropped out. Saw: no share, whatever the machine does."""
    seen = Round(5)
    with pytest.raises(SumRefused, match=f"{count} survivors, need 3"):
        shares.Lists.of(dealers=seen.names, survivors=seen.names[:count])


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


# ---- claimed dropouts: the others did upload, the coordinator says that they did not


def switch_floors_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: a machine takes a list of any length, and shares are revealed for it."""
    within = machine._within
    patch.setattr(machine, "_within", lambda seat, event, kind, allowed, fewest: within(seat, event, kind, allowed, 1))
    patch.setattr(shares, "MIN_MEMBERS", 1)


def claim_dropouts(wire: Wire, *helping: str) -> Digits:
    """Show the victim a list of itself and helpers, and open that sum with its shares and the helpers' own.

    Returns: the sum minus the helpers' updates.
    """
    wire.start()
    wire.upload()
    survivors = (*helping, wire.victim)
    shown = wire.list_of(survivors)
    wire.ask(wire.victim, wire.confirm(shown, [wire.victim], helping))
    rows = wire.rows([wire.victim], survivors)
    seeds = {name: wire.seeds_of(name, rows) for name in wire.names}
    assert all(seeds[name][name not in survivors] for name in wire.names)
    return open_with(wire, survivors, seeds) - wire.sum_in(helping)


def open_with(wire: Wire, survivors: Collection[str], seeds: Mapping[str, tuple[bytes | None, bytes | None]]) -> Digits:
    """Decrypt the stated sum with the alliance key, unmask and unpack it."""
    session: dict[str, Any] = {"context": wire.context, "modulus_bits": wire.parameters.modulus_bits}
    key = cipher.AllianceKey.from_bytes(wire.parameters, wire.group_secret)
    left = cipher.open_sum(wire.blob(wire.stated), key=key, parameters=wire.parameters, slots=wire.slots)
    left = masks.remove_self_masks(left, self_seeds={name: seeds[name][0] or b"" for name in survivors}, **session)
    gone = {name: seeds[name][1] or b"" for name in wire.names if name not in survivors}
    left = masks.remove_pairwise_masks(left, mask_seeds=gone, survivors=survivors, publics=wire.publics, **session)
    return packing.unpack(left, wire.parameters, wire.dimension)


@pytest.mark.parametrize("helping", [[], ["site-00"]])
def test_list_of_one_or_two_is_refused_by_the_machine(tmp_path, helping):
    """Attacker holds: the wire, one of three members. Saw: the victim's refusal. Learnt: nothing."""
    wire = Wire(tmp_path, 3)
    with pytest.raises(Refused, match="NotAuthentic: the list does not hold my upload and 3 dealers' in all"):
        claim_dropouts(wire, *helping)
    assert not wire.said["revealed-shares", 1]


@pytest.mark.parametrize("helping", [[], ["site-00"]])
def test_without_the_floors_claimed_dropouts_leave_one_update(monkeypatch, tmp_path, helping):
    """Defence off: fewest uploads in a list, fewest confirmations, fewest survivors that get shares.
    Saw: the victim's own shares, which with one helper's are the threshold. Learnt: the victim's update, exactly.
    """
    switch_floors_off(monkeypatch)
    wire = Wire(tmp_path, 3)
    assert (claim_dropouts(wire, *helping) == wire.digits[wire.victim]).all()


def test_helpers_count_in_the_floor(tmp_path):
    """Not a defence but its absence: a list of the plan's fewest, all but one of whom help, is the one's update.

    Attacker holds: two of four members, as many as threshold - 1; says that the other honest one dropped out. Whoever
    fears h helpers must ask for h + 2 uploads at least (`minimum_members`), in the plan or in its own policy.
    """
    wire = Wire(tmp_path, 4, threshold=3, helpers=2)
    assert (claim_dropouts(wire, *wire.helpers) == wire.digits[wire.victim]).all()


def test_minimum_members_of_helpers_and_two_more_refuses_that_list(tmp_path):
    """Attacker as above, the plan's minimum is two above the helpers. Saw: a refusal."""
    wire = Wire(tmp_path, 4, threshold=3, helpers=2, minimum_members=4)
    with pytest.raises(Refused, match="NotAuthentic: the list does not hold my upload and 4 dealers' in all"):
        claim_dropouts(wire, *wire.helpers)
