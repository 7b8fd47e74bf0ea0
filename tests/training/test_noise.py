"""Noise and samples have the distribution that the accountant charges for; each test also shows what it would catch."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from transformers import set_seed

from fl_alliance.protocol.plan import Member, OptimizerPlan
from fl_alliance.training.noise import PIECE, SecretRandom
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

SIGMA, CLIP, RATE, DECLARED = 1.3, 0.7, 0.25, 40
STEP_SCALE = SIGMA * CLIP / (RATE * DECLARED)
"""Standard deviation of one step of plain SGD at learning rate 1 on an empty sample."""
NEVER = 1e-9
"""Probability with which an honest run fails a test: it is run once."""


def is_normal(values: NDArray[np.float64], scale: float) -> bool:
    """Kolmogorov-Smirnov for the shape, chi-square for the scale."""
    spread = stats.chi2(len(values)).cdf(float((values**2).sum()) / scale**2)
    shape = stats.kstest(values / scale, "norm").pvalue
    return bool(shape > NEVER and NEVER < spread < 1 - NEVER)


def require_normal_of(values: NDArray[np.float64], scale: float) -> None:
    """With power: the same values must not pass for 2/3 or 3/2 of the scale."""
    assert is_normal(values, scale)
    assert not is_normal(values, scale * 2 / 3)
    assert not is_normal(values, scale * 3 / 2)


def noise_session(folder: Path, **changes: object) -> TrainingSession:
    members = tuple(Member(name=name, declared_units=DECLARED) for name in ("berlin", "lagos", "lima"))
    fields = {"clip_norm": str(CLIP), "noise_multiplier": str(SIGMA), "sampling_rate": str(RATE), "steps_per_round": 1}
    adapter = {"rank": 32}  # 3,072 coordinates
    return tiny.session_of(folder, members=members, adapter=adapter, delta="0.001", **{**fields, **changes})


def noise_of(session: TrainingSession) -> NDArray[np.float64]:
    """The update on no records at all."""
    return session.train_round(tiny.records_with([])).update


def test_the_noise_of_a_released_step_is_sigma_c_over_the_public_normaliser(folder: Path) -> None:
    require_normal_of(noise_of(noise_session(folder)), STEP_SCALE)


def test_each_step_draws_its_own_noise(folder: Path) -> None:
    require_normal_of(noise_of(noise_session(folder, steps_per_round=9)), 3 * STEP_SCALE)


def test_noise_is_the_same_beside_records(folder: Path) -> None:
    """The sum of the sample is taken off: what is left must be the noise, no smaller and no larger."""
    noisy, bare = (
        noise_session(folder, sampling_rate="1"),
        noise_session(folder, sampling_rate="1", noise_multiplier=tiny.NO_NOISE),
    )
    records = tiny.records_with([1, 2, 3])
    both = noisy.train_round(records).update - bare.train_round(records).update
    require_normal_of(both, SIGMA * CLIP / DECLARED)


def test_adam_sees_the_same_noise(folder: Path) -> None:
    """Adam's first step is the sign of the gradient: look at the gradient itself."""
    session = noise_session(folder, optimizer=OptimizerPlan(name="adam", learning_rate="0.01", momentum="0.9"))
    optimizer, seen = session._optimizer(), []
    step = optimizer.original_optimizer.step
    parameters = tiny.trained_parameters(session.model)

    def watch() -> None:
        seen.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))  # type: ignore[union-attr]
        step()

    optimizer.original_optimizer.step = watch
    session._step(optimizer, [])
    require_normal_of(seen[0].double().numpy(), STEP_SCALE)


@pytest.mark.parametrize("seed", [lambda: torch.manual_seed(42), lambda: set_seed(42)], ids=["torch", "transformers"])
def test_a_seed_anywhere_changes_nothing(folder: Path, seed: object) -> None:
    session = noise_session(folder)
    runs = []
    for _ in range(2):
        seed()  # type: ignore[operator]
        runs.append(noise_of(session))
    torch.manual_seed(42)
    guess = torch.normal(0.0, 1.0, (len(runs[0]),)).double().numpy()
    for one, other in ((runs[0], runs[1]), (runs[0], guess), (runs[1], guess)):
        assert abs(stats.pearsonr(one, other).statistic) < 6 / math.sqrt(len(one))


def test_a_seed_changes_neither_coins_nor_choices() -> None:
    draws = []
    for _ in range(2):
        set_seed(7)
        random.seed(7)
        np.random.seed(7)
        source = SecretRandom()
        draws.append((source.coins(200, 0.5).tolist(), source.choose(10**6, 3), source.normals(3).tolist()))
    assert all(one != other for one, other in zip(*draws, strict=True))


def test_draws_within_a_run_are_independent() -> None:
    """Box and Muller give pairs, four draws are added: neither may show between neighbours, halves or calls."""
    source = SecretRandom()
    first, second = source.noise(40_000, 2.0), source.noise(40_000, 2.0)
    half = len(first) // 2
    pairs = [(first, second), (first[:half], first[half:]), (first[:-1], first[1:]), (first**2, second**2)]
    pairs += [(first[:half] ** 2, first[half:] ** 2)]
    for one, other in pairs:
        assert abs(stats.pearsonr(one, other).statistic) < 6 / math.sqrt(len(one))


