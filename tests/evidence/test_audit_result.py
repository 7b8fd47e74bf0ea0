"""What programs get of an audit: one schema, whatever was found; and exit codes by the kind of finding."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance import cli
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.audit_result import AuditResult
from fl_alliance.parties.audit_steps import EXIT_CODES, STEPS
from fl_alliance.protocol.codec import decode
from tests.evidence.alliance import key_of, policy_of
from tests.evidence.folder import ME, Folder
from tests.evidence.house import small_bundle

ROOT = key_of("root").keyid


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("small"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["fl-alliance", "audit", "verify", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    return run


def test_a_result_says_every_number_of_the_report_as_text(
    bundle: Path, run: Callable[..., int], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(bundle, "--root", ROOT, "--json", "-") == 0
    said = capfdbinary.readouterr()
    assert said.err == b""
    result = decode(AuditResult, said.out.removesuffix(b"\n"))
    assert (result.holds, result.exit_code, result.root) == (True, 0, ROOT)
    (given,) = result.inputs
    assert (given.party, given.role, given.alliance, given.kind) == (ME, "institution", "clinics", "bundle")
    (job,) = given.jobs
    assert [step.number for step in job.steps] == list(range(1, 12))
    assert [step.name for step in job.steps] == [STEPS[number] for number in range(1, 12)]
    assert job.numbers is not None
    assert job.numbers.job_epsilon_pld in job.steps[8].text
    assert job.numbers.root_compared
    (entry,) = job.numbers.entries
    assert (entry.event.noise_multiplier, entry.event.steps, entry.delta) == ("1.5", 4, "0.00001")
    (record,) = job.rounds
    assert record.contributors == record.members == record.votes == ("berlin", "lagos", "lima")


def test_a_refusal_has_the_same_fields(bundle: Path, tmp_path: Path, run: Callable[..., int]) -> None:
    spoilt = bytearray(bundle.read_bytes())
    spoilt[-1] ^= 1
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    assert run(bundle, "--json", good) == 0
    assert run(tmp_path / "spoilt.zip", "--json", bad) == 10
    first, second = (json.loads(path.read_bytes()) for path in (good, bad))
    assert first.keys() == second.keys()
    assert first["inputs"][0].keys() == second["inputs"][0].keys()
    (step,) = second["inputs"][0]["steps"]
    assert step == {
        "file": "archive", "holds": False, "name": "archive", "number": 0,
        "text": "the central directory is not the one that follows from the files",
    }  # fmt: skip
    assert second["inputs"][0]["jobs"] == []
    assert (second["holds"], second["exit_code"], second["root"]) == (False, 10, None)


def test_a_result_holds_no_number_with_a_fraction(bundle: Path, tmp_path: Path, run: Callable[..., int]) -> None:
    run(bundle, "--json", tmp_path / "result.json")

    def refuse(text: str) -> None:
        raise AssertionError(text)

    json.loads((tmp_path / "result.json").read_bytes(), parse_float=refuse)


def test_a_file_whose_name_is_no_text_is_named_all_the_same(tmp_path: Path, run: Callable[..., int]) -> None:
    folder = Folder(tmp_path / "evidence", rounds=1).build()
    (folder / "odd\udcff").write_bytes(b"")
    assert run(folder, "--json", tmp_path / "result.json") == 10
    (step,) = json.loads((tmp_path / "result.json").read_bytes())["inputs"][0]["jobs"][0]["steps"]
    assert step["file"] == "odd?"


def wrong_epsilon(folder: Folder) -> None:
    folder.report_changes = {"epsilon_pld": "0.000001"}


def wrong_sum(folder: Folder) -> None:
    folder.message_changes["SumChecked.lima.1"] = {"sum_digest": "sha256:" + "00" * 32}


def wrong_charge(folder: Folder) -> None:
    folder.entry_changes = {"unit": "record"}


def wrong_checkpoint(folder: Folder) -> None:
    folder.message_changes["RoundKeys.lima.1"] = {"checkpoint": "sha256:" + "00" * 32}


def another_policy(folder: Folder) -> None:
    folder.policy_bytes = sign_document(key_of("lima"), policy_of())


@pytest.mark.parametrize(
    ("lie", "code"),
    [(another_policy, 12), (wrong_charge, 13), (wrong_sum, 14), (wrong_epsilon, 15), (wrong_checkpoint, 16)],
)
def test_the_exit_code_says_of_which_kind_a_finding_is(
    tmp_path: Path, run: Callable[..., int], lie: Callable[[Folder], None], code: int
) -> None:
    folder = Folder(tmp_path / "evidence", rounds=1)
    lie(folder)
    assert run(folder.build()) == code


def test_every_step_has_a_code_and_none_means_something_else() -> None:
    assert EXIT_CODES.keys() == STEPS.keys()
    assert min(EXIT_CODES.values()) > 2


def test_a_root_that_is_no_fingerprint_is_a_wrong_word_of_the_command(
    bundle: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--root", "sha256:123") == 1
    assert capsys.readouterr().err.startswith("BadConfig: root: 'sha256:123' is no fingerprint")
