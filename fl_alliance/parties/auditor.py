"""What an auditor runs on an institution's evidence folder, offline: numbered steps, each refuses by file and step.

    (1) manifest     every file is listed, unchanged, and a plain file
    (2) root         the alliance's root key has the expected fingerprint
    (3) members      signed by the root; the manifest's signer is one of its institutions
    (4) plan         signed by the coordinator; its members are institutions of the alliance
    (5) policy       signed by the institution; it allows the plan; the persons it asks for have approved it
    (6) ledger       every entry signed and chained
    (7) rounds       a chained record for each round, a charge for each record, no charge that is not the plan's
    (8) messages     every member's signature; uploads, ledger heads, sum and adapter are the record's; a quorum voted
    (9) epsilon      recomputed from the ledger by two accountants; equals the report, within every cap
    (10) log         plan, members, records and ledger heads are in the coordinator's log, which only grew
    (11) software    a bill of materials of the process that trained; its base model is the plan's

Not checked, since no paper can show it: that the institution trained on the data set it names, with the noise it
charged; that the root key belongs to whom it says (compare the fingerprint by another way); what lies outside the
folder. That `report.html`, whose bytes the manifest covers, words the signed report faithfully, `audit printed` checks.
"""

from __future__ import annotations

import bisect
import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

from fl_alliance.errors import AllianceError, EvidenceRefused, NotAuthentic
from fl_alliance.evidence.bundle import MANIFEST, check_manifest
from fl_alliance.evidence.files import EvidenceFiles, FolderFiles
from fl_alliance.evidence.keys import AllianceRoot, public_key_of
from fl_alliance.evidence.sign import open_approval, open_document
from fl_alliance.parties.audit_log import LOG, Logged, check_log
from fl_alliance.parties.audit_messages import Evidence, check_key_messages, check_messages
from fl_alliance.parties.audit_rules import (
    charge_times,
    charges_of,
    check_caps,
    check_charged,
    check_ending,
    check_record,
    require_same,
)
from fl_alliance.parties.audit_software import SOFTWARE, check_software
from fl_alliance.parties.mail import Address
from fl_alliance.privacy.ledger import (
    Ledger,
    approved_by,
    check_approvals,
    check_partners,
    check_plan_terms,
    of_job,
    verify_chain,
)
from fl_alliance.privacy.report import Costs, costs_of, statement_of
from fl_alliance.privacy.reporting.facts import Sources
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import (
    AllianceMembers,
    Document,
    InstitutionPolicy,
    LedgerEntry,
    PrivacyReport,
    RoundRecord,
)
from fl_alliance.protocol.ids import decimal_text, digest_of
from fl_alliance.protocol.plan import TrainingPlan

ROOT, MEMBERS, PLAN = "root.pub.json", "members.dsse.json", "plan.dsse.json"
POLICY, LEDGER, REPORT, PAGE = "policy.dsse.json", "ledger.jsonl", "report.dsse.json", "report.html"
APPROVALS = "approvals"
ALWAYS = (ROOT, MEMBERS, PLAN, POLICY, LEDGER, REPORT, PAGE, SOFTWARE)
"""Files of every evidence folder."""
_OF_A_JOB = re.compile(r"(approvals|log|keys/messages|rounds/[^/]+/messages)/[^/]+|rounds/[^/]+(/record\.dsse\.json)?")
"""The others; what each folder must hold and no more, its own step says."""

D = TypeVar("D", bound=Document)
Say = Callable[[int, str], None]
"""Is told the number of a step, and what it shows."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the evidence shows."""

    institution: str
    key: str
    """Fingerprint of its identity key, which signed the evidence."""
    alliance: str
    job: str
    dataset: str
    unit: str
    root: str
    """Fingerprint of the root key on which everything rests."""
    root_compared: bool
    rounds: int
    charges: int
    """Entries of this job: more than rounds where a round was charged and then failed."""
    delta: Decimal
    costs: Costs
    upload_bytes: int
    """Length of the institution's upload in the last round."""
    adapter_digest: str
    log_entries: int
    """Of the coordinator's log, up to the last checkpoint."""
    software: str
    """Version of this software that the institution ran, by its own word."""
    sources: Sources
    """What was verified, for a report of it."""


