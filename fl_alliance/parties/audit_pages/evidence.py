"""What the pages show: evidence that was verified at the start, by house and by job, and what did not hold.

A house is one data set of one institution: it has one ledger, whichever jobs and alliances it was charged for.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_alliance.evidence.keys import AllianceRoot, public_key_of
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties.audit_inputs import Audit, InputAudit, JobAudit, audited
from fl_alliance.parties.audit_steps import Step
from fl_alliance.parties.auditor import LEDGER, MEMBERS, ROOT, Findings
from fl_alliance.privacy.ledger import Ledger
from fl_alliance.privacy.reporting.facts import Facts, facts_of
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import AllianceMembers

Read = Callable[[str], bytes]

ACCOUNTING: Final = threading.Lock()
"""Held while an accountant may have to compute: that can take many seconds and hundreds of megabytes."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One job's evidence of one institution. All of it held when it was verified."""

    number: int
    """Of the input that it is in, from 1."""
    findings: Findings
    members: AllianceMembers
    """The signed list that came with the job."""
    read: Read
    """A file of it as it is now (StoreFailed: it can't be read)."""

    @property
    def name(self) -> tuple[str, str]:
        """Alliance and job."""
        return self.findings.alliance, self.findings.job

    def key_of(self, member: str) -> bytes:
        """Return a member's raw public key, or the coordinator's."""
        return public_key_of(self.members.member(member).identity)


