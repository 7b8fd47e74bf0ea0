"""The desk's trainer: a warm Qwen with its adapter, and the private records behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_alliance.parties.config import DataConfig, InstitutionConfig
from fl_alliance.protocol.evaluation import coordinate_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.batches import Performance
from fl_alliance.training.model import adapter_digest
from fl_alliance.training.records import Records, RecordSource, load_records, split_units
from fl_alliance.training.session import TrainingSession

Vector = NDArray[np.float64]


class QwenTrainer:
    """`desk.Trainer` over `training`. The records are read when the first round trains, and not before."""

    def __init__(
        self,
        config: InstitutionConfig,
        base: Path,
        plan: TrainingPlan,
        split_key: bytes,
        step: Callable[[int, int], None] | None = None,
    ) -> None:
        self._session = TrainingSession(base / config.model_folder, plan, config.name, performance_of(config))
        self._source, self._step = record_source(config.data, base), step
        self._plan, self._split_key = plan, split_key
        self._records: tuple[Records, Records] | None = None

    @property
    def vector(self) -> Vector:
        """The adapter's trained parameters, shape (d,)."""
        return self._session.vector

    def train_round(self) -> Vector:
        """Read the records if they are not here yet, train, return the noised update, shape (d,).

        Where the plan evaluates, (d + 1,): the adapter is scored first, on the units that are held out.
        """
        if self._records is None:
            share = float(self._plan.evaluation.heldout) if self._plan.evaluation else 0.0
            self._records = split_units(load_records(self._source), share, self._split_key)
        train, heldout = self._records
        if self._plan.evaluation is None:
            return self._session.train_round(train, self._step).update
        score = coordinate_of(self._session.evaluate(heldout), self._plan)
        return np.append(self._session.train_round(train, self._step).update, score)

    def apply(self, mean_update: Vector) -> None:
        """Move the adapter by the mean of the members' updates."""
        self._session.apply(mean_update)

    def save(self, folder: Path) -> str:
        """Write the adapter as a PEFT folder; return its digest."""
        self._session.save(folder)
        return adapter_digest(folder)

    def state(self) -> bytes:
        """Return the adapter with the server optimizer's moments."""
        return self._session.state()

    def restore(self, state: bytes) -> None:
        """Go back to what `state` gave."""
        self._session.restore_state(state)


def performance_of(config: InstitutionConfig) -> Performance:
    """Return the settings of speed of `institution.toml`."""
    return Performance(
        threads=config.threads,
        processes=config.processes,
        device=config.device,
        gradient_checkpointing=config.gradient_checkpointing,
    )


def record_source(data: DataConfig, base: Path) -> RecordSource:
    """Return where the records are; relative paths start at the institution's folder."""
    return RecordSource(
        path=base / data.path,
        unit_column=data.unit_column,
        prompt_column=data.prompt_column,
        answer_column=data.answer_column,
        messages_column=data.messages_column,
    )
