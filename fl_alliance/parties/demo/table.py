"""The demo's table, from public held-out files, after the job: nothing here runs inside an institution's job."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_alliance.parties.demo.settings import DemoSettings
from fl_alliance.parties.demo.stage import Screen
from fl_alliance.protocol.plan import TrainingPlan


@dataclass(frozen=True)
class Line:
    """One line of the table: held-out loss in nats a token of the answers, mean over institutions and each."""

    name: str
    mean: float
    each: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """All lines, and how many parameters the adapter trains."""

    lines: tuple[Line, ...]
    parameters: int


def compare(
    settings: DemoSettings, base: Path, adapter: Path, plan: TrainingPlan, *, screen: Screen, pooled: bool
) -> Table:
    """Return base, each institution alone at the same epsilon, the alliance, and pooled non-private training.

    `adapter`: the folder of the released adapter. Alone means: the same plan, steps, noise and code, and no sum.
    """
    import torch

    from fl_alliance.parties.trainer import record_source
    from fl_alliance.training.evaluate import heldout_loss, train_plain
    from fl_alliance.training.records import load_records, records_of
    from fl_alliance.training.session import TrainingSession

    torch.set_num_threads(os.cpu_count() or 1)
    model_folder, steps = base / settings.model, plan.rounds * plan.privacy.steps_per_round
    sites = sorted(settings.institutions, key=lambda site: site.name)
    heldout = [load_records(record_source(settings.data(site.name, site.heldout), base)) for site in sites]
    train = {site.name: load_records(record_source(settings.data(site.name, site.train), base)) for site in sites}

    def line(name: str, model: Any, tokenizer: Any) -> Line:
        each = tuple(heldout_loss(model, tokenizer, records, plan.max_tokens) for records in heldout)
        return Line(name, sum(each) / len(each), each)

    session = TrainingSession(model_folder, plan, plan.names[0])
    parameters = len(session.vector)
    lines = [line("base", session.model, session.tokenizer)]
    for name, records in train.items():
        alone = TrainingSession(model_folder, plan, name)
        for number in range(plan.rounds):
            done = number * plan.privacy.steps_per_round
            update = alone.train_round(records, _watch(screen, f"{name}, alone", done, steps)).update
            alone.apply(update)
        lines.append(line(f"{name}, alone", alone.model, alone.tokenizer))
    lines.append(line("alliance", *_with_adapter(session, adapter)))
    if pooled:
        everything = {f"{name}|{unit}": d for name, records in train.items() for unit, d in records.units.items()}
        watch = _watch(screen, "pooled", 0, steps)
        model, tokenizer = train_plain(model_folder, plan, records_of(everything), steps=steps, progress=watch)
        lines.append(line("pooled, no privacy", model, tokenizer))
    return Table(tuple(lines), parameters)


def _watch(screen: Screen, name: str, done: int, total: int) -> Callable[[int, int], None]:
    screen.bar(name, done, total)
    return lambda step, _: screen.bar(name, done + step, total, "training")


def _with_adapter(session: Any, adapter: Path) -> tuple[Any, Any]:
    """Load the released adapter as anybody would, onto the base model."""
    from peft import PeftModel

    return PeftModel.from_pretrained(session.model.unload(), adapter), session.tokenizer
