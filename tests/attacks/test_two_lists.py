"""A coordinator that shows one list of survivors to some members and another to others.

For a survivor its self seed is rebuilt, for a dropped member its mask seed. Who gets both takes off every mask.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from fl_alliance.errors import SecretUnavailable
from fl_alliance.parties.desk import InstitutionDesk
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds import institution as machine
from fl_alliance.secagg import shares
from tests.attacks.alliance import UNLIKELY, Round, looks_uniform, read, share_read, strip, switch_masks_off
from tests.attacks.wire import Refused, Rows, Wire, switch_notes_off

# ---- shares for one pair of lists, used for another

ALL = ("clinic-0", "clinic-1", "clinic-2", "clinic-3", "clinic-4")
HONEST = ("clinic-1", "clinic-2", "clinic-3")


def lists(dealers: Collection[str], survivors: Collection[str]) -> shares.Lists:
    return shares.Lists.of(dealers=dealers, survivors=survivors)


ALL_BUT_LAST, ALL_BUT_ANOTHER = lists(ALL[:-1], ALL[:-1]), lists([*ALL[:3], ALL[4]], [*ALL[:3], ALL[4]])
LAST_DROPPED, ANOTHER_DROPPED = lists(ALL, ALL[:-1]), lists(ALL, [*ALL[:3], ALL[4]])


def revealed(seen: Round, shown: shares.Lists) -> dict[str, bytes]:
    pairs = seen.dealt()
    return {name: seen.revealed_by(name, pairs[name], shown) for name in HONEST}


@pytest.mark.parametrize("other", [lists(ALL, ALL), ANOTHER_DROPPED, ALL_BUT_LAST, ALL_BUT_ANOTHER])
def test_shares_for_one_pair_of_lists_do_not_open_under_another(other):
    """Attacker relays what was revealed for one pair to a member that was shown another. Saw: a refusal."""
    seen = Round(5, threshold=3)
    sealed = revealed(seen, LAST_DROPPED)
    with pytest.raises(SecretUnavailable, match=r"shares of 0 members, need 3; not opened: \['clinic-1', 'clinic-2'"):
        seen.recover(sealed, other)
    assert set(seen.recover(sealed, LAST_DROPPED).masks) == {"clinic-4"}


def test_without_the_lists_in_the_key_shares_of_one_member_pass_for_anothers(monkeypatch):
    """Defence off: the lists are not in the key. Learnt by the relay: it can swap seeds under lists of one length."""
    monkeypatch.setattr(shares.Lists, "digest", property(lambda _: "the same"))
    seen = Round(5, threshold=3)
    sealed = revealed(seen, ALL_BUT_LAST)
    assert seen.recover(sealed, ALL_BUT_ANOTHER).selfs["clinic-4"] == seen.secrets["clinic-3"].self_seed


# ---- two lists in one round, from machines


def strip_what_was_revealed(wire: Wire, *given: Rows) -> float:
    """Rebuild what seeds of the victim can be rebuilt, decrypt its upload, strip, and return what share is read."""
    seeds = wire.seeds_of(wire.victim, *given)
    left = strip(wire.decrypted(wire.victim), wire.victim, wire, self_seed=seeds[0], mask_seed=seeds[1])
    return share_read(read(left, wire.parameters, wire.dimension), wire.digits[wire.victim])


def show_two_lists(wire: Wire) -> tuple[float, list[str]]:
    """Show a list with the victim to one half of the honest, it among them, and one without it to the other half.

    The helpers confirm both. Returns: the share of the victim's coordinates that is read, and the refusals.
    """
    wire.start()
    wire.upload()
    half = len(wire.honest) // 2
    given, refusals = [], []
    for survivors, to in ((wire.names, wire.honest[half:]), (wire.names[:-1], wire.honest[:half])):
        confirmed = wire.confirm(wire.list_of(survivors), to, wire.helpers)
        answers, said = wire.ask_each(confirmed, to)
        given.append(wire.rows(answers, survivors))
        refusals += said
    return strip_what_was_revealed(wire, *given), refusals


@pytest.mark.parametrize(("members", "threshold", "helpers"), [(5, 3, 1), (7, 4, 1), (7, 4, 2), (4, 3, 1)])
def test_answers_to_two_lists_do_not_unmask_the_one_whom_they_disagree_on(tmp_path, members, threshold, helpers):
    """Attacker holds: the wire; of fewer than a third of the members everything, their signatures on both lists too.
    Saw: the victim's upload decrypted, a refusal of at least one half. Learnt: nothing; at most one kind of its shares.
    """
    got, refusals = show_two_lists(Wire(tmp_path, members, threshold=threshold, helpers=helpers))
    assert got < 0.001
    assert refusals
    assert {said.partition(":")[0] for said in refusals} == {"NotAuthentic"}


def test_with_one_helper_of_five_nobody_reveals_for_either_list(tmp_path):
    """Attacker as above. Saw: four refusals and not one share."""
    wire = Wire(tmp_path, 5, threshold=3)
    _, refusals = show_two_lists(wire)
    assert refusals == ["NotAuthentic: somebody confirmed another list of survivors"] * 4
    assert not wire.said["revealed-shares", 1]


@pytest.mark.parametrize("confirmations", [lambda plan: plan.threshold, lambda plan: 1])
@pytest.mark.parametrize(("members", "threshold", "helpers"), [(5, 3, 1), (7, 4, 1), (7, 4, 2)])
def test_with_a_threshold_of_confirmations_or_none_the_same_lists_give_both(
    monkeypatch, tmp_path, members, threshold, helpers, confirmations
):
    """Defence off: as many confirmations as the threshold (more than half) are enough, or one's own.
    Saw: shares of the victim's self seed from one half, of its mask seed from the other. Learnt: its whole update.
    """
    monkeypatch.setattr(TrainingPlan, "confirmations", property(confirmations))
    got, refusals = show_two_lists(Wire(tmp_path, members, threshold=threshold, helpers=helpers))
    assert got == 1.0
    assert refusals == []


# ---- both lists to everybody, one after the other


def switch_once_a_round_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: the machine takes a request of a round whenever it comes."""
    asked = machine._asked
    patch.setattr(machine, "_asked", lambda s, event: asked(replace(s, awaits=(event.request.kind,)), event))