@dataclass(frozen=True)
class Given:
    """One input: what each step found in it as a whole and in each of its jobs; and the evidence that holds."""

    number: int
    place: str
    groups: tuple[tuple[str, tuple[Step, ...]], ...]
    """With a title each."""
    evidence: tuple[Evidence, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them."""
        return tuple(step for _, steps in self.groups for step in steps)

    @property
    def holds(self) -> bool:
        """Whether nothing was refused."""
        return all(step.holds for step in self.steps)


@dataclass(frozen=True)
class House:
    """One data set of one institution, as its longest ledger shows it."""

    evidence: tuple[Evidence, ...]
    """The shortest ledger first; each is the beginning of the next."""

    @property
    def newest(self) -> Evidence:
        """The evidence with the longest ledger."""
        return self.evidence[-1]

    @property
    def name(self) -> tuple[str, str]:
        """Institution and data set."""
        return self.newest.findings.institution, self.newest.findings.dataset

    @property
    def ledger(self) -> Ledger:
        """The longest one."""
        return self.newest.findings.sources.ledger

    @functools.cached_property
    def facts(self) -> Facts:
        """Everything that the newest report says in numbers, recomputed."""
        return facts_of(self.newest.findings.sources)

    def of_job(self, name: tuple[str, str]) -> Evidence | None:
        """Return the evidence of a job; None: it was not given."""
        return next((one for one in self.evidence if one.name == name), None)


@dataclass(frozen=True)
class Case:
    """Everything that was given."""

    given: tuple[Given, ...]
    root: str | None
    """The fingerprint that was expected; None: nobody said one."""
    time: int
    """When it was verified, Unix seconds."""
    together: tuple[Step, ...] = ()
    """What several inputs show together."""
    houses: tuple[House, ...] = ()
    """By name; without those of which there are two ledgers."""
    disputed: frozenset[tuple[str, str]] = frozenset()
    """Jobs of which inputs say different things."""

    @property
    def problems(self) -> tuple[tuple[str, Step], ...]:
        """Whatever does not hold, with the input."""
        found = [(given.place, step) for given in self.given for step in given.steps]
        found += [("all inputs together", step) for step in self.together]
        return tuple((place, step) for place, step in found if not step.holds)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Of all inputs that hold."""
        return tuple(one for given in self.given for one in given.evidence)

    @property
    def jobs(self) -> tuple[tuple[str, str], ...]:
        """Every job of which there is evidence, the oldest first."""
        ends = {one.name: one.findings.sources.report.time for one in self.evidence}
        return tuple(sorted(ends, key=lambda name: (ends[name], name)))

    def house(self, institution: str, dataset: str) -> House:
        """Return a house (KeyError: there is none)."""
        return {house.name: house for house in self.houses}[institution, dataset]

    def of_job(self, name: tuple[str, str]) -> tuple[Evidence, ...]:
        """Return the evidence of a job, by institution; none: there is no such job, or inputs contradict each other."""
        if name in self.disputed:
            return ()
        mine = {one.findings.institution: one for house in self.houses for one in house.evidence if one.name == name}
        return tuple(mine[institution] for institution in sorted(mine))


@contextlib.contextmanager
def examined(places: Sequence[Path], *, root: str | None, now: int, say: Callable[[str], None]) -> Iterator[Case]:
    """Verify bundles and evidence folders, and compute every budget; `say` is told each step.

    Whatever does not hold is in the result. `root` is the expected fingerprint of the alliance's root key. Files stay
    readable until the context ends.

    Raises:
        BadConfig: there is nothing at one of the places.
    """
    with audited(places, root=root, say=say) as audit:
        case = _case(audit, root, now)
        for house in case.houses:
            say(f"{len(house.facts.moments)} moments of {' / '.join(house.name)} computed")
        yield case


def _case(audit: Audit, root: str | None, now: int) -> Case:
    turns = threading.Lock()
    given = tuple(_given(number, one, turns) for number, one in enumerate(audit.inputs, start=1))
    evidence = [one for part in given for one in part.evidence]
    disputed = dict(_disputed_jobs(evidence))
    contradictions = [*((LEDGER, 6, why) for why in _forked_ledgers(evidence)),
                      *(("rounds", 7, why) for why in disputed.values())]  # fmt: skip
    together = [Step(number=number, holds=False, text=why, file=file) for file, number, why in contradictions]
    return Case(
        given=given,
        root=root,
        time=now,
        together=(*audit.together, *together),
        houses=tuple(_houses(evidence)),
        disputed=frozenset(disputed),
    )


def _given(number: int, given: InputAudit, turns: threading.Lock) -> Given:
    groups = [(f"The {given.kind} as a whole", tuple(given.steps))] if given.steps else []
    groups += [(f"Job {job.job}" if job.job else "The job", tuple(job.steps)) for job in given.jobs]
    evidence = tuple(_evidence(number, job, job.findings, turns) for job in given.jobs if job.findings is not None)
    return Given(number, str(given.place), tuple(groups), evidence)


def _evidence(number: int, job: JobAudit, findings: Findings, turns: threading.Lock) -> Evidence:
    def read(name: str) -> bytes:
        with turns:  # an archive is one file with one place where it is read
            return job.files.read(name)

    key = decode(AllianceRoot, read(ROOT)).public
    members = open_document(read(MEMBERS), AllianceMembers, public_key=key)
    return Evidence(number=number, findings=findings, members=members, read=read)


def _forked_ledgers(evidence: Sequence[Evidence]) -> Iterator[str]:
    for house in _grouped(evidence):
        for shorter, longer in itertools.pairwise(house.evidence):
            if not _begins(longer, shorter):
                yield (
                    f"two ledgers of {house.name[0]} for data set {house.name[1]}, in inputs {shorter.number} and "
                    f"{longer.number}: neither is the beginning of the other"
                )


def _disputed_jobs(evidence: Sequence[Evidence]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield each job of which two inputs say different things, and which.

    Records are chained and name the plan: where they are the same, everything is that a job's members share.
    """
    for first, other in itertools.pairwise(sorted(evidence, key=lambda one: (one.name, one.number))):
        if first.name == other.name and first.findings.sources.records != other.findings.sources.records:
            yield first.name, f"inputs {first.number} and {other.number} have different records of job {first.name[1]}"


def _begins(longer: Evidence, shorter: Evidence) -> bool:
    begin = shorter.findings.sources.ledger.digests
    return longer.findings.sources.ledger.digests[: len(begin)] == begin


def _grouped(evidence: Sequence[Evidence]) -> list[House]:
    """Return the evidence by house, the shortest ledger first."""
    houses: dict[tuple[str, str], list[Evidence]] = {}
    for one in evidence:
        houses.setdefault((one.findings.institution, one.findings.dataset), []).append(one)
    ordered = [sorted(mine, key=lambda one: one.findings.sources.report.entries) for mine in houses.values()]
    return sorted((House(tuple(mine)) for mine in ordered), key=lambda house: house.name)


def _houses(evidence: Sequence[Evidence]) -> Iterator[House]:
    """Yield the houses that have one ledger: of two that contradict each other nothing is shown as true."""
    for house in _grouped(evidence):
        if all(_begins(longer, shorter) for shorter, longer in itertools.pairwise(house.evidence)):
            yield house
