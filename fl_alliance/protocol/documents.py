"""Documents: what outlives a round. Each is an in-toto Statement v1, signed in a DSSE envelope.

    document             signed by          subject                     says
    AllianceMembers      alliance root      every member's public key   who belongs, and with which identity
    TrainingPlan         coordinator        the base model's files      what will be done (protocol/plan.py)
    InstitutionPolicy    institution        its ledger                  what it allows to be spent
    PlanApproval         a person there     the plan                    that this person approves it
    LedgerEntry          institution        the data set                what was spent, before a record was read
    RoundRecord          coordinator        the adapter                 what a round summed and who voted for it
    PrivacyReport        institution        the ledger's head           what the job cost, in epsilon
    EvidenceManifest     institution        every file of the folder    what belongs to the evidence
    EvidenceBundle       institution or     the bundle's files          what belongs to a bundle, of whom
                         coordinator
    PrintedReport        whoever printed    the printed file            that it is made of which signed reports
    LogCheckpoint        coordinator        the transparency log        how long the log is, and its root
    ModelProvenance      institution        adapter files and card      how the released adapter came to be

The subjects follow from the predicate (`subjects_of`), so the two can't contradict each other. A digest of a document
is always the digest of its exact envelope bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import Base64, BlobRef, DecimalText, Digest, Name, RoundNumber, UnixTime, digest_of
from fl_alliance.protocol.limits import MAX_BLOB_BYTES, MAX_BUNDLE_FILES, MAX_LOG, MAX_MEMBERS, MIN_MEMBERS
from fl_alliance.protocol.model import Wire
from fl_alliance.protocol.plan import ModelFile, TrainingPlan, items

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATES: Final = "https://fl-alliance.org/predicates/"


Unit = Annotated[str, Field(min_length=1, max_length=63)]


def _require_sorted(what: str, names: Sequence[str]) -> None:
    if list(names) != sorted(set(names)):
        raise ValueError(f"{what} must be sorted by name, each once")


class AllianceMember(Wire):
    """One party and the key that it is known by."""

    name: Name
    role: Literal["institution", "coordinator"]
    identity: Base64
    """Raw Ed25519 public key, 32 bytes."""


class AllianceMembers(Wire):
    """Who belongs to the alliance. Signed by the alliance's root key."""

    kind: Literal["alliance-members"] = "alliance-members"
    version: Literal[1] = 1
    alliance: Name
    serial: Annotated[int, Field(ge=1, le=2**40)]
    """Grows with each change of the list: an institution takes no list that is older than the one it has."""
    members: Annotated[tuple[AllianceMember, ...], items(1, MAX_MEMBERS + 1)]
    """Sorted by name; the coordinator alone, where every institution has left."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_sorted("members", [member.name for member in self.members])
        if len({member.identity for member in self.members}) != len(self.members):
            raise ValueError("two members have the same identity key")
        if sum(member.role == "coordinator" for member in self.members) != 1:
            raise ValueError("exactly one member must be the coordinator")
        return self

    @property
    def coordinator(self) -> AllianceMember:
        """The one coordinator."""
        return next(member for member in self.members if member.role == "coordinator")

    def member(self, name: str) -> AllianceMember:
        """Return member `name` (KeyError: not a member)."""
        return {member.name: member for member in self.members}[name]


class Partner(Wire):
    """An institution that another one trains with, by name and key, as they told each other without the coordinator."""

    name: Name
    key: Digest
    """Fingerprint of its identity key (`IdentityKey.keyid`)."""


class Approver(Wire):
    """A person of the institution who may approve plans, by name and key."""

    name: Name
    key: Digest
    """Fingerprint of the person's own Ed25519 key (`IdentityKey.keyid`)."""


