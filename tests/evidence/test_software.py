"""The bill of materials: what it names of a real process, what its reader insists on, and that a tool reads it."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fl_alliance import __version__
from fl_alliance.errors import EvidenceRefused, MalformedMessage, NotAuthentic
from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.parties.audit_software import check_software
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.sbom import bill_of_materials
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import ModelFile
from tests.evidence.alliance import bill_for, key_of, plan_of
from tests.evidence.folder import ME, Folder

PLAN = plan_of()


def test_the_bill_names_this_software_every_package_and_the_models_files() -> None:
    data = bill_of_materials(PLAN, moment=1_800_000_000)
    assert check_software(data, PLAN)[0] == __version__
    bill = json.loads(data)
    named = {part["name"]: part for part in bill["components"]}
    assert named["dp-accounting"]["version"] == metadata.version("dp-accounting")
    assert named["torch"]["purl"] == f"pkg:pypi/torch@{quote(metadata.version('torch'))}"
    record = metadata.distribution("torch").read_text("RECORD")
    assert record is not None
    assert named["torch"]["properties"] == [{"name": "fl-alliance:record", "value": digest_of(record.encode())}]
    assert named["python"]["version"] == platform.python_version()
    (file,) = named["base-model"]["components"]
    assert (file["name"], file["hashes"][0]["content"]) == ("model.safetensors", PLAN.model[0].digest[7:])
    assert bill["metadata"]["timestamp"] == "2027-01-15T08:00:00+00:00"


def test_the_same_process_writes_the_same_bytes() -> None:
    assert bill_for(PLAN) == bill_for(plan_of())
    assert check_software(bill_for(PLAN), PLAN) == (__version__, 2)


def test_another_model_is_refused_by_its_digest_and_by_each_file() -> None:
    with pytest.raises(NotAuthentic, match=r"the base-model is 'sha256:.*', the plan's is sha256:"):
        check_software(bill_for(PLAN), plan_of(model=(ModelFile(name="model.safetensors", digest=digest_of(b"x")),)))
    with pytest.raises(NotAuthentic, match=r"the base-model's file 'model\.safetensors' is sha256:"):
        check_software(changed(lambda bill: model(bill)["components"][0]["hashes"][0].update(content="ab" * 32)), PLAN)


def changed(change: Any) -> bytes:
    bill = json.loads(bill_for(PLAN))
    change(bill)
    return json.dumps(bill).encode()


def model(bill: Any) -> Any:
    return next(part for part in bill["components"] if part["name"] == "base-model")


WRONG: dict[str, tuple[Any, str]] = {
    "another version of the format": (lambda b: b.update(specVersion="1.4"), "must be a CycloneDX document"),
    "another format": (lambda b: b.update(bomFormat="SPDX"), "must be a CycloneDX document"),
    "no model": (lambda b: b["components"].remove(model(b)), "0 components are the base-model"),
    "two models": (lambda b: b["components"].append(model(b)), "2 components are the base-model"),
    "a library called the model": (lambda b: model(b).update(type="library"), "1 components are the base-model"),
    "a model without files": (
        lambda b: model(b).pop("components"),
        "the base-model's file 'model.safetensors' is None",
    ),
    "a file without a digest": (lambda b: model(b)["components"][0].pop("hashes"), "is None, the plan's is sha256:"),
    "a digest of another kind": (
        lambda b: model(b)["components"][0]["hashes"][0].update(alg="MD5"),
        "is None, the plan's is sha256:",
    ),
    "a file more": (
        lambda b: model(b)["components"].append({"name": "code.py", "hashes": []}),
        "the base-model's file 'code.py' is None",
    ),
    "components that are none": (lambda b: b.update(components={"a": 1}), "components must be a list"),
    "a component that is none": (lambda b: b["components"].append(7), "components must be a list of objects"),
    "no word of this software": (lambda b: b.pop("metadata"), "metadata.component must be fl-alliance"),
    "other software": (lambda b: b["metadata"]["component"].update(name="x"), "metadata.component must be fl-alliance"),
    "a version that is none": (
        lambda b: b["metadata"]["component"].update(version="1\n(9) epsilon: 0"),
        "metadata.component must be fl-alliance",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bill_that_is_none_is_refused(wrong: str) -> None:
    change, why = WRONG[wrong]
    with pytest.raises(NotAuthentic) as error:
        check_software(changed(change), PLAN)
    assert why in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 100_000, b"NaN", b'{"a":1,"a":2}', b"9" * 10_000, b" " * (9 << 20)]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        check_software(data, PLAN)


def test_an_institution_that_ran_another_model_than_the_plans_is_refused_by_the_audit(tmp_path: Path) -> None:
    """It signed everything itself, the list of its files too."""
    folder = Folder(tmp_path / "evidence", rounds=1).build()
    other = plan_of(model=(ModelFile(name="model.safetensors", digest=digest_of(b"another model")),))
    (folder / "software.cdx.json").write_bytes(bill_for(other))
    write_manifest(folder, key_of(ME), institution=ME)
    with pytest.raises(EvidenceRefused, match=r"^step 11, software\.cdx\.json: the base-model is 'sha256:"):
        verify_evidence(folder, root=None, say=lambda _: None)
