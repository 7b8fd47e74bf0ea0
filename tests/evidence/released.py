"""An honest released adapter beside its evidence, without any training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_alliance.evidence.adapter import ADAPTER_FILES, CARD, PROVENANCE, SIGNATURE, adapter_digest, file_at
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.model_signature import sign_model
from fl_alliance.evidence.sign import peek_document, sign_document
from fl_alliance.parties.release import ModelReleaser
from fl_alliance.privacy.model_card import render_card
from fl_alliance.protocol.documents import ModelProvenance, RoundRecord
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan
from tests.evidence.alliance import key_of
from tests.evidence.folder import ME, Folder

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(range(8))


def adapter_in(folder: Path, weights: bytes = WEIGHTS) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}\n')
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def released(job: Path, *, weights: bytes = WEIGHTS, plan: dict[str, Any] | None = None) -> Path:
    """Make `job`/adapter and `job`/evidence of one round as an institution leaves them; return `job`."""
    adapter = adapter_in(job / "adapter", weights)
    folder = Folder(job / "evidence", **{"rounds": 1} | (plan or {}))
    folder.adapters[1] = adapter_digest(adapter)
    folder.build()
    release(job)
    return job


def release(job: Path) -> None:
    """Lay card, provenance and signature beside the adapter, as the institution does."""
    envelope = (job / "evidence/plan.dsse.json").read_bytes()
    plan = peek_document(envelope, TrainingPlan)
    record = peek_document((job / "evidence/rounds/0001/record.dsse.json").read_bytes(), RoundRecord)
    releaser = ModelReleaser(key_of(ME), job / "keys" / "model.key")
    releaser.write(job / "adapter", plan, digest_of(envelope), job / "evidence", record)


def copy_of(job: Path, place: Path) -> Path:
    return Path(shutil.copytree(job, place))


def lie(
    job: Path,
    *,
    report: dict[str, Any] | None = None,
    plan: dict[str, Any] | None = None,
    card: Callable[[bytes], bytes] = bytes,
    identity: IdentityKey | None = None,
    **changes: Any,
) -> None:
    """Sign `job`/adapter again with changes that the signer made up; an adapter digest of None is the true one."""
    folder, signer = job / "adapter", identity or key_of(ME)
    told = peek_document((folder / PROVENANCE).read_bytes(), ModelProvenance)
    report = dict(report or {})
    if "adapter_digest" in report:
        report["adapter_digest"] = adapter_digest(folder)
    told = told.model_copy(
        update={
            "key": signer.public_text,
            "report": told.report.model_copy(update=report),
            "plan": told.plan.model_copy(update=plan or {}),
            **changes,
        }
    )
    (folder / CARD).write_bytes(card(render_card(told, adapter_digest=told.report.adapter_digest)))
    files = tuple(file_at(folder / name) for name in (CARD, *ADAPTER_FILES))
    told = told.model_copy(update={"files": files})
    (folder / PROVENANCE).write_bytes(sign_document(signer, told))
    sign_again(job)


def sign_again(job: Path, key: bytes | None = None) -> None:
    """Make `model.sig` anew, with the institution's key or another one."""
    path = job / "keys" / "model.key"
    if key is not None:
        path = job / "another.key"
        path.write_bytes(key)
    (job / "adapter" / SIGNATURE).write_bytes(sign_model(job / "adapter", path))
