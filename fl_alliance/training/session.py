"""One institution's training in one job: the model stays warm, each round is records in, noised update out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from torch import Tensor

from fl_alliance.errors import BadPlan
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.batches import (
    Group,
    Performance,
    Unit,
    groups,
    save_activations_memory,
    summed_loss,
    token_losses,
)
from fl_alliance.training.dp import MARGIN, UnitOptimizer, forget_passes
from fl_alliance.training.encode import Encoded, collate, encode_units, pad_id
from fl_alliance.training.gradients import UnitGradients
from fl_alliance.training.model import (
    adapter_size,
    adapter_vector,
    attach_adapter,
    load_base,
    save_adapter,
    set_adapter_vector,
    set_weights,
    trained_parameters,
)
from fl_alliance.training.noise import SecretRandom
from fl_alliance.training.optimizers import ServerOptimizer, inner_optimizer
from fl_alliance.training.records import Records
from fl_alliance.training.workers import Workers

Progress = Callable[[int, int], None]
"""Called with the step that is done (from 1) and the number of steps. Nothing private is in it."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class RoundTrained:
    """What a round gives: the update and the facts of the event that it spent, all from the plan."""

    update: Vector
    """(d,) the local adapter minus the global one. Not yet clipped by coordinate."""
    steps: int
    sampling_rate: float
    noise_multiplier: float