def test_pieces_of_a_long_draw_are_independent_and_each_has_the_scale() -> None:
    """Noise is made in pieces: the last one may be short, and none may repeat another."""
    drawn = SecretRandom().noise(2 * PIECE + 5001, 3.0)
    first, second, last = drawn[:PIECE], drawn[PIECE : 2 * PIECE], drawn[2 * PIECE :]
    for part in (first, second, last):
        require_normal_of(part, 3.0)
    assert len(set(drawn.tolist())) == len(drawn)
    for one, other in ((first, second), (first[: len(last)], last)):
        assert abs(stats.pearsonr(one, other).statistic) < 6 / math.sqrt(len(one))


def test_raw_normals_are_normal_and_an_odd_number_of_them_too() -> None:
    require_normal_of(SecretRandom().normals(20_001), 1.0)


@pytest.mark.parametrize(("byte", "least", "most"), [(0x00, 0.0, 2.0**-53), (0xFF, 1 - 2.0**-53, 1.0)])
def test_extreme_bytes_give_finite_noise(byte: int, least: float, most: float) -> None:
    """A uniform of 0 would be an infinite normal."""
    source = SecretRandom._from(lambda count: bytes([byte]) * count)
    uniform = source.uniforms(1)[0]
    assert 0 < uniform <= 1
    assert least <= uniform <= most
    assert np.isfinite(source.noise(3, 1e15)).all()


# ---- Poisson samples


def totals(session: TrainingSession, units: int, draws: int) -> NDArray[np.int64]:
    """How many units each of `draws` samples took."""
    listed = [[tiny_record] for tiny_record in range(units)]
    return np.array([len(session._sample(listed)) for _ in range(draws)])  # type: ignore[arg-type]


def is_rate(taken: int, trials: int, rate: float) -> bool:
    return bool(stats.binomtest(taken, trials, rate).pvalue > NEVER)


def test_units_are_sampled_at_the_plan_s_rate(folder: Path) -> None:
    sizes = totals(noise_session(folder), 500, 60)
    assert is_rate(int(sizes.sum()), 500 * 60, RATE)
    assert not is_rate(int(sizes.sum()), 500 * 60, RATE * 2 / 3)
    assert not is_rate(int(sizes.sum()), 500 * 60, RATE * 3 / 2)


def test_the_size_of_a_sample_varies_as_poisson_sampling_says(folder: Path) -> None:
    """Shuffled batches and samples of a fixed size have the right rate and no such variance."""
    sizes = totals(noise_session(folder), 100, 600)
    ratio = (sizes.var() / (100 * RATE * (1 - RATE))) * len(sizes)
    assert NEVER < stats.chi2(len(sizes)).cdf(ratio) < 1 - NEVER


def test_each_unit_is_as_likely_as_another_and_steps_are_independent(folder: Path) -> None:
    session = noise_session(folder)
    listed = [[place] for place in range(50)]
    taken = np.zeros((800, 50))
    for row in taken:
        row[[unit[0] for unit in session._sample(listed)]] = 1  # type: ignore[arg-type, call-overload]
    chi = ((taken.sum(0) - 800 * RATE) ** 2).sum() / (800 * RATE * (1 - RATE))
    assert NEVER < stats.chi2(50).cdf(chi) < 1 - NEVER
    assert abs(stats.pearsonr(taken[:-1].ravel(), taken[1:].ravel()).statistic) < 6 / math.sqrt(taken[1:].size)


def test_rate_one_takes_every_unit_and_empty_units_are_no_error(folder: Path) -> None:
    session = noise_session(folder, sampling_rate="1")
    assert session._sample([[], [1], [2]]) == [[], [1], [2]]  # type: ignore[list-item]


def test_each_choice_of_k_records_is_as_likely_as_another() -> None:
    source = SecretRandom()
    counts = Counter(tuple(source.choose(5, 2)) for _ in range(4000))
    assert len(counts) == 10
    assert stats.chisquare(list(counts.values())).pvalue > NEVER


def test_choose_takes_all_when_there_are_few() -> None:
    assert [SecretRandom().choose(count, 3) for count in (0, 1, 3)] == [[], [0], [0, 1, 2]]


def test_the_normaliser_is_the_plan_s_constant_whatever_the_sample_is(folder: Path) -> None:
    """One unit's step is the same beside none and beside ten others that give nothing: no count is divided by."""
    session = noise_session(folder, noise_multiplier=tiny.NO_NOISE, sampling_rate="1")
    alone = session.train_round(tiny.records_with([2])).update
    blank = {f"blank-{n}": [] for n in range(10)}
    crowd = tiny.records_of({**blank, **tiny.records_with([2]).units})
    assert np.allclose(alone, session.train_round(crowd).update, rtol=1e-4, atol=1e-9)
    assert float(np.linalg.norm(alone)) == pytest.approx(CLIP / DECLARED, rel=2e-3)
    assert session._optimizer()._normaliser == DECLARED
