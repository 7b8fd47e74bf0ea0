"""A round that is run again with fewer members, and an upload of one round in the list of the next, from machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_alliance.parties import desk as desks
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import digest_of
from fl_alliance.rounds import institution as machine
from fl_alliance.secagg import masks
from tests.attacks.alliance import Digits, switch_context_off
from tests.attacks.wire import Refused, Wire, switch_notes_off

# ---- differencing: the sum of all minus the sum of all but one


def switch_once_a_round_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: the machine takes a request of any round whenever it comes, and begins a round as often as it is asked."""
    asked = machine._asked

    def whenever(state: machine.Waiting, event: machine.Asked) -> machine.Transition:
        request, seat = event.request, state.seat
        if isinstance(request, m.RoundOpening):
            seat = replace(seat, round=request.round - 1, previous_record=request.previous_record)
        return asked(replace(state, seat=seat, awaits=(request.kind,)), event)

    patch.setattr(machine, "_asked", whenever)


def run_again_without_the_victim(wire: Wire, *, until: str) -> tuple[Digits, Digits]:
    """Run a round up to a phase or its opening, then again for all but the victim; open what is open to helpers.

    The second opening names a record that never was: the same request would get the stored reply.
    """
    wire.start()
    wire.upload()
    if until == "votes":
        wire.open(wire.list_of(wire.names), wire.names)
    first = wire.opened_by_helper(len(wire.names)) if until == "votes" else np.zeros(wire.dimension, np.uint64)
    rest = wire.names[:-1]
    wire.upload(1, rest, previous=digest_of(b"no record"))
    wire.open(wire.list_of(rest), rest)
    return first, wire.opened_by_helper(len(rest))


@pytest.mark.parametrize("until", ["uploads", "votes"])
def test_round_is_not_run_again_with_a_smaller_roster(tmp_path, until):
    """Attacker holds: the wire, one member's everything, the sum of five once it is opened.
    Saw: a refusal of the second opening. Learnt: the sum of five. (The ledger, left out here, would refuse too.)
    """
    wire = Wire(tmp_path)
    with pytest.raises(Refused, match=r"OutOfOrder: round-opening, while (survivor-list|release) is awaited"):
        run_again_without_the_victim(wire, until=until)
    assert len(wire.desks["site-00"].trainer.means) == (until == "votes")


def test_where_a_round_may_be_run_again_two_sums_subtract_to_one_update(monkeypatch, tmp_path):
    """Defence off: one run of a round, and notes of what left; nor is there a ledger, and the update is the same.
    Saw: two honest, checked, opened sums. Learnt: the victim's update, exactly.
    """
    switch_once_a_round_off(monkeypatch)
    switch_notes_off(monkeypatch)
    wire = Wire(tmp_path)
    five, four = run_again_without_the_victim(wire, until="votes")
    assert (five - four == wire.digits[wire.victim]).all()


@pytest.mark.parametrize("members", [4, 5])
def test_second_roster_for_the_same_round_keys_is_refused(tmp_path, members):
    """Attacker skips the opening and shows another roster, shorter or only in another order.
    Saw: a refusal; nothing is dealt, masked or sent again.
    """
    wire = Wire(tmp_path)
    wire.start()
    wire.upload()
    keys = wire.said["round-keys", 1]
    other = m.KeyRoster(**wire.bound, round_keys=tuple(keys[name] for name in reversed(wire.names[:members])))
    with pytest.raises(Refused, match="OutOfOrder: key-roster, while survivor-list is awaited"):
        wire.ask("site-00", other)


def test_job_of_the_same_name_is_not_begun_again_with_fewer_members(tmp_path):
    """Attacker ends the job after the uploads and proposes its name again, for four. Saw: a refusal each."""
    wire, smaller = Wire(tmp_path), Wire(tmp_path / "other", 4)
    wire.start()
    wire.upload()
    wire.ask_all(m.Abort(**wire.bound, reason="let us try again"))
    wire.round, wire.plan, wire.plan_envelope = 0, smaller.plan, wire.signed(smaller.plan)
    answers, refusals = wire.ask_each(wire.proposal(), wire.names)
    assert answers == {}
    assert {said.partition(":")[0] for said in refusals} == {"OutOfOrder"}
    assert "job job-1 has already been here" in refusals[0]


# ---- an upload of round 1 in the list of round 2


def switch_binding_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: the machine takes signed answers of any round, roster and list of dealers."""

    def within(
        seat: machine.Seat, event: machine.Asked, kind: type[Any], allowed: Collection[str], fewest: int
    ) -> Mapping[str, Any] | None:
        answers = machine._of(event, kind)
        return answers if set(answers) <= set(allowed) and len(answers) >= fewest else None

    patch.setattr(machine, "_within", within)
    patch.setattr(machine, "_odd", lambda seen, expected: False)


def switch_new_secrets_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: a member takes its secrets of round 1 in round 2 too, and keys of masks do not depend on the round."""
    switch_context_off(patch)
    kept: dict[str, masks.RoundSecrets] = {}

    def again(desk: desks.InstitutionDesk, work: machine.MakeRoundKeys) -> tuple[str, str]:
        desk._secrets = kept.setdefault(desk._name, masks.RoundSecrets.generate())
        public = desk._secrets.public
        return desks._text(public.mask), desks._text(public.channel)

    patch.setitem(desks._METHODS, machine.MakeRoundKeys, again)


def replay_in_round_two(wire: Wire) -> tuple[Digits, Digits]:
    """Put the victim's upload of round 1 into the sum of round 2. Return what opens, and what the replay would make."""
    wire.start()
    wire.upload()
    previous = wire.release(wire.open(wire.list_of(wire.names), wire.names))
    old, envelope = wire.digits[wire.victim], wire.said["sealed-update", 1][wire.victim]
    wire.train(np.roll(list(wire.digits.values()), 7, axis=1))
    wire.upload(2, previous=previous)
    rest = wire.names[:-1]
    wire.open(wire.list_of(wire.names, **{wire.victim: envelope}), rest)
    return wire.opened_by_helper(len(wire.names)), old + wire.sum_in(rest)


def test_replayed_upload_is_refused_by_the_machine(tmp_path):
    """Attacker holds: the wire, all stored uploads and their signatures. Saw: a refusal of the list, and no share."""
    wire = Wire(tmp_path)
    with pytest.raises(Refused, match="NotAuthentic: the list does not hold my upload and 3 dealers' in all"):
        replay_in_round_two(wire)
    assert not wire.said["survivors-confirmed", 2]


def test_replayed_upload_that_the_machine_lets_pass_does_not_open(monkeypatch, tmp_path):
    """Defence off: the machine's binding of uploads to the round. Saw: the refusal of the opening: masks are left."""
    switch_binding_off(monkeypatch)
    with pytest.raises(Refused, match=r"OutOfRange: .* not as a sum of 5 updates leaves them"):
        replay_in_round_two(Wire(tmp_path))


def test_without_binding_and_new_secrets_a_replayed_upload_counts_again(monkeypatch, tmp_path):
    """Defence off: that binding, new secrets each round, the round in the keys. Learnt: the old update is summed."""
    switch_binding_off(monkeypatch)
    switch_new_secrets_off(monkeypatch)
    opened, expected = replay_in_round_two(Wire(tmp_path))
    assert (opened == expected).all()
