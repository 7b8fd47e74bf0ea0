"""Private evaluation: how a score travels in the sum, and when a job ends because of it.

Each round an institution scores the adapter with which the round began on units that it never trains on. The noised
score is one more coordinate of its update, so that only the mean over the survivors is ever seen, by institutions; they
sign it with their vote. Who decides anything about the job decides by these scores alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import EvaluationPlan, TrainingPlan


def coordinate_of(score: float, plan: TrainingPlan) -> float:
    """Return the coordinate that carries `score`, in nats: 0 to `score_cap` is the middle half of its range."""
    return float(plan.sum.coordinate_clip) * (score / float(_evaluation(plan).score_cap) - 0.5)


def score_of(mean: float, plan: TrainingPlan) -> str:
    """Return the score, a `DecimalText` of six places in nats, that is in the mean coordinate. Below 0 it says 0."""
    score = float(_evaluation(plan).score_cap) * (mean / float(plan.sum.coordinate_clip) + 0.5)
    return decimal_text(round(max(score, 0.0), 6))


def ended(plan: TrainingPlan, scores: Sequence[str | None]) -> bool:
    """Return whether the job ends with the round of the last of `scores`: one for each round, None without evaluation.

    It ends with the plan's last round, or, where the plan has a `patience`, after so many scores none of which is below
    the best one before them.
    """
    if len(scores) >= plan.rounds:
        return True
    patience = plan.evaluation.patience if plan.evaluation else None
    numbers = [Decimal(score) for score in scores if score is not None]
    if patience is None or len(numbers) <= patience:
        return False
    return min(numbers[-patience:]) >= min(numbers[:-patience])


def _evaluation(plan: TrainingPlan) -> EvaluationPlan:
    if plan.evaluation is None:
        raise ValueError(f"the plan of job {plan.job} has no evaluation")
    return plan.evaluation
