"""The result of `fl-alliance audit verify` for programs: canonical JSON, version 1, the same fields whatever was found.

Numbers that may have a fraction are decimal text, as everywhere; counts are integers. A field is never left out.
"""

from __future__ import annotations

from typing import Literal

from fl_alliance.parties.audit_inputs import Audit, InputAudit, JobAudit
from fl_alliance.parties.audit_steps import STEPS, Step
from fl_alliance.parties.auditor import Findings
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import LedgerEntry, RoundRecord, SampledGaussian
from fl_alliance.protocol.ids import DecimalText, Digest, decimal_text
from fl_alliance.protocol.model import Wire


class StepResult(Wire):
    """One step's finding."""

    number: int
    name: str
    holds: bool
    text: str
    """What it shows, or why it is refused."""
    file: str
    """Of a refusal, as it is named in the input; else empty."""


class RoundResult(Wire):
    """One round, by its signed record."""

    round: int
    members: tuple[str, ...]
    contributors: tuple[str, ...]
    """Whose uploads are in the sum."""
    votes: tuple[str, ...]
    sum_digest: Digest
    adapter_digest: Digest
    score: DecimalText | None
    time: int


class EntryResult(Wire):
    """One charge of the ledger."""

    sequence: int
    alliance: str
    job: str
    round: int
    unit: str
    event: SampledGaussian
    evaluation: SampledGaussian | None
    delta: DecimalText
    time: int


class JobNumbers(Wire):
    """What an institution's evidence of a job shows."""

    institution: str
    key: Digest
    alliance: str
    dataset: str
    unit: str
    root: Digest
    root_compared: bool
    charges: int
    delta: DecimalText
    job_epsilon_pld: DecimalText
    job_epsilon_rdp: DecimalText
    dataset_epsilon_pld: DecimalText
    dataset_epsilon_rdp: DecimalText
    epsilon_per_job: DecimalText
    epsilon_per_year: DecimalText
    epsilon_per_dataset: DecimalText
    adapter_digest: Digest
    log_entries: int
    software: str
    entries: tuple[EntryResult, ...]
    """Of the data set, to the end of the job; other jobs' among them."""


class JobResult(Wire):
    """One job's evidence."""

    job: str
    holds: bool
    steps: tuple[StepResult, ...]
    rounds: tuple[RoundResult, ...]
    """Empty where something was refused."""
    numbers: JobNumbers | None
    """Null where something was refused, and for the coordinator's evidence."""


class RefusalResult(Wire):
    """A plan that the institution refused."""

    job: str
    error: str
    reason: str


class InputResult(Wire):
    """One bundle or folder."""

    place: str
    kind: Literal["bundle", "folder"]
    alliance: str | None
    """This and the next four: of a bundle whose list could be read; else null."""
    role: Literal["institution", "coordinator"] | None
    party: str | None
    since: int | None
    until: int | None
    holds: bool
    steps: tuple[StepResult, ...]
    jobs: tuple[JobResult, ...]
    refused_plans: tuple[RefusalResult, ...]


class AuditResult(Wire):
    """All of it."""

    kind: Literal["audit-result"] = "audit-result"
    version: Literal[1] = 1
    root: Digest | None
    """The fingerprint that was expected."""
    holds: bool
    exit_code: int
    inputs: tuple[InputResult, ...]
    together: tuple[StepResult, ...]


def result_of(audit: Audit, *, root: str | None) -> bytes:
    """Return the result of an audit in which `root` was the expected fingerprint."""
    return encode(
        AuditResult(
            root=root,
            holds=audit.holds,
            exit_code=audit.exit_code,
            inputs=tuple(map(_input, audit.inputs)),
            together=tuple(map(_step, audit.together)),
        )
    )


def _step(step: Step) -> StepResult:
    text, file = _plain(step.text), _plain(step.file)
    return StepResult(number=step.number, name=STEPS[step.number], holds=step.holds, text=text, file=file)


def _plain(text: str) -> str:
    """Return `text` as UTF-8 can hold it: a file's name on the disk may be any bytes."""
    return text.encode(errors="replace").decode()


def _input(given: InputAudit) -> InputResult:
    bundle, refused = given.bundle, given.standing.refusals if given.standing else ()
    return InputResult(
        place=_plain(str(given.place)),
        kind=given.kind,
        alliance=bundle.alliance if bundle else None,
        role=bundle.role if bundle else None,
        party=bundle.party if bundle else None,
        since=bundle.since if bundle else None,
        until=bundle.until if bundle else None,
        holds=all(step.holds for step in given.all_steps),
        steps=tuple(map(_step, given.steps)),
        jobs=tuple(map(_job, given.jobs)),
        refused_plans=tuple(RefusalResult(job=r.job, error=r.error, reason=r.reason) for r in refused),
    )


def _job(part: JobAudit) -> JobResult:
    records = part.findings.sources.records if part.findings else part.relayed.records if part.relayed else ()
    return JobResult(
        job=part.job,
        holds=part.held is not None,
        steps=tuple(map(_step, part.steps)),
        rounds=tuple(map(_round, records)),
        numbers=_numbers(part.findings) if part.findings else None,
    )


def _round(record: RoundRecord) -> RoundResult:
    return RoundResult(
        round=record.round,
        members=record.members,
        contributors=tuple(upload.member for upload in record.uploads),
        votes=record.votes,
        sum_digest=record.sum_digest,
        adapter_digest=record.adapter_digest,
        score=record.score,
        time=record.time,
    )


def _numbers(found: Findings) -> JobNumbers:
    policy = found.sources.policy
    return JobNumbers(
        institution=found.institution,
        key=found.key,
        alliance=found.alliance,
        dataset=found.dataset,
        unit=found.unit,
        root=found.root,
        root_compared=found.root_compared,
        charges=found.charges,
        delta=decimal_text(found.delta),
        job_epsilon_pld=decimal_text(found.costs.job_pld),
        job_epsilon_rdp=decimal_text(found.costs.job_rdp),
        dataset_epsilon_pld=decimal_text(found.costs.dataset_pld),
        dataset_epsilon_rdp=decimal_text(found.costs.dataset_rdp),
        epsilon_per_job=policy.epsilon_per_job,
        epsilon_per_year=policy.epsilon_per_year,
        epsilon_per_dataset=policy.epsilon_per_dataset,
        adapter_digest=found.adapter_digest,
        log_entries=found.log_entries,
        software=found.software,
        entries=tuple(map(_entry, found.sources.ledger.entries)),
    )


def _entry(entry: LedgerEntry) -> EntryResult:
    return EntryResult(
        sequence=entry.sequence,
        alliance=entry.alliance,
        job=entry.job,
        round=entry.round,
        unit=entry.unit,
        event=entry.event,
        evaluation=entry.evaluation,
        delta=entry.delta,
        time=entry.time,
    )
