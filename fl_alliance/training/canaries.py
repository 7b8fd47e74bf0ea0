"""A training run with canaries: who is in is decided by coins, trained as any unit is, and guessed from what came out.

A canary is a unit with one record whose word stands in no other record (Panda et al. 2025), so its gradient points
where hardly another one does. The run is a `TrainingSession` as in a job: its encoding, sampling, clipping, noise and
optimizer. Scoring uses none of that code: gradients are taken one row at a time by `torch.func` on a model of its own,
clipped here, and the optimizer is replayed from the released gradients, so that an update that holds anything else is
found. For public records only: nothing here charges a ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fl_alliance.errors import BadConfig, BadPlan, EvidenceRefused
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.batches import Performance
from fl_alliance.training.canary_scores import Sighting, log_ratios
from fl_alliance.training.dp import AUTO_S_GAMMA, UnitOptimizer
from fl_alliance.training.encode import IGNORED, Encoded, encode_units
from fl_alliance.training.model import (
    adapter_vector,
    attach_adapter,
    load_base,
    set_adapter_vector,
    trained_parameters,
)
from fl_alliance.training.noise import SecretRandom
from fl_alliance.training.optimizers import inner_optimizer
from fl_alliance.training.records import Dialogue, Records, Turn, records_of
from fl_alliance.training.session import TrainingSession

Vector = NDArray[np.float64]

ROWS = 32
"""Canaries whose gradients are taken at once."""

Progress = Callable[[int, int], None]
"""Called with the step that is scored (from 1) and the number of steps."""


@dataclass(frozen=True)
class CanaryRun:
    """What happened to each canary: the attacker's score, and the coin that it did not see."""

    scores: Vector
    """(m,) the higher, the likelier in."""
    inside: NDArray[np.bool_]
    """(m,)"""


class WeakNoise(SecretRandom):
    """For audits on public records only: a part of the noise, 0 for none. What is trained so is not private."""

    def __init__(self, part: float) -> None:
        super().__init__()
        self._part = part

    def noise(self, count: int, scale: float) -> Vector:
        """Return `count` Gaussian numbers with standard deviation `part` times `scale`."""
        return super().noise(count, self._part * scale)


class WatchedSession(TrainingSession):
    """A session that also shows what it released: the noised gradient of each step, as the guarantee allows."""

    def __init__(
        self, folder: Path, plan: TrainingPlan, member: str, performance: Performance | None, noise_part: float = 1
    ) -> None:
        """See `TrainingSession`. A `noise_part` other than 1 is for audits on public records: see `WeakNoise`."""
        super().__init__(folder, plan, member, performance)
        self.released: list[Tensor] = []
        """(d,) each, since the last `train_round` began."""
        if noise_part != 1:
            self._random = WeakNoise(noise_part)

    def train_round(self, records: Records, progress: Progress | None = None) -> Any:
        """See `TrainingSession`."""
        self.released = []
        return super().train_round(records, progress)

    def _optimizer(self) -> UnitOptimizer:
        optimizer = super()._optimizer()
        counted = optimizer.step_hook

        def watch(stepping: UnitOptimizer) -> None:
            counted(stepping)
            self.released.append(torch.cat([parameter.grad.flatten() for parameter in stepping.params]))

        optimizer.attach_step_hook(watch)
        return optimizer


def run_with_canaries(
    folder: Path,
    plan: TrainingPlan,
    member: str,
    *,
    canaries: int,
    public: Records,
    noise_part: float = 1,
    performance: Performance | None = None,
    progress: Progress | None = None,
) -> CanaryRun:
    """Train all rounds of `plan` as `member`, alone, on `public` records and about half of the canaries; score all.

    Memory: canaries x d floats of 32 bits, where d is the size of the adapter, and a second copy of the model.

    Raises:
        BadModel, BadPlan: as `TrainingSession`; or the plan's noise is distributed.
        BadConfig: too many canaries for the vocabulary or the adapter.
        EvidenceRefused: an update is not what the optimizer makes of the noised gradients.
    """
    if plan.privacy.noise != "local":  # its claim is about the sum; one member's steps may well show more
        raise BadPlan(f"noise {plan.privacy.noise}: an audit of one member alone needs a plan with local noise")
    session = WatchedSession(folder, plan, member, performance, noise_part)
    if 2 * canaries > len(session.vector):
        raise BadConfig(f"canaries {canaries}: at most half of the adapter's {len(session.vector)} parameters")
    words = rare_words(session.tokenizer, canaries, _tokens(session.tokenizer, public, plan.max_tokens))
    units = {f"canary {place}": (canary(word),) for place, word in enumerate(words)}
    inside = SecretRandom().coins(canaries, 0.5)
    chosen = {name: unit for (name, unit), taken in zip(units.items(), inside, strict=True) if taken}
    records = records_of({**public.units, **chosen})
    attacker = Attacker(folder, plan, member, encode_units(session.tokenizer, records_of(units), plan.max_tokens))
    scores, steps = np.zeros(canaries), plan.privacy.steps_per_round
    for turn in range(plan.rounds):
        start, update = session.vector, session.train_round(records).update
        for step, ratios in enumerate(attacker.watch(start, session.released, update), start=1):
            scores += ratios
            if progress is not None:
                progress(turn * steps + step, plan.rounds * steps)
        session.apply(update)
    return CanaryRun(scores, inside)


