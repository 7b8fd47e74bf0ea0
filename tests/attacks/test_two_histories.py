"""A coordinator that shows two members of one job two logs: they find out from one another, before anybody charges."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from fl_alliance.evidence.log import members_entry, plan_entry
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.protocol import messages as m
from tests.attacks.wire import Refused, Wire, relay


def two_logs(wire: Wire, folder: Path) -> m.Proposal:
    """Return a proposal whose log is another than that of `wire.proposal()`, as long and as well signed."""
    other = CoordinatorLog(
        folder / "other-log", alliance=wire.plan.alliance, identity=wire.identities["coordinator"], blobs=wire.blobs,
        clock=lambda: 0,
    )  # fmt: skip
    other.add(plan_entry(wire.plan.job, wire.plan_envelope), members_entry(wire.members_envelope))
    shown = base64.b64encode(other.checkpoint()).decode()
    return wire.proposal().model_copy(update={"checkpoint": shown})


def accept(wire: Wire, folder: Path, *, two: bool) -> None:
    forked = two_logs(wire, folder)
    for name in wire.names:
        wire.ask(name, forked if two and name == wire.victim else wire.proposal())
    wrapped = wire.ask(wire.names[0], m.KeyRequest(**wire.bound, acceptances=relay(wire.said["acceptance", 0])))
    wire.ask_all(wire.key_delivery(wrapped))


def test_two_histories_for_two_members_of_one_job_end_it_before_a_charge(tmp_path: Path) -> None:
    wire = Wire(tmp_path, 3)
    accept(wire, tmp_path, two=True)
    wire.round = 1
    keys = wire.ask_all(m.RoundOpening(**wire.bound, previous_record=None))
    roster = m.KeyRoster(**wire.bound, round_keys=relay(keys))
    for name in wire.names:
        others = wire.victim if name != wire.victim else ", ".join(wire.names[:-1])
        with pytest.raises(Refused, match=rf"^LogForked: another log than mine was shown to {others}$"):
            wire.ask(name, roster)


def test_with_one_log_the_same_members_go_on(tmp_path: Path) -> None:
    wire = Wire(tmp_path, 3)
    accept(wire, tmp_path, two=False)
    wire.upload()
    assert len(wire.said["sealed-update", 1]) == 3


def test_a_record_that_is_not_in_the_log_is_kept_by_nobody(tmp_path: Path) -> None:
    wire = Wire(tmp_path, 3)
    wire.start()
    wire.upload()
    votes = wire.open(wire.list_of(wire.names), wire.names)
    wire.log.add = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(Refused, match=r"^NotInLog: the log of 2 entries lacks the round-record of job"):
        wire.release(votes)
