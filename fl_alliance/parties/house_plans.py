"""The proposed plans of an institution as its own persons see them: where each stands, and its facts in plain words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fl_alliance.errors import OutOfOrder
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.approvals import approvals_found
from fl_alliance.parties.files import read_file
from fl_alliance.parties.proposals import Proposal, check_reason, proposal_of, proposals_in
from fl_alliance.privacy.ledger import Ledger
from fl_alliance.privacy.plain_words import PlanFacts, facts_of
from fl_alliance.protocol.documents import AllianceMembers, InstitutionPolicy
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan

State = Literal["waits", "approved", "accepted", "declined"]


@dataclass(frozen=True)
class HousePlan:
    """A proposed plan: `waits` for persons, `approved` and answered at the next question, `accepted`, or `declined`."""

    job: str
    state: State
    reason: str = ""
    """Why it was declined."""
    facts: PlanFacts | None = None
    """Of a plan that is not over: what was accepted or declined costs nothing more."""

    def json(self) -> dict[str, Any]:
        """Return the same for machines."""
        facts = None if self.facts is None else self.facts.json()
        return {"job": self.job, "state": self.state, "reason": self.reason, "facts": facts}

    def lines(self) -> list[str]:
        """Return the same for people."""
        head = f"{self.job}: {self.state}" + (f": {self.reason}" if self.reason else "")
        return [head, *(self.facts.lines() if self.facts else [])]


class HousePlans:
    """Reads and decides about what lies in an institution's folder; the institution's process may run meanwhile."""

    def __init__(
        self, home: Path, policy: InstitutionPolicy, ledger: Ledger, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._home, self._policy, self._ledger, self._clock = home, policy, ledger, clock

    def all(self) -> list[HousePlan]:
        """Return every plan that was proposed, by job."""
        return [self._seen(proposal) for proposal in proposals_in(self._home / "proposals")]

    def one(self, job: str) -> tuple[Proposal, HousePlan]:
        """Return the plan of one job (BadConfig: none was proposed)."""
        proposal = proposal_of(self._home / "proposals", job)
        return proposal, self._seen(proposal)

    def to_approve(self, plan: str) -> tuple[bytes, PlanFacts]:
        """Return the signed plan that `plan` names, a proposed job or a file, and its facts.

        Raises:
            BadConfig: it is neither.
            OutOfOrder: it was accepted or declined.
        """
        if Path(plan).is_file():
            envelope = read_file(Path(plan), "signed plan")
            return envelope, self.facts(envelope, None)
        proposal, seen = self.one(plan)
        if seen.facts is None:
            raise OutOfOrder(f"job {plan}: the plan was {seen.state} already")
        return proposal.envelope, seen.facts

    def decline(self, job: str, reason: str) -> None:
        """Note that the institution declines; the coordinator gets a signed refusal when it asks.

        Raises:
            BadConfig: none was proposed under this name, or the reason can't be told.
            OutOfOrder: the plan was accepted already.
        """
        check_reason(reason)
        proposal, seen = self.one(job)
        if seen.state == "accepted":
            raise OutOfOrder(f"job {job}: the plan was accepted already; stop the institution to leave the job")
        proposal.decline(reason)

    def facts(self, envelope: bytes, members: AllianceMembers | None) -> PlanFacts:
        """Return the facts of any signed plan; without the list of members its partners are not looked at."""
        plan = peek_document(envelope, TrainingPlan)
        digest = digest_of(envelope)
        return facts_of(
            plan,
            digest,
            self._ledger,
            self._policy,
            members,
            approved=approvals_found(self._home / "approvals", digest, self._policy),
            now=int(self._clock()),
        )

    def _seen(self, proposal: Proposal) -> HousePlan:
        job = proposal.plan.job
        if self._accepted(proposal):
            return HousePlan(job, "accepted")
        if (reason := proposal.declined) is not None:
            return HousePlan(job, "declined", reason)
        facts = self.facts(proposal.envelope, proposal.people)
        return HousePlan(job, "approved" if facts.approvals_missing == 0 else "waits", facts=facts)

    def _accepted(self, proposal: Proposal) -> bool:
        """Whether the job was begun with this very plan."""
        begun = self._home / "jobs" / proposal.plan.job / "evidence" / "plan.dsse.json"
        return begun.exists() and begun.read_bytes() == proposal.envelope
