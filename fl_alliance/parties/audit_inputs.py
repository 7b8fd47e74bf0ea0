"""`fl-alliance audit verify`: bundles and evidence folders, each by itself and all of them together.

An institution's evidence of a job is verified by `auditor`, wherever it lies. Here each input is opened, what its steps
show or refuse is collected, and inputs are compared with one another. A refusal ends the steps of its job and no more:
the others are verified all the same, and the result names every refusal.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fl_alliance.errors import BadConfig, EvidenceRefused
from fl_alliance.evidence.archive import Archive
from fl_alliance.evidence.bundle import JOBS, MANIFEST
from fl_alliance.evidence.files import ArchiveFiles, EvidenceFiles, FolderFiles
from fl_alliance.evidence.keys import public_key_of
from fl_alliance.parties.audit_bundle import BundleAudit, Standing
from fl_alliance.parties.audit_rules import require_same
from fl_alliance.parties.audit_steps import Step, exit_code_of
from fl_alliance.parties.audit_together import Held, check_together
from fl_alliance.parties.auditor import PLAN, ROOT, Findings, step, verify_job
from fl_alliance.parties.coordinator_auditor import CoordinatorFindings, verify_coordinator_job
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
    """Of an institution's; None: something was refused."""
    relayed: CoordinatorFindings | None = None
    """Of the coordinator's; None: something was refused."""

    @property
    def held(self) -> Findings | CoordinatorFindings | None:
        """Either; None: something was refused."""
        return self.findings or self.relayed


@dataclass
class InputAudit:
    """One path that was given."""

    place: Path
    kind: Literal["bundle", "folder"]
    bundle: EvidenceBundle | None = None
    """What a bundle says of itself; None where it is a folder, or was refused."""
    files: EvidenceFiles | None = None
    """Of a bundle, all of them; readable until the audit's context ends."""
    standing: Standing | None = None
    """What an institution's bundle shows besides its jobs."""
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
    """What several jobs show together; empty where there is only one, or only one holds."""

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
        BadConfig: there is nothing at one of the places, or `root` is no fingerprint.
    """
    if root is not None and not re.fullmatch("sha256:[0-9a-f]{64}", root):
        raise BadConfig(f"root: {root!r} is no fingerprint, must be sha256: and 64 hexadecimal digits")
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
        held = list(_held(audit))
        if len(held) > 1:
            say("together:")
            tell = _teller(audit.together, say)
            check_together(held, tell, lambda: _noted(audit.together, say))
        yield audit


def _bundle(given: InputAudit, archive: Archive, root: str | None, say: Say) -> None:
    """Verify a bundle, step 0 of which holds, as a whole; then each of its jobs."""
    tell = _teller(given.steps, say)
    tell(0, f"archive: {len(archive.names)} files, each byte as it must be written")
    given.files = ArchiveFiles(archive)
    whole = BundleAudit(given.files, tell)
    given.bundle = bundle = whole.manifest()
    key = whole.root(root)
    whole.members(bundle, key)
    for name in bundle.jobs:
        say(f"job {name}:")
        part = JobAudit(ArchiveFiles(archive, f"{JOBS}/{name}"), job=name)
        given.jobs.append(_job(part, root, say, of=(bundle, digest_of(key))))
    if bundle.role == "institution":
        say("besides its jobs:")
        with _noted(given.steps, say):
            given.standing = whole.standing(bundle, key)


def _job(part: JobAudit, root: str | None, say: Say, *, of: tuple[EvidenceBundle, str] | None = None) -> JobAudit:
    """Verify one job's evidence; inside a bundle, given with its root's fingerprint, it must be of its party."""
    tell = _teller(part.steps, say)
    with _noted(part.steps, say, inside=f"{JOBS}/{part.job}/" if of else ""):
        if of is not None and of[0].role == "coordinator":
            relayed = verify_coordinator_job(part.files, of[0], root=root, say=tell)
            _require_of(relayed, part.job, *of)
            part.relayed = relayed
            return part
        findings = verify_job(part.files, root=root, say=tell)
        if of is not None:
            _require_of(findings, part.job, *of)
        part.job, part.findings = findings.job, findings
    return part


def _require_of(findings: Findings | CoordinatorFindings, job: str, bundle: EvidenceBundle, root: str) -> None:
    """Return if a job's evidence is of the party of the bundle that it lies in (EvidenceRefused)."""
    with step(2, ROOT):
        require_same({"fingerprint": (findings.root, root)})
    with step(4, PLAN):
        require_same({"alliance": (findings.alliance, bundle.alliance), "job": (findings.job, job)})
    if isinstance(findings, Findings):
        with step(3, MANIFEST):
            key = digest_of(public_key_of(bundle.key))
            require_same({"party": (findings.institution, bundle.party), "key": (findings.key, key)})


def _held(audit: Audit) -> Iterator[Held]:
    """Yield what holds by itself: a bundle besides its jobs, and each job."""
    for given in audit.inputs:
        if given.standing is not None and given.files is not None:
            yield Held(
                place=str(given.place),
                where=str(given.place),
                files=given.files,
                root=given.standing.root,
                job=None,
                ledger=(given.standing.ledger.institution, given.standing.ledger.dataset),
            )
        for part in given.jobs:
            if (found := part.held) is not None:
                yield Held(
                    place=str(given.place),
                    where=f"{given.place} ({found.job})",
                    files=part.files,
                    root=found.root,
                    job=(found.alliance, found.job),
                    ledger=(found.institution, found.dataset) if isinstance(found, Findings) else None,
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
        steps.append(Step(number=number, holds=False, text=why, file=inside + file))
        say(steps[-1].line)
