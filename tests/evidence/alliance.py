"""A small alliance on paper: keys, members, a plan and a policy, for the tests of evidence, ledger and auditor."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties.sbom import Package, bill_of
from fl_alliance.protocol.documents import AllianceMember, AllianceMembers, InstitutionPolicy
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import (
    AdapterPlan,
    Member,
    ModelFile,
    OptimizerPlan,
    PrivacyPlan,
    SumPlan,
    TrainingPlan,
)

NAMES = ("berlin", "lagos", "lima")


def key_of(name: str) -> IdentityKey:
    """A fixed key for each name: golden bytes need it."""
    seed = digest_of(f"test key of {name}".encode()).removeprefix("sha256:")
    return IdentityKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)))


def members_of(names: tuple[str, ...] = NAMES) -> AllianceMembers:
    parties = [(name, "institution") for name in names] + [("office", "coordinator")]
    return AllianceMembers(
        alliance="clinics",
        serial=1,
        members=tuple(
            AllianceMember.model_validate({"name": name, "role": role, "identity": key_of(name).public_text})
            for name, role in sorted(parties)
        ),
    )


def plan_of(**changes: Any) -> TrainingPlan:
    privacy = {
        "unit": "patient", "clip_norm": "1", "noise_multiplier": "1.5", "sampling_rate": "0.1", "steps_per_round": 4,
        "records_per_unit": 4, "delta": "0.00001", "epsilon_cap": "8",
    }  # fmt: skip
    privacy |= changes.pop("privacy", {})
    fields: dict[str, Any] = {
        "alliance": "clinics",
        "job": "job-1",
        "rounds": 2,
        "members": tuple(Member(name=name, declared_units=1000) for name in NAMES),
        "threshold": 2,
        "quorum": 2,
        "model": (ModelFile(name="model.safetensors", digest=digest_of(b"weights")),),
        "adapter": AdapterPlan(rank=4, alpha=8, targets=("q_proj",), modules=24, public_seed=7),
        "optimizer": OptimizerPlan(name="sgd", learning_rate="0.1"),
        "privacy": PrivacyPlan(**privacy),
        "sum": SumPlan(coordinate_clip="0.5"),
        "max_tokens": 64,
    }
    return TrainingPlan(**(fields | changes))


def bill_for(plan: TrainingPlan) -> bytes:
    """A bill of materials that is the same on every machine."""
    packages = (Package("dp-accounting", "0.6.0", digest_of(b"RECORD")), Package("torch", "2.13.0", None))
    return bill_of(plan, 1_800_000_000, python="3.11.9", sources=digest_of(b"sources"), packages=packages)


def policy_of(**changes: Any) -> InstitutionPolicy:
    fields: dict[str, Any] = {
        "institution": "lagos", "dataset": "cases", "epsilon_per_job": "8", "epsilon_per_dataset": "12",
        "epsilon_per_year": "10", "delta_max": "0.00001", "allowed_units": ("patient",), "minimum_members": 3,
    }  # fmt: skip
    return InstitutionPolicy(**(fields | changes))
