"""A plan waits for the persons who must approve it; it is refused only where a person or the policy says no."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.errors import ApprovalsMissing
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties import wiring
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.coordinator import Coordinator
from fl_alliance.parties.proposals import proposal_of, proposals_in
from fl_alliance.privacy import ledger
from fl_alliance.protocol.documents import Approver
from fl_alliance.rounds import coordinator as machine
from tests.parties.conftest import SITES, Alliance
from tests.parties.test_bad_input import new_policy

Build = Callable[..., Alliance]


class Clock:
    """Each look is so many seconds later."""

    def __init__(self, step: float = 1.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class House:
    """The clinic, where ann and ben must approve, and a coordinator that is heard."""

    def __init__(self, alliance: Alliance, keys: Path) -> None:
        self.alliance, self.keys = alliance, keys
        self.said: list[str] = []
        self.hears: Callable[[str], None] = lambda _: None
        for name in ("ann", "ben"):
            IdentityKey.generate().save(keys / f"{name}.key")
        self.policy()

    def policy(self, **changes: Any) -> None:
        keys = {name: IdentityKey.load(self.keys / f"{name}.key").keyid for name in ("ann", "ben")}
        approvers = tuple(Approver(name=name, key=key) for name, key in keys.items())
        new_policy(self.alliance, "clinic", approvers=approvers, approvals_needed=2, **changes)

    @property
    def home(self) -> Path:
        return self.alliance.home("clinic")

    def propose(self, **changes: Any) -> None:
        self.alliance.plan = self.alliance.plan.model_copy(update={"job": "job-2", **changes})
        wiring.propose(self.alliance.home("coordinator"), self.alliance.plan)

    def coordinator(self, clock: Callable[[], float]) -> Coordinator:
        coordinator = self.alliance.coordinator(ask_again=90.0, clock=clock)
        coordinator._tell = self.heard
        return coordinator

    def heard(self, line: str) -> None:
        self.said.append(line)
        self.hears(line)

    def approve(self, *people: str) -> None:
        plan = proposal_of(self.home / "proposals", self.alliance.plan.job).envelope
        for name in people:
            wiring.approve_plan(self.home, plan, person=name, key=self.keys / f"{name}.key")

    def stands(self) -> str:
        (plan,) = wiring.house_plans(self.home).all()
        return plan.state

    def waits(self) -> int:
        return self.said.count("clinic has not decided yet: persons there must approve the plan")

    def charged(self) -> list[str]:
        return [name for name in SITES if (self.alliance.home(name) / "ledger.jsonl").exists()]


@pytest.fixture
def house(build: Build, tmp_path: Path) -> House:
    return House(build(rounds=1), tmp_path)


def test_an_institution_takes_part_once_its_persons_have_approved_without_a_restart(house: House) -> None:
    """Ann reads the plan at the first look, ben at the second; at the third nobody is missing."""
    house.propose()
    seen: list[str] = []

    def read(line: str) -> None:
        if "not decided" in line:
            seen.append(house.stands())
            house.approve(*("ann", "ben")[: house.waits()])
            seen.append(house.stands())

    house.hears = read
    state = house.coordinator(Clock(30.0)).run()
    assert isinstance(state, machine.Finished), state
    assert [*seen, house.stands()] == ["waits", "waits", "waits", "approved", "accepted"]
    verify_evidence(house.alliance.job("clinic") / "evidence", root=None, say=lambda _: None)
    approvals = house.alliance.job("clinic") / "evidence" / "approvals"
    assert sorted(path.name for path in approvals.iterdir()) == ["ann.dsse.json", "ben.dsse.json"]


def test_nothing_runs_before_the_persons_have_approved_and_the_deadline_names_who_was_missing(house: House) -> None:
    house.propose(accept_seconds=7200, phase_seconds=60)
    house.hears = lambda _: house.approve("ann")
    clock = Clock(30.0)
    state = house.coordinator(clock).run()
    assert isinstance(state, machine.Aborted)
    assert state.reason == "no acceptance from clinic in round 0 before the deadline"
    assert clock.now > 7200, "the other phases' minute is not this phase's"
    assert house.waits() > 3
    assert house.charged() == []
    assert not any((house.alliance.job(name) / "evidence" / "keys").exists() for name in SITES)


def test_a_plan_that_was_declined_is_refused_with_the_reason_and_approvals_don_t_change_it(house: House) -> None:
    house.propose()

    def read(line: str) -> None:
        if "not decided" in line:
            wiring.house_plans(house.home).decline("job-2", "the ethics board said no")
            house.approve("ann", "ben")

    house.hears = read
    state = house.coordinator(Clock(30.0)).run()
    assert isinstance(state, machine.Aborted)
    assert state.reason == "clinic refused: PlanDeclined: the ethics board said no"
    assert house.stands() == "declined"
    assert house.charged() == []


def proposed(house: House) -> Coordinator:
    """Propose the plan, and let the clinic see it once."""
    house.propose()
    coordinator = house.coordinator(Clock())
    coordinator._run_effects(machine.outstanding(coordinator.state))
    for reply in coordinator._link.replies(timeout=0.0):
        coordinator._take(reply)
    return coordinator


def test_declining_one_plan_does_not_decline_another_one_under_its_name(house: House) -> None:
    proposed(house)
    proposal = proposal_of(house.home / "proposals", "job-2")
    proposal.decline("too many rounds")
    assert proposal.declined == "too many rounds"
    other = house.alliance.plan.model_copy(update={"job": "job-3"})
    plan = wiring.propose(house.alliance.home("coordinator"), other)
    (proposal.folder / "plan.dsse.json").write_bytes(plan.read_bytes())
    assert proposal_of(house.home / "proposals", "job-2").declined is None


def test_what_was_proposed_is_kept_as_it_was_signed(house: House) -> None:
    proposed(house)
    signed = (house.alliance.home("coordinator") / "jobs/job-2/plan.dsse.json").read_bytes()
    for name in SITES:
        (kept,) = proposals_in(house.alliance.home(name) / "proposals")
        assert (kept.envelope, kept.plan) == (signed, house.alliance.plan)


def test_a_budget_that_is_spent_is_refused_at_once_whoever_has_still_to_approve(house: House) -> None:
    house.policy(epsilon_per_job="0.01")
    house.propose()
    state = house.coordinator(Clock()).run()
    assert isinstance(state, machine.Aborted)
    assert state.reason.startswith("clinic refused: BudgetExceeded: ")
    assert house.waits() == 0


def test_to_be_asked_again_while_persons_are_awaited_costs_no_accountant(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = proposed(house)
    (ask,) = (e for e in machine.outstanding(coordinator.state) if isinstance(e, machine.Ask) and e.member == "clinic")
    request, asked = coordinator._request(ask), []
    monkeypatch.setattr(ledger, "spent", lambda *_: asked.append(1))
    for _ in range(3):
        with pytest.raises(ApprovalsMissing, match="has 0, not yet of ann, ben"):
            house.alliance.handlers["clinic"](request)
    assert asked == []
    assert not (house.alliance.job("clinic") / "evidence").exists(), "nothing is begun, so the name is not burnt"
