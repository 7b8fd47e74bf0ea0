"""Opacus counts what was done; `privacy` says what it costs. Both must be about the same event."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_alliance.privacy.events import event_of
from fl_alliance.training.batches import Performance
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

SMALL = Performance(micro_batch_rows=2)


def history_of(session: TrainingSession, rounds: int) -> list[tuple[float, float, int]]:
    event = event_of(session._plan).times(rounds)
    return [(float(event.noise_multiplier), float(event.sampling_rate), event.steps)]


@pytest.mark.parametrize("sizes", [[1, 2, 3, 4], [], [1]], ids=["units", "nobody", "one"])
def test_opacus_history_is_the_event_of_the_plan_over_rounds(folder: Path, sizes: list[int]) -> None:
    """Many passes a step, samples that are empty, a second and a third round: each step is charged once, at q."""
    session = tiny.session_of(folder, SMALL, sampling_rate="0.3", noise_multiplier="2.5", steps_per_round=4)
    records = tiny.records_with(sizes)
    for done in (1, 2, 3):
        trained = session.train_round(records)
        session.apply(trained.update)
        assert session.history == history_of(session, done)
        assert (trained.noise_multiplier, trained.sampling_rate, trained.steps) == history_of(session, 1)[0]


def test_a_history_is_counted_from_steps_and_not_copied_from_the_plan(folder: Path) -> None:
    """Power: a step more or less shows."""
    session = tiny.session_of(folder)
    session.train_round(tiny.records_with([1]))
    session._optimizer().release()
    assert session.history != history_of(session, 1)
