"""The auditor: an honest folder passes; every byte counts; lies that are well signed are found by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.protocol.documents import Partner, SampledGaussian
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of, members_of, policy_of
from tests.evidence.folder import ME, Folder

ROOT = key_of("root").keyid


def audit(folder: Path, root: str | None = ROOT) -> list[str]:
    said: list[str] = []
    verify_evidence(folder, root=root, say=said.append)
    return said


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folder(tmp_path_factory.mktemp("honest") / "evidence").build()


@pytest.fixture
def copy(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "evidence"))


def test_an_honest_folder_passes_with_every_step_said(honest: Path) -> None:
    said: list[str] = []
    findings = verify_evidence(honest, root=ROOT, say=said.append)
    assert [line.split()[0] for line in said] == [f"({step})" for step in range(1, 12)]
    assert (findings.institution, findings.job, findings.rounds, findings.charges) == (ME, "job-1", 2, 2)
    assert 0 < findings.costs.job_pld <= findings.costs.job_rdp
    assert findings.root_compared


def test_without_a_fingerprint_the_auditor_says_that_the_root_was_not_compared(honest: Path) -> None:
    assert "NOT COMPARED" in audit(honest, root=None)[1]


def test_another_root_than_the_expected_is_refused(honest: Path) -> None:
    with pytest.raises(EvidenceRefused, match=r"^step 2, root.pub.json: fingerprint"):
        audit(honest, root=digest_of(b"another"))


def test_a_flipped_byte_in_any_file_is_refused_by_step_and_file(copy: Path) -> None:
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert len(files) > 40
    for path in files:
        whole = path.read_bytes()
        for position in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(EvidenceRefused, match=rf"^step 1, {path.relative_to(copy).as_posix()}: "):
                audit(copy)
        path.write_bytes(whole)
    audit(copy)


def test_every_flipped_byte_of_the_manifest_is_refused(copy: Path) -> None:
    path = copy / "manifest.dsse.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(EvidenceRefused, match=r"^step 1, manifest.dsse.json: "):
            audit(copy)


def resigned(change: Callable[[Path], object], name: str) -> object:
    return pytest.param(change, name, id=change.__name__)


def another_root(folder: Path) -> None:
    text = json.loads((folder / "root.pub.json").read_text()) | {"key": key_of("mallory").public_text}
    (folder / "root.pub.json").write_text(json.dumps(text, separators=(",", ":"), sort_keys=True))


def root_with_spaces(folder: Path) -> None:
    (folder / "root.pub.json").write_text(json.dumps(json.loads((folder / "root.pub.json").read_text())))


def members_without_me(folder: Path) -> None:
    members = members_of(("berlin", "lima", "oslo"))
    (folder / "members.dsse.json").write_bytes(sign_document(key_of("root"), members))


def members_signed_by_the_coordinator(folder: Path) -> None:
    (folder / "members.dsse.json").write_bytes(sign_document(key_of("office"), members_of()))


def plan_signed_by_a_member(folder: Path) -> None:
    from tests.evidence.alliance import plan_of

    (folder / "plan.dsse.json").write_bytes(sign_document(key_of(ME), plan_of()))


def policy_of_another_unit(folder: Path) -> None:
    (folder / "policy.dsse.json").write_bytes(sign_document(key_of(ME), policy_of(allowed_units=("visit",))))


def policy_with_other_partners(folder: Path) -> None:
    partners = (
        Partner(name="berlin", key=digest_of(key_of("berlin").public)),
        Partner(name="lima", key=digest_of(b"x")),
    )
    (folder / "policy.dsse.json").write_bytes(sign_document(key_of(ME), policy_of(partners=partners)))


def policy_with_a_cap_below_what_was_spent(folder: Path) -> None:
    (folder / "policy.dsse.json").write_bytes(sign_document(key_of(ME), policy_of(epsilon_per_job="0.5")))


def ledger_without_its_last_entry(folder: Path) -> None:
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))


def ledger_without_its_first_entry(folder: Path) -> None:
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join(lines[1:]))


def ledger_with_a_torn_line(folder: Path) -> None:
    (folder / "ledger.jsonl").write_bytes((folder / "ledger.jsonl").read_bytes()[:-1])


def round_missing(folder: Path) -> None:
    shutil.rmtree(folder / "rounds/0002")


def round_too_many(folder: Path) -> None:
    shutil.copytree(folder / "rounds/0002", folder / "rounds/0003")


def record_of_the_other_round(folder: Path) -> None:
    shutil.copy(folder / "rounds/0001/record.dsse.json", folder / "rounds/0002/record.dsse.json")


def message_missing(folder: Path) -> None:
    (folder / "rounds/0001/messages/sealed-update.lima.json").unlink()


def too_few_confirmed(folder: Path) -> None:
    for name in ("berlin", "lima"):
        (folder / f"rounds/0001/messages/survivors-confirmed.{name}.json").unlink()


def too_few_revealed(folder: Path) -> None:
    """And nobody checked or voted who did not reveal."""
    for name in ("berlin", "lima"):
        for kind in ("revealed-shares", "sum-checked", "adapter-vote"):
            (folder / f"rounds/0001/messages/{kind}.{name}.json").unlink()


def voter_that_did_not_reveal(folder: Path) -> None:
    for kind in ("revealed-shares", "sum-checked"):
        (folder / f"rounds/0001/messages/{kind}.lima.json").unlink()


def checker_that_did_not_reveal(folder: Path) -> None:
    (folder / "rounds/0001/messages/revealed-shares.lima.json").unlink()


def revealer_that_did_not_confirm(folder: Path) -> None:
    (folder / "rounds/0001/messages/survivors-confirmed.lima.json").unlink()


def too_few_checked_the_sum(folder: Path) -> None:
    for name in ("berlin", "lima"):
        (folder / f"rounds/0001/messages/sum-checked.{name}.json").unlink()


def dealer_left_out(folder: Path) -> None:
    (folder / "rounds/0001/messages/sealed-shares.lima.json").unlink()


def message_of_another_round(folder: Path) -> None:
    name = "messages/adapter-vote.lima.json"
    shutil.copy(folder / "rounds/0001" / name, folder / "rounds/0002" / name)


def message_of_another_member(folder: Path) -> None:
    messages = folder / "rounds/0001/messages"
    shutil.copy(messages / "sum-checked.berlin.json", messages / "sum-checked.lima.json")


def folder_among_the_messages(folder: Path) -> None:
    (folder / "rounds/0001/messages/deep").mkdir()
    (folder / "rounds/0001/messages/deep/file").write_bytes(b"x")


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        resigned(another_root, r"step 2, root.pub.json"),
        resigned(root_with_spaces, r"step 2, root.pub.json: not in canonical form"),
        resigned(members_without_me, r"step 3, members.dsse.json: lagos"),
        resigned(members_signed_by_the_coordinator, r"step 3, members.dsse.json: signed with key"),
        resigned(plan_signed_by_a_member, r"step 4, plan.dsse.json: signed with key"),
        resigned(policy_of_another_unit, r"step 5, policy.dsse.json: allowed_units visit"),
        resigned(policy_with_other_partners, r"step 5, policy.dsse.json: partners: lima with key sha256:"),
        resigned(policy_with_a_cap_below_what_was_spent, r"step 9, report.dsse.json: policy_digest"),
        resigned(ledger_without_its_last_entry, r"step 7, rounds/0002/record.dsse.json: ledger head"),
        resigned(ledger_without_its_first_entry, r"step 6, ledger.jsonl: entry 1: sequence is 2"),
        resigned(ledger_with_a_torn_line, r"step 6, ledger.jsonl: the last line is torn"),
        resigned(round_missing, r"step 7, rounds: holds 0001; the plan has 2 rounds"),
        resigned(round_too_many, r"step 7, rounds: holds 0001, 0002, 0003"),
        resigned(record_of_the_other_round, r"step 7, rounds/0002/record.dsse.json: round is 1, must be 2"),
        resigned(message_missing, r"step 8, rounds/0001/messages/sealed-update.lima.json: is missing"),
        resigned(too_few_confirmed, r"step 8, rounds/0001/messages/survivors-confirmed.*: 1 members, need 2"),
        resigned(too_few_revealed, r"step 8, rounds/0001/messages/revealed-shares.*: 1 members, need 2"),
        resigned(voter_that_did_not_reveal, r"step 8, rounds/0001/messages/adapter-vote.lima.json: lima is not among"),
        resigned(checker_that_did_not_reveal, r"step 8, rounds/0001/messages/sum-checked.lima.json: lima is not among"),
        resigned(revealer_that_did_not_confirm, r"step 8, rounds/0001/messages/revealed-shares.lima.json: lima is not"),
        resigned(too_few_checked_the_sum, r"step 8, rounds/0001/messages/sum-checked.berlin.json: is missing, 2 of"),
        resigned(dealer_left_out, r"step 8, rounds/0001/messages/sealed-shares.lima.json: is missing"),
        resigned(message_of_another_round, r"step 8, rounds/0002/messages/adapter-vote.lima.json: round is 1"),
        resigned(message_of_another_member, r"step 8, rounds/0001/messages/sum-checked.lima.json: holds a sum-checked"),
        resigned(folder_among_the_messages, r"step 1, rounds/0001/messages/deep/file: does not belong"),
    ],
)
def test_a_folder_that_the_institution_itself_doctored_and_signed_again_is_refused(
    copy: Path, change: Callable[[Path], object], refusal: str
) -> None:
    change(copy)
    write_manifest(copy, key_of(ME), institution=ME)
    with pytest.raises(EvidenceRefused, match="^" + refusal):
        audit(copy)


def test_a_manifest_of_somebody_else_is_refused(copy: Path) -> None:
    write_manifest(copy, key_of("mallory"), institution=ME)
    with pytest.raises(EvidenceRefused, match=r"^step 3, members.dsse.json: lagos has key"):
        audit(copy)


@pytest.mark.parametrize(
    ("attribute", "changes", "refusal"),
    [
        ("report_changes", {"epsilon_pld": "0.1"}, r"step 9, report.dsse.json: epsilon_pld is 0.1, must be"),
        ("report_changes", {"dataset_epsilon_rdp": "0"}, r"step 9, report.dsse.json: dataset_epsilon_rdp is 0"),
        ("report_changes", {"unit": "visit"}, r"step 9, report.dsse.json: unit is visit, must be patient"),
        ("report_changes", {"delta": "0.001"}, r"step 9, report.dsse.json: delta is 0.001"),
        ("report_changes", {"entries": 1}, r"step 9, report.dsse.json: entries is 1, must be 2"),
        ("record_changes", {"previous_record": digest_of(b"x")}, r"step 7, rounds/0002/record.dsse.json: previous_rec"),
        ("record_changes", {"sum_digest": digest_of(b"x")}, r"step 8, rounds/0002/messages/revealed-shares.berlin"),
        ("record_changes", {"adapter_digest": digest_of(b"x")}, r"step 8, rounds/0002/messages/adapter-vote.berlin"),
        ("record_changes", {"roster_digest": digest_of(b"x")}, r"step 8, rounds/0002/messages: the round keys make"),
        ("record_changes", {"plan_digest": digest_of(b"x")}, r"step 7, rounds/0002/record.dsse.json: plan_digest"),
        ("entry_changes", {"plan_digest": digest_of(b"x")}, r"step 7, ledger.jsonl: entry 1: plan_digest"),
        ("entry_changes", {"round": 1}, r"step 7, rounds/0002/record.dsse.json: ledger head .* charges round 1"),
        ("entry_changes", {"round": 3}, r"step 7, ledger.jsonl: entry 1: charges round 3"),
        ("entry_changes", {"job": "other"}, r"step 7, rounds/0001/record.dsse.json: ledger head .* no charge"),
        (
            "entry_changes",
            {"event": SampledGaussian(noise_multiplier="9", sampling_rate="0.1", steps=4)},
            r"step 7, ledger.jsonl: entry 1: event is",
        ),
    ],
)  # fmt: skip
def test_a_lie_that_its_author_signed_is_refused(
    tmp_path: Path, attribute: str, changes: dict[str, object], refusal: str
) -> None:
    folder = Folder(tmp_path / "evidence")
    setattr(folder, attribute, changes)
    if attribute == "entry_changes" and "job" in changes:
        folder.report = lambda: [folder.write(n, b"{}") for n in ("report.dsse.json", "report.html")]  # type: ignore
    with pytest.raises(EvidenceRefused, match="^" + refusal):
        audit(folder.build())


def test_a_member_that_signed_another_ledger_head_than_the_record_says_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "evidence")
    folder.message_changes = {"SealedUpdate.lima.2": {"ledger_head": digest_of(b"another")}}
    with pytest.raises(EvidenceRefused, match=r"^step 8, rounds/0002/messages/sealed-update.lima.json: ledger_head"):
        audit(folder.build())


def test_fewer_votes_than_the_quorum_are_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "evidence", quorum=3)
    folder.record_changes = {"votes": ("berlin", "lagos")}
    with pytest.raises(EvidenceRefused, match=r"^step 7, rounds/0002/record.dsse.json: 2 votes, the quorum is 3"):
        audit(folder.build())


def test_more_spent_than_the_cap_is_refused_though_everybody_signed(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "evidence")
    folder.policy_bytes = sign_document(key_of(ME), policy_of(epsilon_per_dataset="0.5"))
    with pytest.raises(EvidenceRefused, match=r"^step 9, ledger.jsonl: epsilon_per_dataset is 0.5, spent"):
        audit(folder.build())


def test_a_round_charged_twice_is_a_cost_and_no_fault(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "evidence")
    folder.charge(1)
    assert "3 entries" in audit(folder.build())[5]


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceRefused, match=r"^step 1, manifest.dsse.json: "):
        audit(tmp_path / "nothing")


def test_the_auditor_loads_neither_torch_nor_flower_nor_a_cipher_library() -> None:
    program = (
        "import sys, fl_alliance.parties.auditor\n"
        "print(sorted({'torch', 'flwr', 'tenseal', 'Crypto', 'sqlalchemy', 'opacus'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
