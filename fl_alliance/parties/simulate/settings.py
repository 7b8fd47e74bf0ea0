"""What is simulated: how many, how large, and which faults; and the plan that follows."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_alliance.parties.plans import read_plan
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.limits import MAX_MEMBERS, MAX_ROUNDS, MIN_MEMBERS
from fl_alliance.protocol.plan import TrainingPlan

Rate = Annotated[float, Field(ge=0, le=0.9)]


class SimulationSettings(BaseModel):
    """Size and faults of a simulation; the seed is of the faults only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: Annotated[int, Field(ge=MIN_MEMBERS, le=MAX_MEMBERS)] = 10
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] = 1
    parameters: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000
    threshold: int | None = None
    """None: the least that a plan allows, above half of the members. So for the quorum."""
    quorum: int | None = None
    bits: int = 16
    """Of a coordinate in the sum; which ones there are, the plan says."""
    verifiers: int | None = None
    """How many members add the uploads again; None: every member."""
    drop: Annotated[float, Field(ge=0)] = 0.0
    """Members that go away in each phase of a round and stay away: below 1 the part of those that are there, from 1 on
    their number."""
    duplicate: Rate = 0.0
    """Requests that are delivered twice."""
    delay: Rate = 0.0
    """Replies that come late: up to 20 s, and later ones overtake them."""
    lose: Rate = 0.0
    """Requests that get lost, and replies too."""
    seed: int = 0

    @model_validator(mode="after")
    def _whole_members(self) -> Self:
        if self.drop >= 1 and self.drop != int(self.drop):
            raise ValueError(f"drop {self.drop} must be a part below 1 or a whole number of members")
        return self


def plan_of(settings: SimulationSettings) -> TrainingPlan:
    """Return the plan of the settings (BadPlan: a field that no plan may have so).

    Model, adapter and optimizer are named because a plan names them; nobody loads or runs them.
    """
    names = [f"site-{number:03d}" for number in range(1, settings.members + 1)]
    least = settings.members // 2 + 1
    fields: dict[str, Any] = {
        "alliance": "simulation",
        "job": "job-1",
        "rounds": settings.rounds,
        "members": [{"name": name, "declared_units": 10_000} for name in names],
        "threshold": least if settings.threshold is None else settings.threshold,
        "quorum": least if settings.quorum is None else settings.quorum,
        "model": [{"name": "config.json", "digest": digest_of(b"no model")}],
        "adapter": {"rank": 1, "alpha": 1, "targets": ["none"], "modules": 1, "public_seed": 0},
        "optimizer": {"name": "sgd", "learning_rate": "1"},
        "privacy": {
            "unit": "patient",
            "clip_norm": "1",
            "noise_multiplier": "4",
            "sampling_rate": "0.001",
            "steps_per_round": 1,
            "records_per_unit": 1,
            "delta": "0.00001",
            "epsilon_cap": "8",
        },
        "sum": {"coordinate_clip": "0.1", "bits": settings.bits, "verifiers": settings.verifiers},
        "max_tokens": 8,
        "phase_seconds": 600,
    }
    return read_plan(json.dumps(fields).encode())
