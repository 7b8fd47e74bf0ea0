"""`fl-alliance simulate` as a person types it."""

from __future__ import annotations

import json

import pytest

from tests.test_cli import Shell, shell

__all__ = ["shell"]  # a fixture
SMALL = ("simulate", "--members", "4", "--parameters", "100")


def test_a_simulation_prints_its_table_and_writes_it_as_json(shell: Shell):
    said = shell.type(*SMALL, "--lose", "0.1", "--seed", "2", "--json", "out.json")
    assert "4 members, 100 parameters, 1 of 1 rounds recorded, threshold 3, quorum 3" in said
    assert "nothing here says anything about privacy" in said
    assert "result   4 survivors: all have the same adapter; at most 0." in said
    assert "epsilon" not in said
    found = json.loads((shell.here / "out.json").read_text())
    assert found["compared"]["right"] is True
    assert found["settings"]["lose"] == 0.1
    assert [path.name for path in shell.here.iterdir()] == ["out.json"]


def test_an_aborted_simulation_shows_its_table_and_leaves_with_the_reason(shell: Shell):
    code, out, err = shell.leave(*SMALL, "--drop", "2", "--folder", "kept")
    assert code == 1
    assert "left     " in out
    assert "result   aborted: no round-keys from " in out
    assert err.startswith("JobAborted: no round-keys from ")
    assert (shell.here / "kept" / "coordinator" / "journal.db").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--members", "2"), "BadConfig: members: Input should be greater than or equal to 3, got 2"),
        (("--lose", "0.95"), "BadConfig: lose: Input should be less than or equal to 0.9, got 0.95"),
        (("--drop", "1.5"), "drop 1.5 must be a part below 1 or a whole number of members"),
        (("--bits", "7"), "BadPlan: sum.bits: Input should be 8, 12, 16, 18 or 20"),
        (("--threshold", "9"), "BadPlan: plan: Value error, threshold 9 must be above half of 4 members"),
    ],
)
def test_a_simulation_that_can_not_be_is_refused_in_one_line(shell: Shell, option, said):
    assert said in shell.refuse(*SMALL, *option)
