"""A coordinator that states a crafted sum, end to end: what its institutions do, and what that says about the key.

The attack is the one of `test_crafted_sum`: a genuine sum, moved to the edge of a rounding cell, plus a multiple of one
coefficient of the key. Here the answer is whether a job went on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.parties import desk as desks
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.rounds import institution as machine
from fl_alliance.secagg.worker import CipherWorker
from tests.attacks import lattice
from tests.attacks.test_crafted_sum import ask
from tests.attacks.wire import Refused, Wire, relay

ROUNDS = 60
"""A coefficient is 1 in a third of all cases: 60 in a row are not, once in 10^10 jobs."""


def small_job(folder: Path, members: int = 3, **plan: Any) -> Wire:
    return Wire(folder, members, helpers=0, dimension=100, rounds=ROUNDS, **plan)


def press(wire: Wire, total: bytes) -> tuple[dict[str, str], list[str]]:
    """Take the round from a list with this sum to the votes, whatever anybody says; return votes and refusals."""
    shown = wire.list_of(wire.names, total)
    revealed = wire.ask_all(wire.confirm(shown, wire.names))
    request = m.RevealDelivery(**wire.bound, revealed_shares=relay(revealed))
    checks, refusals = wire.ask_each(request, wire.names)
    # where nobody checked, what was said before must do: an empty list is no message
    more = m.SumChecks(**wire.bound, sum_checked=relay(checks) or relay(revealed))
    votes, last = wire.ask_each(more, wire.names)
    return votes, refusals + last


def ask_the_job(wire: Wire) -> list[bool]:
    """Ask in each round whether one more coefficient of the key is 1, until the job ends; return the answers."""
    answers: list[bool] = []
    wire.start()
    while len(answers) < ROUNDS and True not in answers:
        wire.upload(len(answers) + 1, previous=wire.previous)
        genuine = wire.sum_of(wire.said["sealed-update", wire.round].values())

        def accepts(total: bytes) -> bool:
            votes, refusals = press(wire, total)
            if not refusals:
                wire.release(votes)
            return not refusals

        answers.append(not ask(wire, genuine, len(answers), 1, accepts))
    return answers


def watch(patch: pytest.MonkeyPatch, name: str) -> list[object]:
    """Hook: note each call of a method of the cipher."""
    calls: list[object] = []
    method: Callable[..., Any] = getattr(CipherWorker, name)
    patch.setattr(CipherWorker, name, lambda *args, **more: (calls.append(1), method(*args, **more))[1])
    return calls


@pytest.mark.parametrize(("members", "verifiers"), [(3, None), (3, 1), (5, 1), (5, 5)])
def test_crafted_sum_ends_the_job_before_anything_is_opened(monkeypatch, tmp_path, members, verifiers):
    """Attacker holds: the wire, no key. Saw: refusals, the same whatever the key is. Learnt: nothing.

    Whoever was drawn finds other bytes and is out of the job. Whoever was not (three of five, as many as the threshold)
    gets no check of those who were.
    """
    wire = small_job(tmp_path, members, sum={"verifiers": verifiers})
    opened = watch(monkeypatch, "open_sum")
    assert ask_the_job(wire) == [True]
    assert opened == []
    assert not wire.said["adapter-vote", 1]
    assert all(isinstance(there.state, machine.Over) for there in wire.institutions.values())


def test_refusals_name_the_sum(tmp_path):
    """The one changed bit of `test_crafted_sum`, and a sum of other uploads, as members answer to them."""
    wire = small_job(tmp_path)
    wire.start()
    wire.upload()
    total = wire.sum_of([wire.said["sealed-update", 1][name] for name in ("site-00", "site-01", "site-01")])
    votes, refusals = press(wire, total)
    assert votes == {}
    assert [said.partition(",")[0] for said in refusals[:3]] == [refusals[0].partition(",")[0]] * 3
    assert refusals[0].startswith("SumRefused: the uploads add up to sha256:")


def test_opening_is_not_reached_by_leaving_the_check_out(monkeypatch, tmp_path):
    """Attacker asks for the opening right after the shares. Saw: a refusal."""
    wire = small_job(tmp_path)
    opened = watch(monkeypatch, "open_sum")
    wire.start()
    wire.upload()
    revealed = wire.ask_all(wire.confirm(wire.list_of(wire.names), wire.names))
    with pytest.raises(Refused, match="OutOfOrder: sum-checks, while reveal-delivery is awaited"):
        wire.ask("site-00", m.SumChecks(**wire.bound, sum_checked=relay(revealed)))
    assert opened == []


def switch_adding_again_off(patch: pytest.MonkeyPatch, wire: Wire) -> None:
    """Hook: members believe the sum that the coordinator states, and open that."""

    def believe(desk: desks.InstitutionDesk, work: machine.AddAgain) -> BlobRef:
        return wire.stated

    patch.setitem(desks._METHODS, machine.AddAgain, believe)


def test_without_adding_again_each_round_tells_about_the_key(monkeypatch, tmp_path):
    """Defence off: adding again; the checks of range are on. Attacker holds: the wire, no key, no opened number.
    Saw: after each round whether the job goes on. Learnt: of one coefficient of the key after another whether it is 1.
    """
    wire = small_job(tmp_path)
    switch_adding_again_off(monkeypatch, wire)
    answers = ask_the_job(wire)
    assert wire.alliance_key is not None
    truth = lattice.key_from_bytes(wire.alliance_key.to_bytes(), wire.parameters)
    assert answers == [int(coefficient) == 1 for coefficient in truth[: len(answers)]]
    assert answers[-1]
