"""The ledger on disk: killed at any moment it never under-counts; two processes never charge at once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_alliance.errors import LedgerBroken, PolicyRefused, StoreFailed
from fl_alliance.evidence.sign import sign_document
from fl_alliance.privacy.ledger import Ledger, next_entry
from fl_alliance.protocol.ids import digest_of
from fl_alliance.store.ledger_file import LedgerFile
from tests.evidence.alliance import key_of, plan_of

KEY, PLAN = key_of("lagos"), plan_of()
CHARGER = """
import sys
from pathlib import Path
from tests.privacy.test_ledger_file import build, ledger_at
ledger = ledger_at(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    ledger.charge(build)
    print("acknowledged", flush=True)
"""


def ledger_at(path: Path) -> LedgerFile:
    return LedgerFile(path, public_key=KEY.public, institution="lagos", dataset="cases")


def build(ledger: Ledger) -> bytes:
    entry = next_entry(
        ledger, PLAN, plan_digest=digest_of(b"plan"), round_number=1, dataset_digest=digest_of(b"records"), now=9
    )
    return sign_document(KEY, entry)


def charger(path: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHARGER, str(path), str(count)], stdout=subprocess.PIPE, text=True)


def test_a_charge_is_there_when_it_returns_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    envelope = ledger_at(path).charge(build)
    assert path.read_bytes() == envelope + b"\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert ledger_at(path).read().head == digest_of(envelope)


def test_an_absent_ledger_is_empty(tmp_path: Path) -> None:
    assert ledger_at(tmp_path / "ledger.jsonl").read().entries == ()


def test_killed_at_any_moment_the_ledger_verifies_and_holds_what_was_acknowledged(tmp_path: Path) -> None:
    path, acknowledged, draw = tmp_path / "ledger.jsonl", 0, random.Random(5)
    for _ in range(6):
        process = charger(path, 10_000)
        assert process.stdout is not None
        acknowledged += process.stdout.readline().count("acknowledged")
        time.sleep(draw.random() * 0.1)
        process.kill()
        acknowledged += process.communicate()[0].count("acknowledged\n")
        assert len(ledger_at(path).read().entries) >= acknowledged
    assert acknowledged > 12


def test_two_processes_never_charge_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    processes = [charger(path, 20) for _ in range(2)]
    assert [process.communicate()[0].count("acknowledged") for process in processes] == [20, 20]
    assert [entry.sequence for entry in ledger_at(path).read().entries] == list(range(1, 41))


def test_a_torn_line_at_every_length_is_left_out_and_cut_off_by_the_next_charge(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    first, second = ledger_at(path).charge(build), ledger_at(path).charge(build)
    for length in range(0, len(second) + 1, 50):
        path.write_bytes(first + b"\n" + second[:length])
        assert len(ledger_at(path).read().entries) == 1
        assert ledger_at(path).charge(build) == second
        assert path.read_bytes() == first + b"\n" + second + b"\n"


def test_a_refusal_while_building_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger_at(path).charge(build)
    before = path.read_bytes()

    def refuse(ledger: Ledger) -> bytes:
        raise PolicyRefused("no")

    def of_another(ledger: Ledger) -> bytes:
        return build(Ledger("lagos", "cases", (), ()))

    for wrong, error in ((refuse, PolicyRefused), (of_another, LedgerBroken), (lambda _: b"x\ny", LedgerBroken)):
        with pytest.raises(error):
            ledger_at(path).charge(wrong)
        assert path.read_bytes() == before


def test_a_broken_ledger_is_never_charged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        ledger_at(path).charge(build)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(LedgerBroken, match="entry 1: sequence is 2"):
        ledger_at(path).charge(build)


def test_a_ledger_that_can_not_be_opened_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="No such file"):
        ledger_at(tmp_path / "nowhere" / "ledger.jsonl").charge(build)
    with pytest.raises(StoreFailed, match="directory"):
        ledger_at(tmp_path).read()


# ---- ledgers of other data sets, put aside


def test_ledgers_that_were_put_aside_are_read_and_a_copy_of_this_one_does_not_speak_for_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    line = ledger_at(path).charge(build)
    path.rename(tmp_path / "ledger.cases.jsonl")
    new = LedgerFile(path, public_key=KEY.public, institution="lagos", dataset="cases-2")
    assert [(other.dataset, other.head) for other in new.put_aside()] == [("cases", digest_of(line))]
    assert ledger_at(path).put_aside() == ()


def test_a_ledger_that_was_put_aside_under_a_wrong_name_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger_at(path).charge(build)
    path.rename(tmp_path / "ledger.letters.jsonl")
    with pytest.raises(LedgerBroken, match=r"^ledger\.letters\.jsonl: entry 1: previous is "):
        ledger_at(path).put_aside()
