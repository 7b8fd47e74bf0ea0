"""An institution's privacy accounts for one data set: its signed policy, its ledger, its report.

The data file is read here only to know its digest, and only for a plan that the policy and the budget allow; its
records are read by the trainer, after the round was charged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fl_alliance.errors import BadRecords, OutOfOrder
from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import open_document, peek_document, sign_document
from fl_alliance.parties.approvals import approvals_in
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.privacy.accountant import Accountant, PldAccountant
from fl_alliance.privacy.ledger import (
    Ledger,
    charges_to_come,
    check_charge,
    check_partners,
    check_plan,
    check_seen_head,
    next_entry,
    of_job,
    unopened_entry,
)
from fl_alliance.privacy.report import build_report
from fl_alliance.privacy.reporting.content import document_of
from fl_alliance.privacy.reporting.facts import Sources
from fl_alliance.privacy.reporting.page import page_of
from fl_alliance.protocol.documents import AllianceMembers, InstitutionPolicy, LedgerEntry, RoundRecord
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.store.ledger_file import LedgerFile


class Accounts:
    """What may be spent and what was, for one data set."""

    def __init__(
        self,
        *,
        identity: IdentityKey,
        policy: Path,
        approvals: Path,
        ledger: LedgerFile,
        dataset_digest: Callable[[], str],
        clock: Callable[[], float] = time.time,
        accountant: Accountant | None = None,
    ) -> None:
        self._identity, self._ledger, self._dataset_digest = identity, ledger, dataset_digest
        self._clock, self._accountant = clock, accountant or PldAccountant()
        self._approvals, self._approved = approvals, dict[str, bytes]()
        self._charged_digest, self._head = "", ""
        self._policy_bytes = read_file(policy, "policy")
        self.policy = open_document(self._policy_bytes, InstitutionPolicy, public_key=identity.public)

    def approve(self, plan: TrainingPlan, plan_digest: str, members: AllianceMembers, seen: Iterable[str] = ()) -> str:
        """Return the ledger's head if the whole plan, and who is in it, fits policy and budget.

        `seen` are heads that this institution gave out before; each must be in a ledger that is here.

        Raises:
            LedgerRolledBack: one is not: an older copy of a ledger was put back.
            PolicyRefused, BudgetExceeded: it does not, or persons who must approve it have not. The data file was
                not opened.
            BadRecords: the data file is another than the one charged before.
        """
        ledger, proposed = self._allowed(plan, plan_digest, members, seen)
        self._approved = approvals_in(self._approvals, plan_digest, self.policy)
        opened = proposed.model_copy(update={"dataset_digest": self._dataset_digest()})
        check_charge(ledger.entries, opened, self.policy, self._accountant)
        self._head = ledger.head
        return ledger.head

    def allow(self, plan: TrainingPlan, plan_digest: str, members: AllianceMembers) -> None:
        """Return if policy and budget allow the whole plan, whoever has approved it; the data file is not opened.

        Raises:
            PolicyRefused, BudgetExceeded: they don't.
            OutOfOrder: the job was charged before.
        """
        self._allowed(plan, plan_digest, members, ())

    def _allowed(
        self, plan: TrainingPlan, plan_digest: str, members: AllianceMembers, seen: Iterable[str]
    ) -> tuple[Ledger, LedgerEntry]:
        """Return the ledger and the charge of each round, with the data set's digest of before."""
        check_partners(plan, self.policy, members)
        ledger, others = self._ledger.read(), self._ledger.put_aside()
        for head in seen:
            check_seen_head(ledger, head, others)
        if of_job(ledger.entries, plan.alliance, plan.job):
            raise OutOfOrder(f"job {plan.job} was already charged here: give the new plan another job name")
        proposed = unopened_entry(ledger, plan, plan_digest=plan_digest, now=int(self._clock()))
        check_plan(ledger.entries, proposed, plan, self.policy, self._accountant)
        return ledger, proposed

    def state(self) -> bytes:
        """Return what `restore` needs in another process: no secret, but nobody else's business."""
        approved = {person: envelope.decode() for person, envelope in self._approved.items()}
        return json.dumps([self._charged_digest, self._head, approved]).encode()

    def restore(self, state: bytes) -> None:
        """Go on with a job of which `state` is known, as after a restart; nothing is known before it was approved."""
        if state:
            self._charged_digest, self._head, approved = json.loads(state)
            self._approved = {person: envelope.encode() for person, envelope in approved.items()}

    def charge(self, plan: TrainingPlan, plan_digest: str, round_number: int, *, again: bool = False) -> str:
        """Charge one round, durably, and return the new head. Nothing is ever refunded.

        `again`: a process was killed while it did this, or just after. A charge that is there then stands, and is
        not made twice.

        Raises:
            PolicyRefused, BudgetExceeded, BadRecords: as `approve`; nothing was charged.
            OutOfOrder: the round was charged before: no update is computed twice.
            LedgerRolledBack: the ledger lacks what it held when the plan was approved, or at the last charge.
        """
        digest = self._dataset_digest()
        made = self._made(plan, plan_digest, round_number, digest) if again else None
        head = made or self._charge(plan, plan_digest, round_number, digest)
        self._charged_digest, self._head = digest, head
        return head

    def _made(self, plan: TrainingPlan, plan_digest: str, round_number: int, digest: str) -> str | None:
        """Return the head that the charge for this round of this plan left, if it is there already."""
        ledger = self._ledger.read()
        check_seen_head(ledger, self._head or ledger.head)
        wanted = (plan.alliance, plan.job, round_number, plan_digest, digest)
        for entry, head in zip(ledger.entries, ledger.digests, strict=True):
            if (entry.alliance, entry.job, entry.round, entry.plan_digest, entry.dataset_digest) == wanted:
                return head
        return None

    def _charge(self, plan: TrainingPlan, plan_digest: str, round_number: int, digest: str) -> str:
        def build(ledger: Ledger) -> bytes:
            check_seen_head(ledger, self._head or ledger.head)
            done = {entry.round for entry in of_job(ledger.entries, plan.alliance, plan.job)}
            if round_number in done:
                raise OutOfOrder(f"round {round_number} of job {plan.job} was already charged")
            entry = next_entry(
                ledger,
                plan,
                plan_digest=plan_digest,
                round_number=round_number,
                dataset_digest=digest,
                now=int(self._clock()),
            )
            left = len(charges_to_come(ledger.entries, entry, plan))
            check_charge(ledger.entries, entry, self.policy, self._accountant, to_come=left)
            return sign_document(self._identity, entry)

        return digest_of(self._ledger.charge(build))

    def require_charged_records(self) -> None:
        """Return if the data file is still the one that the last charge names: then it is what was trained on.

        Raises:
            BadRecords: it was changed between the charge and now.
            LedgerRolledBack: the ledger lacks that charge, as where it was put back while this house was away.
        """
        check_seen_head(self._ledger.read(), self._head)
        if (now := self._dataset_digest()) != self._charged_digest:
            raise BadRecords(f"the data file is now {now}, charged was {self._charged_digest}: it changed meanwhile")

    def report(self, plan: TrainingPlan, plan_digest: str, evidence: Path, record: RoundRecord) -> str:
        """Write ledger, policy, approvals, signed report and page into the evidence folder, then its manifest.

        Returns: the digest of the report's envelope.
        """
        ledger = self._ledger.read()
        report = build_report(
            ledger,
            plan,
            plan_digest=plan_digest,
            policy_digest=digest_of(self._policy_bytes),
            adapter_digest=record.adapter_digest,
            time=int(self._clock()),
        )
        envelope = sign_document(self._identity, report)
        write_atomically(evidence / "policy.dsse.json", self._policy_bytes)
        for person, approval in self._approved.items():
            write_atomically(evidence / "approvals" / f"{person}.dsse.json", approval)
        lines = self._ledger.lines()[: len(ledger.entries)]  # another job may have been charged since
        write_atomically(evidence / "ledger.jsonl", b"".join(line + b"\n" for line in lines))
        write_atomically(evidence / "report.dsse.json", envelope)
        sources = Sources(
            report=report,
            report_digest=digest_of(envelope),
            ledger=ledger,
            policy=self.policy,
            plan=plan,
            records=_records_in(evidence),
            approved=tuple(sorted(self._approved)),
        )
        document = document_of(sources, language="en", pictures="svg")
        write_atomically(evidence / "report.html", page_of(document))
        write_manifest(evidence, self._identity, institution=ledger.institution)
        return digest_of(envelope)


def _records_in(evidence: Path) -> tuple[RoundRecord, ...]:
    """Return the coordinator's records that lie there; each was verified before it was kept."""
    paths = sorted(evidence.glob("rounds/*/record.dsse.json"))
    return tuple(peek_document(read_file(path, "record"), RoundRecord) for path in paths)
