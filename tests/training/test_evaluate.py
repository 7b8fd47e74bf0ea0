"""The held-out loss and the non-private yardstick: for public data, and equal to a plain computation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from fl_alliance.training.encode import encode_units
from fl_alliance.training.evaluate import heldout_loss, train_plain
from fl_alliance.training.model import adapter_vector, attach_adapter, set_adapter_vector
from tests.training import tiny

RECORDS = tiny.records_with([1, 3, 2, 0, 1])


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_the_heldout_loss_is_nats_for_each_token_of_the_answers(folder: Path, batch: int) -> None:
    model, tokenizer = tiny.plain_model(folder), tiny.load_base(folder, tiny.model_files(folder))[1]
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for row in (row for unit in encode_units(tokenizer, RECORDS, 20) for row in unit):
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
            labels = torch.tensor(row.labels[1:])
            nats += float(functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
            tokens += int((labels != -100).sum())
    assert heldout_loss(model, tokenizer, RECORDS, 20, batch=batch) == pytest.approx(nats / tokens, rel=1e-5)
    assert tokens > 20


@pytest.mark.parametrize("training", [True, False])
def test_the_model_s_mode_is_as_before_and_no_gradient_is_left(folder: Path, training: bool) -> None:
    session = tiny.session_of(folder)
    session.model.train(training)
    heldout_loss(session.model, session.tokenizer, RECORDS, 64)
    assert session.model.training is training
    assert not [
        p for p in session.model.parameters() if p.grad is not None or getattr(p, "grad_sample", None) is not None
    ]


def test_no_records_are_a_loss_of_zero(folder: Path) -> None:
    session = tiny.session_of(folder)
    assert heldout_loss(session.model, session.tokenizer, tiny.records_with([]), 64) == 0.0


def test_plain_training_learns_is_repeatable_and_tells_its_steps(folder: Path) -> None:
    adam = tiny.OptimizerPlan(name="adam", learning_rate="0.05", momentum="0.9")
    plan, told = tiny.plan_of(folder, optimizer=adam, sampling_rate="0.8"), []
    model, tokenizer = train_plain(folder, plan, RECORDS, steps=12, progress=lambda *step: told.append(step))
    again, _ = train_plain(folder, plan, RECORDS, steps=12)
    fresh, _ = train_plain(folder, plan, RECORDS, steps=0)
    assert told == [(step, 12) for step in range(1, 13)]
    assert adapter_vector(again).tolist() == adapter_vector(model).tolist()
    before, after = (heldout_loss(one, tokenizer, RECORDS, 64) for one in (fresh, model))
    assert after < before - 0.5


def test_plain_training_is_the_private_one_without_clip_and_noise(folder: Path) -> None:
    """The same samples (all), the same records (at most k), the same mean: two steps of a plain loop."""
    plan = tiny.plan_of(folder, sampling_rate="1", records_per_unit=2)
    model, tokenizer = train_plain(folder, plan, RECORDS, steps=2)
    parallel = attach_adapter(tiny.load_base(folder, tiny.model_files(folder))[0], plan.adapter)
    units = encode_units(tokenizer, RECORDS, plan.max_tokens)
    for _ in range(2):
        step = sum(tiny.plain_gradient(parallel, unit[:2]) for unit in units) / len(units)
        set_adapter_vector(parallel, adapter_vector(parallel) - step.numpy())
    assert adapter_vector(model) == pytest.approx(adapter_vector(parallel), rel=1e-3, abs=1e-5)
