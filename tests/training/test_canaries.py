"""The one-run audit on a tiny base: it finds training without noise, and stays below the claim where it is kept."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fl_alliance.errors import BadConfig, BadPlan, EvidenceRefused
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.empirical import Guesses, default_guesses, guess, lower_bound
from fl_alliance.privacy.events import event_of
from fl_alliance.protocol.plan import OptimizerPlan, TrainingPlan
from fl_alliance.training.base import load_base, model_files
from fl_alliance.training.canaries import Attacker, WatchedSession, canary, rare_words, run_with_canaries
from fl_alliance.training.canary_scores import Sighting, log_ratios
from fl_alliance.training.dp import clip_rows
from fl_alliance.training.encode import encode_units
from fl_alliance.training.model import adapter_vector, attach_adapter, set_adapter_vector
from fl_alliance.training.records import records_of
from tests.training import tiny

CANARIES = 240
ALL = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
ADAPTER: dict[str, Any] = {"rank": 8, "targets": ALL, "modules": 14}
PUBLIC = tiny.records_with([1, 2, 1, 3])
CORRECTED = OptimizerPlan(name="adam", learning_rate="0.05", noise_floor="0.000001")
ADAM = OptimizerPlan(name="adam", learning_rate="0.05", momentum="0.9")


def plan_of(folder: Path, **changes: Any) -> TrainingPlan:
    """Return a plan of 4 steps in which a canary that is in is sampled at least once, but for one in ten thousand."""
    fields: dict[str, Any] = {"noise_multiplier": "6", "sampling_rate": "0.9", "steps_per_round": 2, "rounds": 2}
    return tiny.plan_of(folder, **{"adapter": ADAPTER, "records_per_unit": 1, **fields, **changes})


def guesses_of(folder: Path, plan: TrainingPlan, **changes: Any) -> Guesses:
    run = run_with_canaries(folder, plan, "lagos", canaries=CANARIES, public=PUBLIC, **changes)
    taken, left = default_guesses(CANARIES, sampling_rate=0.9, steps=4)
    return guess(run.scores.tolist(), run.inside.tolist(), taken=taken, left=left)


def tokenizer_of(folder: Path) -> Any:
    return load_base(folder, model_files(folder))[1]


def claim_of(plan: TrainingPlan) -> float:
    return float(PldAccountant().epsilon([event_of(plan).times(plan.rounds)], Decimal(plan.privacy.delta)))


def test_the_bound_is_above_3_without_noise_and_below_the_claim_with_it(folder: Path) -> None:
    """The claim is below 3, so the run without noise refutes it. At 99.9 % an honest run hardly ever comes near it."""
    plan = plan_of(folder, optimizer=ADAM)
    bare, noised = guesses_of(folder, plan, noise_part=0), guesses_of(folder, plan)
    assert lower_bound(bare, 1e-5, 0.95) > 3 > claim_of(plan)
    assert lower_bound(noised, 1e-5, 0.999) < claim_of(plan) < lower_bound(bare, 1e-5, 0.999)


def test_a_tenth_of_the_noise_is_found(folder: Path) -> None:
    plan = plan_of(folder)
    assert lower_bound(guesses_of(folder, plan, noise_part=0.1), 1e-5, 0.95) > claim_of(plan)


def test_the_attacker_takes_the_gradients_that_are_trained_on(folder: Path) -> None:
    """One by autograd on another model, one by `torch.func`: both clipped to C, at weights away from the start."""
    plan = plan_of(folder)
    words = rare_words(tokenizer_of(folder), 5, set())
    units = encode_units(tokenizer_of(folder), records_of({word: (canary(word),) for word in words}), 64)
    attacker = Attacker(folder, plan, "lagos", units)
    plain = tiny.plain_model(folder, plan.adapter)
    set_adapter_vector(attacker._model, adapter_vector(plain))
    for clip_norm in (0.5, 1e6):
        rows = attacker._rows(clip_norm)
        for unit, row in zip(units, rows, strict=True):
            gradient = tiny.plain_gradient(plain, unit)
            right = gradient * min(1.0, clip_norm / float(gradient.norm()))
            assert torch.allclose(row.double(), right, rtol=1e-3, atol=1e-4 * float(right.norm()))


def test_under_auto_s_the_attacker_scales_as_training_does(folder: Path) -> None:
    units = encode_units(tokenizer_of(folder), records_of({"one": (canary("bone"),)}), 64)
    attacker = Attacker(folder, plan_of(folder, clipping="auto-s"), "lagos", units)
    plain = attach_adapter(load_base(folder, model_files(folder))[0], plan_of(folder).adapter)
    gradient = tiny.plain_gradient(plain, units[0])
    (right,) = clip_rows([gradient[None]], 0.5, "auto-s")
    assert torch.allclose(attacker._rows(0.5).double(), right, rtol=2e-3, atol=1e-5)


def test_a_plan_whose_noise_others_share_is_refused(folder: Path) -> None:
    """One member's steps are not what it claims privacy for."""
    fields = {"steps_per_round": 1, "optimizer": OptimizerPlan(name="sgd", learning_rate="1"), "noise": "distributed"}
    plan = plan_of(folder, **fields)
    with pytest.raises(BadPlan, match="noise distributed"):
        run_with_canaries(folder, plan, "lagos", canaries=10, public=PUBLIC)


