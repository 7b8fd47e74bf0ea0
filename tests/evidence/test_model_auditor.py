"""The auditor of a released adapter: an honest folder passes; swaps, lies, links, pickles and every byte are found."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_signing import hashing, signing, verifying

from fl_alliance.errors import BadConfig, EvidenceRefused
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.model_signature import new_model_key
from fl_alliance.parties.model_auditor import FILES, verify_model
from fl_alliance.protocol.limits import MAX_BLOB_BYTES
from tests.evidence.alliance import key_of
from tests.evidence.folder import ME
from tests.evidence.released import WEIGHTS, copy_of, lie, released, sign_again

ROOT = key_of("root").keyid


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("honest") / "job")


@pytest.fixture
def job(honest: Path, tmp_path: Path) -> Path:
    return copy_of(honest, tmp_path / "job")


def audit(job: Path, evidence: bool = True) -> list[str]:
    said: list[str] = []
    given = {"evidence": job / "evidence", "root": ROOT} if evidence else {}
    verify_model(job / "adapter", **given, say=said.append)  # type: ignore[arg-type]
    return said


def refused(job: Path, why: str, evidence: bool = False) -> None:
    with pytest.raises(EvidenceRefused, match=why):
        audit(job, evidence)


def test_an_honest_adapter_passes_with_every_step_said(honest: Path) -> None:
    said: list[str] = []
    findings = verify_model(honest / "adapter", evidence=honest / "evidence", root=ROOT, say=said.append)
    assert [line[:3] for line in said if line[0] == "("] == [f"({step})" for step in range(1, 7)]
    inner = [line.split()[0] for line in said if line[0] == " "]
    assert inner == [f"({step})" for step in range(1, len(inner) + 1)]
    assert len(inner) >= 9
    assert (findings.institution, findings.job, findings.key) == (ME, "job-1", key_of(ME).keyid)
    assert findings.evidence_compared


def test_without_evidence_the_auditor_says_that_nothing_was_compared(honest: Path) -> None:
    assert "NOT COMPARED" in audit(honest, evidence=False)[-1]


def test_a_root_without_evidence_is_refused_and_not_ignored(honest: Path) -> None:
    with pytest.raises(BadConfig, match="give --evidence"):
        verify_model(honest / "adapter", root=ROOT, say=lambda _: None)


# ---- what lies in the folder


def a_pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"w": 1}))


def a_script(folder: Path) -> None:
    (folder / "modeling_qwen.py").write_text("print('run')")


def a_file_that_git_would_hide(folder: Path) -> None:
    (folder / ".gitattributes").touch()


def a_link(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "adapter_model.safetensors").symlink_to(folder.parent / "elsewhere")


def a_hanging_link(folder: Path) -> None:
    (folder / "more").symlink_to(folder / "nothing")


def a_subfolder(folder: Path) -> None:
    (folder / "checkpoint").mkdir()


def a_pipe(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")


def a_file_too_long(folder: Path) -> None:
    os.truncate(folder / "adapter_model.safetensors", MAX_BLOB_BYTES + 1)


PLANTED: dict[Callable[[Path], None], str] = {
    a_pickle: r"^step 1, adapter_model.bin: is a pickle",
    a_script: r"^step 1, modeling_qwen.py: does not belong here",
    a_file_that_git_would_hide: r"^step 1, .gitattributes: does not belong",
    a_link: r"^step 1, adapter_model.safetensors: is a symbolic link",
    a_hanging_link: r"^step 1, more: is a symbolic link",
    a_subfolder: r"^step 1, checkpoint: is not a plain file",
    a_pipe: r"^step 1, README.md: is not a plain file",
    a_file_too_long: r"^step 1, adapter_model.safetensors: \d+ bytes, at most",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_what_does_not_belong_into_the_folder_is_refused(job: Path, plant: Callable[[Path], None]) -> None:
    plant(job / "adapter")
    refused(job, PLANTED[plant])


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(job: Path, name: str) -> None:
    (job / "adapter" / name).unlink()
    refused(job, rf"^step 1, {name}: is missing")


def test_a_folder_that_is_none_or_a_link_is_refused(job: Path) -> None:
    (job / "link").symlink_to(job / "adapter")
    for name in ("none", "link"):
        with pytest.raises(EvidenceRefused, match=rf"^step 1, {name}: is not a folder"):
            verify_model(job / name, say=lambda _: None)


# ---- swaps by somebody without the keys


def test_another_adapter_under_the_same_card_is_refused(job: Path) -> None:
    (job / "adapter" / "adapter_model.safetensors").write_bytes(WEIGHTS[:-1] + b"\xff")
    refused(job, r"^step 2, adapter_model.safetensors: digest")


def test_a_card_with_a_smaller_epsilon_is_refused(job: Path) -> None:
    card = job / "adapter" / "README.md"
    card.write_text(card.read_text().replace("0.959476", "0.100000"))
    refused(job, r"^step 2, README.md: digest")


def test_a_provenance_of_another_plan_is_refused(job: Path, tmp_path: Path) -> None:
    other = released(tmp_path / "other", weights=WEIGHTS[:-1] + b"\xff")
    shutil.copy(other / "adapter" / "provenance.dsse.json", job / "adapter")
    refused(job, r"^step 2, README.md: digest")


def test_a_signature_by_another_key_is_refused(job: Path) -> None:
    sign_again(job, new_model_key())
    refused(job, r"^step 3, model.sig: .*[Mm]ismatch")


def test_a_signature_of_another_release_is_refused(job: Path, tmp_path: Path) -> None:
    other = released(tmp_path / "other", weights=WEIGHTS[:-1] + b"\xff")
    shutil.copy(job / "keys" / "model.key", other / "keys")
    sign_again(other)
    shutil.copy(other / "adapter" / "model.sig", job / "adapter")
    refused(job, r"^step 3, model.sig: .*Hash mismatch")


# ---- lies that the institution itself signed


def test_a_signature_that_leaves_the_card_out_is_refused(job: Path) -> None:
    signer = signing.Config().use_elliptic_key_signer(private_key=job / "keys" / "model.key")
    signer.set_hashing_config(hashing.Config().set_ignored_paths(paths=["model.sig", "README.md"]))
    signer.sign(job / "adapter", job / "adapter" / "model.sig")
    refused(job, r"^step 3, model.sig: signs .*; must sign README.md, ")


def test_another_adapter_that_its_institution_signed_is_refused(job: Path) -> None:
    (job / "adapter" / "adapter_model.safetensors").write_bytes(WEIGHTS[:-1] + b"\xff")
    lie(job)
    refused(job, r"^step 4, adapter_model.safetensors: adapter_digest is")
    lie(job, report={"adapter_digest": None})
    audit(job, evidence=False)
    refused(job, r"^step 6, evidence: report_digest|^step 6, evidence: report is", evidence=True)


def test_a_pickle_in_the_place_of_the_weights_is_refused_whoever_signed_it(job: Path) -> None:
    (job / "adapter" / "adapter_model.safetensors").write_bytes(pickle.dumps({"w": [1, 2]}))
    lie(job, report={"adapter_digest": None})
    refused(job, r"^step 4, adapter_model.safetensors: is not a safetensors file")


def test_a_card_with_a_smaller_epsilon_that_its_institution_signed_is_refused(job: Path) -> None:
    lie(job, card=lambda card: card.replace(b'epsilon: "0.959476"', b'epsilon: "0.1"'))
    refused(job, r"^step 5, README.md: line 13 is '  epsilon: \"0.1\"', must be '  epsilon: \"0.959476\"'")
    lie(job, card=lambda card: card + b"Epsilon is 0.1.\n")
    refused(job, r"^step 5, README.md: line \d+ is 'Epsilon is 0.1.', must be ''")
    lie(job, card=lambda card: card.rstrip(b"\n"))
    refused(job, r"^step 5, README.md: \d+ lines, must be \d+")


def test_a_smaller_epsilon_in_the_provenance_too_is_refused_with_the_evidence(job: Path) -> None:
    lie(job, report={"epsilon_pld": "0.1"})
    audit(job, evidence=False)
    refused(job, r"^step 6, evidence: report is", evidence=True)


@pytest.mark.parametrize("field", ["plan_digest", "record_digest", "report_digest"])
def test_a_provenance_of_another_job_that_its_institution_signed_is_refused(job: Path, field: str) -> None:
    other = "sha256:" + "0" * 64
    lie(job, report={"plan_digest": other} if field == "plan_digest" else {}, **{field: other})
    refused(job, rf"^step 6, evidence: {field} is {other}, must be", evidence=True)


def test_other_public_parameters_under_the_plans_digest_are_refused(job: Path) -> None:
    lie(job, plan={"max_tokens": 99})
    refused(job, r"^step 6, evidence: plan is", evidence=True)


def test_more_rounds_than_there_were_are_refused(job: Path) -> None:
    lie(job, rounds=2)
    refused(job, r"^step 6, evidence: rounds is 2, must be 1", evidence=True)


def test_a_release_by_a_stranger_in_the_institutions_name_is_refused(job: Path) -> None:
    lie(job, identity=IdentityKey.generate())
    audit(job, evidence=False)
    refused(job, r"^step 6, evidence: key is", evidence=True)


def test_evidence_that_does_not_hold_is_refused_by_its_own_step(job: Path) -> None:
    (job / "evidence" / "ledger.jsonl").write_bytes(b"")
    refused(job, r"^step 6, evidence: step 1, ledger.jsonl: ", evidence=True)


def test_evidence_of_another_job_is_refused(job: Path, tmp_path: Path) -> None:
    other = released(tmp_path / "other", plan={"job": "job-2"})
    with pytest.raises(EvidenceRefused, match=r"^step 6, evidence: plan_digest"):
        verify_model(job / "adapter", evidence=other / "evidence", root=ROOT, say=lambda _: None)


# ---- every byte


def flipped(path: Path, position: int, bit: int, job: Path) -> str:
    whole = path.read_bytes()
    position %= len(whole)
    path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :])
    try:
        with pytest.raises(EvidenceRefused) as error:
            audit(job, evidence=False)
    finally:
        path.write_bytes(whole)
    return str(error.value)


@given(name=st.sampled_from(FILES), position=st.integers(0, 1 << 20), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_one_flipped_bit_anywhere_in_the_folder_is_refused(honest: Path, name: str, position: int, bit: int) -> None:
    assert flipped(honest / "adapter" / name, position, bit, honest).startswith(("step 2, ", "step 3, model.sig: "))


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_in_a_row_are_refused(honest: Path, name: str) -> None:
    """Also those that JSON and base64 would read alike; the stride meets every place of a base64 group."""
    path = honest / "adapter" / name
    for position in range(0, path.stat().st_size, 1 if path.stat().st_size < 200 else 43):
        flipped(path, position, position % 8, honest)
    audit(honest, evidence=False)


@given(data=st.binary(max_size=300) | st.text(max_size=100).map(str.encode), name=st.sampled_from(FILES))
@settings(max_examples=80, deadline=None)
def test_random_bytes_in_the_place_of_a_file_are_a_named_finding(honest: Path, data: bytes, name: str) -> None:
    path = honest / "adapter" / name
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        refused(honest, rf"^step [23], {name}: ")
    finally:
        path.write_bytes(whole)


def test_spaces_in_the_signature_are_refused(job: Path) -> None:
    path = job / "adapter" / "model.sig"
    path.write_bytes(path.read_bytes() + b"\n")
    refused(job, r"^step 3, model.sig: not in the form")


# ---- other tools


def test_a_tool_that_knows_only_model_signatures_verifies_the_folder(job: Path) -> None:
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=job / "keys" / "model.pub.pem")
    verifier.verify(job / "adapter", job / "adapter" / "model.sig")
    (job / "adapter" / "README.md").write_text("epsilon 0.1")
    with pytest.raises(ValueError, match=r"README\.md"):
        verifier.verify(job / "adapter", job / "adapter" / "model.sig")
