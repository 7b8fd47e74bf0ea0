"""Scores of held-out units: bounded by unit, noised, and of units that are never trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fl_alliance.errors import BadPlan
from fl_alliance.protocol.plan import EvaluationPlan
from fl_alliance.training import session as session_module
from fl_alliance.training.batches import Performance
from fl_alliance.training.dp import MARGIN
from fl_alliance.training.encode import encode_units
from fl_alliance.training.noise import SecretRandom
from fl_alliance.training.records import Records, split_units
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

DIVISOR = 0.1 * 1000
CAP = 6.0
KEY = bytes(range(32))


def session_of(folder: Path, performance: Performance | None = None, *, cap: str = "6", **changes: Any) -> Any:
    evaluation = EvaluationPlan(heldout="0.1", score_cap=cap, noise_multiplier=changes.pop("sigma", tiny.NO_NOISE))
    return tiny.session_of(folder, performance, evaluation=evaluation, **changes)


def plain_losses(session: TrainingSession, records: Records) -> list[float]:
    """Mean loss of each unit's records by autograd's model, one record at a time."""
    model, losses = tiny.plain_model(Path(session.tokenizer.name_or_path)), []
    for unit in encode_units(session.tokenizer, records, 64):
        each = []
        for record in unit:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([record.ids]), use_cache=False).logits[0, :-1]
            labels = torch.tensor(record.labels[1:])
            each.append(float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100)))
        losses.append(sum(each) / len(each))
    return losses


def test_the_score_is_the_mean_over_units_of_their_records_mean_loss(folder: Path) -> None:
    records = tiny.records_with([1, 3, 2, 4])
    for performance in (None, Performance(micro_batch_rows=1), Performance(micro_batch_rows=3)):
        session = session_of(folder, performance, cap="100")
        assert session.evaluate(records) == pytest.approx(sum(plain_losses(session, records)) / DIVISOR, rel=1e-5)


def test_one_unit_more_moves_the_sum_by_the_cap_at_most(folder: Path) -> None:
    session = session_of(folder, cap="2")
    few, more = tiny.records_with([1, 2]), tiny.records_with([1, 2, 4])
    assert min(plain_losses(session, more)) > 2
    assert session.evaluate(few) * DIVISOR == pytest.approx(2 * 2)
    assert session.evaluate(more) * DIVISOR == pytest.approx(3 * 2)


def test_a_loss_that_is_not_finite_counts_as_the_cap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(folder)
    monkeypatch.setattr(session, "_row_losses", lambda rows: torch.full((len(rows),), math.nan, dtype=torch.float64))
    assert session.evaluate(tiny.records_with([1, 2])) * DIVISOR == pytest.approx(2 * CAP)


def test_the_noise_is_sigma_times_the_cap_and_there_without_any_unit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, float]] = []

    class Spy(SecretRandom):
        def noise(self, count: int, scale: float) -> NDArray[np.float64]:
            asked.append((count, scale))
            return super().noise(count, scale)

    monkeypatch.setattr(session_module, "SecretRandom", Spy)
    session = session_of(folder, sigma="3")
    drawn = np.array([session.evaluate(tiny.records_with([])) for _ in range(200)]) * DIVISOR
    assert set(asked) == {(1, 3 * CAP * (1 + MARGIN))}
    assert 0.7 < float(drawn.std()) / (3 * CAP) < 1.3


def test_evaluating_leaves_training_as_it_was(folder: Path) -> None:
    """Forward passes without a backward pass, between Opacus' hooks."""
    records, fields = tiny.records_with([1, 2, 3]), {"sampling_rate": "1", "noise_multiplier": tiny.NO_NOISE}
    plain, scored = session_of(folder, **fields), session_of(folder, **fields)
    scored.evaluate(tiny.records_with([2]))
    assert np.array_equal(plain.train_round(records).update, scored.train_round(records).update)
    assert scored.history == [(float(tiny.NO_NOISE), 1.0, 3)]


def test_a_plan_without_evaluation_scores_nothing(folder: Path) -> None:
    with pytest.raises(BadPlan, match="job job-1 has no evaluation"):
        tiny.session_of(folder).evaluate(tiny.records_with([1]))


# ---- which units


def names_of(records: Records) -> set[str]:
    return set(records.units)


def test_no_unit_is_in_both_parts_and_none_is_lost() -> None:
    records = tiny.records_with([1] * 500)
    train, heldout = split_units(records, 0.2, KEY)
    assert not names_of(train) & names_of(heldout)
    assert names_of(train) | names_of(heldout) == names_of(records)
    assert 60 < len(heldout.units) < 140


def test_a_unit_s_place_depends_on_its_name_and_the_key_alone() -> None:
    few, many = tiny.records_with([1] * 100), tiny.records_with([3] * 300)
    first, second = (names_of(split_units(records, 0.2, KEY)[1]) for records in (few, many))
    assert first == second & names_of(few)
    assert first != names_of(split_units(few, 0.2, bytes(32))[1])
    assert first < names_of(split_units(few, 0.4, KEY)[1])


def test_nothing_is_held_out_where_nothing_is_evaluated() -> None:
    records = tiny.records_with([1] * 50)
    assert names_of(split_units(records, 0.0, KEY)[0]) == names_of(records)