@pytest.mark.parametrize("optimizer", [OptimizerPlan(name="sgd", learning_rate="1", momentum="0.5"), ADAM, CORRECTED])
def test_an_update_that_holds_more_than_noised_gradients_is_found(folder: Path, optimizer: OptimizerPlan) -> None:
    """As a leak past the noise would be: weights moved by something that the optimizer was not given."""
    plan = plan_of(folder, optimizer=optimizer)
    session = WatchedSession(folder, plan, "lagos", None)
    update = session.train_round(PUBLIC).update
    assert len(session.released) == plan.privacy.steps_per_round
    units = encode_units(session.tokenizer, records_of({"one": (canary("bone"),)}), plan.max_tokens)
    attacker = Attacker(folder, plan, "lagos", units)
    list(attacker.watch(session.vector, session.released, update))
    update[17] += 0.01
    with pytest.raises(EvidenceRefused, match="more got in"):
        list(attacker.watch(session.vector, session.released, update))


def test_a_watched_session_adds_the_plans_noise_and_counts_as_any_session_does(folder: Path) -> None:
    """Nothing is in the sum, so what is released is noise: of the plan's scale, or of a part of it."""
    plan = plan_of(folder)
    for part in (1.0, 0.25, 0.0):
        session = WatchedSession(folder, plan, "lagos", None, noise_part=part)
        session.train_round(records_of({}))
        released = torch.cat(session.released)
        right = part * 6 * 1 / (0.9 * 1000)
        assert float(released.std()) == pytest.approx(right, rel=0.05)
        assert session.history == [(6.0, 0.9, 2)]


def test_each_canary_has_a_word_that_no_other_record_has(folder: Path) -> None:
    tokenizer = tokenizer_of(folder)
    first = rare_words(tokenizer, 10, set())
    taken = {tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in first}
    words = rare_words(tokenizer, 300, taken)
    own = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    assert len({token for (token,) in own}) == 300
    assert not taken & {token for (token,) in own}
    with pytest.raises(BadConfig, match="canaries 5000: the vocabulary has"):
        rare_words(tokenizer, 5000, set())


def test_more_canaries_than_half_of_the_parameters_are_refused(folder: Path) -> None:
    plan = tiny.plan_of(folder)
    with pytest.raises(BadConfig, match="at most half of the adapter"):
        run_with_canaries(folder, plan, "lagos", canaries=200, public=PUBLIC)


# ---- the scores


def sighting_of(inside: Any, *, sigma: float, rate: float, seed: int) -> Sighting:
    draws = np.random.default_rng(seed)
    rows = draws.normal(size=(len(inside), 2000)) + 2 * draws.normal(size=2000)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sampled = inside & (draws.random(len(inside)) < rate)
    step = sampled.astype(float) @ rows + sigma * draws.normal(size=2000)
    return Sighting(torch.from_numpy(rows @ rows.T), torch.from_numpy(rows @ step), float(step @ step), 2000)


def test_scores_find_canaries_among_alike_ones_when_nothing_else_is_there() -> None:
    """Their gradients share most of their direction; still each is told apart."""
    inside = np.arange(200) % 2 == 0
    scores = log_ratios(sighting_of(inside, sigma=0.0, rate=1.0, seed=3), sampling_rate=1.0, clip_norm=1.0).numpy()
    assert scores[inside].min() > 10
    assert scores[~inside].max() < -10


def test_scores_are_likelihood_ratios() -> None:
    """Among canaries with a ratio near r, those in are r times as many as those out: the scores mean what they say."""
    inside = np.arange(100) % 2 == 0
    steps = [sighting_of(inside, sigma=0.2, rate=0.5, seed=seed) for seed in range(60)]
    scores = np.concatenate([log_ratios(step, sampling_rate=0.5, clip_norm=1.0).numpy() for step in steps])
    coins = np.tile(inside, len(steps))
    for low, high in ((-0.7, -0.6), (-0.6, -0.4), (0.5, 1.5), (1.5, 3.0)):
        near = (scores > low) & (scores < high)
        expected = float((1 / (1 + np.exp(-scores[near]))).mean())
        assert near.sum() > 400
        assert coins[near].mean() == pytest.approx(expected, abs=0.04)
