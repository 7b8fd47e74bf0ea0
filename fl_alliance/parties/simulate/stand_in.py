"""What stands where the model stands: a trainer whose updates are noise, and which remembers how to draw them again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan

Vector = NDArray[np.float64]
ADAPTER = "vector.f64"


class Draws:
    """The updates of all members, as the seeds from which each can be drawn again: the simulation alone knows them."""

    def __init__(self, plan: TrainingPlan, parameters: int) -> None:
        self._clip, self._parameters = float(plan.sum.coordinate_clip), parameters
        self._seeds: dict[tuple[str, int], int] = {}

    def new(self, member: str, round_number: int) -> Vector:
        """Draw a member's update of a round from the operating system's generator, shape (parameters,)."""
        self._seeds[member, round_number] = int.from_bytes(os.urandom(16))
        return self.again(member, round_number)

    def again(self, member: str, round_number: int) -> Vector:
        """Return the update that was drawn (KeyError: none was)."""
        draw = np.random.default_rng(self._seeds[member, round_number])
        return np.clip(draw.normal(0.0, self._clip / 4, self._parameters), -self._clip, self._clip)


class StandIn:
    """`desk.Trainer` without a model: the update is a draw, the adapter is the sum of the means."""

    def __init__(self, member: str, draws: Draws, parameters: int) -> None:
        self.vector: Vector = np.zeros(parameters)
        self._member, self._draws, self._round = member, draws, 0

    def train_round(self) -> Vector:
        """Return the next update, shape (parameters,)."""
        return self._draws.new(self._member, self._round + 1)

    def apply(self, mean_update: Vector) -> None:
        """Move by the mean of the members' updates."""
        self.vector = self.vector + mean_update
        self._round += 1

    def save(self, folder: Path) -> str:
        """Write the vector as little-endian float64; return the file's digest."""
        folder.mkdir(parents=True, exist_ok=True)
        data = self.vector.astype("<f8").tobytes()
        (folder / ADAPTER).write_bytes(data)
        return digest_of(data)

    def state(self) -> bytes:
        """Return how many means were applied (8 bytes), and what they add up to."""
        return self._round.to_bytes(8) + self.vector.astype("<f8").tobytes()

    def restore(self, state: bytes) -> None:
        """Go back to what `state` gave."""
        self._round, self.vector = int.from_bytes(state[:8]), np.frombuffer(state[8:], "<f8")


def read_adapter(folder: Path) -> tuple[Vector, str]:
    """Return the vector that `StandIn.save` wrote, and its digest."""
    data = (folder / ADAPTER).read_bytes()
    return np.frombuffer(data, "<f8"), digest_of(data)
