"""What `bench.utility` trains: the alliance, an institution alone, and all of them pooled without privacy.

In one process and without encryption: the blind sum is exact (tests/secagg), so that leaving it out changes no digit
of the adapter. The rest is the product's own path: `TrainingSession` (Poisson sample, clip, noise from the operating
system), `secagg.fixedpoint` to integers and back, the mean, the plan's server optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from fl_alliance.privacy.planner import least_noise
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import (
    NOISE_REACH,
    AdapterPlan,
    Member,
    ModelFile,
    OptimizerPlan,
    PrivacyPlan,
    ServerPlan,
    SumPlan,
    TrainingPlan,
)
from fl_alliance.secagg.fixedpoint import dequantise_sum, quantise
from fl_alliance.training.base import load_base, model_files
from fl_alliance.training.batches import Performance
from fl_alliance.training.evaluate import train_plain
from fl_alliance.training.model import count_modules
from fl_alliance.training.records import Records, records_of
from fl_alliance.training.session import TrainingSession

TARGETS: Final = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")

SPEED: Final = Performance(micro_batch_tokens=1024)
"""Passes small enough for a core's cache: a quarter less CPU time than the default with the tiny base, measured."""

Noise = Literal["local", "distributed"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all lines of a table share: one SGD step a round, and FedAdam on the opened mean."""

    model: Path
    members: tuple[str, ...]
    unit: str
    declared: int
    """Units that every institution declares: the same public constant, so that the mean weighs units alike."""
    rounds: int
    rate: str
    """Sampling rate q."""
    server_rate: str
    clip_norm: str = "0.5"
    clipping: Literal["flat", "auto-s"] = "flat"
    method: Literal["ffa-lora", "lora"] = "ffa-lora"
    rank: int = 4
    targets: tuple[str, ...] = TARGETS
    delta: str = "0.00001"
    max_tokens: int = 96


@cache
def sigma(epsilon: str, delta: str, rate: str, steps: int) -> Decimal:
    """Return the least noise multiplier with which `steps` steps stay at `epsilon` (PLD, rounded up to 0.01)."""
    return least_noise(Decimal(epsilon), delta=Decimal(delta), sampling_rate=Decimal(rate), steps=steps)


@cache
def _looked_at(model: Path, targets: tuple[str, ...]) -> tuple[tuple[ModelFile, ...], int]:
    files = model_files(model)
    base, _ = load_base(model, files)
    return files, count_modules(base, targets)


def plan_of(settings: Settings, epsilon: str, noise: Noise = "local") -> TrainingPlan:
    """Return the plan of one line. Raises what the plan refuses: it checks distributed noise's conditions."""
    files, modules = _looked_at(settings.model, settings.targets)
    multiplier = sigma(epsilon, settings.delta, settings.rate, settings.rounds)
    count = len(settings.members)
    # Room for twenty deviations of the largest noise, that of one member with all of it: nothing is cut off.
    deviation = float(multiplier) * float(settings.clip_norm) / (float(settings.rate) * settings.declared)
    return TrainingPlan(
        alliance="bench",
        job="utility",
        rounds=settings.rounds,
        members=tuple(Member(name=name, declared_units=settings.declared) for name in sorted(settings.members)),
        threshold=count // 2 + 1,
        minimum_members=count,
        quorum=count // 2 + 1,
        model=files,
        adapter=AdapterPlan(
            method=settings.method,
            rank=settings.rank,
            alpha=2 * settings.rank,
            targets=settings.targets,
            modules=modules,
            public_seed=2019,
        ),
        optimizer=OptimizerPlan(name="sgd", learning_rate="1"),
        server=ServerPlan(name="adam", learning_rate=settings.server_rate, tau="0.00001"),
        privacy=PrivacyPlan(
            unit=settings.unit,
            clip_norm=settings.clip_norm,
            clipping=settings.clipping,
            noise_multiplier=decimal_text(multiplier),
            noise=noise,
            sampling_rate=settings.rate,
            steps_per_round=1,
            records_per_unit=1,
            delta=settings.delta,
            epsilon_cap=epsilon,
        ),
        sum=SumPlan(coordinate_clip=decimal_text(round(2.5 * NOISE_REACH * deviation, 6))),
        max_tokens=settings.max_tokens,
    )


def federated(plan: TrainingPlan, model: Path, parts: Sequence[Records]) -> TrainingSession:
    """Return the session after the plan's rounds over `parts`: all institutions' records, or one institution's alone.

    One session trains for each institution in turn: all declare alike, and a session's optimizer forgets at each round.
    """
    session = TrainingSession(model, plan, plan.names[0], SPEED)
    clip, bits = float(plan.sum.coordinate_clip), plan.sum.bits
    for _ in range(plan.rounds):
        total = np.zeros(len(session.vector), dtype=np.uint64)
        for records in parts:
            total += quantise(session.train_round(records).update, clip=clip, bits=bits)
        session.apply(dequantise_sum(total, clip=clip, bits=bits, members=len(parts)) / len(parts))
    return session


def train_pooled(plan: TrainingPlan, model: Path, parts: Sequence[Records], steps: int) -> tuple[Any, Any]:
    """Return (PEFT model, tokenizer) trained on all records of all institutions, without clipping, noise and rounds.

    Adam with the server's rate and decays, on samples as large as the alliance's; a record is a unit here.
    """
    records = [dialogue for part in parts for dialogues in part.units.values() for dialogue in dialogues]
    units = sum(len(part.units) for part in parts)
    server, rate = plan.server, float(plan.privacy.sampling_rate) * units / len(records)
    optimizer = OptimizerPlan(
        name="adam", learning_rate=server.learning_rate, momentum=server.beta1, beta2=server.beta2
    )
    privacy = plan.privacy.model_copy(update={"sampling_rate": decimal_text(round(rate, 6))})
    same = plan.model_copy(update={"optimizer": optimizer, "privacy": privacy})
    everything = records_of({str(place): [dialogue] for place, dialogue in enumerate(records)})
    return train_plain(model, same, everything, steps=steps, performance=SPEED)