class InstitutionPolicy(Wire):
    """What an institution allows for one data set. The caps hold whatever a coordinator proposes."""

    kind: Literal["institution-policy"] = "institution-policy"
    version: Literal[1] = 1
    institution: Name
    dataset: Name
    epsilon_per_job: DecimalText
    epsilon_per_dataset: DecimalText
    """Over all jobs, for ever."""
    epsilon_per_year: DecimalText
    """In any 365 days."""
    delta_max: DecimalText
    allowed_units: Annotated[tuple[Unit, ...], items(1, 16)]
    minimum_members: Annotated[int, Field(ge=MIN_MEMBERS, le=MAX_MEMBERS)]
    allowed_models: Annotated[tuple[Digest, ...], items(0, 1000)] = ()
    """`model_digest` of each allowed base model; empty: any."""
    allow_distributed_noise: bool = False
    """Whether a plan may have the members share one noise: then epsilon leans on the others adding their parts."""
    partners: Annotated[tuple[Partner, ...], items(0, MAX_MEMBERS)] = ()
    """Every other member of a job must be among them; empty: any that the alliance's root admits. Masks hide an update
    among the members of a job: whoever can make members up could leave one real one among them."""
    approvers: Annotated[tuple[Approver, ...], items(0, 100)] = ()
    approvals_needed: Annotated[int, Field(ge=0, le=100)] = 0
    """How many of the approvers must have signed a plan before the institution takes part in it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_sorted("partners", [partner.name for partner in self.partners])
        _require_sorted("approvers", [approver.name for approver in self.approvers])
        if len({approver.key for approver in self.approvers}) != len(self.approvers):
            raise ValueError("two approvers have the same key")
        if self.approvals_needed > len(self.approvers):
            raise ValueError(f"approvals_needed {self.approvals_needed}: there are {len(self.approvers)} approvers")
        return self


class PlanApproval(Wire):
    """A person of the institution has read this plan, and the institution may take part in it."""

    kind: Literal["plan-approval"] = "plan-approval"
    version: Literal[1] = 1
    institution: Name
    person: Name
    key: Base64
    """The signer's raw Ed25519 public key; whose it is, the policy says."""
    alliance: Name
    job: Name
    plan_digest: Digest
    """Of the plan's envelope, as the coordinator signed it."""
    time: UnixTime


class SampledGaussian(Wire):
    """Gaussian mechanism on Poisson samples, as charged: `steps` times."""

    mechanism: Literal["poisson-gaussian"] = "poisson-gaussian"
    noise_multiplier: DecimalText
    sampling_rate: DecimalText
    steps: Annotated[int, Field(ge=1, le=10**9)]


class LedgerEntry(Wire):
    """One charge: written before a record of the data set is read, never taken back."""

    kind: Literal["charge"] = "charge"
    version: Literal[1] = 1
    sequence: Annotated[int, Field(ge=1, le=2**40)]
    previous: Digest
    """Of the previous entry's exact envelope bytes; of the first: `ledger_genesis`."""
    institution: Name
    dataset: Name
    dataset_digest: Digest
    alliance: Name
    job: Name
    round: RoundNumber
    plan_digest: Digest
    unit: Unit
    event: SampledGaussian
    evaluation: SampledGaussian | None = None
    """What scoring the held-out units cost. Composed with `event` as if the same units were in both."""
    delta: DecimalText
    time: UnixTime


class Upload(Wire):
    """One member's sealed update."""

    member: Name
    digest: Digest
    length: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]


class LedgerHead(Wire):
    """Where a member's ledger stood after it charged the round."""

    member: Name
    head: Digest


class RoundRecord(Wire):
    """What a round was: roster, uploads, sum, adapter and votes. Signed by the coordinator, checked by all."""

    kind: Literal["round-record"] = "round-record"
    version: Literal[1] = 1
    alliance: Name
    job: Name
    round: RoundNumber
    plan_digest: Digest
    roster_digest: Digest
    members: Annotated[tuple[Name, ...], items(MIN_MEMBERS, MAX_MEMBERS)]
    """The roster: who signed round keys. Members of the job that are missing here or below were out of the round."""
    uploads: Annotated[tuple[Upload, ...], items(MIN_MEMBERS, MAX_MEMBERS)]
    """What the sum is made of."""
    sum_digest: Digest
    sum_length: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    adapter_digest: Digest
    score: DecimalText | None = None
    """As voted: the mean private score of the adapter with which the round began."""
    ledger_heads: Annotated[tuple[LedgerHead, ...], items(2, MAX_MEMBERS)]
    votes: Annotated[tuple[Name, ...], items(2, MAX_MEMBERS)]
    previous_record: Digest | None
    time: UnixTime

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        uploaders = [upload.member for upload in self.uploads]
        _require_sorted("members", self.members)
        _require_sorted("uploads", uploaders)
        _require_sorted("votes", self.votes)
        if [head.member for head in self.ledger_heads] != uploaders:
            raise ValueError("ledger_heads must name the members of uploads, in the same order")
        if strangers := sorted({*uploaders, *self.votes} - set(self.members)):
            raise ValueError(f"{strangers[0]} uploaded or voted and is not a member of the round")
        if (self.round == 1) != (self.previous_record is None):
            raise ValueError("previous_record must be null in round 1 and only there")
        return self


