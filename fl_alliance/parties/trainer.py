"""The desk's trainer: a warm Qwen with its adapter, and the private records behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_alliance.parties.config import DataConfig, InstitutionConfig
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.batches import Performance
from fl_alliance.training.model import adapter_digest
from fl_alliance.training.records import Records, RecordSource, load_records
from fl_alliance.training.session import TrainingSession

Vector = NDArray[np.float64]


class QwenTrainer:
    """`desk.Trainer` over `training`. The records are read when the first round trains, and not before."""

    def __init__(
        self, config: InstitutionConfig, base: Path, plan: TrainingPlan, step: Callable[[int, int], None] | None = None
    ) -> None:
        self._session = TrainingSession(
            base / config.model_folder, plan, config.name, Performance(threads=config.threads)
        )
        self._source, self._step = record_source(config.data, base), step
        self._records: Records | None = None

    @property
    def vector(self) -> Vector:
        """The adapter's trained parameters, shape (d,)."""
        return self._session.vector

    def train_round(self) -> Vector:
        """Read the records if they are not here yet, train, return the noised update, shape (d,)."""
        if self._records is None:
            self._records = load_records(self._source)
        return self._session.train_round(self._records, self._step).update

    def apply(self, mean_update: Vector) -> None:
        """Move the adapter by the mean of the members' updates."""
        self._session.apply(mean_update)

    def save(self, folder: Path) -> str:
        """Write the adapter as a PEFT folder; return its digest."""
        self._session.save(folder)
        return adapter_digest(folder)


def record_source(data: DataConfig, base: Path) -> RecordSource:
    """Return where the records are; relative paths start at the institution's folder."""
    return RecordSource(
        path=base / data.path,
        unit_column=data.unit_column,
        prompt_column=data.prompt_column,
        answer_column=data.answer_column,
        messages_column=data.messages_column,
    )
