"""The numbers of a report, each from the ledger, the plan or the records; nothing here is words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from fl_alliance.privacy.accountant import Accountant, PldAccountant, RdpAccountant
from fl_alliance.privacy.ledger import Ledger, events_of, of_job, spent, year_before
from fl_alliance.privacy.report import Costs, Gauge, costs_of, gauges_of
from fl_alliance.privacy.reporting.empirical import Empirical
from fl_alliance.privacy.trade_off import TradeOff, trade_off_of
from fl_alliance.protocol.documents import InstitutionPolicy, LedgerEntry, PrivacyReport, RoundRecord
from fl_alliance.protocol.plan import TrainingPlan

TIGHT_JOBS = 8
"""For so many last jobs the data set's epsilon is computed by PLD too, which may take long."""

SAMPLES = 200
"""Most charges that the curve over time goes through; the first and the last are among them."""


@dataclass(frozen=True)
class RefusedPlan:
    """A plan that an institution would not take part in, as its signed answer says."""

    institution: str
    job: str
    error: str
    """Kind of the refusal, as `errors` names it."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a report is made of. Whoever hands it over has verified all of it."""

    report: PrivacyReport
    report_digest: str
    """Of the signed report's envelope: what every printed report names as its origin."""
    ledger: Ledger
    policy: InstitutionPolicy
    plan: TrainingPlan
    records: tuple[RoundRecord, ...] = ()
    """Of the job's rounds, in order."""
    approved: tuple[str, ...] = ()
    """Persons of the institution who signed an approval of the plan."""
    empirical: Empirical | None = None
    """What an audit with canaries found, if there was one."""
    refused: tuple[RefusedPlan, ...] | None = None
    """Plans that the institution kept as refused; None: the evidence is of a kind that holds none."""


@dataclass(frozen=True)
class JobFacts:
    """One job on the data set."""

    alliance: str
    job: str
    first: int
    """Time of its first charge, Unix seconds."""
    last: int
    charges: int
    alone: Decimal
    """Epsilon of the job (RDP)."""
    after: Decimal
    """Of everything up to its last charge (RDP)."""
    after_tight: Decimal | None
    """The same (PLD); None for jobs before the last `TIGHT_JOBS`."""


@dataclass(frozen=True)
class Moment:
    """What was spent when a charge had been written (RDP)."""

    time: int
    dataset: Decimal
    year: Decimal
    """Of the 365 days before."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a report says in numbers."""

    sources: Sources
    costs: Costs
    gauges: tuple[Gauge, ...]
    caps_delta: Decimal
    """At which caps are compared."""
    trade_off: TradeOff | None
    jobs: tuple[JobFacts, ...]
    moments: tuple[Moment, ...]
    charges: tuple[tuple[LedgerEntry, Decimal], ...]
    """Of the job, each with the job's epsilon up to it (RDP)."""


def facts_of(sources: Sources) -> Facts:
    """Return the facts; epsilon is recomputed from the ledger and not read from the signed report.

    Raises:
        BadPlan: an accountant finds no finite epsilon.
    """
    report, entries = sources.report, sources.ledger.entries
    delta = Decimal(report.delta)
    mine = of_job(entries, report.alliance, report.job)
    return Facts(
        sources=sources,
        costs=costs_of(entries, alliance=report.alliance, job=report.job, delta=delta),
        gauges=gauges_of(sources.ledger, report, sources.policy),
        caps_delta=min(Decimal(entry.delta) for entry in entries),
        trade_off=trade_off_of(events_of(mine), delta),
        jobs=_jobs(entries, delta),
        moments=moments_of(entries, delta),
        charges=tuple((entry, spent(mine[: n + 1], RdpAccountant(), delta)) for n, entry in enumerate(mine)),
    )


def _jobs(entries: Sequence[LedgerEntry], delta: Decimal) -> tuple[JobFacts, ...]:
    last = {(entry.alliance, entry.job): place for place, entry in enumerate(entries)}
    ends = sorted(last.items(), key=lambda end: end[1])
    return tuple(
        _job(entries, name, place, delta, PldAccountant() if len(ends) - n <= TIGHT_JOBS else None)
        for n, (name, place) in enumerate(ends)
    )


def _job(
    entries: Sequence[LedgerEntry], name: tuple[str, str], place: int, delta: Decimal, tight: Accountant | None
) -> JobFacts:
    mine, until = of_job(entries, *name), entries[: place + 1]
    return JobFacts(
        *name,
        first=mine[0].time,
        last=mine[-1].time,
        charges=len(mine),
        alone=spent(mine, RdpAccountant(), delta),
        after=spent(until, RdpAccountant(), delta),
        after_tight=None if tight is None else spent(until, tight, delta),
    )


def moments_of(entries: Sequence[LedgerEntry], delta: Decimal) -> tuple[Moment, ...]:
    """Return what was spent at `delta` after each charge; of many charges, after `SAMPLES` of them."""
    stride = max(1, -(-len(entries) // SAMPLES))
    places = sorted({*range(0, len(entries), stride), len(entries) - 1})
    return tuple(_moment(entries[: place + 1], delta) for place in places)


def _moment(until: Sequence[LedgerEntry], delta: Decimal) -> Moment:
    now, loose = until[-1].time, RdpAccountant()
    return Moment(now, spent(until, loose, delta), spent(year_before(until, now), loose, delta))