class PrivacyReport(Wire):
    """What a job cost one institution. Every number can be recomputed from the ledger."""

    kind: Literal["privacy-report"] = "privacy-report"
    version: Literal[1] = 1
    institution: Name
    dataset: Name
    alliance: Name
    job: Name
    plan_digest: Digest
    unit: Unit
    relation: Literal["add-or-remove-one-unit"] = "add-or-remove-one-unit"
    delta: DecimalText
    epsilon_pld: DecimalText
    """This job, rounded up."""
    epsilon_rdp: DecimalText
    dataset_epsilon_pld: DecimalText
    """All jobs that ever touched the data set, at the same delta, rounded up."""
    dataset_epsilon_rdp: DecimalText
    entries: Annotated[int, Field(ge=1, le=2**40)]
    ledger_head: Digest
    adapter_digest: Digest
    policy_digest: Digest
    time: UnixTime
    statement: Annotated[str, Field(min_length=1, max_length=4000)]
    """The guarantee in plain words."""


FILE_NAME: Final = r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$"
MAX_FILE_NAME: Final = 300


class ManifestFile(Wire):
    """One file of evidence."""

    name: Annotated[str, Field(pattern=FILE_NAME, max_length=MAX_FILE_NAME)]
    """Relative path with forward slashes; no part begins with a dot."""
    digest: Digest
    length: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]


class EvidenceManifest(Wire):
    """Every file of an evidence folder, but the manifest itself."""

    kind: Literal["evidence-manifest"] = "evidence-manifest"
    version: Literal[1] = 1
    institution: Name
    key: Base64
    """The signer's raw Ed25519 public key: shows that the list is whole; the members' list shows whose key it is."""
    files: Annotated[tuple[ManifestFile, ...], items(1, MAX_BUNDLE_FILES)]

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        _require_sorted("files", [file.name for file in self.files])
        return self


class EvidenceBundle(Wire):
    """What one party hands to an auditor in one zip file: some jobs, or all of a period."""

    kind: Literal["evidence-bundle"] = "evidence-bundle"
    version: Literal[1] = 1
    alliance: Name
    role: Literal["institution", "coordinator"]
    party: Name
    key: Base64
    """The signer's raw Ed25519 public key: shows that the list is whole; the members' lists show whose key it is."""
    since: UnixTime | None
    """Of the period, which begins here; null: with the first job."""
    until: UnixTime | None
    """Of the period, this second included; null: it ends with the newest job."""
    jobs: Annotated[tuple[Name, ...], items(0, 10_000)]
    """Each is a folder `jobs/JOB`."""
    files: Annotated[tuple[ManifestFile, ...], items(1, MAX_BUNDLE_FILES)]
    """Every file but this document and those that a listed `jobs/JOB/manifest.dsse.json` lists."""
    time: UnixTime

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        _require_sorted("jobs", self.jobs)
        _require_sorted("files", [file.name for file in self.files])
        return self


class PrintedReport(Wire):
    """A report for people, printed from evidence by the member who signs this."""

    kind: Literal["printed-report"] = "printed-report"
    version: Literal[1] = 1
    alliance: Name
    signer: Name
    key: Base64
    """The signer's raw Ed25519 public key; the members' list shows whose key it is."""
    form: Literal["html", "pdf"]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]{2,8})?$")]
    digest: Digest
    """Of the file."""
    length: Annotated[int, Field(ge=1, le=MAX_BLOB_BYTES)]
    reports: Annotated[tuple[Digest, ...], items(1, 1_000_000)]
    """Of the signed reports (envelopes) that it was made from."""

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        _require_sorted("reports", self.reports)
        return self


class LogCheckpoint(Wire):
    """The coordinator's log as it stands: whoever is shown another history for this size has proof of a fork."""

    kind: Literal["log-checkpoint"] = "log-checkpoint"
    version: Literal[1] = 1
    alliance: Name
    size: Annotated[int, Field(ge=1, le=MAX_LOG)]
    """Entries of the log."""
    root: Digest
    """Merkle tree hash of the first `size` entries (RFC 6962, section 2.1)."""
    newest: BlobRef
    """The piece of the log that ends with entry `size`; it names the piece before it (`protocol.log.LogPiece`)."""
    time: UnixTime


