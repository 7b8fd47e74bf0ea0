"""`fl-alliance audit verify`: bundles and evidence folders, each by itself and all of them together.

An institution's evidence of a job is verified by `auditor`, wherever it lies. Here each input is opened, what its steps
show or refuse is collected, and inputs are compared with one another. A refusal ends the steps of its job and no more:
the others are verified all the same, and the result names every refusal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fl_alliance.errors import BadConfig, EvidenceRefused
from fl_alliance.evidence.archive import Archive
from fl_alliance.evidence.bundle import BUNDLE, JOBS, check_bundle
from fl_alliance.evidence.files import ArchiveFiles, EvidenceFiles, FolderFiles
from fl_alliance.evidence.keys import public_key_of
from fl_alliance.parties.audit_log import LEAVES, LOG, SeenLog, compare_logs
from fl_alliance.parties.audit_rules import require_same
from fl_alliance.parties.audit_steps import Step, exit_code_of
from fl_alliance.parties.auditor import ROOT, Findings, step, verify_job
from fl_alliance.protocol.documents import EvidenceBundle
from fl_alliance.protocol.ids import digest_of

Say = Callable[[str], None]


@dataclass
class JobAudit:
    """One job's evidence: what the steps show, and what was verified in them."""

    files: EvidenceFiles
    """Readable until the audit's context ends."""
    job: str = ""
    """Empty where a folder was refused before its plan was read."""
    steps: list[Step] = field(default_factory=list)
    findings: Findings | None = None
    """None: something was refused."""


@dataclass
class InputAudit:
    """One path that was given."""

    place: Path
    kind: Literal["bundle", "folder"]
    bundle: EvidenceBundle | None = None
    """What a bundle says of itself; None where it is a folder, or was refused."""
    steps: list[Step] = field(default_factory=list)
    """Of the bundle as a whole."""
    jobs: list[JobAudit] = field(default_factory=list)

    @property
    def all_steps(self) -> list[Step]:
        """Its own steps, then its jobs'; the file of a refusal as it is named in the bundle."""
        return [*self.steps, *(step for job in self.jobs for step in job.steps)]


@dataclass
class Audit:
    """Everything that was given, verified."""

    inputs: list[InputAudit] = field(default_factory=list)
    together: list[Step] = field(default_factory=list)
    """What several inputs show together; empty where only one was given."""

    @property
    def all_steps(self) -> list[Step]:
        """Of every input and of all together."""
        return [*(step for given in self.inputs for step in given.all_steps), *self.together]

    @property
    def holds(self) -> bool:
        """Whether nothing was refused."""
        return all(step.holds for step in self.all_steps)

    @property
    def exit_code(self) -> int:
        """See `audit_steps`."""
        return exit_code_of(self.all_steps)

    @property
    def refusals(self) -> list[str]:
        """Every refusal in one line; where there are several inputs, with the input in front."""
        lines = [
            f"{given.place}: {step.refusal}" if len(self.inputs) > 1 else step.refusal
            for given in self.inputs
            for step in given.all_steps
            if not step.holds
        ]
        return lines + [step.refusal for step in self.together if not step.holds]


@contextlib.contextmanager
def audited(places: Sequence[Path], *, root: str | None, say: Say = lambda _: None) -> Iterator[Audit]:
    """Verify bundles (files) and evidence folders; `say` is told each step as it ends.

    `root` is the expected fingerprint of the alliance's root key; without it each input is checked against itself.
    Whatever is wrong with the evidence is a step that does not hold, and raises nothing.

    Raises:
        BadConfig: there is nothing at one of the places.
    """
    for place in places:
        if not place.exists():
            raise BadConfig(f"evidence: there is no {place}")
    audit = Audit()
    with contextlib.ExitStack() as stack:
        for place in places:
            if len(places) > 1:
                say(f"{place}:")
            given = InputAudit(place, "folder" if place.is_dir() else "bundle")
            audit.inputs.append(given)
            if given.kind == "folder":
                given.jobs.append(_job(JobAudit(FolderFiles(place)), root, say))
            else:
                with _noted(given.steps, say):
                    archive = stack.enter_context(Archive.open(place))
                    _bundle(given, archive, root, say)
        if len(places) > 1:
            with _noted(audit.together, say):
                _together(audit, say)
        yield audit


def _bundle(given: InputAudit, archive: Archive, root: str | None, say: Say) -> None:
    """Verify a bundle, step 0 of which holds, as a whole; then each of its jobs."""
    tell = _teller(given.steps, say)
    tell(0, f"archive: {len(archive.names)} files, each byte as it must be written")
    files = ArchiveFiles(archive)
    given.bundle = bundle = check_bundle(files)
    tell(1, f"bundle: {bundle.party}, {bundle.role} of {bundle.alliance}; jobs {', '.join(bundle.jobs) or 'none'}")
    for name in bundle.jobs:
        say(f"job {name}:")
        part = JobAudit(ArchiveFiles(archive, f"{JOBS}/{name}"), job=name)
        given.jobs.append(_job(part, root, say, of=bundle))


def _job(part: JobAudit, root: str | None, say: Say, *, of: EvidenceBundle | None = None) -> JobAudit:
    """Verify one job's evidence; inside a bundle it must be of the bundle's party."""
    with _noted(part.steps, say, inside=f"{JOBS}/{part.job}/" if of else ""):
        findings = verify_job(part.files, root=root, say=_teller(part.steps, say))
        if of is not None:
            with step(3, BUNDLE):
                key = digest_of(public_key_of(of.key))
                require_same(
                    {
                        "alliance": (of.alliance, findings.alliance),
                        "party": (of.party, findings.institution),
                        "key": (key, findings.key),
                        "job": (part.job, findings.job),
                    }
                )
        part.job, part.findings = findings.job, findings
    return part


def _together(audit: Audit, say: Say) -> None:
    """Compare what holds by itself."""
    held = [(given, job) for given in audit.inputs for job in given.jobs if job.findings is not None]
    roots = {job.findings.root for _, job in held if job.findings is not None}
    if len(roots) > 1:
        raise EvidenceRefused(f"step 2, {ROOT}: the inputs are of different alliances, with roots {sorted(roots)}")
    tell = _teller(audit.together, say)
    compare_logs(
        [SeenLog(f"{given.place} ({job.job})", job.files.read(f"{LOG}/{LEAVES}")) for given, job in held],
        lambda line: tell(13, line),
    )


def _teller(steps: list[Step], say: Say) -> Callable[[int, str], None]:
    def tell(number: int, text: str) -> None:
        steps.append(Step(number=number, holds=True, text=text))
        say(steps[-1].line)

    return tell


@contextlib.contextmanager
def _noted(steps: list[Step], say: Say, *, inside: str = "") -> Iterator[None]:
    """Turn a refusal inside into a step; `inside` is the folder in which its file lies."""
    try:
        yield
    except EvidenceRefused as error:
        number, file, why = error.parts
        file = file if file == BUNDLE else inside + file
        steps.append(Step(number=number, holds=False, text=why, file=file))
        say(steps[-1].line)
