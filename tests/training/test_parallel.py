"""Several processes for a step: the same event, the same sum and one noise, whatever their number; none left behind."""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fl_alliance.errors import BadConfig, TrainingFailed
from fl_alliance.training import ranks, workers
from fl_alliance.training.batches import Performance, Unit
from fl_alliance.training.encode import Encoded
from fl_alliance.training.model import adapter_vector, trained_parameters
from fl_alliance.training.noise import SecretRandom
from fl_alliance.training.session import TrainingSession
from tests.training import tiny
from tests.training.test_noise import require_normal_of

SIZES = [1, 2, 3, 9, 5, 1, 2, 2]
RECORDS = tiny.records_with(SIZES)
SIGMA, CLIP, DECLARED = 1.3, 0.7, 1000
PLAN: dict[str, Any] = {
    "clip_norm": str(CLIP), "noise_multiplier": str(SIGMA), "sampling_rate": "0.5", "steps_per_round": 3,
    "records_per_unit": 9, "adapter": {"rank": 32}, "delta": "0.00001",
}  # fmt: skip
ALONE = Performance(micro_batch_rows=1)
"""One row in a pass, so that nobody's company moves the last bits of a unit's float32."""


def injected(seed: int) -> SecretRandom:
    generator = np.random.default_rng(seed)
    return SecretRandom._from(generator.bytes)


@pytest.fixture(scope="module")
def one(folder: Path) -> TrainingSession:
    return tiny.session_of(folder, ALONE, **PLAN)


@pytest.fixture(scope="module")
def two(folder: Path) -> TrainingSession:
    """Two processes; to start them takes seconds, so there is one pair for the file."""
    return tiny.session_of(folder, Performance(micro_batch_rows=1, processes=2), **PLAN)


def sum_of(session: TrainingSession, sample: Sequence[Unit]) -> Tensor:
    """Return the clipped sum of `sample` by the session's way, (d,), before noise."""
    optimizer, weights = session._optimizer(), torch.from_numpy(adapter_vector(session.model))
    if session._workers is None:
        return session.clipped_sum(weights, sample)
    session.model.train()
    with session._workers.step(weights, sample) as step:
        session._accumulate(optimizer, step.mine)
        return step.add(optimizer.take_sum())


@pytest.mark.parametrize("taken", [0, 1, 2, len(SIZES)])
def test_the_sum_of_two_processes_is_that_of_one(one: TrainingSession, two: TrainingSession, taken: int) -> None:
    """Also where a process, or both, have no unit. Up to the order of additions in float64."""
    expected, found = (sum_of(session, session._units(RECORDS)[:taken]) for session in (one, two))
    assert bool(expected.any()) == bool(taken)
    assert torch.allclose(found, expected, rtol=0, atol=1e-14)