def verify_evidence(folder: Path, *, root: str | None, say: Callable[[str], None]) -> Findings:
    """Verify an institution's evidence `folder` of one job; `say` is told each step's result.

    `root` is the expected fingerprint of the alliance's root key; without it the folder is only checked against itself.

    Raises:
        EvidenceRefused: "step N, FILE: why". Nothing else escapes.
    """
    if not folder.is_dir():
        raise EvidenceRefused(f"step 1, {MANIFEST}: {folder} is not a folder")
    return verify_job(FolderFiles(folder), root=root, say=lambda number, text: say(f"({number}) {text}"))


def verify_job(files: EvidenceFiles, *, root: str | None, say: Say) -> Findings:
    """As `verify_evidence`, wherever the files are; `say` gets each step's number and result."""
    return _InstitutionSteps(files, say).run(root)


class JobSteps:
    """Steps that any party's evidence of a job takes. Each method is one and returns what later steps need."""

    def __init__(self, files: EvidenceFiles, say: Say) -> None:
        self._source, self._say = files, say
        self._names: tuple[str, ...] = ()
        """Sorted, as a signed list names them."""

    # (2) The root key must be the one whose fingerprint the auditor got by another way.
    def root(self, expected: str | None) -> bytes:
        """Return the alliance's raw root key."""
        with step(2, ROOT):
            key = decode(AllianceRoot, self._read(ROOT)).public
            if expected is not None and digest_of(key) != expected:
                raise NotAuthentic(f"fingerprint {digest_of(key)}, expected {expected}")
        compared = "as expected" if expected is not None else "NOT COMPARED: ask the alliance for its fingerprint"
        self._say(2, f"root key {digest_of(key)}: {compared}")
        return key

    # (3) The root signed the members' list, and the manifest's key is the institution's in that list.
    def members(
        self, root: bytes, party: str, signer: bytes, role: Literal["institution", "coordinator"]
    ) -> AllianceMembers:
        """Return the list of members with which the job began."""
        with step(3, MEMBERS):
            members = open_document(self._read(MEMBERS), AllianceMembers, public_key=root)
            known = {member.name: public_key_of(member.identity) for member in members.members}
            roles = {member.name: member.role for member in members.members}
            if roles.get(party) != role:
                raise NotAuthentic(f"{party}, who signed the manifest, is not among its {role}s")
            if known[party] != signer:
                raise NotAuthentic(
                    f"{party} has key {digest_of(known[party])}, the manifest is signed with {digest_of(signer)}"
                )
        self._say(3, f"members: {len(members.members)} of alliance {members.alliance}, {party} among them")
        return members

    # (4) The coordinator signed the plan; institution and fellow members are in the alliance.
    def plan(self, members: AllianceMembers, institution: str | None) -> tuple[TrainingPlan, str]:
        """Return the plan and its digest; `institution` must be in it."""
        with step(4, PLAN):
            data = self._read(PLAN)
            plan = open_document(data, TrainingPlan, public_key=public_key_of(members.coordinator.identity))
            if plan.alliance != members.alliance:
                raise NotAuthentic(f"of alliance {plan.alliance}, expected {members.alliance}")
            institutions = {member.name for member in members.members if member.role == "institution"}
            if strangers := sorted(set(plan.names) - institutions):
                raise NotAuthentic(f"{strangers[0]} is not an institution of the alliance")
            if institution is not None and institution not in plan.names:
                raise NotAuthentic(f"{institution} is not a member of the job")
        self._say(4, f"plan: job {plan.job}, {plan.rounds} rounds, {len(plan.names)} members")
        return plan, digest_of(data)

    # (7) A record for each round, in order; a charge for each round, and no charge that is not the plan's.
    def rounds(
        self, members: AllianceMembers, plan: TrainingPlan, plan_digest: str, ledger: Ledger | None
    ) -> tuple[RoundRecord, ...]:
        """Return every round's record; with a `ledger`, after each was compared with its charge there."""
        with step(7, LEDGER):
            charges = {} if ledger is None else charges_of(plan, plan_digest, ledger)
        with step(7, "rounds"):
            found = sorted({name.split("/")[0] for name in self._below("rounds")})
            count = plan.rounds if plan.evaluation is None else max(1, min(len(found), plan.rounds))
            if found != [f"{number:04d}" for number in range(1, count + 1)]:
                raise NotAuthentic(f"holds {', '.join(found) or 'nothing'}; the plan has {plan.rounds} rounds")
        key, records, previous = public_key_of(members.coordinator.identity), [], None
        for number in range(1, count + 1):
            name = f"rounds/{number:04d}/record.dsse.json"
            with step(7, name):
                data = self._read(name)
                record = open_document(data, RoundRecord, public_key=key)
                check_record(record, plan, plan_digest, number, previous)
                if ledger is not None:
                    check_charged(record, ledger, charges)
            previous = digest_of(data)
            records.append(record)
        with step(7, "rounds"):
            check_ending(plan, records)
        charged = "" if ledger is None else "; each was charged before its upload"
        self._say(7, f"rounds: {len(records)} records, chained{charged}")
        return tuple(records)

    # (8) The institutions' own signatures say the same as the coordinator's records.
    def messages(
        self, members: AllianceMembers, plan: TrainingPlan, plan_digest: str, records: tuple[RoundRecord, ...],
        ledger: Ledger | None,
    ) -> Address:  # fmt: skip
        """Return the parties' keys, after every message of every round was compared with its record."""
        keys = {member.name: public_key_of(member.identity) for member in members.members}
        address = Address(me=members.coordinator.name, coordinator=members.coordinator.name, keys=keys)
        count = check_key_messages(plan, plan_digest, self._evidence("keys/messages", address), ledger)
        for record in records:
            evidence = self._evidence(f"rounds/{record.round:04d}/messages", address)
            count += check_messages(record, plan, evidence)
        self._say(8, f"messages: {count} signed by institutions, they agree with the records; a quorum voted each time")
        return address

    # (10) The coordinator's log holds what the job relied on, as the institution and every other member were shown it.
    def log(self, plan: TrainingPlan, address: Address, records: tuple[RoundRecord, ...], ledger: Ledger | None) -> int:
        """Return how many entries the log has, to the last checkpoint."""
        where = [f"rounds/{record.round:04d}" for record in records]
        with step(10, LOG):
            logged = Logged(
                alliance=plan.alliance,
                job=plan.job,
                address=address,
                members=self._read(MEMBERS),
                plan=self._read(PLAN),
                records=[self._read(f"{name}/record.dsse.json") for name in where],
                acceptances=self._files("keys/messages"),
                messages=[self._files(f"{name}/messages") for name in where],
                charged=None if ledger is None else charge_times(records, ledger),
            )
            entries = check_log(self._files(LOG), logged)
        self._say(10, f"log: {entries} entries; plan, members, records and ledger heads are among them; it only grew")
        return entries

    def _below(self, where: str) -> tuple[str, ...]:
        """Return what lies below a folder, by its name there."""
        first = bisect.bisect(self._names, f"{where}/")
        end = bisect.bisect(self._names, f"{where}0")  # the sign after the slash
        return tuple(name[len(where) + 1 :] for name in self._names[first:end])

    def _files(self, where: str) -> dict[str, bytes]:
        return {name: self._read(f"{where}/{name}") for name in self._below(where)}

    def _read(self, name: str) -> bytes:
        return self._source.read(name)

    def _evidence(self, where: str, address: Address) -> Evidence:
        with step(8, where):
            files = self._files(where)
        return Evidence(where=where, address=address, files=files)


