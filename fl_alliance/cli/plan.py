"""`fl-alliance plan ...`: what a budget allows, before a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fl_alliance.cli.words import console, say

app = typer.Typer(no_args_is_help=True, help="Before a job: what a budget allows.")


@app.command("suggest")
def plan_suggest(
    epsilon: Annotated[str, typer.Option(help="What the whole job may spend.")],
    delta: Annotated[str | None, typer.Option(help="As in the plan.")] = None,
    units: Annotated[int | None, typer.Option(help="Declared units of the smallest institution.")] = None,
    like: Annotated[Path | None, typer.Option(help="A plan to take delta and the smallest cohort from.")] = None,
    rate: Annotated[list[str] | None, typer.Option(help="Sampling rate to try; may be repeated.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Steps of the whole job to try; may be repeated.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the trade-off of the first guess as SVG.")] = None,
) -> None:
    """Find the least noise for a target epsilon, for each sampling rate and number of steps. Reads no record."""
    from fl_alliance.parties import planning

    question = planning.Question.of(epsilon=epsilon, delta=delta, units=units, like=like)
    with console.status("two accountants are at work: PLD takes its time where the noise is small"):
        found, chosen = planning.answer(
            question, rates=rate or ["0.05", "0.1", "0.2"], steps=steps or [12, 48], plot=plot
        )
    console.print(planning.table_of(found, chosen))
    say(f"for {question.units} declared units at delta {question.delta:f}; noise is in clip norms, in a step's mean")