def test_whole_rounds_of_two_processes_are_those_of_one_and_are_charged_the_same(
    one: TrainingSession, two: TrainingSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same coins and noise: one sample is drawn, and the second step sees the weights of the first."""
    charged = len(two.history)
    for session in (one, two):
        monkeypatch.setattr(session, "_random", injected(3))
    for _ in range(2):
        rounds = [session.train_round(RECORDS) for session in (one, two)]
        assert np.abs(rounds[0].update).max() > 1e-4
        assert rounds[1].update == pytest.approx(rounds[0].update, rel=0, abs=1e-9)
        assert [(r.steps, r.sampling_rate, r.noise_multiplier) for r in rounds] == [(3, 0.5, SIGMA)] * 2
    assert charged == 0
    assert two.history == one.history == [(SIGMA, 0.5, 6)]


def test_noise_is_added_once(two: TrainingSession) -> None:
    """On empty samples; noise of each process would be larger by the root of their number: with power to tell 3/2."""
    update = two.train_round(tiny.records_with([])).update
    require_normal_of(update, 3**0.5 * SIGMA * CLIP / (0.5 * DECLARED))


def test_one_unit_more_moves_the_sum_by_c_at_most(two: TrainingSession) -> None:
    """Whoever has it, and whoever then changes places. The unit of nine records would be over C if it were split."""
    units = two._units(RECORDS)
    whole = sum_of(two, units)
    moved = [float((whole - sum_of(two, units[:at] + units[at + 1 :])).norm()) for at in range(len(units))]
    assert max(moved) <= CLIP
    assert min(moved) > CLIP / 2  # every one of them is clipped, and counts


def test_all_records_of_a_unit_go_to_one_process(two: TrainingSession, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[Unit]] = []
    assert two._workers is not None
    worker = two._workers._workers[0]
    tell = worker.tell

    def watch(message: bytes) -> None:
        if message != workers.READY:
            sent.append(ranks.unpack_units(message))
        tell(message)

    monkeypatch.setattr(worker, "tell", watch)
    units = two._units(RECORDS)
    with two._workers.step(torch.from_numpy(adapter_vector(two.model)), units) as step:
        mine = [unit_of(units, unit) for unit in step.mine]
        step.add(torch.zeros(len(two.vector), dtype=torch.float64))
    theirs = [unit_of(units, unit) for unit in sent[0]]
    assert sorted(mine + theirs) == list(range(len(units)))
    assert mine
    assert theirs


def unit_of(units: Sequence[Unit], unit: Unit) -> int:
    """Which unit this is, all of it."""
    return list(map(rows_of, units)).index(rows_of(unit))


def rows_of(unit: Unit) -> list[tuple[Any, Any]]:
    return [(row.ids, row.labels) for row in unit]


def listening(pid: int) -> set[str]:
    """Return the addresses, in hex without the ports, on which a process takes TCP connections."""
    files = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    tables = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    lines = [line.split() for line in tables.splitlines()]
    return {f[1].partition(":")[0] for f in lines if f[3] == "0A" and f"socket:[{f[9]}]" in files}


def test_the_group_listens_on_loopback_only(two: TrainingSession) -> None:
    assert two._workers is not None
    assert [listening(pid) for pid in two._workers.pids] == [{"0100007F"}]


def test_a_worker_killed_in_a_step_ends_the_round_by_name_and_the_next_round_works(
    one: TrainingSession, two: TrainingSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert two._workers is not None
    before, accumulate = two.vector, two._accumulate

    def first_kill(*given: Any) -> None:
        os.kill(two._workers.pids[0], signal.SIGKILL)  # type: ignore[union-attr]
        accumulate(*given)

    with monkeypatch.context() as patch:
        patch.setattr(two, "_accumulate", first_kill)
        with pytest.raises(TrainingFailed, match="training worker 1 of 1 was ended by SIGKILL, in a step"):
            two.train_round(RECORDS)
    assert two._workers.pids == []
    assert np.array_equal(two.vector, before)
    for session in (one, two):
        monkeypatch.setattr(session, "_random", injected(4))
    updates = [session.train_round(RECORDS).update for session in (one, two)]
    assert updates[1] == pytest.approx(updates[0], rel=0, abs=1e-9)


def test_a_worker_that_hangs_ends_the_round_by_name_and_is_ended(
    two: TrainingSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of the file with workers: they are not started again."""
    assert two._workers is not None
    monkeypatch.setattr(two._workers, "_step_seconds", 0.1)
    (pid,), accumulate = two._workers.pids, two._accumulate
    ended = os.pidfd_open(pid)

    def first_stop(*given: Any) -> None:
        os.kill(pid, signal.SIGSTOP)
        accumulate(*given)

    monkeypatch.setattr(two, "_accumulate", first_stop)
    with pytest.raises(TrainingFailed, match=r"worker 1 of 1 was not ready after 0\.1 s, in a step"):
        two.train_round(RECORDS)
    require_end(ended)


# ---- a worker and its caller, without a model


def require_end(process: int) -> None:
    """Wait for the process of a pidfd."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    try:
        assert poll.poll(30_000), "the worker outlives its caller"
    finally:
        os.close(process)


PARENT = """
import os, sys
from fl_alliance.training.workers import _Worker
held = [_Worker((sys.executable, "-P", "-c", sys.argv[1]), rank, 3) for rank in (1, 2)]
for worker in held:
    worker.require_ready(60, "at its start")
print(*(worker.pid for worker in held), flush=True)
os.read(0, 1)
"""
CHILD = """
import sys
from multiprocessing.connection import Connection
from fl_alliance.training import worker_main
def busy(talk):
    talk.send_bytes(b"y")
    while True: pass
worker_main.join = busy
worker_main.main(sys.argv[1:])
"""


def test_workers_end_with_a_caller_that_was_killed_whatever_they_are_doing() -> None:
    """Two of them: neither may hold the caller's end of the other."""
    caller = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert caller.stdout is not None
    ended = [os.pidfd_open(int(pid)) for pid in caller.stdout.readline().split()]
    assert len(ended) == 2
    caller.kill()
    caller.communicate()
    for process in ended:
        require_end(process)


def test_a_worker_that_can_not_start_is_an_error_with_its_number() -> None:
    with pytest.raises(TrainingFailed, match="training worker 2 of 3 can't be started: No such file"):
        workers._Worker(("no-such-program",), 2, 4)
    worker = workers._Worker((sys.executable, "-c", "raise SystemExit(3)"), 1, 2)
    with pytest.raises(TrainingFailed, match="training worker 1 of 1 ended with status 3, at its start"):
        worker.require_ready(60, "at its start")


def test_a_worker_that_takes_no_bytes_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CARRY_SECONDS", 1)
    worker = workers._Worker(("sleep", "60"), 1, 2)
    with pytest.raises(TrainingFailed, match="worker 1 of 1 did not listen for 1 s"):
        worker.tell(bytes(1 << 24))
    worker.close()


FAILING = """
import logging, sys, warnings
from fl_alliance.training import worker_main
def fail(talk):
    warnings.warn("Ann")
    logging.error("Ann")
    raise ValueError("Ann")
worker_main.join = fail
worker_main.main(sys.argv[1:])
"""


def test_of_an_error_in_a_worker_the_log_has_type_and_place_and_nobody_has_its_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nor does the reason for a refusal, which leaves the house, say which error it was."""
    worker = workers._Worker((sys.executable, "-W", "always", "-c", FAILING), 1, 2)
    with structlog.testing.capture_logs() as logged, pytest.raises(TrainingFailed) as refused:
        worker.require_ready(60, "in a step")
    assert str(refused.value) == "training worker 1 of 1 ended by an error that this institution's log names, in a step"
    (line,) = logged
    assert (line["event"], line["kind"]) == ("training_worker_ended", "ValueError")
    assert re.fullmatch(r"worker_main\.py:\d+ > <string>:7", line["said"])
    worker.close()
    assert capfd.readouterr() == ("", "")


def test_a_worker_sees_no_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    seen = workers._environment()
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert seen["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_a_worker_s_part_of_a_step_leaves_nothing_behind(folder: Path) -> None:
    """Neither gradients nor activations, and the weights are rank 0's: what comes next is as if it had not been."""
    session = tiny.session_of(folder, ALONE, **PLAN)
    units, weights = session._units(RECORDS), torch.from_numpy(tiny.somewhere(len(session.vector)) / 2)
    whole = session.clipped_sum(weights, units)
    assert torch.equal(torch.from_numpy(adapter_vector(session.model)).float(), weights.float())
    for parameter in trained_parameters(session.model):
        assert [getattr(parameter, name) for name in ("grad", "grad_sample", "summed_grad")] == [None] * 3
    assert not any(getattr(module, "activations", ()) for module in session.model.modules())
    assert torch.equal(session.clipped_sum(weights, units), whole)
    assert session.history == []


# ---- who gets what, and who may take part

ROWS = st.builds(
    lambda ids: Encoded(tuple(ids), tuple(reversed(ids))), st.lists(st.integers(-100, 200_000), min_size=1)
)
UNITS = st.lists(st.lists(ROWS, max_size=4), max_size=9)


@settings(max_examples=30)
@given(units=UNITS)
def test_units_survive_the_way_to_a_worker(units: list[list[Encoded]]) -> None:
    assert [rows_of(unit) for unit in ranks.unpack_units(ranks.pack_units(units))] == [rows_of(unit) for unit in units]


@settings(max_examples=30)
@given(units=UNITS, size=st.integers(1, 5))
def test_each_unit_is_whole_and_at_one_rank(units: list[list[Encoded]], size: int) -> None:
    parts = ranks.divide(units, size)
    assert len(parts) == size
    placed = [id(unit) for part in parts for unit in part]
    assert sorted(placed) == sorted(id(unit) for unit in units if unit)


def test_ranks_get_like_work() -> None:
    units = [[Encoded((1,) * (1 + place % 7), (1,) * (1 + place % 7))] * (1 + place % 3) for place in range(40)]
    work = [sum(ranks._work(unit) for unit in part) for part in ranks.divide(units, 4)]
    assert max(work) - min(work) <= max(ranks._work(unit) for unit in units)


def meeting(folder: Path, secrets: tuple[bytes, bytes]) -> Iterator[Any]:
    """What two ranks get from meeting in `folder`: a group, or an error."""

    def meet(rank: int) -> Any:
        try:
            return ranks.SumGroup(folder, rank, 2, secrets[rank])
        except TrainingFailed as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(meet, (0, 1))


def test_a_stranger_that_reaches_the_ports_gets_no_vector(tmp_path: Path) -> None:
    assert (
        list(meeting(tmp_path, (b"s" * 32, b"t" * 32)))
        == ["a process that this institution did not start is among those that train"] * 2
    )


def test_the_folder_where_ranks_meet_is_for_this_user_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[int] = []

    def look(_: workers.Workers, meeting: Path) -> None:
        seen.append(stat.S_IMODE(meeting.stat().st_mode))
        raise TrainingFailed("enough")

    monkeypatch.setattr(workers.Workers, "_join", look)
    started = workers.Workers(
        tmp_path, tiny.plan_of(folder), "lagos", Performance(processes=2), command=("sleep", "60")
    )
    with pytest.raises(TrainingFailed, match="enough"):
        started.meet()
    assert seen == [0o700]
    assert list(tmp_path.iterdir()) == []
    assert started.pids == []


def test_fewer_gpus_than_processes_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BadConfig, match="processes 3: torch sees 2 CUDA GPUs here, one for each is needed"):
        Performance(processes=3).torch_device()
    assert [str(Performance(processes=2).torch_device(rank)) for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    assert Performance(processes=3, device="cpu").torch_device(2) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_a_round_on_two_gpus_equals_one_on_the_cpu(folder: Path) -> None:
    bare = PLAN | {"sampling_rate": "1", "noise_multiplier": tiny.NO_NOISE}
    speeds = Performance(device="cpu"), Performance(device="cuda", processes=2)
    cpu, gpus = (tiny.session_of(folder, speed, **bare).train_round(RECORDS).update for speed in speeds)
    assert np.linalg.norm(cpu - gpus) < 1e-3 * np.linalg.norm(cpu)