class _InstitutionSteps(JobSteps):
    """All steps, of an institution's evidence of one job."""

    def run(self, root: str | None) -> Findings:
        institution, signer = self._manifest()
        root_key = self.root(root)
        members = self.members(root_key, institution, signer, "institution")
        plan, plan_digest = self.plan(members, institution)
        policy = self._policy(plan, members, institution, signer)
        approved = self._approvals(plan_digest, policy)
        ledger = self._ledger(policy, signer)
        records = self.rounds(members, plan, plan_digest, ledger)
        address = self.messages(members, plan, plan_digest, records, ledger)
        report, costs = self._epsilon(plan, plan_digest, policy, ledger, records, signer)
        entries = self.log(plan, address, records, ledger)
        software = self._software(plan)
        return Findings(
            institution=institution,
            key=digest_of(signer),
            alliance=plan.alliance,
            job=plan.job,
            dataset=policy.dataset,
            unit=plan.privacy.unit,
            root=digest_of(root_key),
            root_compared=root is not None,
            rounds=len(records),
            charges=len(of_job(ledger.entries, plan.alliance, plan.job)),
            delta=Decimal(report.delta),
            costs=costs,
            upload_bytes={upload.member: upload.length for upload in records[-1].uploads}[institution],
            adapter_digest=report.adapter_digest,
            log_entries=entries,
            software=software,
            sources=Sources(
                report=report,
                report_digest=digest_of(self._read(REPORT)),
                ledger=ledger,
                policy=policy,
                plan=plan,
                records=records,
                approved=approved,
            ),
        )

    # (1) Every file is listed in the manifest, unchanged, and a plain file. Whose key signed it: step 3.
    def _manifest(self) -> tuple[str, bytes]:
        manifest = check_manifest(self._source)
        self._names = tuple(file.name for file in manifest.files)
        listed = set(self._names)
        for name in ALWAYS:
            if name not in listed:
                raise EvidenceRefused(f"step 1, {name}: is missing, every evidence folder has it")
        require_belongs(self._names, ALWAYS, _OF_A_JOB)
        self._say(1, f"manifest: {len(listed)} files, unchanged since {manifest.institution} signed")
        return manifest.institution, public_key_of(manifest.key)

    # (5) The institution signed its policy, and the policy allows unit, delta, members and model of the plan.
    def _policy(
        self, plan: TrainingPlan, members: AllianceMembers, institution: str, signer: bytes
    ) -> InstitutionPolicy:
        with step(5, POLICY):
            policy = open_document(self._read(POLICY), InstitutionPolicy, public_key=signer)
            if policy.institution != institution:
                raise NotAuthentic(f"of {policy.institution}, expected {institution}")
            check_plan_terms(plan, policy)
            check_partners(plan, policy, members)
        named = "partners named" if policy.partners else "any partner that the root admits"
        self._say(5, f"policy: data set {policy.dataset}; {named}; allows the plan")
        return policy

    # (5) Whoever the policy asks for has signed the plan, and every approval here counts.
    def _approvals(self, plan_digest: str, policy: InstitutionPolicy) -> tuple[str, ...]:
        with step(5, APPROVALS):
            files = self._files(APPROVALS)
            approved = approved_by(plan_digest, policy, [open_approval(data) for data in files.values()])
            check_approvals(plan_digest, policy, approved)
            require_same({"files": (sorted(files), sorted(f"{person}.dsse.json" for person in approved))})
        if policy.approvals_needed:
            self._say(5, f"approved by {', '.join(sorted(approved))}; needed {policy.approvals_needed}")
        return tuple(sorted(approved))

    # (6) The ledger is whole: signatures, sequence, chain, owner.
    def _ledger(self, policy: InstitutionPolicy, signer: bytes) -> Ledger:
        with step(6, LEDGER):
            ledger = read_ledger(self._read(LEDGER), policy, signer)
        self._say(6, f"ledger: {len(ledger.entries)} entries, chained and signed")
        return ledger

    # (9) Recompute epsilon from the events; do not read it from the report.
    def _epsilon(
        self, plan: TrainingPlan, plan_digest: str, policy: InstitutionPolicy, ledger: Ledger,
        records: tuple[RoundRecord, ...], signer: bytes,
    ) -> tuple[PrivacyReport, Costs]:  # fmt: skip
        with step(9, REPORT):
            report = open_document(self._read(REPORT), PrivacyReport, public_key=signer)
            delta = Decimal(plan.privacy.delta)
            costs = costs_of(ledger.entries, alliance=plan.alliance, job=plan.job, delta=delta)
            named: dict[str, tuple[object, object]] = {
                "institution": (report.institution, ledger.institution),
                "dataset": (report.dataset, ledger.dataset),
                "alliance": (report.alliance, plan.alliance),
                "job": (report.job, plan.job),
                "plan_digest": (report.plan_digest, plan_digest),
                "policy_digest": (report.policy_digest, digest_of(self._read(POLICY))),
                "adapter_digest": (report.adapter_digest, records[-1].adapter_digest),
                "unit": (report.unit, plan.privacy.unit),
                "delta": (report.delta, plan.privacy.delta),
                "entries": (report.entries, len(ledger.entries)),
                "ledger_head": (report.ledger_head, ledger.head),
                "epsilon_pld": (report.epsilon_pld, decimal_text(costs.job_pld)),
                "epsilon_rdp": (report.epsilon_rdp, decimal_text(costs.job_rdp)),
                "dataset_epsilon_pld": (report.dataset_epsilon_pld, decimal_text(costs.dataset_pld)),
                "dataset_epsilon_rdp": (report.dataset_epsilon_rdp, decimal_text(costs.dataset_rdp)),
                "statement": (report.statement, statement_of(plan, ledger, costs)),
            }
            require_same(named)
        with step(9, LEDGER):
            check_caps(plan, policy, ledger)
        self._say(
            9,
            f"epsilon at delta {delta}: this job {costs.job_pld} (PLD), {costs.job_rdp} (RDP); "
            f"data set {costs.dataset_pld} (PLD), {costs.dataset_rdp} (RDP); within the caps",
        )
        return report, costs

    # (11) The institution says with what it ran, and that the base model had the plan's files.
    def _software(self, plan: TrainingPlan) -> str:
        with step(11, SOFTWARE):
            version, packages = check_software(self._read(SOFTWARE), plan)
        self._say(11, f"software: fl-alliance {version}, {packages} packages; the base model is the plan's")
        return version


