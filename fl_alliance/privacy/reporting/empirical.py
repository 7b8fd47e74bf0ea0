"""The result of an audit with canaries, as `fl-alliance audit empirical --json` writes it, checked against a plan."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from typing import Annotated

from pydantic import Field, ValidationError

from fl_alliance.errors import BadConfig
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.empirical import Guesses, lower_bound
from fl_alliance.privacy.events import event_of
from fl_alliance.protocol.ids import DecimalText, decimal_text
from fl_alliance.protocol.model import Wire
from fl_alliance.protocol.plan import TrainingPlan

PLACES = Decimal("0.000001")
MOST_CANARIES = 10**6

Count = Annotated[int, Field(ge=0, le=MOST_CANARIES)]


class Empirical(Wire):
    """What one run with canaries showed."""

    canaries: Count
    made: Count
    right: Count
    delta: DecimalText
    confidence: DecimalText
    noise_part: DecimalText
    claimed: DecimalText
    bound: DecimalText
    ceiling: DecimalText
    refuted: bool


def read_empirical(data: bytes, plan: TrainingPlan) -> Empirical:
    """Return the result that `data` holds; both bounds are recomputed from the guesses and the plan.

    Nobody signs such a result: that the guesses were made as it says, the report can't show.

    Raises:
        BadConfig: it is none, is of a trial with less noise, is of another plan, or its numbers are not what they must
            be; names the number.
    """
    try:
        result = Empirical.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadConfig(f"empirical: {'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}") from None
    for name, right in _expected(result, plan).items():
        if getattr(result, name) != right:
            raise BadConfig(
                f"empirical: {name} is {getattr(result, name)}, of this plan and these guesses it is {right}"
            )
    return result


def _expected(result: Empirical, plan: TrainingPlan) -> dict[str, object]:
    try:
        guesses = Guesses(canaries=result.canaries, made=result.made, right=result.right)
    except ValueError as error:
        raise BadConfig(f"empirical: {error}") from None
    delta, confidence = Decimal(plan.privacy.delta), Decimal(result.confidence)
    claimed = PldAccountant().epsilon([event_of(plan).times(plan.rounds)], delta)
    bound = _floor(lower_bound(guesses, float(delta), float(confidence)))
    return {
        "noise_part": "1",
        "delta": plan.privacy.delta,
        "claimed": decimal_text(claimed),
        "bound": decimal_text(bound),
        "ceiling": decimal_text(_floor(lower_bound(guesses.perfect, float(delta), float(confidence)))),
        "refuted": bound > claimed,
    }


def _floor(bound: float) -> Decimal:
    return Decimal(bound).quantize(PLACES, rounding=ROUND_FLOOR)
