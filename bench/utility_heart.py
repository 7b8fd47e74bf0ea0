"""The heart set of `bench.utility`: patients in words for the model, in numbers for logistic regression; one score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.utility_data import Hospital, ask
from fl_alliance.training.batches import token_losses
from fl_alliance.training.encode import collate, encode_units, pad_id
from fl_alliance.training.records import Records, records_of

HELDOUT: Final = 0.3
ANSWERS: Final = ("no", "yes")
BATCH: Final = 128
NEWTON: Final = 20

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """A hospital with its held-out patients: `held` (patients,)."""

    hospital: Hospital
    held: Flags

    @property
    def train(self) -> Records:
        """The other patients, as questions with one word for an answer; unit: the patient."""
        kept = zip(self.hospital.patients, self.hospital.texts, self.hospital.sick, self.held, strict=True)
        return records_of({name: [ask(text, ANSWERS[int(sick)])] for name, text, sick, held in kept if not held})


def cut(hospitals: Sequence[Hospital], seed: int) -> list[Cut]:
    """Hold out 30 % of each hospital's patients, drawn from `seed`: data are public, the draw may be so too."""
    coins = np.random.default_rng(seed)
    cuts = []
    for hospital in hospitals:
        held = np.zeros(len(hospital.sick), dtype=np.bool_)
        held[coins.permutation(len(held))[: round(HELDOUT * len(held))]] = True
        cuts.append(Cut(hospital, held))
    return cuts


def scores_of(score: Vector, sick: Flags) -> dict[str, float]:
    """Return accuracy at 0 and the area under the ROC curve (a tie counts half). `mean` is the accuracy."""
    gap = score[sick][:, None] - score[~sick][None, :]
    area = (gap > 0).mean() + (gap == 0).mean() / 2
    accuracy = float(((score > 0) == sick).mean())
    return {"mean": accuracy, "auc": float(area)}


# ---- the model


def nats(model: Any, tokenizer: Any, texts: Sequence[str], answer: str, max_tokens: int) -> Vector:
    """Return the nats of `answer` after each text, (texts,)."""
    units = encode_units(
        tokenizer, records_of({str(k): [ask(text, answer)] for k, text in enumerate(texts)}), max_tokens
    )
    rows = [row for unit in units for row in unit]
    found, was_training = np.zeros(len(rows)), model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            batch = collate(rows[start : start + BATCH], pad_id(tokenizer))
            np.add.at(found, start + batch.row.numpy(), token_losses(model, batch).double().numpy())
    model.train(was_training)
    return found


def model_scores(model: Any, tokenizer: Any, cuts: Sequence[Cut], max_tokens: int) -> dict[str, float]:
    """Return the scores on all hospitals' held-out patients: sick where "yes" costs fewer nats than "no"."""
    texts = [text for one in cuts for text, held in zip(one.hospital.texts, one.held, strict=True) if held]
    no, yes = (nats(model, tokenizer, texts, answer, max_tokens) for answer in ANSWERS)
    return scores_of(no - yes, heldout_sick(cuts))


def heldout_sick(cuts: Sequence[Cut]) -> Flags:
    """Return who of the held-out patients is sick, hospital by hospital."""
    return np.concatenate([one.hospital.sick[one.held] for one in cuts])


# ---- logistic regression


def regression_scores(trained_on: Sequence[Cut], cuts: Sequence[Cut]) -> Mapping[str, float]:
    """Return the scores of a logistic regression without privacy, trained on `trained_on`, on all held-out patients.

    Ridge of 1; a missing number is the training set's mean; columns are scaled by the training set.
    """
    rows = np.concatenate([one.hospital.rows[~one.held] for one in trained_on])
    sick = np.concatenate([one.hospital.sick[~one.held] for one in trained_on])
    counts = np.maximum((~np.isnan(rows)).sum(0), 1)
    middle = np.nansum(rows, axis=0) / counts
    filled = np.where(np.isnan(rows), middle, rows)
    width = np.maximum(filled.std(axis=0), 1e-9)
    weights = _fit((filled - middle) / width, sick)
    asked = np.concatenate([one.hospital.rows[one.held] for one in cuts])
    asked = np.where(filled.std(axis=0) > 0, (np.where(np.isnan(asked), middle, asked) - middle) / width, 0.0)
    return scores_of(asked @ weights[1:] + weights[0], heldout_sick(cuts))


def _fit(rows: Vector, sick: Flags) -> Vector:
    """Return intercept and weights, (1 + features,), of the least ridge loss; the intercept is free. Newton's steps."""
    wide = np.column_stack([np.ones(len(rows)), rows])
    ridge = np.diag([0.0, *np.ones(rows.shape[1])])
    weights = np.zeros(wide.shape[1])
    for _ in range(NEWTON):
        chance = 0.5 * (1.0 + np.tanh(wide @ weights / 2))
        slope = wide.T @ (chance - sick) + ridge @ weights
        curve = (wide * (chance * (1 - chance))[:, None]).T @ wide + ridge
        weights = weights - np.linalg.solve(curve, slope)
    return weights
