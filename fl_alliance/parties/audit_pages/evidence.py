"""What the pages show: evidence that was verified at the start, by house and by job, and what did not hold.

A house is one data set of one institution: it has one ledger, whichever jobs and alliances it was charged for.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fl_alliance.evidence.files import EvidenceFiles
from fl_alliance.evidence.keys import AllianceRoot, public_key_of
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties.audit_bundle import Standing
from fl_alliance.parties.audit_inputs import Audit, InputAudit, JobAudit, audited
from fl_alliance.parties.audit_steps import Step
from fl_alliance.parties.auditor import LEDGER, MEMBERS, ROOT, Findings
from fl_alliance.privacy.ledger import Ledger
from fl_alliance.privacy.reporting.facts import Facts, facts_of
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import AllianceMembers, InstitutionPolicy
from fl_alliance.protocol.messages import Refusal

Read = Callable[[str], bytes]

ONE_TRUTH: Final = 15
"""The verifier's step that compares a job's documents between inputs (`audit_together`)."""

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


@dataclass(frozen=True, kw_only=True)
class Besides:
    """What an institution's bundle holds besides its jobs: ledger and policy of the day, plans that it refused."""

    number: int
    """Of the input."""
    standing: Standing
    listed: str
    """Digest of the ledger's file, in the bundle's signed list."""
    read: Read

    @property
    def name(self) -> tuple[str, str]:
        """Institution and data set."""
        return self.standing.ledger.institution, self.standing.ledger.dataset


def refused(besides: Iterable[Besides]) -> tuple[tuple[str, Refusal], ...]:
    """Return the plans that were refused, each once, and by whom."""
    found = {
        (one.name[0], refusal.request_digest): (one.name[0], refusal)
        for one in besides
        for refusal in one.standing.refusals
    }
    return tuple(found.values())


