"""`fl-alliance plan suggest`: which noise, steps and sampling rate a target epsilon allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from rich.table import Table

from fl_alliance.errors import BadConfig
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.parties.plans import read_plan
from fl_alliance.privacy.planner import Suggestion, best, curve, suggest
from fl_alliance.privacy.plots import trade_off


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be spent, and for which cohort."""

    epsilon: Decimal
    delta: Decimal
    units: int
    """Declared units of the smallest cohort."""

    @classmethod
    def of(cls, *, epsilon: str, delta: str | None, units: int | None, like: Path | None) -> Question:
        """Return the question; `like` is a plan whose delta and smallest cohort stand where none is given.

        Raises:
            BadConfig: a number is none, or delta or units are missing.
            BadPlan: `like` is no plan.
        """
        plan = read_plan(read_file(like, "plan")) if like is not None else None
        if plan is not None:
            delta = delta or plan.privacy.delta
            units = units or min(member.declared_units for member in plan.members)
        if delta is None or units is None:
            raise BadConfig("delta, units: give both, or a plan to take them from with --like")
        return cls(epsilon=number("epsilon", epsilon), delta=number("delta", delta), units=units)


def answer(
    question: Question, *, rates: Sequence[str], steps: Sequence[int], plot: Path | None
) -> tuple[tuple[Suggestion, ...], Suggestion]:
    """Return all suggestions and the first guess among them; write the trade-off of that one to `plot`.

    Raises:
        BadConfig: a rate is no number, nothing is asked, or matplotlib is missing.
        BadPlan: a target that can't be met; names it.
    """
    if not rates or not steps:
        raise BadConfig("rate, steps: give one of each at least")
    found = suggest(
        question.epsilon,
        delta=question.delta,
        units=question.units,
        rates=[number("rate", rate) for rate in rates],
        steps=steps,
    )
    chosen = best(found)
    if plot is not None:
        points = curve(chosen, delta=question.delta)
        picture = trade_off(points, chosen=chosen, target=question.epsilon, delta=question.delta)
        write_atomically(plot, picture, mode=0o644)
    return found, chosen


def number(field: str, text: str) -> Decimal:
    """Return the decimal number `text` (BadConfig names the field)."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise BadConfig(f"{field}: {text!r} is not a number")
    return value


def table_of(suggestions: Sequence[Suggestion], chosen: Suggestion) -> Table:
    """Return the suggestions as a table; the first guess is bold."""
    table = Table(title="Least noise that keeps within the target")
    for column in ("rate q", "units a step", "steps", "sigma", "epsilon PLD", "epsilon RDP", "noise", "of the job"):
        table.add_column(column, justify="right")
    for one in suggestions:
        table.add_row(
            f"{one.sampling_rate:f}",
            f"{one.batch:.1f}",
            str(one.steps),
            f"{one.noise_multiplier:f}",
            f"{one.epsilon_pld:f}",
            f"{one.epsilon_rdp:f}",
            f"{one.noise:.5f}",
            f"{one.noise_of_job:.6f}",
            style="bold" if one == chosen else None,
        )
    return table
