"""A proposed plan in plain words, for the persons who approve it: what is done, what it promises, what it costs.

Every number comes from where the decision takes it from: caps from the ledger's own check (`ledger.loads_of`), epsilon
from the report's costs (`report.costs_of`), as they will be once every round was charged.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Any

from fl_alliance.errors import AllianceError
from fl_alliance.privacy.accountant import Accountant, PldAccountant, RdpAccountant
from fl_alliance.privacy.ledger import (
    Ledger,
    charges_to_come,
    check_partners,
    check_plan,
    loads_of,
    unopened_entry,
)
from fl_alliance.privacy.report import costs_of, guarantee_of, shared_noise
from fl_alliance.protocol.documents import AllianceMembers, InstitutionPolicy, LedgerEntry, model_digest
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan

CAPS = {
    "the plan's epsilon_cap": "what the plan itself allows",
    "epsilon_per_job": "this job",
    "epsilon_per_year": "any 365 days",
    "epsilon_per_dataset": "data set, all jobs for ever",
}
"""What each cap is on, for people."""


@dataclass(frozen=True)
class CapFacts:
    """One cap, in epsilon: what was spent of it, what will be after the job, what is left then (below 0: forbidden)."""

    name: str
    cap: str
    spent: str
    after: str
    left: str


@dataclass(frozen=True)
class PlanFacts:
    """What a person must know of a plan. Numbers are decimal text; nothing in it depends on a record."""

    alliance: str
    job: str
    plan_digest: str
    dataset: str
    unit: str
    members: tuple[str, ...]
    fewest: int
    """Of the members, whose updates are in a sum."""
    rounds: int
    base_model: str
    """`model_digest`."""
    adapter: str
    guarantee: str
    """In a sentence."""
    guess: str
    """In a sentence: what the guarantee leaves to somebody who guesses."""
    assumption: str
    """What the guarantee rests on beside this institution's own noise."""
    evaluation: str
    delta: str
    epsilon_pld: str
    epsilon_rdp: str
    dataset_epsilon_pld: str
    dataset_epsilon_rdp: str
    caps: tuple[CapFacts, ...]
    forbidden: str
    """What policy, budget or partners say against it; empty: nothing."""
    approvals_needed: int
    approved: tuple[str, ...]
    may_approve: tuple[str, ...]
    """Persons of the policy who have not."""

    def json(self) -> dict[str, Any]:
        """Return the same for machines."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the same for people, a sentence or a number a line."""
        return [
            f"job {self.job} of alliance {self.alliance}, plan {self.plan_digest}",
            *(f"  {head:<11}{text}" for head, text in self._sentences() if text),
        ]

    def _sentences(self) -> list[tuple[str, str]]:
        numbers = f"epsilon {self.epsilon_pld} (PLD; {self.epsilon_rdp} by RDP) at delta {self.delta}"
        return [
            ("what", f"{self.adapter}, on data set {self.dataset}, in at most {self.rounds} rounds"),
            ("base", f"model {self.base_model}"),
            ("with", f"{', '.join(self.members)}; only sums of {self.fewest} or more updates are ever opened"),
            ("promise", self.guarantee[:1].upper() + self.guarantee[1:]),
            ("", self.guess),
            ("noise", self.assumption),
            ("scores", self.evaluation),
            ("cost", f"{numbers} for each {self.unit}; with all earlier jobs {self.dataset_epsilon_pld}"),
            *(
                ("budget", f"{CAPS[c.name]}: {c.spent} of {c.cap} spent, {c.after} after it, {c.left} left")
                for c in self.caps
            ),
            ("forbidden", self.forbidden),
            ("approval", self._approval()),
        ]

    @property
    def approvals_missing(self) -> int:
        """How many persons have still to approve."""
        return max(0, self.approvals_needed - len(self.approved))

    def _approval(self) -> str:
        if not self.approvals_needed:
            return "none is needed: the policy decides alone"
        missing = self.approvals_missing
        said = f"needs {self.approvals_needed}; approved by {', '.join(self.approved) or 'nobody yet'}"
        return f"{said}; {missing} missing, of {', '.join(self.may_approve)}" if missing else said


