"""The numbers of a report on a whole alliance: several institutions' evidence of several jobs, put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby, pairwise

from fl_alliance.errors import NotAuthentic
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.ledger import spent
from fl_alliance.privacy.report import Gauge, gauges_of
from fl_alliance.privacy.reporting.facts import Moment, Sources, moments_of
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.plan import TrainingPlan


@dataclass(frozen=True)
class SharedJob:
    """One job, by the evidence of some of its members."""

    plan: TrainingPlan
    records: tuple[RoundRecord, ...]
    """Of all its rounds."""
    parts: tuple[Sources, ...]
    """Of each institution that gave evidence, by name."""

    @property
    def silent(self) -> tuple[str, ...]:
        """Members of which there is no evidence here."""
        return tuple(sorted(set(self.plan.names) - {part.report.institution for part in self.parts}))

    def rounds_of(self, name: str) -> int:
        """Return in how many rounds the update of `name` was in the sum."""
        return sum(name in {upload.member for upload in record.uploads} for record in self.records)


@dataclass(frozen=True)
class DataSet:
    """One institution's data set, by the longest of its ledgers that are here."""

    newest: Sources
    year: Gauge
    total: Gauge
    delta: Decimal
    """At which both were computed: the least of all charges."""
    moments: tuple[Moment, ...]

    @property
    def institution(self) -> str:
        """Whose it is."""
        return self.newest.report.institution

    @property
    def name(self) -> str:
        """The data set's name, as its institution's ledger has it."""
        return self.newest.report.dataset

    @property
    def title(self) -> str:
        """For tables and pictures."""
        return f"{self.institution} / {self.name}"


@dataclass(frozen=True, kw_only=True)
class AllianceFacts:
    """Everything that a report on an alliance says in numbers."""

    alliance: str
    time: int
    """Of the newest signed report."""
    given: tuple[Sources, ...]
    """By job, then by institution."""
    jobs: tuple[SharedJob, ...]
    """By the time of their last round."""
    datasets: tuple[DataSet, ...]
    everywhere: tuple[Decimal, Decimal] | None
    """Epsilon (PLD) and delta of the jobs here for somebody who is in every data set; None where members of one of them
    shared one noise."""

    @property
    def institutions(self) -> tuple[str, ...]:
        """Every institution that gave evidence."""
        return tuple(sorted({part.report.institution for part in self.given}))


def alliance_facts_of(given: Sequence[Sources]) -> AllianceFacts:
    """Return the facts of `given`, each of which was verified by itself.

    Raises:
        NotAuthentic: they are not of one alliance; one is there twice; or two of them contradict each other: another
            plan or record for the same job and round, or two ledgers of which neither goes on with the other.
        BadPlan: an accountant finds no finite epsilon.
    """
    parts = tuple(sorted(given, key=lambda part: (part.report.job, part.report.institution)))
    alliances = sorted({part.report.alliance for part in parts})
    if len(alliances) != 1:
        raise NotAuthentic(f"the evidence is of alliances {', '.join(alliances)}, must be of one")
    by_job = groupby(parts, key=lambda part: part.report.job)
    jobs = [_job(job, tuple(group)) for job, group in by_job]
    datasets = _datasets(parts)
    return AllianceFacts(
        alliance=alliances[0],
        time=max(part.report.time for part in parts),
        given=parts,
        jobs=tuple(sorted(jobs, key=lambda job: job.records[-1].time)),
        datasets=datasets,
        everywhere=_everywhere(parts, datasets),
    )


def _job(name: str, parts: tuple[Sources, ...]) -> SharedJob:
    first = parts[0]
    for one, other in pairwise(parts):
        if one.report.institution == other.report.institution:
            raise NotAuthentic(f"job {name}: the evidence of {one.report.institution} is there twice")
        if other.report.plan_digest != first.report.plan_digest:
            raise NotAuthentic(
                f"job {name}: {other.report.institution} was shown plan {other.report.plan_digest}, "
                f"{first.report.institution} {first.report.plan_digest}"
            )
    longest = max((part.records for part in parts), key=len)
    for part in parts:
        for here, there in zip(part.records, longest, strict=False):
            if here != there:
                raise NotAuthentic(f"job {name}, round {here.round}: two members hold two different records")
    return SharedJob(first.plan, longest, parts)


def _datasets(parts: Sequence[Sources]) -> tuple[DataSet, ...]:
    def owner(part: Sources) -> tuple[str, str]:
        return part.report.institution, part.report.dataset

    return tuple(_dataset(tuple(group)) for _, group in groupby(sorted(parts, key=owner), key=owner))


def _dataset(parts: tuple[Sources, ...]) -> DataSet:
    newest = max(parts, key=lambda part: (len(part.ledger.digests), part.report.time))
    for part in parts:
        if part.ledger.digests != newest.ledger.digests[: len(part.ledger.digests)]:
            raise NotAuthentic(
                f"{part.report.institution}, {part.report.dataset}: the ledger shown for job {part.report.job} does "
                f"not begin the one shown for job {newest.report.job}"
            )
    _job_gauge, year, total = gauges_of(newest.ledger, newest.report, newest.policy)
    entries = newest.ledger.entries
    delta = min(Decimal(entry.delta) for entry in entries)
    return DataSet(newest, year, total, delta, moments_of(entries, delta))


def _everywhere(parts: Sequence[Sources], datasets: Sequence[DataSet]) -> tuple[Decimal, Decimal] | None:
    """Return what all charges of these jobs cost together, whichever institution wrote them.

    Each institution adds all of its noise, independently, so that its steps compose with the others' like its own.
    Where members share one noise, a person who is in two of them moves the sum twice, and that was not accounted for.
    """
    if any(part.plan.privacy.noise == "distributed" for part in parts):
        return None
    jobs = {(part.report.alliance, part.report.job) for part in parts}
    ledgers = [dataset.newest.ledger.entries for dataset in datasets]
    entries = [entry for ledger in ledgers for entry in ledger if (entry.alliance, entry.job) in jobs]
    delta = min(dataset.delta for dataset in datasets)
    return spent(entries, PldAccountant(), delta), delta
