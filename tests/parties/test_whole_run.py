"""Three institutions end to end: the released adapter, the evidence, and what the coordinator could see."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties import desk as desks
from fl_alliance.parties.audit_printed import check_printed
from fl_alliance.parties.audit_report import write_report
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.model_auditor import FILES, verify_model
from fl_alliance.protocol.documents import PrivacyReport, RoundRecord
from fl_alliance.rounds import coordinator as machine
from fl_alliance.secagg import cipher, masks
from tests.parties.conftest import SITES, Alliance

Build = Callable[..., Alliance]


def test_three_institutions_release_one_adapter_with_evidence_that_verifies(build: Build):
    alliance = build()
    state = alliance.coordinator().run()
    assert isinstance(state, machine.Finished)
    adapters = {(alliance.job(name) / "adapter" / "adapter_model.safetensors").read_bytes() for name in SITES}
    assert len(adapters) == 1
    for name in SITES:
        evidence = alliance.job(name) / "evidence"
        verify_model(alliance.job(name) / "adapter", evidence=evidence, say=lambda _: None)
        report = peek_document((evidence / "report.dsse.json").read_bytes(), PrivacyReport)
        assert 0 < float(report.epsilon_pld) <= float(report.epsilon_rdp)
        assert report.entries == alliance.plan.rounds
        check_printed(evidence / "report.html", [evidence], root=None, say=lambda _: None)
    folders = [alliance.job(name) / "evidence" for name in SITES]
    write_report(folders, alliance.job("clinic") / "all.html", language="en", root=None, say=lambda _: None)
    assert len({(alliance.job(name) / "adapter" / "README.md").read_bytes() for name in SITES}) == len(SITES)
    record = peek_document((alliance.job("clinic") / "evidence/rounds/0002/record.dsse.json").read_bytes(), RoundRecord)
    assert record.votes == SITES


def test_the_released_adapter_loads_with_peft_and_is_not_the_start(build: Build):
    from peft import PeftModel

    from fl_alliance.training.base import load_base

    alliance = build(rounds=1)
    alliance.coordinator().run()
    base, _ = load_base(Path(__file__).parents[2] / "deploy/demo/model", alliance.plan.model)
    folder = alliance.job("school") / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES), "card and signatures lie beside it"
    model = PeftModel.from_pretrained(base, folder)
    b = [p for n, p in model.named_parameters() if "lora_B" in n]
    assert len(b) == alliance.plan.adapter.modules
    assert any(float(p.abs().sum()) > 0 for p in b)


def test_nothing_that_the_coordinator_receives_or_stores_is_an_update_a_sum_or_a_key(
    build: Build, monkeypatch: pytest.MonkeyPatch
):
    """Spy on every secret inside the institutions, then look for each in every byte of the coordinator."""
    secrets: list[bytes] = []
    spy(monkeypatch, secrets)
    alliance = build(rounds=1)
    state = alliance.coordinator().run()
    assert isinstance(state, machine.Finished)
    seen = everything_at_the_coordinator(alliance)
    assert len(secrets) >= 4 * len(SITES)
    for secret in secrets:
        for form in (secret, base64.b64encode(secret)[:-4], secret.hex().encode()):
            assert form not in seen
    assert alliance.received[0] in seen


def test_the_search_finds_an_update_that_is_there(build: Build, monkeypatch: pytest.MonkeyPatch):
    """With masks and cipher switched off by the hook, the same search finds the digits: the test above has power."""
    secrets: list[bytes] = []
    spy(monkeypatch, secrets)
    monkeypatch.setattr(desks.masks, "add_masks", lambda slots, **_: slots)
    monkeypatch.setattr(desks.cipher, "seal", lambda slots, **_: slots.tobytes())
    alliance = build(rounds=1)
    state = alliance.coordinator().run()
    assert isinstance(state, machine.Aborted)
    seen = everything_at_the_coordinator(alliance)
    assert any(secret in seen for secret in secrets)


def spy(monkeypatch: pytest.MonkeyPatch, secrets: list[bytes]) -> None:
    """Note the packed update, the opened sum, the alliance key and the round secrets of every institution."""
    pack, opened = desks.packing.pack, desks.cipher.open_sum
    generate_key, generate_secrets = cipher.AllianceKey.generate, masks.RoundSecrets.generate

    def noted_pack(digits, parameters):
        slots = pack(digits, parameters)
        secrets.extend((slots.tobytes()[:256], np.ascontiguousarray(digits[:64]).tobytes()))
        return slots

    def noted_open(*args, **kwargs):
        total = opened(*args, **kwargs)
        secrets.append(total.tobytes()[:256])
        return total

    def noted_key(parameters):
        key = generate_key(parameters)
        secrets.append(key.to_bytes()[64:320])
        return key

    def noted_secrets(*args):
        made = generate_secrets(*args)
        data = made.to_bytes()
        secrets.extend(data[at : at + 16] for at in range(len(data) - 64, len(data) - 15, 16))
        return made

    monkeypatch.setattr(desks.packing, "pack", noted_pack)
    monkeypatch.setattr(desks.cipher, "open_sum", noted_open)
    monkeypatch.setattr(cipher.AllianceKey, "generate", noted_key)
    monkeypatch.setattr(masks.RoundSecrets, "generate", noted_secrets)


def everything_at_the_coordinator(alliance: Alliance) -> bytes:
    """Every reply received, decoded as far as base64 goes, and every byte of the coordinator's folder."""
    parts = list(alliance.received)
    for reply in alliance.received:
        body = base64.b64decode(json.loads(reply)["payload"])
        parts.append(body)
        parts.extend(decoded_strings(json.loads(body)))
    parts.extend(path.read_bytes() for path in (alliance.folder / "coordinator").rglob("*") if path.is_file())
    return b"\0".join(parts)


def decoded_strings(value: object) -> list[bytes]:
    if isinstance(value, dict):
        return [data for item in value.values() for data in decoded_strings(item)]
    if isinstance(value, list):
        return [data for item in value for data in decoded_strings(item)]
    if isinstance(value, str) and not value.startswith("sha256:"):
        try:
            return [base64.b64decode(value, validate=True)]
        except ValueError:
            return []
    return []


def test_one_flipped_byte_in_any_file_of_the_evidence_is_found(build: Build, tmp_path: Path):
    alliance = build(rounds=1)
    alliance.coordinator().run()
    evidence = alliance.job("clinic") / "evidence"
    files = [path.relative_to(evidence) for path in sorted(evidence.rglob("*")) if path.is_file()]
    assert len(files) > 25
    for number, name in enumerate(files):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(evidence, copy)
        data = bytearray((copy / name).read_bytes())
        data[(number * 7919) % len(data)] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(EvidenceRefused) as refused:
            verify_evidence(copy, root=None, say=lambda _: None)
        assert "step 1" in str(refused.value)
        assert name.as_posix() in str(refused.value)
        shutil.rmtree(copy)