def facts_of(
    plan: TrainingPlan,
    plan_digest: str,
    ledger: Ledger,
    policy: InstitutionPolicy,
    members: AllianceMembers | None,
    *,
    approved: Collection[str],
    now: int,
    pld: Accountant | None = None,
    rdp: Accountant | None = None,
) -> PlanFacts:
    """Return the facts of a plan that was proposed and not begun.

    Args:
        plan: of the job.
        plan_digest: of the plan's envelope.
        ledger: of the policy's data set.
        policy: of the institution.
        members: that came with the plan; None: whose keys the partners have is not looked at.
        approved: persons whose approvals count.
        now: Unix seconds; the year's cap looks back from here.
        pld: the accountant of the caps; it and `rdp` are for tests.
        rdp: the looser accountant.
    """
    tight = pld or PldAccountant()
    proposed = unopened_entry(ledger, plan, plan_digest=plan_digest, now=now)
    to_come = charges_to_come(ledger.entries, proposed, plan)
    after = (*ledger.entries, *to_come)
    delta = Decimal(plan.privacy.delta)
    costs = costs_of(after, alliance=plan.alliance, job=plan.job, delta=delta, pld=tight, rdp=rdp or RdpAccountant())
    loads = loads_of(ledger.entries, to_come, policy, Decimal(plan.privacy.epsilon_cap)) if to_come else ()
    return PlanFacts(
        alliance=plan.alliance,
        job=plan.job,
        plan_digest=plan_digest,
        dataset=ledger.dataset,
        unit=plan.privacy.unit,
        members=plan.names,
        fewest=plan.fewest,
        rounds=plan.rounds,
        base_model=model_digest(plan.model),
        adapter=_adapter(plan),
        guarantee=guarantee_of(plan, ledger.dataset, costs),
        guess=_guess(plan, costs.job_pld),
        assumption=_assumption(plan),
        evaluation=_evaluation(plan),
        delta=plan.privacy.delta,
        epsilon_pld=decimal_text(costs.job_pld),
        epsilon_rdp=decimal_text(costs.job_rdp),
        dataset_epsilon_pld=decimal_text(costs.dataset_pld),
        dataset_epsilon_rdp=decimal_text(costs.dataset_rdp),
        caps=tuple(_cap(load.name, load.cap, load.already(tight), load.would_be(tight)) for load in loads),
        forbidden=_forbidden(plan, proposed, ledger, policy, members, tight),
        approvals_needed=policy.approvals_needed,
        approved=tuple(sorted(approved)),
        may_approve=tuple(a.name for a in policy.approvers if a.name not in approved),
    )


def _cap(name: str, cap: Decimal, already: Decimal, after: Decimal) -> CapFacts:
    left = cap - after
    return CapFacts(name, decimal_text(cap), decimal_text(already), decimal_text(after), f"{left.normalize():f}")


def _forbidden(
    plan: TrainingPlan,
    proposed: LedgerEntry,
    ledger: Ledger,
    policy: InstitutionPolicy,
    members: AllianceMembers | None,
    accountant: Accountant,
) -> str:
    """Return what the institution's process would refuse the plan with; it looks at heads and the data file too."""
    try:
        if members is not None:
            check_partners(plan, policy, members)
        check_plan(ledger.entries, proposed, plan, policy, accountant)
    except AllianceError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _adapter(plan: TrainingPlan) -> str:
    where = "all members and the coordinator" if plan.release_to_coordinator else "all members"
    targets = ", ".join(plan.adapter.targets)
    return f"an adapter ({plan.adapter.method}, rank {plan.adapter.rank}, on {targets}) is trained and given to {where}"


def chance_to_guess(epsilon: Decimal, delta: Decimal) -> Decimal:
    """Return the most that a guess with even odds can be right, (e^epsilon + delta) / (e^epsilon + 1), rounded up.

    Kairouz, Oh and Viswanath 2015, theorem 2.1: of the two errors of any test, epsilon and delta bound the sum.
    """
    if epsilon > 100:  # no chance is left to tell, and the exponential may not fit
        return Decimal(1)
    with localcontext(prec=50, rounding=ROUND_CEILING):
        odds = epsilon.exp()
        return min(Decimal(1), ((odds + delta) / (odds + 1)).quantize(Decimal("0.0001")))


def _guess(plan: TrainingPlan, epsilon: Decimal) -> str:
    percent = 100 * chance_to_guess(epsilon, Decimal(plan.privacy.delta))
    return (
        f"Who knows everything else and guesses with even odds whether one {plan.privacy.unit} was in it is right in "
        f"at most {percent.normalize():f} of 100 cases (50 without the job)."
    )


def _assumption(plan: TrainingPlan) -> str:
    if plan.privacy.noise == "distributed":
        return shared_noise(plan)
    return "this institution adds all of it itself: the promise holds whatever the others or the coordinator do."


def _evaluation(plan: TrainingPlan) -> str:
    if plan.evaluation is None:
        return ""
    return (
        f"about {plan.evaluation.heldout} of the {plan.privacy.unit}s are held out; their noised scores are summed "
        f"each round, which is in the cost."
    )