def switch_forgetting_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: the desk keeps the shares that it has revealed."""
    reveal = InstitutionDesk._reveal_shares

    def keep(desk: InstitutionDesk, work: machine.RevealShares) -> str:
        pairs = desk._pairs
        answer = reveal(desk, work)
        desk._pairs = pairs
        return answer

    patch.setitem(_methods(), machine.RevealShares, keep)


def _methods() -> dict[type[machine.Work], Callable[..., object]]:
    from fl_alliance.parties import desk

    return desk._METHODS


def show_one_list_after_the_other(wire: Wire) -> float:
    """Everybody confirms and answers a list with the victim; then everybody else is shown one without it."""
    wire.start()
    wire.upload()
    first = wire.ask_all(wire.confirm(wire.list_of(wire.names), wire.honest, wire.helpers), wire.honest)
    rest = [name for name in wire.honest if name != wire.victim]
    given = [wire.rows(first, wire.names)]
    second = wire.ask_all(wire.confirm(wire.list_of(wire.names[:-1]), rest, wire.helpers), rest)
    return strip_what_was_revealed(wire, *given, wire.rows(second, wire.names[:-1]))


def test_second_list_comes_out_of_order(tmp_path):
    """Attacker holds: the wire, one member's everything. Saw: the first list's shares. Learnt: the sum, and no more."""
    with pytest.raises(Refused, match="OutOfOrder: survivor-list, while reveal-delivery is awaited"):
        show_one_list_after_the_other(Wire(tmp_path))


def test_second_list_finds_no_shares_even_where_the_machine_lets_it_pass(monkeypatch, tmp_path):
    """Defence off: the order of requests, and notes. Saw: a refusal: shares that were given are forgotten."""
    switch_once_a_round_off(monkeypatch)
    switch_notes_off(monkeypatch)
    with pytest.raises(Refused, match=r"SecretUnavailable: no share of site-00"):
        show_one_list_after_the_other(Wire(tmp_path))


def test_second_list_is_not_the_one_that_was_noted_even_where_the_machine_lets_it_pass(monkeypatch, tmp_path):
    """Defence off: the order of requests and the forgetting. Saw: a refusal of the desk, which noted the first list."""
    switch_once_a_round_off(monkeypatch)
    switch_forgetting_off(monkeypatch)
    with pytest.raises(Refused, match="OutOfOrder: another list of round 1 left this house before"):
        show_one_list_after_the_other(Wire(tmp_path))


def test_members_that_answer_two_lists_unmask_the_one_whom_they_disagree_on(monkeypatch, tmp_path):
    """Defence off: the order of requests, notes, and the forgetting. Learnt: the victim's update, exactly."""
    switch_once_a_round_off(monkeypatch)
    switch_notes_off(monkeypatch)
    switch_forgetting_off(monkeypatch)
    assert show_one_list_after_the_other(Wire(tmp_path)) == 1.0