class Attacker:
    """Knows the plan, the model, every canary and what each step released; not the coins, not the samples."""

    def __init__(self, folder: Path, plan: TrainingPlan, member: str, units: Sequence[Sequence[Encoded]]) -> None:
        base, _ = load_base(folder, plan.model)
        base.set_attn_implementation("eager")  # the fused kernels have no rule for vmap and fall back to a loop
        self._model = attach_adapter(base, plan.adapter)
        self._plan = plan
        self._member, self._normaliser = member, plan.normaliser(member)
        self._ids, self._labels = _padded([record for unit in units for record in unit])

    def watch(self, start: Vector, released: Sequence[Tensor], update: Vector) -> Iterable[Vector]:
        """Yield each step's log ratios, (m,), following the optimizer from the global adapter `start`, (d,).

        Raises:
            EvidenceRefused: after the last step, `update` is not where the released gradients lead.
        """
        set_adapter_vector(self._model, start)
        parameters = trained_parameters(self._model)
        origin = adapter_vector(self._model)
        noise_std = self._plan.gradient_noise(self._member)
        optimizer = inner_optimizer(parameters, self._plan.optimizer, noise_std=noise_std)
        for noised in released:
            yield self._ratios(noised.double() * self._normaliser)
            _set_gradients(parameters, noised)
            optimizer.step()
        if not np.allclose(adapter_vector(self._model) - origin, update, rtol=1e-4, atol=1e-7):
            raise EvidenceRefused("the update is not what the optimizer makes of the noised gradients: more got in")

    def _ratios(self, total: Tensor) -> Vector:
        clip_norm = float(self._plan.privacy.clip_norm)
        rows = self._rows(clip_norm)
        seen = rows @ total.float()
        sighting = Sighting((rows @ rows.T).double(), seen.double(), float(total.square().sum()), len(total))
        rate = float(self._plan.privacy.sampling_rate)
        return log_ratios(sighting, sampling_rate=rate, clip_norm=clip_norm).numpy()

    def _rows(self, clip_norm: float) -> Tensor:
        """Return each canary's gradient at the model's present weights, clipped, (m, d) in float32."""
        trained = {name: part for name, part in sorted(self._model.named_parameters()) if part.requires_grad}
        one = grad(lambda adapter, ids, labels: _loss(self._model, adapter, ids, labels))
        whole = torch.empty(len(self._ids), sum(part.numel() for part in trained.values()))
        for start in range(0, len(self._ids), ROWS):
            few = slice(start, start + ROWS)
            parts = vmap(one, in_dims=(None, 0, 0))(trained, self._ids[few], self._labels[few])
            whole[few] = torch.cat([parts[name].detach().flatten(1) for name in trained], dim=1)
        norms = whole.norm(dim=1, keepdim=True)
        if self._plan.privacy.clipping == "auto-s":
            return whole.mul_(clip_norm / (norms + AUTO_S_GAMMA))
        return whole.mul_((clip_norm / norms.clamp(min=1e-30)).clamp(max=1.0))


def canary(word: str) -> Dialogue:
    """Return the one record of the canary whose own word is `word`."""
    return (Turn("user", f"Define: {word}"), Turn("assistant", word))


def rare_words(tokenizer: Any, count: int, taken: set[int]) -> list[str]:
    """Return `count` words that are one token each, all different, none of them in `taken`.

    The last ones of the vocabulary come first: where it was made by merging frequent pairs, they are the rarest.

    Raises:
        BadConfig: the vocabulary has fewer.
    """
    words: list[str] = []
    for token in reversed(range(len(tokenizer))):
        word = tokenizer.decode([token]).strip()
        if token not in taken and _is_word(tokenizer, word, token) and word not in words:
            words.append(word)
            if len(words) == count:
                return words
    raise BadConfig(f"canaries {count}: the vocabulary has {len(words)} words that are in no other record")


def _is_word(tokenizer: Any, word: str, token: int) -> bool:
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return False
    return bool(tokenizer(f" {word}", add_special_tokens=False)["input_ids"] == [token])


def _tokens(tokenizer: Any, records: Records, max_tokens: int) -> set[int]:
    return {token for unit in encode_units(tokenizer, records, max_tokens) for row in unit for token in row.ids}


def _padded(rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        labels[place, : len(row.ids)] = torch.tensor(row.labels)
    return ids, labels


def _loss(model: Any, adapter: dict[str, Tensor], ids: Tensor, labels: Tensor) -> Tensor:
    """Return one row's mean loss over its targets, by the model's own head."""
    inputs = {"input_ids": ids[None], "use_cache": False}
    logits = functional_call(model, adapter, (), inputs).logits[0, :-1]
    summed = functional.cross_entropy(logits.float(), labels[1:], ignore_index=IGNORED, reduction="sum")
    return summed / (labels[1:] != IGNORED).sum()


def _set_gradients(parameters: Sequence[Tensor], flat: Tensor) -> None:
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).to(parameter.dtype)
        start += parameter.numel()
