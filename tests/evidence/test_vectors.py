"""The conformance vectors: each holds, or fails at the step that its README names; and they are what is generated."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_alliance import cli
from fl_alliance.parties.audit_inputs import audited
from tests.evidence.make_vectors import HERE, all_cases, readme

FOLDERS = sorted(folder.name for folder in HERE.iterdir() if folder.is_dir())
MADE_HERE = all_cases(written=False)


def expected_of(folder: Path) -> Any:
    return json.loads((folder / "expected.json").read_text())


def is_as_its_readme_says(folder: Path) -> None:
    expected, readme_of_it = expected_of(folder), (folder / "README.md").read_text()
    with audited([folder / file for file in expected["inputs"]], root=expected["root"]) as audit:
        refused = [step for step in audit.all_steps if not step.holds]
        assert audit.exit_code == expected["exit_code"], audit.refusals
    assert folder.name.endswith("_fail") == (expected["result"] == "refused") == bool(refused)
    for step in refused:
        assert step.number == expected["step"], step.refusal
        assert f"Step {step.number} ({step.name}) must refuse it because of `{expected['file']}`" in readme_of_it
        assert expected["why"] in step.text, step.refusal
    assert [step.file for step in refused[:1]] == [expected.get("file")] * bool(refused)
    assert len(refused) == expected.get("refusals", 0)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_vector_holds_or_fails_at_the_step_that_its_readme_names(name: str) -> None:
    is_as_its_readme_says(HERE / name)


@pytest.mark.parametrize("name", MADE_HERE)
def test_a_case_without_a_folder_does_so_too(name: str, tmp_path: Path) -> None:
    folder, files = tmp_path / name, MADE_HERE[name].files()
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    for shared in [Path(file) for file in expected_of(folder)["inputs"] if file not in files]:
        (tmp_path / shared.parts[1]).symlink_to(HERE / shared.parts[1])
    is_as_its_readme_says(folder)


def test_every_vector_is_made_again_to_the_byte_and_none_is_an_orphan() -> None:
    cases = all_cases()
    assert sorted(cases) == FOLDERS
    for name, case in cases.items():
        files = case.files()
        assert sorted(path.name for path in (HERE / name).iterdir()) == sorted(files)
        for file, data in files.items():
            assert (HERE / name / file).read_bytes() == data, f"{name}/{file}: python -m tests.evidence.make_vectors"
    assert (HERE / "README.md").read_text() == readme(cases)


def test_there_are_as_many_as_were_promised_and_they_stay_small() -> None:
    assert len(FOLDERS) >= 60
    assert sum(name.endswith("_fail") for name in FOLDERS) >= 40
    assert sum(path.stat().st_size for path in HERE.rglob("*.*")) <= 6_000_000


@pytest.mark.parametrize("name", ["one-round", "everybody-together", "zip-trailing-byte_fail", "ledger-fork_fail"])
def test_the_command_leaves_with_the_exit_code_of_the_vector(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = expected_of(HERE / name)
    words = [str(HERE / name / file) for file in expected["inputs"]]
    words += ["--root", expected["root"], "--json", str(tmp_path / "result.json")]
    monkeypatch.setattr(sys, "argv", ["fl-alliance", "audit", "verify", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert int(left.value.code or 0) == expected["exit_code"]
    assert capsys.readouterr().err.count("EvidenceRefused: ") == expected.get("refusals", 0)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["holds"], result["exit_code"]) == (expected["result"] == "holds", expected["exit_code"])
