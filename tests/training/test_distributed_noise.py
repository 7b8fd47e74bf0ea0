"""Noise that the members share: what is in the sum, with honest members and with some who leave their part out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fl_alliance.protocol.plan import Member, OptimizerPlan, SumPlan, TrainingPlan
from fl_alliance.secagg.fixedpoint import dequantise_sum, quantise
from fl_alliance.training import session as session_module
from fl_alliance.training.dp import UnitOptimizer, gradient_bound
from fl_alliance.training.noise import SecretRandom
from tests.training import tiny

NAMES = ("berlin", "lagos", "lima", "oslo", "quito")
RATE, SIGMA, C, Q, SIZE = 0.5, 3.0, 2.0, 0.5, 40_000
UNITS = {"berlin": 100, "lagos": 200, "lima": 100, "oslo": 400, "quito": 200}
SCALE = RATE / (Q * 200)
"""From a summed gradient to an update: 200 is the mean of the declared units."""


def plan_of(folder: Path, **changes: Any) -> TrainingPlan:
    fields: dict[str, Any] = {
        "members": tuple(Member(name=name, declared_units=UNITS[name]) for name in NAMES), "threshold": 3,
        "quorum": 3, "minimum_members": 4, "noise": "distributed", "steps_per_round": 1, "noise_multiplier": "3",
        "clip_norm": "2", "sampling_rate": "0.5", "optimizer": OptimizerPlan(name="sgd", learning_rate="0.5"),
        "sum": SumPlan(coordinate_clip="0.5", bits=16),
    }  # fmt: skip
    return tiny.plan_of(folder, **(fields | changes))


def update_of(plan: TrainingPlan, member: str, gradient: torch.Tensor) -> NDArray[np.float64]:
    """One round of `member` whose units' clipped gradients sum to `gradient`, (SIZE,)."""
    parameter = torch.nn.Parameter(torch.zeros(SIZE))
    optimizer = UnitOptimizer(torch.optim.SGD([parameter], lr=RATE), plan, member, SecretRandom())
    parameter.summed_grad = gradient.double()  # type: ignore[attr-defined]
    optimizer.add_noise()
    optimizer.original_optimizer.step()
    return parameter.detach().double().numpy()


def opened(plan: TrainingPlan, updates: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The opened sum of `updates`, through the fixed point."""
    clip, bits = float(plan.sum.coordinate_clip), plan.sum.bits
    total = sum(quantise(update, clip=clip, bits=bits) for update in updates)
    return dequantise_sum(np.asarray(total, np.uint64), clip=clip, bits=bits, members=len(updates))


def test_a_sum_without_the_parts_of_colluders_and_dropped_members_has_all_the_noise(folder: Path) -> None:
    """Four of five survive, two of them (threshold - 1) add none: sigma C is in the sum, to the sampling error."""
    plan = plan_of(folder)
    assert plan.noise_parts == 2
    updates = [update_of(plan, name, torch.zeros(SIZE)) for name in ("berlin", "lima")]
    updates += [np.zeros(SIZE), np.zeros(SIZE)]
    assert float(opened(plan, updates).std()) == pytest.approx(SIGMA * C * SCALE, rel=0.02)


def test_a_part_less_than_planned_would_be_seen(folder: Path) -> None:
    """The test above has power: with the part for all four survivors honest, a third of the noise is gone."""
    plan = plan_of(folder)
    updates = [update_of(plan, name, torch.zeros(SIZE)) / math.sqrt(2) for name in ("berlin", "lima")]
    updates += [np.zeros(SIZE), np.zeros(SIZE)]
    assert float(opened(plan, updates).std()) < 0.8 * SIGMA * C * SCALE


def test_every_member_s_gradient_has_the_same_weight_whatever_it_declared(folder: Path) -> None:
    plan = plan_of(folder, noise_multiplier="0.5")
    gradient = torch.full((SIZE,), 30.0)
    means = [float(update_of(plan, name, gradient).mean()) for name in NAMES]
    assert means == pytest.approx([-30 * SCALE] * 5, rel=0.01)
    local = plan_of(folder, noise="local")
    assert local.normaliser("berlin") == 50
    assert local.normaliser("oslo") == 200


def test_a_huge_gradient_is_clamped_before_its_noise_so_that_no_noise_is_cut(folder: Path) -> None:
    plan = plan_of(folder)
    update = update_of(plan, "oslo", torch.full((SIZE,), -1e9))
    assert float(update.max()) < float(plan.sum.coordinate_clip)
    assert float(update.std()) == pytest.approx(plan.update_noise, rel=0.02)
    assert float(update.mean()) == pytest.approx(gradient_bound(plan, "oslo") * SCALE, rel=0.01)
    assert gradient_bound(plan_of(folder, noise="local"), "oslo") == math.inf


def test_a_session_adds_the_member_s_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []

    class Spy(SecretRandom):
        def noise(self, count: int, scale: float) -> NDArray[np.float64]:
            scales.append(scale)
            return super().noise(count, scale)

    monkeypatch.setattr(session_module, "SecretRandom", Spy)
    session = session_module.TrainingSession(folder, plan_of(folder), "quito")
    session.train_round(tiny.records_with([1, 2]))
    assert set(scales) == {SIGMA * C / math.sqrt(2)}
