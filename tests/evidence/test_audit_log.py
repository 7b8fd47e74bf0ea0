"""Step 10 of the audit: the log in one folder, and one history in several."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.evidence.log import plan_entry
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties.audit_inputs import audited
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import LogCheckpoint
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.log import LogReceipt
from tests.evidence.alliance import key_of
from tests.evidence.folder import ME, Folder

ROOT = key_of("root").keyid


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folder(tmp_path_factory.mktemp("honest") / "evidence").build()


def resigned(folder: Path) -> Path:
    write_manifest(folder, key_of(ME), institution=ME)
    return folder


def swap(name: str, other: str) -> Callable[[Path], None]:
    def doctor(folder: Path) -> None:
        one, two = (folder / "log" / name).read_bytes(), (folder / "log" / other).read_bytes()
        (folder / "log" / name).write_bytes(two)
        (folder / "log" / other).write_bytes(one)

    return doctor


def leaves(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def doctor(folder: Path) -> None:
        path = folder / "log" / "leaves"
        path.write_bytes(change(path.read_bytes()))

    return doctor


def receipt(**changes: object) -> Callable[[Path], None]:
    def doctor(folder: Path) -> None:
        path = folder / "log" / "receipt-0002.json"
        path.write_bytes(encode(decode(LogReceipt, path.read_bytes()).model_copy(update=changes)))

    return doctor


DOCTORED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a leaf is another": (leaves(lambda data: bytes(32) + data[32:]), "log's 2 entries have root"),
    "two leaves are swapped": (leaves(lambda data: data[32:64] + data[:32] + data[64:]), "entries have root"),
    "the last leaf is gone": (
        leaves(lambda data: data[:-32]),
        "checkpoint-0002.dsse.json: 13 entries, after 9 and of 12",
    ),
    "one leaf too many": (leaves(lambda data: data + bytes(32)), "leaves: 14 entries, the last checkpoint has 13"),
    "half a leaf": (leaves(lambda data: data[:-1]), "leaves: 415 bytes, must be a multiple of 32"),
    "checkpoints in another order": (
        swap("checkpoint-0000.dsse.json", "checkpoint-0002.dsse.json"),
        "no record|receipt",
    ),
    "a checkpoint is missing": (
        lambda folder: (folder / "log" / "checkpoint-0001.dsse.json").unlink(),
        "checkpoint-0001.dsse.json is missing",
    ),
    "something else lies there": (
        lambda folder: (folder / "log" / "more.json").write_bytes(b"{}"),
        "more.json does not belong there",
    ),
    "a receipt with another path": (receipt(inclusion=(digest_of(b"a"),)), "the proof"),
    "a receipt with another past": (receipt(consistency=()), "are not shown to begin with"),
    "a receipt for another entry": (receipt(entry=plan_entry("job-1", b"")), "the proof does not lead to root"),
    "receipts for one another's rounds": (swap("receipt-0001.json", "receipt-0002.json"), "the receipt is for"),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_a_log_that_the_institution_doctored_and_signed_again_is_refused(
    honest: Path, tmp_path: Path, name: str
) -> None:
    doctor, said = DOCTORED[name]
    folder = Path(shutil.copytree(honest, tmp_path / "evidence"))
    doctor(folder)
    with pytest.raises(EvidenceRefused, match=rf"^step 10, log: .*({said})"):
        verify_evidence(resigned(folder), root=ROOT, say=quiet)


def test_a_job_whose_record_was_never_logged_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "evidence")
    show = folder.show

    def other(number: int, *entries) -> None:
        show(number, *(plan_entry("job-1", b"lie") if number == 2 else entry for entry in entries))

    folder.show = other  # type: ignore[method-assign]
    with pytest.raises(EvidenceRefused, match=r"^step 10, log: checkpoint-0002\.dsse\.json: no round-record sha256:"):
        verify_evidence(folder.build(), root=ROOT, say=quiet)


def test_a_member_that_signed_another_checkpoint_shows_two_histories(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "evidence")
    folder.message_changes["RoundKeys.lima.2"] = {"checkpoint": digest_of(b"another log")}
    with pytest.raises(EvidenceRefused, match=r"^step 10, log: round-keys\.lima\.json: lima was shown checkpoint"):
        verify_evidence(folder.build(), root=ROOT, say=quiet)


def test_two_histories_in_two_folders_are_found(honest: Path, tmp_path: Path) -> None:
    """Each folder holds by itself: the coordinator signed both, one with an entry that the other never saw."""
    other = Folder(tmp_path / "other" / "evidence")
    other.log.add(plan_entry("job-0", b"shown to some"))
    with audited([honest, other.build()], root=ROOT) as audit:
        refusal = audit.refusals[0]
    assert re.search(r"^step 13, log: .* two histories: entry 0 in .* \(13 entries\) is another .* \(14\)", refusal)
    assert audit.exit_code == 18


def test_folders_of_one_history_are_comparable_whatever_their_jobs(tmp_path: Path) -> None:
    first = Folder(tmp_path / "one" / "evidence")
    early = first.build()
    second = Folder(tmp_path / "two" / "evidence", job="job-2")
    second.log, second.book = first.log, first.book
    second.write("ledger.jsonl", (early / "ledger.jsonl").read_bytes())
    said: list[str] = []
    with audited([second.build(), early], root=ROOT, say=said.append) as audit:
        assert audit.holds
    assert said[-2].endswith("13 entries in common, one history")
    shown = (second.path / "log" / "checkpoint-0002.dsse.json").read_bytes()
    assert open_document(shown, LogCheckpoint, public_key=key_of("office").public).size == 25
