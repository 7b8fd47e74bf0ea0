"""Plans that were proposed to an institution: kept as they were signed, until its persons have approved or declined.

    proposals/JOB/plan.dsse.json      as the coordinator signed it
    proposals/JOB/members.dsse.json   as the root signed it
    proposals/JOB/declined.json       if the institution declined

While a plan waits for approvals the coordinator gets no answer, and asks again; so nothing is refused for good that a
person has only not read yet. What the policy or the budget forbids is refused at once, whoever would approve it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fl_alliance.errors import ApprovalsMissing, BadConfig, PlanDeclined
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.accounts import Accounts
from fl_alliance.parties.approvals import approvals_in
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import AllianceMembers
from fl_alliance.protocol.ids import Digest, digest_of
from fl_alliance.protocol.model import Wire
from fl_alliance.protocol.plan import TrainingPlan


class Declined(Wire):
    """The institution's own note that it declines a plan; the coordinator gets a signed refusal with the reason."""

    kind: Literal["plan-declined"] = "plan-declined"
    version: Literal[1] = 1
    plan_digest: Digest
    reason: Annotated[str, Field(min_length=1, max_length=400)]


@dataclass(frozen=True)
class Proposal:
    """A plan that was proposed here. Both documents were verified before they were kept."""

    folder: Path
    envelope: bytes
    plan: TrainingPlan
    people: AllianceMembers

    @classmethod
    def read(cls, folder: Path) -> Proposal:
        """Return what is kept in `folder` (BadConfig: a file can't be read)."""
        envelope = read_file(folder / "plan.dsse.json", "proposed plan")
        members = read_file(folder / "members.dsse.json", "list of members of a proposed plan")
        return cls(folder, envelope, peek_document(envelope, TrainingPlan), peek_document(members, AllianceMembers))

    @property
    def digest(self) -> str:
        """Of the plan's envelope: what persons approve."""
        return digest_of(self.envelope)

    @property
    def declined(self) -> str | None:
        """Why this very plan was declined; None: it was not."""
        path = self.folder / "declined.json"
        if not path.exists():
            return None
        note = decode(Declined, path.read_bytes())
        return note.reason if note.plan_digest == self.digest else None

    def decline(self, reason: str) -> None:
        """Note that the institution declines this plan."""
        write_atomically(self.folder / "declined.json", encode(Declined(plan_digest=self.digest, reason=reason)))


def proposals_in(folder: Path) -> list[Proposal]:
    """Return every plan that is kept, by job."""
    return [Proposal.read(path.parent) for path in sorted(folder.glob("*/plan.dsse.json"))]


def proposal_of(folder: Path, job: str) -> Proposal:
    """Return the plan of one job.

    Raises:
        BadConfig: none was proposed under this name; names those that were.
    """
    if not (folder / job / "plan.dsse.json").exists():
        known = ", ".join(path.parent.name for path in sorted(folder.glob("*/plan.dsse.json"))) or "none"
        raise BadConfig(f"job: no plan of {job!r} was proposed here; proposed: {known}")
    return Proposal.read(folder / job)


class Proposals:
    """What the institution's process does with each proposal before the machine sees it."""

    def __init__(
        self, folder: Path, *, approvals: Path, accounts: Accounts, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._folder, self._approvals, self._accounts, self._tell = folder, approvals, accounts, tell
        self._waiting: dict[str, str] = {}
        """By plan that policy and budget allow: what was told last."""

    def consider(self, plan: TrainingPlan, envelope: bytes, members: bytes) -> None:
        """Keep an authentic proposal; return if the institution's machine may decide about it now.

        Asked again while persons are awaited it only reads their files: what the plan costs was computed before.

        Raises:
            ApprovalsMissing: persons have still to approve it. Nothing may be answered.
            PlanDeclined: they declined it.
        """
        self._keep(plan.job, envelope, members)
        if (reason := Proposal.read(self._folder / plan.job).declined) is not None:
            raise PlanDeclined(reason)
        digest = digest_of(envelope)
        try:
            approvals_in(self._approvals, digest, self._accounts.policy)
        except ApprovalsMissing as missing:
            if digest not in self._waiting:
                self._accounts.allow(plan, digest, peek_document(members, AllianceMembers))
            self._tell_once(plan.job, digest, str(missing))
            raise
        self._waiting.pop(digest, None)

    def _keep(self, job: str, envelope: bytes, members: bytes) -> None:
        for name, data in (("members.dsse.json", members), ("plan.dsse.json", envelope)):
            path = self._folder / job / name
            if not path.exists() or path.read_bytes() != data:
                write_atomically(path, data)

    def _tell_once(self, job: str, digest: str, line: str) -> None:
        if self._waiting.get(digest) != line:
            self._tell(f"job {job} waits for persons of this house: {line}; see `institution plans`")
        self._waiting[digest] = line


def check_reason(reason: str) -> None:
    """Return if `reason` may be told to the coordinator (BadConfig: it is empty or too long)."""
    if not 0 < len(reason) <= 400:
        raise BadConfig(f"reason: {len(reason)} characters, must be 1 to 400")
