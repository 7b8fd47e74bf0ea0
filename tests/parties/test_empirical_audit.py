"""`fl-alliance audit empirical` at an institution: what it reads, says, writes and refuses."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fl_alliance import cli
from fl_alliance.errors import BadConfig, EvidenceRefused
from fl_alliance.parties.empirical import AuditSettings, audit, require_unrefuted, result_of
from fl_alliance.privacy.empirical import Guesses
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.plan import TrainingPlan
from tests.evidence.alliance import plan_of as any_plan
from tests.training import tiny

D = Decimal
ALL_RIGHT = Guesses(canaries=300, made=148, right=148)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An institution with a tiny model, a plan and no data file at all."""
    tiny.make_folder(tmp_path / "model")
    (tmp_path / "institution.toml").write_text(
        """
name = "lagos"
alliance = "clinics"
coordinator = "127.0.0.1:9443"
model_folder = "model"
[data]
name = "cases"
path = "cases.jsonl"
unit_column = "patient"
prompt_column = "prompt"
answer_column = "answer"
"""
    )
    (tmp_path / "plan.json").write_bytes(encode(plan_of(tmp_path)))
    return tmp_path


def plan_of(home: Path, **changes: Any) -> TrainingPlan:
    fields = {"rounds": 1, "steps_per_round": 2, "noise_multiplier": "8", "sampling_rate": "1"} | changes
    return tiny.plan_of(home / "model", **fields)


def type_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    monkeypatch.setattr("sys.argv", ["fl-alliance", "audit", "empirical", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, _ = capsys.readouterr()
    assert not left.value.code
    return out.splitlines()


def test_the_command_reads_no_private_record_and_says_both_bounds(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data file that the configuration names does not exist."""
    words = (home, home / "plan.json", "--canaries", 40, "--json", home / "audit.json")
    lines = type_command(monkeypatch, capsys, *words)
    told = json.loads((home / "audit.json").read_text())
    assert (told["canaries"], told["made"], told["noise_part"]) == (40, 20, "1")
    assert f"epsilon is at least {told['bound']} (95 % confidence, delta 0.00001)" in lines
    assert any(line.startswith(f"the accountant says at most {told['claimed']}; ") for line in lines)
    assert any("it proves none" in line for line in lines)
    assert not any("TRIAL" in line for line in lines)
    assert told["refuted"] is (D(told["bound"]) > D(told["claimed"]))
    assert {path.name for path in home.iterdir()} == {"model", "institution.toml", "plan.json", "audit.json"}


def test_a_trial_without_noise_says_so_first_and_finds_every_canary(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "public.jsonl").write_text('{"patient": "nobody", "prompt": "Define: bone", "answer": "a small bone"}\n')
    words = (home, home / "plan.json", "--canaries", 40, "--guess-in", 6, "--guess-out", 5, "--without-noise")
    lines = type_command(monkeypatch, capsys, *words, "--public", home / "public.jsonl")
    assert lines[0].startswith("NOISE TIMES 0: A TRIAL OF THE AUDIT, which shows nothing about the job")
    assert lines[1] == "11 of 11 guesses about 40 canaries are right"


def test_the_private_data_file_is_refused_as_public_also_by_another_name(home: Path) -> None:
    (home / "cases.jsonl").write_text("never read\n")
    (home / "link.jsonl").symlink_to(home / "cases.jsonl")
    for name in ("cases.jsonl", "link.jsonl"):
        with pytest.raises(BadConfig, match="is the private data set cases"):
            audit(home, plan_of(home), AuditSettings(canaries=10), public=home / name)


def test_a_run_that_gave_away_more_than_is_claimed_is_refused_and_a_trial_is_not(home: Path) -> None:
    plan = plan_of(home)
    found = result_of(ALL_RIGHT, plan, AuditSettings())
    assert found.bound == found.ceiling > 3 > found.claimed
    with pytest.raises(EvidenceRefused, match=f"at least {found.bound}, claimed {found.claimed}"):
        require_unrefuted(found)
    require_unrefuted(result_of(ALL_RIGHT, plan, AuditSettings(noise_part=D(0))))


def test_an_audit_that_could_not_refute_the_claim_says_so(home: Path) -> None:
    plan = plan_of(home, noise_multiplier="0.7")
    result = result_of(ALL_RIGHT, plan, AuditSettings())
    assert result.ceiling < result.claimed
    assert any("could not have refuted" in line for line in result.lines())
    assert not any(
        "could not have refuted" in line for line in result_of(ALL_RIGHT, plan_of(home), AuditSettings()).lines()
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"canaries": 0}, "canaries 0 must be at least 1"),
        ({"confidence": D(1)}, "confidence 1 must be above 0 and below 1"),
        ({"noise_part": D(-1)}, "noise_part -1 must be at least 0"),
        ({"canaries": 10, "taken": 8, "left": 3}, "guesses 8 in and 3 out: need 1 to 10 together"),
        ({"canaries": 10, "taken": 0, "left": 0}, "guesses 0 in and 0 out"),
    ],
)
def test_settings_that_cannot_be_run_are_named_before_the_model_is_loaded(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        AuditSettings(**changes).guesses(any_plan())
