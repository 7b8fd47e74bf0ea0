"""Does the one-run audit find missing noise? The demo's model and plan, at a claim that the audit could refute.

    python -m bench.empirical [--canaries N] [--json FILE]

Four runs, each with coins of its own: all of the plan's noise, a quarter of it, a tenth, none. The last are trainings
that claim what they do not keep. Sigma is the least with which the claim holds (`fl-alliance plan suggest`).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import tomllib
from decimal import Decimal
from pathlib import Path

import torch

from fl_alliance.parties.demo.settings import DemoSettings, make_plan
from fl_alliance.parties.empirical import AuditResult, AuditSettings, audit
from fl_alliance.parties.files import write_atomically
from fl_alliance.privacy.planner import least_noise
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.base import quiet

DEMO = Path(__file__).parents[1] / "deploy" / "demo"
MEMBER = "science-school"
CLAIM, RATE, ROUNDS, STEPS = Decimal(2), Decimal("0.7"), 2, 2
PARTS = (Decimal(1), Decimal("0.25"), Decimal("0.1"), Decimal(0))


def main() -> None:
    """Run the audits and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quiet()
    plan = plan_with(CLAIM)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads of torch; sigma {plan.privacy.noise_multiplier}\n")
    print("| noise | guesses | right | epsilon at least | at most (PLD) | this audit's most | CPU s |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    rows = []
    with tempfile.TemporaryDirectory() as home:
        configure(Path(home))
        for part in PARTS:
            start = time.process_time()
            result = audit(Path(home), plan, AuditSettings(canaries=arguments.canaries, noise_part=part))
            rows.append((result, time.process_time() - start))
            print(row_of(*rows[-1]), flush=True)
    if arguments.json is not None:
        told = [{**json.loads(result.json()), "cpu_seconds": round(seconds, 1)} for result, seconds in rows]
        write_atomically(arguments.json, (json.dumps(told, indent=2) + "\n").encode(), mode=0o644)


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


def row_of(result: AuditResult, seconds: float) -> str:
    """Return a line of the table."""
    guesses = result.guesses
    cells = (f"{result.noise_part:f}", guesses.made, guesses.right, result.bound, result.claimed, result.ceiling)
    return "| " + " | ".join(map(str, cells)) + f" | {seconds:.0f} |"


if __name__ == "__main__":
    main()
