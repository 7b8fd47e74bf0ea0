"""Does the one-run audit find missing noise? The demo's model and plan, at a claim that the audit could refute.

    python -m bench.empirical [--canaries N] [--json FILE] [--markdown FILE]

Four runs, each with coins of its own: all of the plan's noise, a quarter of it, a tenth, none. The last are trainings
that claim what they do not keep. Sigma is the least with which the claim holds (`fl-alliance plan suggest`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import torch

from bench.figures import Column, Line, Report, Row, Stopwatch, number, publish
from fl_alliance.parties.demo.settings import DemoSettings, make_plan
from fl_alliance.parties.empirical import AuditResult, AuditSettings, audit
from fl_alliance.privacy.planner import least_noise
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.process import prepare_process

DEMO = Path(__file__).parents[1] / "deploy" / "demo"
MEMBER = "science-school"
CLAIM, RATE, ROUNDS, STEPS = Decimal(2), Decimal("0.7"), 2, 2
COLUMNS = (
    Column("noise", "noise, of\nthe plan's", ".2f"),
    Column("guesses", "guesses", "d"),
    Column("right", "right", "d"),
    Column("bound", "epsilon\nat least", ".2f"),
    Column("claimed", "at most\n(PLD)", ".2f"),
    Column("ceiling", "this audit\nat most", ".2f"),
    Column("cpu", "CPU s", ".0f"),
)
PARTS = (Decimal(1), Decimal("0.25"), Decimal("0.1"), Decimal(0))


def main() -> None:
    """Run the audits and publish one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    prepare_process()
    plan = plan_with(CLAIM)
    rows = []
    with tempfile.TemporaryDirectory() as home:
        configure(Path(home))
        for part in PARTS:
            watch = Stopwatch()
            with watch.step("audit"):
                result = audit(Path(home), plan, AuditSettings(canaries=arguments.canaries, noise_part=part))
            rows.append(row_of(result, watch.seconds["audit"]))
    publish(report_of(rows, plan), json_file=arguments.json, markdown_file=arguments.markdown)


def report_of(rows: Sequence[Row], plan: TrainingPlan) -> Report:
    """Return the table with the two promises."""
    true, bare = rows[0], rows[-1]
    return Report(
        bench="empirical",
        title=f"One-run audit: a claim of epsilon {CLAIM}, kept and not kept",
        columns=COLUMNS,
        rows=rows,
        lines=(
            Line(what="epsilon shown, all of the noise", value=number(true, "bound"), limit=number(true, "claimed")),
            Line(what="epsilon shown, no noise", value=number(bare, "bound"), limit=3, relation=">="),
        ),
        notes=("CPU s: CPU seconds of the whole audit. at least: at 95 % confidence.",),
        packages=("torch", "opacus", "dp-accounting"),
        settings=plan.privacy.model_dump() | {"rounds": plan.rounds},
    )


def plan_with(claim: Decimal) -> TrainingPlan:
    """Return the demo's plan with few steps, a high rate, and the least noise for `claim`."""
    settings = DemoSettings.model_validate(tomllib.loads((DEMO / "demo.toml").read_text()))
    delta = Decimal(settings.privacy.delta)
    sigma = least_noise(claim, delta=delta, sampling_rate=RATE, steps=ROUNDS * STEPS)
    changed = {"noise_multiplier": decimal_text(sigma), "sampling_rate": decimal_text(RATE), "steps_per_round": STEPS}
    privacy = settings.privacy.model_copy(update=changed)
    return make_plan(settings.model_copy(update={"privacy": privacy, "rounds": ROUNDS}), DEMO)


def configure(home: Path) -> None:
    """Write an institution's configuration over the demo's model; its data file is never read."""
    text = f"""
name = "{MEMBER}"
alliance = "dictionary-alliance"
coordinator = "127.0.0.1:9443"
model_folder = {json.dumps(str(DEMO / "model"))}
threads = {torch.get_num_threads()}
[data]
name = "none"
path = "none.jsonl"
unit_column = "headword"
prompt_column = "prompt"
answer_column = "answer"
"""
    (home / "institution.toml").write_text(text)


def row_of(result: AuditResult, seconds: float) -> Row:
    """Return a line of the table."""
    return {
        "noise": float(result.noise_part),
        "guesses": result.guesses.made,
        "right": result.guesses.right,
        "bound": float(result.bound),
        "claimed": float(result.claimed),
        "ceiling": float(result.ceiling),
        "cpu": seconds,
    }


if __name__ == "__main__":
    main()
