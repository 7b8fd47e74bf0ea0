"""One example of everything that travels, each field with a value of its own. Their bytes are in `golden/`.

A file in `golden/` never changes: a new field is a new version, and what was signed once must verify for ever.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from fl_alliance.protocol import documents as d
from fl_alliance.protocol import log as l
from fl_alliance.protocol import messages as m
from fl_alliance.protocol import plan as p
from fl_alliance.protocol.envelope import STATEMENT_TYPE, Envelope, Signature, label
from fl_alliance.protocol.ids import BlobRef

GOLDEN: Final = Path(__file__).parent / "golden"


def digest(number: int) -> str:
    return "sha256:" + f"{number:02x}" * 32


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def blob(number: int) -> BlobRef:
    return BlobRef(digest=digest(number), length=number * 1000)


ENVELOPES: Final = (text(b"{berlin}"), text(b"{lagos}"), text(b"{lima}"))
FOR_EACH: Final = tuple(m.ToMember(member=name, sealed=text(name.encode() * 2)) for name in ("berlin", "lagos", "lima"))
JOB: Final[dict[str, Any]] = {"alliance": "clinics", "job": "nouns-7", "round": 0}
ROUND: Final[dict[str, Any]] = {**JOB, "round": 3}

MESSAGES: Final[dict[str, m.Request | m.Answer]] = {
    "proposal": m.Proposal(
        **JOB,
        plan=text(b"{plan}"),
        members=text(b"{members}"),
        last_seen=text(b"{update}"),
        checkpoint=text(b"{checkpoint}"),
    ),
    "proposal.first": m.Proposal(
        **JOB, plan=text(b"{plan}"), members=text(b"{members}"), last_seen=None, checkpoint=text(b"{checkpoint}")
    ),
    "acceptance": m.Acceptance(**JOB, plan_digest=digest(1), wrap_key=text(bytes(range(32))), ledger_head=digest(2)),
    "key-request": m.KeyRequest(**JOB, acceptances=ENVELOPES),
    "wrapped-keys": m.WrappedKeys(
        **JOB, acceptances_digest=digest(3), key_fingerprint=digest(4), sealed_key=text(b"{sealed}"), wrapped=FOR_EACH
    ),
    "key-delivery": m.KeyDelivery(**JOB, acceptances=ENVELOPES, wrapped_keys=text(b"{wrapped}")),
    "key-accepted": m.KeyAccepted(**JOB, key_fingerprint=digest(4)),
    "round-opening": m.RoundOpening(**ROUND, previous_record=digest(5)),
    "round-opening.first": m.RoundOpening(**{**JOB, "round": 1}, previous_record=None),
    "round-keys": m.RoundKeys(
        **ROUND,
        plan_digest=digest(1),
        checkpoint=digest(31),
        mask_key=text(bytes(range(32))),
        channel_key=text(bytes(range(32, 64))),
    ),
    "key-roster": m.KeyRoster(**ROUND, round_keys=ENVELOPES),
    "sealed-shares": m.SealedShares(**ROUND, roster_digest=digest(6), shares=FOR_EACH),
    "share-delivery": m.ShareDelivery(**ROUND, sealed_shares=ENVELOPES),
    "sealed-update": m.SealedUpdate(
        **ROUND, roster_digest=digest(6), dealers_digest=digest(14), upload=blob(7), ledger_head=digest(8)
    ),
    "survivor-list": m.SurvivorList(**ROUND, sealed_updates=ENVELOPES, sum=blob(9)),
    "survivors-confirmed": m.SurvivorsConfirmed(**ROUND, survivors_digest=digest(10)),
    "confirmations": m.Confirmations(**ROUND, confirmed=ENVELOPES),
    "revealed-shares": m.RevealedShares(**ROUND, survivors_digest=digest(10), sealed="AAAA"),
    "reveal-delivery": m.RevealDelivery(**ROUND, revealed_shares=ENVELOPES),
    "sum-checked": m.SumChecked(**ROUND, survivors_digest=digest(10), sum_digest=digest(9)),
    "sum-checked.not-drawn": m.SumChecked(**ROUND, survivors_digest=digest(10), sum_digest=None),
    "sum-checks": m.SumChecks(**ROUND, sum_checked=ENVELOPES),
    "adapter-vote": m.AdapterVote(**ROUND, sum_digest=digest(9), adapter_digest=digest(11), score="2.71828"),
    "release": m.Release(**ROUND, record=text(b"{record}"), votes=ENVELOPES, checkpoint=text(b"{checkpoint}")),
    "released": m.Released(**ROUND, record_digest=digest(5), report_digest=None, adapter=None),
    "released.last": m.Released(**ROUND, record_digest=digest(5), report_digest=digest(12), adapter=blob(11)),
    "abort": m.Abort(**ROUND, reason='no quorum: 1 of 3 voted for "é\u20ac\\\u2028"'),
    "stopped": m.Stopped(**ROUND),
    "refusal": m.Refusal(
        **ROUND, request_digest=digest(13), error="BudgetExceeded", reason="epsilon 9 is above 8 a job"
    ),
}

PLAN: Final = p.TrainingPlan(
    alliance="clinics",
    job="nouns-7",
    rounds=12,
    members=(
        p.Member(name="berlin", declared_units=1000),
        p.Member(name="lagos", declared_units=2500),
        p.Member(name="lima", declared_units=4000),
    ),
    threshold=2,
    quorum=3,
    model=(
        p.ModelFile(name="config.json", digest=digest(14)),
        p.ModelFile(name="model-00001-of-00002.safetensors", digest=digest(15)),
    ),
    adapter=p.AdapterPlan(
        method="lora", rank=4, alpha=8, targets=("o_proj", "q_proj"), modules=48, public_seed=2**31 - 1
    ),
    optimizer=p.OptimizerPlan(name="adam", learning_rate="0.0005", momentum="0.9", beta2="0.98", noise_floor="0.00001"),
    server=p.ServerPlan(name="adam", learning_rate="0.01", beta1="0.8", beta2="0.95", tau="0.0001"),
    privacy=p.PrivacyPlan(
        unit="patient",
        clip_norm="1",
        clipping="auto-s",
        noise_multiplier="1.25",
        sampling_rate="0.01",
        steps_per_round=40,
        records_per_unit=4,
        delta="0.000001",
        epsilon_cap="7.5",
    ),
    evaluation=p.EvaluationPlan(heldout="0.1", score_cap="8", noise_multiplier="2.5", patience=3),
    sum=p.SumPlan(coordinate_clip="0.05", bits=12),
    max_tokens=512,
    release_to_coordinator=True,
    accept_seconds=86_400,
    phase_seconds=900,
)

REPORT: Final = d.PrivacyReport(
    institution="lagos",
    dataset="cases",
    alliance="clinics",
    job="nouns-7",
    plan_digest=digest(1),
    unit="patient",
    delta="0.000001",
    epsilon_pld="3.17",
    epsilon_rdp="3.61",
    dataset_epsilon_pld="5.02",
    dataset_epsilon_rdp="5.9",
    entries=17,
    ledger_head=digest(8),
    adapter_digest=digest(11),
    policy_digest=digest(25),
    time=1_790_000_002,
    statement="Whether one patient is in the data changes\nno answer by more than a factor of exp(3.17).",
)

DOCUMENTS: Final[dict[str, d.Document]] = {
    "alliance-members": d.AllianceMembers(
        alliance="clinics",
        serial=3,
        members=(
            d.AllianceMember(name="berlin", role="institution", identity=text(bytes([1]) * 32)),
            d.AllianceMember(name="lagos", role="institution", identity=text(bytes([2]) * 32)),
            d.AllianceMember(name="office", role="coordinator", identity=text(bytes([3]) * 32)),
        ),
    ),
    "training-plan": PLAN,
    "institution-policy": d.InstitutionPolicy(
        allow_distributed_noise=True,
        institution="lagos",
        dataset="cases",
        epsilon_per_job="8",
        epsilon_per_dataset="24",
        epsilon_per_year="12.5",
        delta_max="0.00001",
        allowed_units=("patient", "Fall mit Überweisung"),
        minimum_members=3,
        allowed_models=(digest(16),),
        partners=(d.Partner(name="berlin", key=digest(21)), d.Partner(name="lima", key=digest(22))),
        approvers=(d.Approver(name="dr-okoye", key=digest(29)), d.Approver(name="head-of-data", key=digest(30))),
        approvals_needed=1,
    ),
    "plan-approval": d.PlanApproval(
        institution="lagos",
        person="dr-okoye",
        key=text(bytes([4]) * 32),
        alliance="clinics",
        job="nouns-7",
        plan_digest=digest(1),
        time=1_789_999_999,
    ),
    "charge": d.LedgerEntry(
        sequence=17,
        previous=digest(17),
        institution="lagos",
        dataset="cases",
        dataset_digest=digest(18),
        alliance="clinics",
        job="nouns-7",
        round=3,
        plan_digest=digest(1),
        unit="patient",
        event=d.SampledGaussian(noise_multiplier="1.25", sampling_rate="0.01", steps=40),
        evaluation=d.SampledGaussian(noise_multiplier="2.5", sampling_rate="1", steps=1),
        delta="0.000001",
        time=1_790_000_000,
    ),
    "round-record": d.RoundRecord(
        alliance="clinics",
        job="nouns-7",
        round=3,
        plan_digest=digest(1),
        roster_digest=digest(6),
        members=("berlin", "lagos", "lima"),
        uploads=(
            d.Upload(member="berlin", digest=digest(19), length=33_005),
            d.Upload(member="lagos", digest=digest(20), length=33_006),
            d.Upload(member="lima", digest=digest(21), length=33_007),
        ),
        sum_digest=digest(9),
        sum_length=9,
        adapter_digest=digest(11),
        score="2.71828",
        ledger_heads=(
            d.LedgerHead(member="berlin", head=digest(22)),
            d.LedgerHead(member="lagos", head=digest(23)),
            d.LedgerHead(member="lima", head=digest(24)),
        ),
        votes=("berlin", "lima"),
        previous_record=digest(5),
        time=1_790_000_001,
    ),
    "privacy-report": REPORT,
    "evidence-manifest": d.EvidenceManifest(
        institution="lagos",
        key=text(bytes([2]) * 32),
        files=(
            d.ManifestFile(name="ledger.jsonl", digest=digest(26), length=0),
            d.ManifestFile(name="rounds/0003/record.json", digest=digest(5), length=4 << 30),
        ),
    ),
    "evidence-bundle": d.EvidenceBundle(
        alliance="clinics",
        role="institution",
        party="lagos",
        key=text(bytes([2]) * 32),
        since=None,
        until=1_790_000_003,
        jobs=("nouns-7", "verbs-1"),
        files=(
            d.ManifestFile(name="jobs/nouns-7/manifest.dsse.json", digest=digest(34), length=7000),
            d.ManifestFile(name="jobs/verbs-1/manifest.dsse.json", digest=digest(35), length=8000),
        ),
        time=1_790_000_004,
    ),
    "printed-report": d.PrintedReport(
        alliance="clinics",
        signer="lagos",
        key=text(bytes([2]) * 32),
        form="pdf",
        language="de",
        digest=digest(36),
        length=240_000,
        reports=tuple(sorted((digest(37), digest(38)))),
    ),
    "model-provenance": d.ModelProvenance(
        key=text(bytes([2]) * 32),
        model_key=text(bytes(range(91))),
        files=(
            p.ModelFile(name="README.md", digest=digest(31)),
            p.ModelFile(name="adapter_config.json", digest=digest(32)),
            p.ModelFile(name="adapter_model.safetensors", digest=digest(33)),
        ),
        plan=PLAN,
        plan_digest=digest(1),
        rounds=11,
        record_digest=digest(5),
        report=REPORT,
        report_digest=digest(12),
        software=(
            d.Software(name="fl-alliance", version="0.1.0"),
            d.Software(name="torch", version="2.13.0+cpu"),
        ),
    ),
    "log-checkpoint": d.LogCheckpoint(
        alliance="clinics", size=19, root=digest(32), newest=blob(33), time=1_790_000_003
    ),
}

HEAD: Final = l.LogEntry(kind="ledger-head", job="nouns-7", round=3, member="lagos", digest=digest(34))
LOG: Final[dict[str, BaseModel]] = {
    "entry": HEAD,
    "entry.members": l.LogEntry(kind="alliance-members", job=None, round=0, member=None, digest=digest(35)),
    "piece": l.LogPiece(first=17, previous=blob(36), entries=(HEAD, HEAD.model_copy(update={"round": 4}))),
    "piece.first": l.LogPiece(first=0, previous=None, entries=(HEAD,)),
    "receipt": l.LogReceipt(
        checkpoint=text(b"{checkpoint}"),
        entry=HEAD,
        index=17,
        inclusion=(digest(37), digest(38)),
        earlier=text(b"{earlier}"),
        consistency=(digest(39),),
    ),
}

ENVELOPE: Final[dict[str, Envelope]] = {
    "message": Envelope(
        payload=text(b'{"a":1}'),
        payloadType=label(
            kind="sum-checked", sender="lagos", receiver="office", alliance="clinics", job="nouns-7", round_number=3
        ),
        signatures=(Signature(keyid=digest(27), sig=text(bytes(range(64)))),),
    ),
    "document": Envelope(
        payload=text(b'{"_type":"https://in-toto.io/Statement/v1"}'),
        payloadType=STATEMENT_TYPE,
        signatures=(
            Signature(keyid=digest(27), sig=text(bytes(range(64)))),
            Signature(keyid=digest(28), sig=text(bytes(range(64, 128)))),
        ),
    ),
}


def golden(folder: str, name: str) -> bytes:
    return (GOLDEN / folder / f"{name}.json").read_bytes()


def objects() -> dict[tuple[str, str], BaseModel]:
    """(folder, name) -> the object whose bytes the file holds. A document travels as a statement."""
    found: dict[tuple[str, str], BaseModel] = {("messages", name): message for name, message in MESSAGES.items()}
    found |= {("documents", name): d.statement_for(document) for name, document in DOCUMENTS.items()}
    found |= {("log", name): part for name, part in LOG.items()}
    return found | {("envelopes", name): envelope for name, envelope in ENVELOPE.items()}