@dataclass(frozen=True)
class House:
    """One data set of one institution, as its longest ledger shows it."""

    evidence: tuple[Evidence, ...]
    """Of its jobs, the shortest ledger first; each is the beginning of the next."""
    besides: tuple[Besides, ...] = ()
    """Of its bundles, the shortest ledger first."""

    @property
    def newest(self) -> Evidence:
        """The evidence of a job with the longest ledger."""
        return self.evidence[-1]

    @property
    def today(self) -> Besides | None:
        """The bundle whose ledger is the longest; None: none was given, or a job's is longer."""
        last = self.besides[-1] if self.besides else None
        jobs = self.newest.findings.sources.ledger
        return last if last is not None and len(last.standing.ledger.entries) >= len(jobs.entries) else None

    @property
    def name(self) -> tuple[str, str]:
        """Institution and data set."""
        return self.newest.findings.institution, self.newest.findings.dataset

    @property
    def ledger(self) -> Ledger:
        """The longest one."""
        return self.today.standing.ledger if self.today else self.newest.findings.sources.ledger

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """All of them, the shortest first."""
        found = [one.findings.sources.ledger for one in self.evidence] + [one.standing.ledger for one in self.besides]
        return tuple(sorted(found, key=lambda ledger: len(ledger.entries)))

    @property
    def policy(self) -> InstitutionPolicy:
        """The one that came with the longest ledger."""
        return self.today.standing.policy if self.today else self.newest.findings.sources.policy

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Plans that it refused, each once."""
        return tuple(refusal for _, refusal in refused(self.besides))

    def read_ledger(self) -> bytes:
        """Return the file of the longest ledger, as it is now."""
        return (self.today or self.newest).read(LEDGER)

    @functools.cached_property
    def facts(self) -> Facts:
        """Everything that a report says in numbers, of the longest ledger, recomputed."""
        sources, last = self.newest.findings.sources, self.ledger.entries[-1].time
        report = sources.report.model_copy(update={"time": max(sources.report.time, last)})
        return facts_of(replace(sources, ledger=self.ledger, policy=self.policy, report=report))

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
    relayed: tuple[tuple[tuple[str, str], int], ...] = ()
    """Jobs of which the coordinator's own evidence was given, with the input's number."""
    besides: tuple[Besides, ...] = ()
    """What the bundles of institutions hold besides their jobs."""

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
    besides = [_besides(number, one, turns) for number, one in enumerate(audit.inputs, 1) if one.standing is not None]
    relayed = [
        ((job.relayed.alliance, job.relayed.job), number)
        for number, one in enumerate(audit.inputs, start=1)
        for job in one.jobs
        if job.relayed is not None
    ]
    return Case(
        given=given,
        root=root,
        time=now,
        together=tuple(audit.together),
        houses=tuple(_houses(evidence, besides)),
        disputed=_disputed(evidence, audit.together),
        relayed=tuple(relayed),
        besides=tuple(besides),
    )


def _given(number: int, given: InputAudit, turns: threading.Lock) -> Given:
    groups = [(f"The {given.kind} as a whole", tuple(given.steps))] if given.steps else []
    groups += [(f"Job {job.job}" if job.job else "The job", tuple(job.steps)) for job in given.jobs]
    evidence = tuple(_evidence(number, job, job.findings, turns) for job in given.jobs if job.findings is not None)
    return Given(number, str(given.place), tuple(groups), evidence)


def _reader(files: EvidenceFiles, turns: threading.Lock) -> Read:
    def read(name: str) -> bytes:
        with turns:  # an archive is one file with one place where it is read
            return files.read(name)

    return read


def _besides(number: int, given: InputAudit, turns: threading.Lock) -> Besides:
    bundle, files, standing = given.bundle, given.files, given.standing
    if bundle is None or files is None or standing is None:
        raise ValueError(f"input {number} has no bundle")
    listed = {file.name: file.digest for file in bundle.files}[LEDGER]
    return Besides(number=number, standing=standing, listed=listed, read=_reader(files, turns))


def _evidence(number: int, job: JobAudit, findings: Findings, turns: threading.Lock) -> Evidence:
    read = _reader(job.files, turns)
    key = decode(AllianceRoot, read(ROOT)).public
    members = open_document(read(MEMBERS), AllianceMembers, public_key=key)
    return Evidence(number=number, findings=findings, members=members, read=read)


def _disputed(evidence: Sequence[Evidence], together: Sequence[Step]) -> frozenset[tuple[str, str]]:
    """Return the jobs of which two inputs say different things: those with different records, or all that several tell.

    Records are chained and name plan, uploads and adapter. Where they agree and the verifier found something else to be
    different, nothing that more than one input tells is shown as true.
    """
    if all(step.holds for step in together if step.number == ONE_TRUTH):
        return frozenset()
    ordered = sorted(evidence, key=lambda one: (one.name, one.number))
    shared = [(one, other) for one, other in itertools.pairwise(ordered) if one.name == other.name]
    records = {one.name for one, other in shared if one.findings.sources.records != other.findings.sources.records}
    return frozenset(records or {one.name for one, _ in shared})


def _houses(evidence: Sequence[Evidence], besides: Sequence[Besides]) -> Iterator[House]:
    """Yield the houses that have one ledger: of two that contradict each other nothing is shown as true."""
    for name in sorted({(one.findings.institution, one.findings.dataset) for one in evidence}):
        jobs = [one for one in evidence if (one.findings.institution, one.findings.dataset) == name]
        house = House(
            tuple(sorted(jobs, key=lambda one: one.findings.sources.report.entries)),
            tuple(sorted((b for b in besides if b.name == name), key=lambda b: len(b.standing.ledger.entries))),
        )
        if all(_begins(longer, shorter) for shorter, longer in itertools.pairwise(house.ledgers)):
            yield house


def _begins(longer: Ledger, shorter: Ledger) -> bool:
    return longer.digests[: len(shorter.digests)] == shorter.digests
