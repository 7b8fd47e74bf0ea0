"""The bench of rounds: its parties are the product's own, and what it reads from their notes adds up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import rounds
from bench.rounds import PHASES, SITES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("side", ["coordinator", "institution"])
def test_a_party_with_the_stopwatch_in_it_is_the_product_s_command_line(side: str, tmp_path: Path) -> None:
    """Whatever the stopwatch is put at must be there: a part of the product with another name fails here."""
    command = [sys.executable, "-m", "bench.round_parties", str(tmp_path / "notes"), side, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


def span(what: str, at: float, total: float, own: float, **more: Any) -> str:
    return json.dumps({"what": what, "at": at, "total": total, "own": own, "cpu": at, "main": True, **more}) + "\n"


def write_notes(folder: Path, count: int) -> None:
    """Note `count` rounds of which each phase takes a second, a quarter of it in the last institution's answer."""
    events, answers, now = [span("event", 0.0, 0.0, 0.0, line="round 1/2: key-accepted from lima")], [], 0.0
    for number in range(1, count + 1):
        for phase, request in PHASES.items():
            now += 1.0
            own = {"adding": "SumAdded", "recording": "RecordSigned"}.get(phase)
            said = [own] if own else [f"{phase} from {name}" for name in SITES]
            events += [span("event", now, 0.0, 0.0, line=f"round {number}/{count}: {what}") for what in said]
            if request:
                answers += [span("handle", now - 0.5, 0.25, 0.15, kind=request, round=number)]
                answers += [span("fsync", now - 0.4, 0.1, 0.1)]
    (folder / "coordinator.notes").write_text("".join(events))
    for name in SITES:
        (folder / f"{name}.notes").write_text("".join(answers))


def test_the_parts_of_a_phase_add_up_to_it(tmp_path: Path) -> None:
    write_notes(tmp_path, 3)
    found = rounds.read_rounds(tmp_path)
    rows = {row["phase"]: row for row in rounds.rows_of(found)}
    assert [list(one) for one in found.phases] == [list(PHASES)] * 3
    assert rows["whole round"]["seconds"] == pytest.approx(len(PHASES))
    for phase in PHASES:
        row = rows[phase]
        assert row["seconds"] == pytest.approx(1.0)
        if PHASES[phase]:
            assert [row[part] for part in ("there", "answer", "back")] == pytest.approx([0.5, 0.25, 0.25])
            assert [row[part] for part in ("fsync", "other")] == pytest.approx([0.1, 0.15])
