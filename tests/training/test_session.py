"""A session between rounds: the global adapter moves by `apply` alone, and a plan that can't run is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_alliance.errors import BadPlan
from fl_alliance.protocol.plan import OptimizerPlan
from fl_alliance.training.batches import Performance
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

RECORDS = tiny.records_with([1, 2, 3])


def test_a_session_starts_at_the_public_point_with_b_at_zero(folder: Path) -> None:
    session = TrainingSession(folder, tiny.plan_of(folder), "lagos")
    assert not session.vector.any()


def test_a_round_leaves_the_global_adapter_where_it_was(folder: Path) -> None:
    session = tiny.session_of(folder)
    before, inside = session.vector, session.model.state_dict()
    inside = {name: tensor.clone() for name, tensor in inside.items()}
    update = session.train_round(RECORDS).update
    assert update.shape == before.shape
    assert update.any()
    assert np.array_equal(session.vector, before)
    assert all(np.array_equal(tensor, inside[name]) for name, tensor in session.model.state_dict().items())


def test_a_failed_round_leaves_the_global_adapter_where_it_was(folder: Path) -> None:
    session = tiny.session_of(folder)
    inside = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}

    def stop(step: int, steps: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.train_round(RECORDS, stop)
    assert all(np.array_equal(tensor, inside[name]) for name, tensor in session.model.state_dict().items())


def test_progress_tells_steps_and_nothing_else(folder: Path) -> None:
    seen: list[tuple[int, ...]] = []
    tiny.session_of(folder).train_round(RECORDS, lambda *told: seen.append(told))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_members_that_apply_the_same_updates_hold_the_same_adapter(folder: Path, tmp_path: Path) -> None:
    one, other = (TrainingSession(folder, tiny.plan_of(folder), name) for name in ("lagos", "lima"))
    for _ in range(3):
        mean = (one.train_round(RECORDS).update + other.train_round(tiny.records_with([4])).update) / 2
        one.apply(mean)
        other.apply(mean)
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    again = TrainingSession(folder, tiny.plan_of(folder), "berlin")
    again.restore(one.vector)
    assert np.array_equal(again.vector, other.vector)


def test_small_updates_add_up_beyond_float32(folder: Path) -> None:
    session = tiny.session_of(folder)
    session.restore(np.ones_like(session.vector))
    for _ in range(100):
        session.apply(np.full_like(session.vector, 1e-9))
    assert session.vector == pytest.approx(1 + 1e-7, abs=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mean_that_is_not_finite_is_refused_and_changes_nothing(folder: Path, value: float) -> None:
    session = tiny.session_of(folder)
    before = session.vector
    with pytest.raises(BadPlan, match="not finite"):
        session.apply(np.full_like(before, value))
    with pytest.raises(BadPlan, match="has shape"):
        session.apply(before[:-1])
    assert np.array_equal(session.vector, before)


def test_the_vector_is_a_copy(folder: Path) -> None:
    session = tiny.session_of(folder)
    session.vector[:] = 7
    given = session.vector
    session.restore(given)
    given[:] = 7
    assert not (session.vector == 7).any()


ALMOST_ONE = "0." + "9" * 18
"""Below 1 in a plan, 1.0 as a double."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "adam with a beta1 that rounds to 1": (
        {"optimizer": OptimizerPlan(name="adam", learning_rate="0.1", momentum=ALMOST_ONE)},
        "optimizer adam: Invalid beta parameter",
    ),
    "adam with a beta2 that rounds to 1": (
        {"optimizer": OptimizerPlan(name="adam", learning_rate="0.1", beta2=ALMOST_ONE)},
        "optimizer adam: Invalid beta parameter",
    ),
    "modules": ({"adapter": {"modules": 9}}, "hit 4 modules, the plan says 9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_can_not_run_is_refused_before_a_round_is_charged(folder: Path, name: str) -> None:
    changes, expected = REFUSED[name]
    with pytest.raises(BadPlan, match=expected):
        TrainingSession(folder, tiny.plan_of(folder, **changes), "lagos")


def test_a_stranger_has_no_session(folder: Path) -> None:
    with pytest.raises(BadPlan, match="oslo is not a member of job job-1: berlin, lagos, lima"):
        TrainingSession(folder, tiny.plan_of(folder), "oslo")


@pytest.mark.parametrize(
    ("settings", "adapter", "vocabulary", "expected"),
    [
        (Performance(), 1000, 4096, (256, 8192)),
        (Performance(gradient_mib=1), 10_000, 4096, (26, 8192)),
        (Performance(logits_mib=100), 1000, 152_000, (256, 172)),
        (Performance(gradient_mib=0, logits_mib=0), 1000, 4096, (1, 1)),
    ],
)
def test_limits_of_a_pass(settings: Performance, adapter: int, vocabulary: int, expected: tuple[int, int]) -> None:
    assert settings.limits(adapter, vocabulary) == expected