def require_belongs(names: Iterable[str], known: Collection[str], pattern: re.Pattern[str]) -> None:
    """Return if every file is one that evidence has: a list that a house signed may name what slipped into its folder.

    Raises:
        EvidenceRefused: step 1; names the file.
    """
    for name in names:
        if name not in known and not pattern.fullmatch(name):
            raise EvidenceRefused(f"step 1, {name}: does not belong to evidence")


def read_ledger(data: bytes, policy: InstitutionPolicy, signer: bytes) -> Ledger:
    """Return the ledger in `data`, a signed entry in each line, of the owner of `policy` with the raw key `signer`.

    Raises:
        NotAuthentic, LedgerBroken: a line is torn, not signed, or not the next of its chain.
    """
    if data and not data.endswith(b"\n"):
        raise NotAuthentic("the last line is torn")
    return verify_chain(
        data.split(b"\n")[:-1],
        open_entry=lambda line: open_document(line, LedgerEntry, public_key=signer),
        institution=policy.institution,
        dataset=policy.dataset,
    )


@contextlib.contextmanager
def step(number: int, file: str) -> Iterator[None]:
    """Name step and file in whatever is refused inside."""
    try:
        yield
    except EvidenceRefused:
        raise
    except AllianceError as error:
        raise EvidenceRefused(f"step {number}, {file}: {error}") from None
