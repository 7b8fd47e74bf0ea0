"""For PUBLIC data only: the held-out loss and the non-private line of the demo's table.

Nothing here is private, and nothing here runs inside an institution's job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.batches import Performance, Unit, groups, summed_loss, token_losses
from fl_alliance.training.encode import collate, encode_units, pad_id
from fl_alliance.training.model import adapter_size, attach_adapter, load_base, trained_parameters
from fl_alliance.training.optimizers import inner_optimizer
from fl_alliance.training.records import Records
from fl_alliance.training.session import Progress


def heldout_loss(model: Any, tokenizer: Any, records: Records, max_tokens: int, batch: int = 256) -> float:
    """Return the mean loss of `model` (a PEFT model) on public `records`, in nats for each token of the answers.

    Sum of nats over sum of tokens, over all records. NOT private: never call it on an institution's records.
    """
    units = encode_units(tokenizer, records, max_tokens)
    rows = sorted((row for unit in units for row in unit), key=lambda row: len(row.ids))
    nats, tokens, was_training = 0.0, 0, model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(rows), batch):
                losses = token_losses(model, collate(rows[start : start + batch], pad_id(tokenizer)))
                nats, tokens = nats + float(losses.double().sum()), tokens + len(losses)
    finally:
        model.train(was_training)
    return nats / max(tokens, 1)


def train_plain(
    model_folder: Path,
    plan: TrainingPlan,
    records: Records,
    *,
    steps: int,
    performance: Performance | None = None,
    progress: Progress | None = None,
) -> tuple[Any, Any]:
    """Train the plan's adapter on pooled public `records` without clipping and noise; return (PEFT model, tokenizer).

    The same optimizer, samples of the same rate and batches of the same size as the private training: what is left
    out is the privacy. NOT private: the yardstick of the demo's table.
    """
    base, tokenizer = load_base(model_folder, plan.model)
    model = attach_adapter(base, plan.adapter)
    limits = (performance or Performance()).limits(adapter_size(model), base.config.vocab_size)
    units = encode_units(tokenizer, records, plan.max_tokens)
    optimizer = inner_optimizer(trained_parameters(model), plan.optimizer)
    rate, most = float(plan.privacy.sampling_rate), plan.privacy.records_per_unit
    coins = np.random.default_rng(plan.adapter.public_seed)
    for step in range(1, steps + 1):
        taken = np.flatnonzero(coins.random(len(units)) < rate)
        sample: list[Unit] = [units[at][:most] for at in taken]
        for group in groups(sample, *limits):
            for rows in group.passes:
                loss = summed_loss(model, collate(rows, pad_id(tokenizer))) / (rate * len(units))
                loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        if progress is not None:
            progress(step, steps)
    return model, tokenizer
