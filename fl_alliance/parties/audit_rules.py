"""Steps 7 and 9 of the audit: charges, records and caps against one another. Every refusal is NotAuthentic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from fl_alliance.errors import NotAuthentic
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.events import evaluation_event_of, event_of, to_wire
from fl_alliance.privacy.ledger import Ledger, of_job, spent, year_before
from fl_alliance.protocol.documents import InstitutionPolicy, LedgerEntry, RoundRecord, ledger_genesis
from fl_alliance.protocol.evaluation import ended
from fl_alliance.protocol.plan import TrainingPlan


def require_same(named: Mapping[str, tuple[object, object]]) -> None:
    """Return if each pair is equal; NotAuthentic names the first that is not, what it is and what it must be."""
    for name, (said, right) in named.items():
        if said != right:
            raise NotAuthentic(f"{name} is {said}, must be {right}")


def charges_of(plan: TrainingPlan, plan_digest: str, ledger: Ledger) -> dict[str, LedgerEntry]:
    """Return this job's charges by envelope digest; each must be what the plan does in a round."""
    wire, scoring = to_wire(event_of(plan)), evaluation_event_of(plan)
    evaluation = None if scoring is None else to_wire(scoring)
    charges = {}
    for entry, digest in zip(ledger.entries, ledger.digests, strict=True):
        if (entry.alliance, entry.job) != (plan.alliance, plan.job):
            continue
        charges[digest] = entry
        for name, said, right in (
            ("plan_digest", entry.plan_digest, plan_digest),
            ("unit", entry.unit, plan.privacy.unit),
            ("delta", entry.delta, plan.privacy.delta),
            ("event", entry.event, wire),
            ("evaluation", entry.evaluation, evaluation),
        ):
            if said != right:
                raise NotAuthentic(f"entry {entry.sequence}: {name} is {said}, the plan's is {right}")
        if entry.round > plan.rounds:
            raise NotAuthentic(f"entry {entry.sequence}: charges round {entry.round}, the plan has {plan.rounds}")
    return charges


def check_record(record: RoundRecord, plan: TrainingPlan, plan_digest: str, number: int, previous: str | None) -> None:
    """The record is of this plan and round, follows the previous record, and holds enough uploads and votes."""
    require_same(
        {
            "alliance": (record.alliance, plan.alliance),
            "job": (record.job, plan.job),
            "round": (record.round, number),
            "plan_digest": (record.plan_digest, plan_digest),
            "previous_record": (record.previous_record, previous),
        }
    )
    if strangers := sorted(set(record.members) - set(plan.names)):
        raise NotAuthentic(f"members: {strangers[0]} is not a member of the job")
    if len(record.uploads) < plan.fewest:
        raise NotAuthentic(f"{len(record.uploads)} uploads, the plan sums {plan.fewest} at least")
    if len(record.votes) < plan.quorum:
        raise NotAuthentic(f"{len(record.votes)} votes, the quorum is {plan.quorum}")


def check_ending(plan: TrainingPlan, records: Sequence[RoundRecord]) -> None:
    """Rounds have scores if and only if the plan evaluates, and the job ended where they say, not elsewhere."""
    scores = [record.score for record in records]
    for record in records:
        if (record.score is None) != (plan.evaluation is None):
            raise NotAuthentic(f"round {record.round}: score is {record.score}, against the plan's evaluation")
    for count in range(1, len(scores) + 1):
        if ended(plan, scores[:count]) != (count == len(scores)):
            raise NotAuthentic(f"holds {len(scores)} rounds; by the plan and the scores the job did not end there")


def check_charged(record: RoundRecord, ledger: Ledger, charges: Mapping[str, LedgerEntry]) -> None:
    """The ledger head that the record names for the institution is the charge of this very round."""
    head = {head.member: head.head for head in record.ledger_heads}.get(ledger.institution)
    if head is None:
        raise NotAuthentic(f"{ledger.institution} has no upload in round {record.round}")
    if head not in charges:
        raise NotAuthentic(f"ledger head {head} of {ledger.institution} is no charge of this job")
    if charges[head].round != record.round:
        raise NotAuthentic(f"ledger head {head} charges round {charges[head].round}, must be round {record.round}")


def check_accepted(head: str, plan: TrainingPlan, ledger: Ledger) -> None:
    """The head with which the institution accepted the plan is one that its ledger had before the job was charged."""
    genesis = ledger_genesis(ledger.institution, ledger.dataset)
    for entry, before in zip(ledger.entries, (genesis, *ledger.digests), strict=False):
        if before == head:
            return
        if (entry.alliance, entry.job) == (plan.alliance, plan.job):
            break
    raise NotAuthentic(f"ledger_head {head} is no head that this ledger had before the job: it was replaced")


def charge_times(records: Sequence[RoundRecord], ledger: Ledger) -> tuple[int, ...]:
    """Return when the charge of each round was made, as the institution dates it; `check_charged` found each."""
    times = dict(zip(ledger.digests, (entry.time for entry in ledger.entries), strict=True))
    heads = ({head.member: head.head for head in record.ledger_heads}[ledger.institution] for record in records)
    return tuple(times[head] for head in heads)


def check_caps(plan: TrainingPlan, policy: InstitutionPolicy, ledger: Ledger) -> None:
    """Compare what is spent after the last entry with every cap (PLD, at the least delta of all entries)."""
    accountant, delta = PldAccountant(), min(Decimal(entry.delta) for entry in ledger.entries)
    job = of_job(ledger.entries, plan.alliance, plan.job)
    for name, cap, entries in (
        ("the plan's epsilon_cap", plan.privacy.epsilon_cap, job),
        ("epsilon_per_job", policy.epsilon_per_job, job),
        ("epsilon_per_year", policy.epsilon_per_year, year_before(ledger.entries, ledger.entries[-1].time)),
        ("epsilon_per_dataset", policy.epsilon_per_dataset, ledger.entries),
    ):
        total = spent(entries, accountant, delta)
        if total > Decimal(cap):
            raise NotAuthentic(f"{name} is {cap}, spent {total}")