class Software(Wire):
    """One package that the institution's process ran with."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63}$")]


class ModelProvenance(Wire):
    """How a released adapter came to be, as one institution saw it: SLSA's provenance in the alliance's own terms.

    The model card is rendered from this document alone, so that it can say nothing else.
    """

    kind: Literal["model-provenance"] = "model-provenance"
    version: Literal[1] = 1
    key: Base64
    """The signer's raw Ed25519 public key; the members' list shows whose key it is."""
    model_key: Annotated[Base64, Field(max_length=1000)]
    """DER SubjectPublicKeyInfo of the institution's EC key for model signatures: hereby certified."""
    files: Annotated[tuple[ModelFile, ...], items(1, 100)]
    """The folder's files, but this document and the model signature."""
    plan: TrainingPlan
    """Public parameters, and the base model's files."""
    plan_digest: Digest
    """Of the plan's envelope."""
    rounds: RoundNumber
    """Rounds that were: fewer than the plan's, where the scores ended it."""
    record_digest: Digest
    """Of the last round's record, an envelope: end of the chain of records."""
    report: PrivacyReport
    report_digest: Digest
    """Of the report's envelope."""
    software: Annotated[tuple[Software, ...], items(1, 100)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_sorted("files", [file.name for file in self.files])
        _require_sorted("software", [package.name for package in self.software])
        for field, said, right in (
            ("alliance", self.report.alliance, self.plan.alliance),
            ("job", self.report.job, self.plan.job),
            ("plan_digest", self.report.plan_digest, self.plan_digest),
        ):
            if said != right:
                raise ValueError(f"report.{field} is {said}, the plan's is {right}")
        return self


Document = (
    AllianceMembers
    | TrainingPlan
    | InstitutionPolicy
    | PlanApproval
    | LedgerEntry
    | RoundRecord
    | PrivacyReport
    | EvidenceManifest
    | EvidenceBundle
    | PrintedReport
    | LogCheckpoint
    | ModelProvenance
)


class Sha256(Wire):
    """A digest as in-toto writes it: bare hex under the algorithm's name."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Subject(Wire):
    """What a statement is about."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    digest: Sha256


class Statement(Wire):
    """An in-toto Statement v1 about a document of ours."""

    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[tuple[Subject, ...], items(1, MAX_BUNDLE_FILES)]
    predicate_type: str = Field(alias="predicateType")
    predicate: Annotated[Document, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _about_its_predicate(self) -> Self:
        if self.predicate_type != (expected := predicate_type(self.predicate)):
            raise ValueError(f"predicateType {self.predicate_type[:100]!r} must be {expected!r}")
        if self.subject != subjects_of(self.predicate):
            raise ValueError("subject is not what the predicate is about")
        return self


def predicate_type(document: Document) -> str:
    """Return the URI that names the kind and version of `document`."""
    return f"{PREDICATES}{document.kind}/v{document.version}"


def subjects_of(document: Document) -> tuple[Subject, ...]:
    """Return what `document` is about: names and digests, in the order of the document."""
    return tuple(
        Subject(name=name, digest=Sha256(sha256=digest.removeprefix("sha256:"))) for name, digest in _about(document)
    )


def _about(document: Document) -> list[tuple[str, str]]:
    match document:
        case AllianceMembers(members=members):
            return [(member.name, digest_of(base64.b64decode(member.identity))) for member in members]
        case (
            TrainingPlan(model=files)
            | EvidenceManifest(files=files)
            | EvidenceBundle(files=files)
            | ModelProvenance(files=files)
        ):
            return [(file.name, file.digest) for file in files]
        case InstitutionPolicy():
            return [(document.dataset, ledger_genesis(document.institution, document.dataset))]
        case PlanApproval():
            return [("plan", document.plan_digest)]
        case LedgerEntry():
            return [(document.dataset, document.dataset_digest)]
        case RoundRecord():
            return [("adapter", document.adapter_digest)]
        case PrivacyReport():
            return [("ledger", document.ledger_head)]
        case PrintedReport():
            return [("report", document.digest)]
        case LogCheckpoint():
            return [("log", document.root)]


def statement_for(document: Document) -> Statement:
    """Return the statement that carries `document`."""
    return Statement(
        _type=STATEMENT,
        subject=subjects_of(document),
        predicateType=predicate_type(document),
        predicate=document,
    )


def ledger_genesis(institution: str, dataset: str) -> str:
    """Return what the first entry of this ledger names as its previous one."""
    return digest_of(f"fl-alliance ledger genesis|{institution}|{dataset}".encode())


class _ModelFiles(Wire):
    files: Annotated[tuple[ModelFile, ...], items(1, 200)]


def model_digest(files: tuple[ModelFile, ...]) -> str:
    """Return the one digest of a base model: over its sorted list of file names and digests."""
    return digest_of(encode(_ModelFiles(files=files)))