# ---- a member that is declared dropped after its upload arrived


def declare_dropped(wire: Wire) -> tuple[float, float]:
    """Hide the victim's upload from the others, get its mask seed from them, and strip its upload with it.

    Returns: the p-value of what is left being uniform, and the share of its coordinates that is read.
    """
    wire.start()
    wire.upload()
    rest = [name for name in wire.honest if name != wire.victim]
    answers = wire.ask_all(wire.confirm(wire.list_of(wire.names[:-1]), rest, wire.helpers), rest)
    self_seed, mask_seed = wire.seeds_of(wire.victim, wire.rows(answers, wire.names[:-1]))
    assert self_seed is None
    assert mask_seed is not None
    left = strip(wire.decrypted(wire.victim), wire.victim, wire, mask_seed=mask_seed)
    got = share_read(read(left, wire.parameters, wire.dimension), wire.digits[wire.victim])
    return looks_uniform(left, wire.parameters.modulus_bits), got


def test_one_that_is_declared_dropped_after_its_upload_is_hidden_by_its_self_mask(tmp_path):
    """Attacker holds: the wire, the victim's upload, one member's everything. Saw: the mask seed of the victim, all of
    its pairwise masks, its upload decrypted. Learnt: uniform numbers; who "dropped out" gives no self seed away.
    """
    uniform, got = declare_dropped(Wire(tmp_path, 5, threshold=3))
    assert uniform > UNLIKELY
    assert got < 0.001


def test_without_self_masks_one_that_is_declared_dropped_is_read(monkeypatch, tmp_path):
    """Defence off: pairwise masks only, as in the paper's first, naive protocol. Learnt: the victim's whole update."""
    switch_masks_off(monkeypatch, "self-mask")
    uniform, got = declare_dropped(Wire(tmp_path, 5, threshold=3))
    assert uniform < UNLIKELY
    assert got == 1.0


def test_one_that_is_declared_dropped_never_confirms_a_list_without_itself(tmp_path):
    """The victim is shown the list too. Saw: its refusal, which ends the job there. It says that it did upload."""
    wire = Wire(tmp_path, 5, threshold=3)
    wire.start()
    wire.upload()
    with pytest.raises(Refused, match="NotAuthentic: the list does not hold my upload"):
        wire.ask(wire.victim, wire.list_of(wire.names[:-1]))
    assert isinstance(wire.institutions[wire.victim].state, machine.Over)
    assert not wire.said["survivors-confirmed", 1]
