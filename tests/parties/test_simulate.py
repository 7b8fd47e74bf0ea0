"""A simulated alliance: it ends as a real one would, each fault shows, and a wrong sum is not passed over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.errors import BadConfig, BadPlan, JobAborted, SumRefused
from fl_alliance.parties.simulate import Outcome, SimulationSettings, require_right, run_simulation
from fl_alliance.parties.simulate.outcome import Row
from fl_alliance.parties.simulate.stand_in import ADAPTER, Draws, StandIn

PHASES = (
    "acceptance",
    "wrapped-keys",
    "key-accepted",
    "round-keys",
    "sealed-shares",
    "sealed-update",
    "survivors-confirmed",
    "revealed-shares",
    "sum-checked",
    "adapter-vote",
    "released",
)


def simulated(tmp_path: Path, **settings: Any) -> Outcome:
    chosen = SimulationSettings(**{"members": 4, "parameters": 300, **settings})
    return run_simulation(chosen, tmp_path / "alliance")


def asked(outcome: Outcome) -> int:
    return sum(row.asked for row in outcome.rows)


def heard(outcome: Outcome) -> int:
    return sum(row.heard for row in outcome.rows)


def row(outcome: Outcome, phase: str) -> Row:
    return next(row for row in outcome.rows if row.phase == phase)


def test_without_faults_everybody_ends_with_the_plain_mean_and_nobody_waits(tmp_path):
    outcome = simulated(tmp_path, rounds=2)
    require_right(outcome)
    assert outcome.compared is not None
    assert len(outcome.compared.survivors) == 4
    assert 0 < outcome.compared.off < 2  # rounded at random: never exactly the mean
    assert (outcome.left, outcome.rounds, outcome.waited_seconds) == ({}, 2, 0.0)
    assert tuple(row.phase for row in outcome.rows) == PHASES
    for found in outcome.rows:
        times = 1 if found.phase == "wrapped-keys" else 4 * (1 if found.phase in PHASES[:3] else 2)
        assert (found.phase, found.asked, found.heard) == (found.phase, times, times)


def test_bytes_are_counted_at_both_ends(tmp_path):
    outcome = simulated(tmp_path)
    sealed, checked = row(outcome, "sealed-update"), row(outcome, "sum-checked")
    blobs = [path.stat().st_size for path in (tmp_path / "alliance/coordinator/blobs").rglob("*") if path.is_file()]
    uploads = [size for size in blobs if size > 10_000]  # the others are pieces of the log
    assert len(uploads) == 5  # and the sum
    assert sealed.coordinator_in > sum(sorted(uploads)[:4])
    assert checked.coordinator_out > 4 * sum(sorted(uploads)[:4])  # everybody fetched all, to add them again
    for found in (sealed, checked):
        assert found.member_up * 4 == pytest.approx(found.coordinator_in)
        assert found.member_down * 4 == pytest.approx(found.coordinator_out)
        assert 0 < found.member_seconds <= found.slowest_seconds
        assert found.wall_seconds > 0


def test_with_verifiers_only_those_drawn_fetch_all_uploads_and_fewer_bits_make_them_shorter(tmp_path):
    settings = {"members": 5, "parameters": 20_000}
    everybody = simulated(tmp_path / "a", **settings)
    some = simulated(tmp_path / "b", **settings, bits=8, verifiers=1)
    require_right(some)
    upload, shorter = (row(outcome, "sealed-update").member_up for outcome in (everybody, some))
    assert shorter < 0.7 * upload
    checked = [row(outcome, "sum-checked").coordinator_out for outcome in (everybody, some)]
    assert checked[0] > 25 * 0.9 * upload
    assert checked[1] < 2 * 5 * 1.2 * shorter + 100_000  # one is needed, two are drawn


def test_what_is_lost_is_asked_for_again(tmp_path):
    outcome = simulated(tmp_path, lose=0.15, seed=1)
    require_right(outcome)
    assert outcome.left == {}
    assert asked(outcome) > heard(outcome) >= 41
    assert outcome.waited_seconds >= 30


def test_who_is_asked_twice_answers_twice_and_the_sum_holds_it_once(tmp_path):
    outcome = simulated(tmp_path, duplicate=0.5, seed=1)
    require_right(outcome)
    assert (outcome.left, asked(outcome)) == ({}, 41)
    assert heard(outcome) > 48


def test_late_replies_are_waited_for(tmp_path):
    outcome = simulated(tmp_path, delay=0.5, seed=1)
    require_right(outcome)
    assert (outcome.left, asked(outcome), heard(outcome)) == ({}, 41, 41)
    assert 0 < outcome.waited_seconds < 20 * len(PHASES)


def test_members_that_go_away_are_named_with_the_phase_and_the_others_finish(tmp_path):
    outcome = simulated(tmp_path, members=5, drop=0.04, seed=1)
    require_right(outcome)
    assert outcome.compared is not None
    assert outcome.left
    assert {*outcome.left, *outcome.compared.survivors} == {f"site-{number:03d}" for number in range(1, 6)}
    for name, reason in outcome.left.items():
        assert name in reason
        assert "before the deadline" in reason


def test_when_too_many_go_away_the_job_is_aborted_by_name(tmp_path):
    outcome = simulated(tmp_path, drop=1)
    assert outcome.compared is None
    with pytest.raises(
        JobAborted, match=r"^no sealed-shares from site-00\d in round 1 .*; 2 members are left, need 3$"
    ):
        require_right(outcome)


def test_the_same_seed_gives_the_same_faults_whatever_keys_are_drawn(tmp_path):
    faults: dict[str, Any] = {"members": 5, "lose": 0.1, "duplicate": 0.2, "delay": 0.2, "drop": 0.03, "seed": 3}
    first, second = (simulated(tmp_path / place, **faults) for place in ("a", "b"))
    require_right(first)
    assert first.left == second.left
    assert first.waited_seconds == second.waited_seconds > 30
    counts = [[(row.phase, row.asked, row.heard) for row in outcome.rows] for outcome in (first, second)]
    assert counts[0] == counts[1]


def test_an_update_that_is_not_the_one_that_was_drawn_is_a_wrong_sum(tmp_path, monkeypatch):
    """All members agree on it: only the plain mean beside it shows that."""
    draw = Draws.new

    def planted(self: Draws, member: str, round_number: int):
        vector = draw(self, member, round_number)
        if member == "site-002":  # one coordinate: four levels in the mean of four
            vector[7] += 4 * 1.2e-5 * (-1 if vector[7] > 0 else 1)
        return vector

    monkeypatch.setattr(Draws, "new", planted)
    outcome = simulated(tmp_path)
    assert outcome.compared is not None
    assert outcome.compared.others == ()
    with pytest.raises(SumRefused, match="levels from the plain mean, with 1 rounds at most 1"):
        require_right(outcome)


def test_a_survivor_with_another_adapter_is_named(tmp_path, monkeypatch):
    save = StandIn.save

    def planted(self: StandIn, folder: Path) -> str:
        digest = save(self, folder)
        if self._member == "site-003":
            (folder / ADAPTER).write_bytes((self.vector + 1e-9).tobytes())
        return digest

    monkeypatch.setattr(StandIn, "save", planted)
    with pytest.raises(SumRefused, match=r"^not the adapter of the last record: site-003$"):
        require_right(simulated(tmp_path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"members": 200}, "members: with 200 of them a share-delivery has"),
        ({"threshold": 2}, "threshold 2 must be above half of 4 members"),
        ({"quorum": 6}, "quorum 6 must be above half of 4 members and at most all"),
    ],
)
def test_what_no_plan_allows_is_refused_before_a_key_is_made(tmp_path, settings, said):
    with pytest.raises(BadPlan, match=said):
        simulated(tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "alliance").mkdir()
    with pytest.raises(BadConfig, match="is there already"):
        simulated(tmp_path)
    assert list((tmp_path / "alliance").iterdir()) == []


def test_no_model_library_is_loaded(tmp_path):
    """Start-up takes seconds, and the command works where torch is not installed."""
    code = (
        "import sys; from pathlib import Path; from fl_alliance.parties.simulate import *; "
        f"run_simulation(SimulationSettings(members=3, parameters=9), Path({str(tmp_path / 'a')!r})); "
        "print(sorted({'torch', 'transformers', 'opacus', 'peft', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
