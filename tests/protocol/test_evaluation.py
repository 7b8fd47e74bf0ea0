"""Scores on their way through the sum, and where they end a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_alliance.protocol.evaluation import coordinate_of, ended, score_of
from fl_alliance.protocol.plan import EvaluationPlan
from tests.protocol.examples import PLAN

FIELDS: dict[str, Any] = {"heldout": "0.1", "score_cap": "8", "noise_multiplier": "2"}


def plan_with(rounds: int = 9, **changes: Any) -> Any:
    return PLAN.model_copy(update={"rounds": rounds, "evaluation": EvaluationPlan(**(FIELDS | changes))})


@given(scores=st.lists(st.floats(0, 12), min_size=1, max_size=9))
def test_the_mean_coordinate_is_the_mean_score(scores: list[float]) -> None:
    """Up to one and a half times the cap on both sides of it, which noise may reach."""
    plan = plan_with()
    coordinates = [coordinate_of(score, plan) for score in scores]
    assert all(abs(c) <= float(plan.sum.coordinate_clip) * (1 + 1e-12) for c in coordinates)
    mean = sum(coordinates) / len(scores)
    assert float(score_of(mean, plan)) == pytest.approx(sum(scores) / len(scores), abs=1e-6)


def test_a_score_that_noise_took_below_zero_travels_as_zero() -> None:
    assert score_of(coordinate_of(-3.0, plan_with()), plan_with()) == "0"


@pytest.mark.parametrize(
    ("scores", "over"),
    [
        (["3", "2", "1"], False),
        (["3", "2", "2.5"], False),
        (["3", "2", "2.5", "2"], True),  # two in a row that are not below 2
        (["3", "2", "2.5", "1.9"], False),
        (["1", "10", "9"], True),  # as numbers: as texts "10" would be below "9"
        (["9", "10", "8"], False),
        (["5", "5"], False),
        (["5", "5", "5"], True),
    ],
)
def test_patience_ends_a_job_after_so_many_scores_without_a_new_best(scores: Sequence[str], over: bool) -> None:
    assert ended(plan_with(patience=2), scores) is over
    assert not ended(plan_with(), scores)


def test_without_evaluation_a_job_ends_with_its_last_round() -> None:
    plan = PLAN.model_copy(update={"rounds": 3})
    assert [ended(plan, (None,) * n) for n in (1, 2, 3)] == [False, False, True]
    assert ended(plan_with(rounds=3, patience=5), ("3", "2", "1"))


def test_votes_without_a_score_end_nothing_early() -> None:
    """A quorum of liars could leave the scores out: the machine must not fall over it."""
    assert not ended(plan_with(patience=1), (None, None, None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heldout": "0"}, "heldout 0 must be above 0 and at most 0.5"),
        ({"heldout": "0.51"}, "heldout 0.51 must be above 0 and at most 0.5"),
        ({"score_cap": "0"}, "score_cap 0 must be above 0"),
        ({"noise_multiplier": "0"}, "noise_multiplier 0 must be above 0"),
        ({"patience": 0}, "patience"),
    ],
)
def test_an_evaluation_out_of_range_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EvaluationPlan(**(FIELDS | changes))


def test_a_plan_without_evaluation_has_no_score() -> None:
    with pytest.raises(ValueError, match="the plan of job nouns-7 has no evaluation"):
        score_of(0.0, PLAN.model_copy(update={"evaluation": None}))