class TrainingSession:
    """The warm model of one job at one member.

    Guarantees: an update is `steps_per_round` steps of DP-SGD as the plan says (Poisson sample of units with
    probability q; at most k records of a unit; clip C; noise sigma C), whatever `performance` is. What happens is
    the same for an empty sample.
    Not guaranteed: that the records were charged for (`parties` charges before it loads them); that the time a
    round takes says nothing about the records.
    """

    def __init__(
        self,
        model_folder: Path,
        plan: TrainingPlan,
        member: str,
        performance: Performance | None = None,
        *,
        rank: int = 0,
    ) -> None:
        """Check and load the base, attach the adapter at the public starting point; then the workers do, if any.

        A `rank` other than 0 is a worker's: it starts no others, and gives clipped sums alone.

        Raises:
            BadModel: the folder is not the plan's model.
            BadConfig: `performance` asks for a device that is not here.
            BadPlan: the adapter does not fit the model, `member` is not in the plan, or torch refuses the optimizer.
            TrainingFailed: a worker did not come up.
        """
        if member not in plan.names:
            raise BadPlan(f"{member} is not a member of job {plan.job}: {', '.join(plan.names)}")
        performance = performance or Performance()
        if performance.threads is not None:
            torch.set_num_threads(performance.threads)
        device = performance.torch_device(rank)
        base, self.tokenizer = load_base(model_folder, plan.model)
        self.model: Any = attach_adapter(base, plan.adapter).to(device)
        if performance.gradient_checkpointing:
            save_activations_memory(self.model)
        self._plan = plan
        self._member = member
        self._limits = performance.limits(adapter_size(self.model), base.config.vocab_size)
        self._hooks = UnitGradients(self.model)
        self._accountant = RDPAccountant()
        self._random = SecretRandom()
        self._vector = adapter_vector(self.model)
        self._server = ServerOptimizer(plan.server, len(self._vector))
        self._encoded: dict[int, tuple[Records, list[Unit]]] = {}
        self._optimizer()  # refuses its settings here, before anything is charged
        self._workers: Workers | None = None
        if rank == 0 and performance.processes > 1:
            self._workers = Workers(model_folder, plan, member, performance)
            self._workers.meet()

    @property
    def vector(self) -> Vector:
        """A copy of the global adapter, (d,)."""
        return self._vector.copy()

    @property
    def history(self) -> list[tuple[float, float, int]]:
        """Opacus' own account of this session: (noise multiplier, sampling rate, steps). For tests, not for claims."""
        return list(self._accountant.history)

    def train_round(self, records: Records, progress: Progress | None = None) -> RoundTrained:
        """Train one round from the global adapter and return the update. The model is then back at the global one.

        Raises:
            BadModel: the tokenizer can't render a chat.
            TrainingFailed: a worker was lost. The next round starts new ones.
        """
        privacy = self._plan.privacy
        if self._workers is not None:
            self._workers.meet()
        units = self._units(records)
        optimizer = self._optimizer()
        start = adapter_vector(self.model)
        self.model.train()
        try:
            for step in range(1, privacy.steps_per_round + 1):
                self._step(optimizer, self._sample(units))
                if progress is not None:
                    progress(step, privacy.steps_per_round)
            update = adapter_vector(self.model) - start
        finally:
            forget_passes(self.model)
            set_adapter_vector(self.model, self._vector)
        return RoundTrained(
            update, privacy.steps_per_round, float(privacy.sampling_rate), float(privacy.noise_multiplier)
        )

    def evaluate(self, heldout: Records) -> float:
        """Return the noised mean score of the global adapter on held-out units, in nats a token; the lower the better.

        A unit's score is the mean over its records, at most k of them, of the mean loss of their tokens; at most
        `score_cap`. The sum over units gets noise of `noise_multiplier` times the cap and is divided by a public
        constant, `heldout` of the declared units: so it is a mean up to one factor that is the same in every round.

        Raises:
            BadPlan: the plan has no evaluation.
        """
        plan = self._plan.evaluation
        if plan is None:
            raise BadPlan(f"job {self._plan.job} has no evaluation")
        cap, most = float(plan.score_cap), self._plan.privacy.records_per_unit
        units = [[unit[k] for k in self._random.choose(len(unit), most)] for unit in self._units(heldout)]
        total = sum(float(self._unit_losses(group).clamp(max=cap).sum()) for group in groups(units, *self._limits))
        noise = float(self._random.noise(1, float(plan.noise_multiplier) * cap * (1 + MARGIN))[0])
        return (total + noise) / (float(plan.heldout) * self._plan.declared_units(self._member))

    def _unit_losses(self, group: Group) -> Tensor:
        """Return the mean loss of each unit of `group`, (units,) in float64; one that is not finite is infinite."""
        rows = torch.cat([self._row_losses(part) for part in group.passes])
        count = torch.bincount(group.unit_of_row, minlength=group.units)
        losses = torch.zeros(group.units, dtype=torch.float64).index_add_(0, group.unit_of_row, rows) / count
        return torch.where(torch.isfinite(losses), losses, torch.inf)

    def _row_losses(self, rows: Sequence[Encoded]) -> Tensor:
        batch = collate(rows, pad_id(self.tokenizer))
        self.model.eval()  # Opacus' hooks keep nothing then
        try:
            with torch.no_grad():
                losses = token_losses(self.model, batch).cpu().double() * batch.weight
        finally:
            self.model.train()
        return torch.zeros(len(rows), dtype=torch.float64).index_add_(0, batch.row, losses)

    def apply(self, mean_update: Vector) -> None:
        """Move the global adapter by the members' mean update, as the plan's server optimizer does.

        Raises:
            BadPlan: it has another length, or it or the adapter after it is not finite. The adapter is as it was then.
        """
        if mean_update.shape != self._vector.shape:
            raise BadPlan(f"mean update has shape {mean_update.shape}, the adapter has {self._vector.shape}")
        self.restore(self._vector + self._server.step(mean_update))

    def restore(self, vector: Vector) -> None:
        """Make `vector` (d,) the global adapter, as after a restart.

        Raises:
            BadPlan: it has another length or is not finite. Nothing has changed then.
        """
        set_adapter_vector(self.model, vector)
        self._vector = vector.astype(np.float64, copy=True)

    def state(self) -> bytes:
        """Return the global adapter and the moments behind it, as safetensors in float64: all that rounds leave."""
        saved: bytes = safetensors.numpy.save({"vector": self._vector, **self._server.moments})
        return saved

    def restore_state(self, state: bytes) -> None:
        """Go on from what `state` gave.

        Raises:
            BadPlan: it is of another adapter. Nothing has changed then.
        """
        parts = safetensors.numpy.load(state)
        self.restore(parts.pop("vector"))
        self._server.moments = parts

    def save(self, folder: Path) -> None:
        """Write the global adapter as a PEFT folder (`save_adapter`)."""
        save_adapter(self.model, folder)

    def _units(self, records: Records) -> list[Unit]:
        """Encode `records` once; they are kept with their tokens, so that no other object gets their id."""
        if id(records) not in self._encoded:
            coded: list[Unit] = list(encode_units(self.tokenizer, records, self._plan.max_tokens))
            self._encoded[id(records)] = (records, coded)
        return self._encoded[id(records)][1]

    def _optimizer(self) -> UnitOptimizer:
        """Return an optimizer without memory of earlier rounds; the hooks and the accountant stay the session's."""
        plan = self._plan
        inner = inner_optimizer(
            trained_parameters(self.model), plan.optimizer, noise_std=plan.gradient_noise(self._member)
        )
        optimizer = UnitOptimizer(inner, plan, self._member, self._random)
        rate = float(self._plan.privacy.sampling_rate)
        optimizer.attach_step_hook(self._accountant.get_optimizer_hook_fn(sample_rate=rate))
        return optimizer

    def _sample(self, units: Sequence[Unit]) -> list[Unit]:
        """Take each unit with probability q, and at most k of its records, by coins that nobody can predict."""
        privacy = self._plan.privacy
        taken = np.flatnonzero(self._random.coins(len(units), float(privacy.sampling_rate)))
        most = privacy.records_per_unit
        return [[units[at][k] for k in self._random.choose(len(units[at]), most)] for at in taken.tolist()]

    def clipped_sum(self, weights: Tensor, units: Sequence[Unit]) -> Tensor:
        """Return the sum of the clipped gradients of `units` at `weights`: both (d,) in float64 on the CPU.

        A worker's part of a step. It has no noise: for rank 0 alone.
        """
        self.model.train()
        set_weights(self.model, weights)
        try:
            optimizer = self._optimizer()
            self._accumulate(optimizer, units)
            return optimizer.take_sum()
        finally:
            forget_passes(self.model)

    def _step(self, optimizer: UnitOptimizer, sample: Sequence[Unit]) -> None:
        """Add the sample up, here or with the workers; then add noise and move, here and once."""
        if self._workers is None:
            self._accumulate(optimizer, sample)
        else:
            with self._workers.step(torch.from_numpy(adapter_vector(self.model)), sample) as step:
                self._accumulate(optimizer, step.mine)
                optimizer.put_sum(step.add(optimizer.take_sum()))
        optimizer.release()

    def _accumulate(self, optimizer: UnitOptimizer, units: Sequence[Unit]) -> None:
        for group in groups(units, *self._limits):
            self._backward(group)
            optimizer.accumulate(group.units)

    def _backward(self, group: Group) -> None:
        pad = pad_id(self.tokenizer)
        owners = torch.split(group.unit_of_row, [len(rows) for rows in group.passes])
        for rows, unit_of_row in zip(group.passes, owners, strict=True):
            self._hooks.expect(unit_of_row, group.units)
            summed_loss(self.model, collate(rows, pad)).backward()  # type: ignore[no-untyped-call]
