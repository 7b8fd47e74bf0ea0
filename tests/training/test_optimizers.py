"""Adam without the noise's variance, Adam on opened means, and AUTO-S: each against its paper's own formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from fl_alliance.protocol.plan import OptimizerPlan, ServerPlan
from fl_alliance.training.dp import AUTO_S_GAMMA, MARGIN, clip_rows
from fl_alliance.training.optimizers import CorrectedAdam, ServerOptimizer, inner_optimizer
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

RATE, BETAS = 0.01, (0.9, 0.99)
ADAM: dict[str, Any] = {"name": "adam", "learning_rate": "0.01", "momentum": "0.9", "beta2": "0.99"}


def moved(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: Tensor) -> Tensor:
    """Step on each of `gradients` (steps, d) and return the way that `parameter` went."""
    before = parameter.detach().clone()
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach() - before


def nothing(size: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(size, dtype=torch.float64))


# ---- DP-AdamBC


def test_without_noise_it_is_adam() -> None:
    torch.manual_seed(0)
    gradients, mine, theirs = torch.randn(50, 7, dtype=torch.float64), nothing(7), nothing(7)
    way = moved(CorrectedAdam([mine], RATE, BETAS, 0.0, 1e-300), mine, gradients)
    assert torch.allclose(way, moved(torch.optim.Adam([theirs], lr=RATE, betas=BETAS, eps=0), theirs, gradients))


def test_it_steps_as_the_paper_s_algorithm_does() -> None:
    gradients, variance, floor = [0.5, -0.2, 0.9, 0.1], 0.04, 0.01
    parameter, first, second, at = nothing(1), 0.0, 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        corrected = max(second / (1 - 0.99**step) - variance, floor)
        at -= RATE * (first / (1 - 0.9**step)) / math.sqrt(corrected)
    optimizer = CorrectedAdam([parameter], RATE, BETAS, variance, floor)
    assert float(moved(optimizer, parameter, torch.tensor(gradients, dtype=torch.float64)[:, None])) == pytest.approx(
        at
    )


def test_small_and_large_gradients_move_alike_under_noise_that_hides_both() -> None:
    """What Adam is for. Plain Adam under the same noise moves the small coordinate five times less."""
    torch.manual_seed(1)
    signal, noise = torch.tensor([0.1, 0.5], dtype=torch.float64), 1.0
    gradients = signal + noise * torch.randn(20_000, 2, dtype=torch.float64)
    betas, mine, theirs = (0.9, 0.9999), nothing(2), nothing(2)
    fair = moved(CorrectedAdam([mine], RATE, betas, noise**2, 1e-3), mine, gradients)
    plain = moved(torch.optim.Adam([theirs], lr=RATE, betas=betas), theirs, gradients)
    assert float(plain[1] / plain[0]) > 4
    assert float(fair[1] / fair[0]) < 2


def test_a_plan_s_floor_makes_the_corrected_adam_with_the_noise_of_its_gradient(folder: Path) -> None:
    plan = OptimizerPlan(**ADAM, noise_floor="0.00001")
    session = tiny.session_of(folder, optimizer=plan, noise_multiplier="4", clip_norm="2", sampling_rate="0.5")
    inner = session._optimizer().original_optimizer
    assert isinstance(inner, CorrectedAdam)
    assert math.sqrt(inner._variance) == pytest.approx(4 * 2 / (0.5 * 1000))
    session.train_round(tiny.records_with([1, 2]))


def test_without_a_floor_it_is_torch_s_adam() -> None:
    assert type(inner_optimizer([nothing(1)], OptimizerPlan(**ADAM), noise_std=1.0)) is torch.optim.Adam


@pytest.mark.parametrize("fields", [{**ADAM, "noise_floor": "0"}, {**ADAM, "name": "sgd", "noise_floor": "0.1"}])
def test_a_floor_of_zero_or_for_sgd_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"noise_floor .* must be above 0, and only with adam"):
        OptimizerPlan(**fields)


# ---- FedAdam


def test_fed_adam_steps_as_the_paper_s_algorithm_does() -> None:
    plan = ServerPlan(name="adam", learning_rate="0.1", beta1="0.5", beta2="0.75", tau="0.01")
    server, first, second = ServerOptimizer(plan, 1), 0.0, 0.0
    for update in (0.3, -0.1, 0.02):
        first, second = 0.5 * first + 0.5 * update, 0.75 * second + 0.25 * update**2
        assert server.step(np.array([update])).tolist() == pytest.approx([0.1 * first / (math.sqrt(second) + 0.01)])


def test_the_mean_moves_by_itself() -> None:
    update = np.array([0.1, -3.0])
    assert ServerOptimizer(ServerPlan(), 2).step(update).tolist() == update.tolist()


def test_fed_adam_gives_every_institution_the_same_bits(folder: Path) -> None:
    server = ServerPlan(name="adam", learning_rate="0.02")
    sessions = [TrainingSession(folder, tiny.plan_of(folder, server=server), name) for name in ("lagos", "lima")]
    drawn = np.random.default_rng(3)
    for _ in range(3):
        mean = drawn.normal(size=len(sessions[0].vector))
        for session in sessions:
            session.apply(mean)
    assert np.array_equal(sessions[0].vector, sessions[1].vector)
    assert float(np.abs(sessions[0].vector).max()) < 3 * 0.02 / 0.9 + 0.02  # moved by moments, not by the mean


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"learning_rate": "0"}, "learning_rate 0 must be above 0"),
        ({"beta1": "1"}, "beta1 1 must be below 1"),
        ({"tau": "0"}, "tau 0 must be above 0"),
    ],
)
def test_a_server_optimizer_that_would_not_move_or_settle_is_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServerPlan(name="adam", **fields)


# ---- AUTO-S


@settings(max_examples=50)
@given(scale=st.floats(1e-12, 1e12), bound=st.floats(1e-3, 1e3))
def test_auto_s_gives_rows_of_any_length_nearly_the_bound_and_never_more(scale: float, bound: float) -> None:
    torch.manual_seed(2)
    rows = [scale * torch.randn(5, 3, dtype=torch.float64), scale * torch.randn(5, 2, 2, dtype=torch.float64)]
    before = torch.cat([part.flatten(1) for part in rows], 1)
    after = torch.cat([part.flatten(1) for part in clip_rows(rows, bound, "auto-s")], 1)
    norms = before.norm(dim=1)
    assert bool((after.norm(dim=1) < bound).all())
    right = before * (bound / (norms * (1 + MARGIN) + AUTO_S_GAMMA))[:, None]
    assert torch.allclose(after, right, rtol=1e-9, atol=0)


def test_auto_s_drops_what_is_not_finite_and_keeps_zero() -> None:
    rows = [torch.tensor([[math.nan, 1.0], [math.inf, 0.0], [0.0, 0.0], [3.0, 4.0]])]
    clipped = clip_rows(rows, 1.0, "auto-s")[0]
    assert clipped[:3].tolist() == [[0.0, 0.0]] * 3
    assert float(clipped[3].norm()) == pytest.approx(5 / (5 * (1 + MARGIN) + 0.01))


def test_a_plan_with_auto_s_clips_by_it(folder: Path) -> None:
    """One unit of a short gradient, C far above it: kept as it is by the flat clip, drawn out to nearly C by this."""
    fields = {"sampling_rate": "1", "noise_multiplier": tiny.NO_NOISE, "clip_norm": "1000", "steps_per_round": 1}
    lengths = {}
    for clipping in ("flat", "auto-s"):
        update = tiny.session_of(folder, clipping=clipping, **fields).train_round(tiny.records_with([1])).update
        lengths[clipping] = float(np.linalg.norm(update))
    assert lengths["flat"] < 0.1
    assert 0.9 < lengths["auto-s"] < 1  # C / (q * declared units), less gamma's share
