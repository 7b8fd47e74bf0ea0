"""Workers that are started ahead: each is used once, none is left, and a dead one is nobody's trouble."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fl_alliance.secagg.worker import CipherWorker, Performance
from tests.secagg.test_worker import KEY, OPENED, SLOTS, TOTAL, UPLOADS, P, looking

Started = list["subprocess.Popen[bytes]"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found: Started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: found.append(popen(*a, **k)) or found[-1])
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_started_ahead_does_one_work_and_ends(started: Started, processes: int) -> None:
    worker = CipherWorker(P, Performance(processes=processes))
    worker.get_ready(2)
    worker.get_ready(2)
    assert len(started) == 2 * processes
    assert worker.add(UPLOADS, slots=SLOTS) == TOTAL
    assert sum(process.returncode is not None for process in started) == processes
    assert (worker.open_sum(TOTAL, key=KEY, slots=SLOTS) == OPENED).all()
    assert len(started) == 2 * processes
    assert all(process.returncode is not None for process in started)


def test_a_worker_started_ahead_that_was_killed_is_replaced(started: Started) -> None:
    worker = CipherWorker(P)
    worker.get_ready(1)
    os.kill(started[0].pid, signal.SIGKILL)
    os.waitid(os.P_PID, started[0].pid, os.WEXITED | os.WNOWAIT)
    assert worker.add(UPLOADS, slots=SLOTS) == TOTAL
    assert len(started) == 2


def test_workers_started_ahead_end_with_their_owner(started: Started) -> None:
    worker, forgotten = CipherWorker(P), CipherWorker(P)
    for owner in (worker, forgotten):
        owner.get_ready(1)
    worker.close()
    assert started[0].returncode is not None
    del owner, forgotten
    assert started[1].returncode is not None


def test_without_isolation_or_where_none_can_be_started_nothing_is_started_ahead(started: Started) -> None:
    CipherWorker(P, Performance(processes=0)).get_ready(3)
    CipherWorker(P, command=("/nowhere/python",)).get_ready(3)
    assert started == []


def test_a_worker_started_ahead_that_adds_gets_no_key(tmp_path: Path) -> None:
    place = tmp_path / "key came"
    worker = CipherWorker(P, command=looking(place, "k"))
    worker.get_ready(2)
    assert worker.add(UPLOADS, slots=SLOTS) == TOTAL
    assert not place.exists()
    worker.open_sum(TOTAL, key=KEY, slots=SLOTS)
    assert place.exists(), "the look has power: here a key came"
