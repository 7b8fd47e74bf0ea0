"""Clip by unit, add noise, step: Opacus' optimizer, with its rows summed by unit and its arithmetic made safe.

What differs from `opacus.optimizers.DPOptimizer` 1.6.0, and why:

* the rows that are clipped are units (patients, students), not records: `gradients.UnitGradients` sums by unit first;
* norms are taken in float64 and the bound holds with a margin (float32 alone gave rows of 1.000005 C), which also
  covers what a unit's presence does to the rounding of the others' gradients;
* a unit whose gradient is not finite contributes 0 (one such record would make the whole update NaN);
* noise comes from the operating system (`noise.py`), is added in float64, and only then rounded;
* the sum is divided by a public constant, not by the size of the sample;
* an empty sample is a step like another: noise only, and it is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from fl_alliance.protocol.plan import NOISE_REACH, TrainingPlan
from fl_alliance.training.model import trained_parameters
from fl_alliance.training.noise import SecretRandom

MARGIN = 1e-3
"""Relative room below C, for all that is not a row's own length.

One unit more also changes who shares a pass with whom, and with it the last bits of all other gradients (Casacuberta
et al. 2022: a sum's sensitivity is more than its terms'). Measured for 400 units in float32: up to 1e-5 C for the sum,
with every pass changed; in bfloat16 0.1 C, which no margin covers. Rounding of the sum itself, in float64, is less.
"""


AUTO_S_GAMMA = 0.01
"""What AUTO-S adds to a norm, so that the shortest gradients stay short (Bu et al. 2023, section 4, their value)."""


def clip_rows(rows: Sequence[Tensor], clip_norm: float, clipping: str = "flat") -> list[Tensor]:
    """Clip each row over all tensors together. `rows`: tensors (units, ...); returns the same shapes in float64.

    `clipping` is the plan's. "flat": C / norm, at most 1 (Abadi et al. 2016). "auto-s": C / (norm + gamma), so that
    every row gets nearly the same length (Bu et al. 2023).

    Guarantees: each returned row has L2 norm at most `clip_norm` (over all tensors, in float64), also for NaN and
    infinite input: such a row is returned as 0. Any other row keeps its direction; with "flat", one of norm at
    most C / (1 + MARGIN) is returned as it is. A row depends on the same row of the input only.
    Not guaranteed: that a row of the *input* depends on its unit only; backward passes round, see `MARGIN`.
    """
    norms = torch.stack([torch.linalg.vector_norm(part.double().flatten(1), dim=1) for part in rows])
    norms = norms.square().sum(0).sqrt()
    good = torch.isfinite(norms)
    longer = norms * (1 + MARGIN)
    if clipping == "auto-s":
        factor = clip_norm / (longer + AUTO_S_GAMMA)
    else:
        factor = (clip_norm / longer.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0)
    factor = torch.where(good, factor, 0.0)
    return [_scaled(part, factor) for part in rows]


def _scaled(rows: Tensor, factor: Tensor) -> Tensor:
    """Return each of `rows` times its factor, in float64; whatever is in a row, times 0 is 0."""
    kept = rows.double().flatten(1) if rows.dtype != torch.float64 else rows.flatten(1).clone()
    return kept.mul_(factor[:, None]).masked_fill_(factor[:, None] == 0, 0.0).view(rows.shape)


def gradient_bound(plan: TrainingPlan, member: str) -> float:
    """Return the largest coordinate that a summed gradient keeps before its noise is added.

    With distributed noise a member's part must not be cut off by the fixed point's clip: the gradient leaves
    `NOISE_REACH` standard deviations of room for it. To clamp a coordinate moves no two sums apart, so that the
    sensitivity stays C. With local noise there is no bound: what comes after the noise may be cut.
    """
    if plan.privacy.noise == "local":
        return math.inf
    room = float(plan.sum.coordinate_clip) - NOISE_REACH * plan.update_noise
    return room * plan.normaliser(member) / float(plan.optimizer.learning_rate)


def forget_passes(model: torch.nn.Module) -> None:
    """Remove what passes through `model` left in Opacus' hooks: private activations and gradients, and counters.

    After a pass that was cut off (memory, a signal) the counters of 1.6.0 never come right again by themselves.
    """
    for module in model.modules():
        module.__dict__.pop("activations", None)
        module.__dict__.pop("max_batch_len", None)
    for parameter in trained_parameters(model):
        parameter.__dict__.pop("_current_grad_sample", None)
        parameter.__dict__.update(grad_sample=None, summed_grad=None, _forward_counter=0)
        parameter.grad = None


class UnitOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus has no types
    """Opacus' optimizer whose rows are units.

    One logical step is any number of groups, an `accumulate` after each, and then one `release`. A unit's records must
    all lie in one group: a unit that straddled two would count twice.

    Guarantees: `release` steps on (sum of unit gradients, each of norm at most C, + N(0, (sigma C)^2 I)) / normaliser,
    with a part of the noise where the plan distributes it.
    Not guaranteed: anything about how the units were sampled; `TrainingSession` does that.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plan: TrainingPlan, member: str, random: SecretRandom) -> None:
        privacy = plan.privacy
        super().__init__(
            optimizer,
            noise_multiplier=plan.member_noise,
            max_grad_norm=float(privacy.clip_norm),
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._clipping = privacy.clipping
        self._normaliser = plan.normaliser(member)
        self._most = gradient_bound(plan, member)
        self._random = random
        for parameter in self.params:
            parameter.grad_sample = None

    def accumulate(self, units: int) -> None:
        """Clip the gradients of the group whose passes are done, one for each of its `units`, and add them to the sum.

        Raises:
            RuntimeError: a parameter has no gradients, or of another number of units.
        """
        for parameter in self.params:
            found = 0 if parameter.grad_sample is None else len(parameter.grad_sample)
            if found != units:
                raise RuntimeError(f"gradients of {found} units, the group has {units}")
        self.signal_skip_step(do_skip=True)
        self.step()
        self.zero_grad()

    def release(self) -> None:
        """Add noise to the sum, step on it and start a new sum. Nothing accumulated: a step on noise alone.

        Raises:
            RuntimeError: passes were done since the last `accumulate`.
        """
        self._require_accumulated()
        self.signal_skip_step(do_skip=False)
        self.step()
        self.zero_grad()

    def take_sum(self) -> Tensor:
        """Return what was accumulated, (d,) in float64 on the CPU, and start a new sum. It has no noise: private.

        Raises:
            RuntimeError: as `release`.
        """
        self._require_accumulated()
        taken = []
        for parameter in self.params:
            held, parameter.summed_grad = parameter.summed_grad, None
            part = torch.zeros(parameter.shape, dtype=torch.float64) if held is None else held.detach().cpu()
            taken.append(part.reshape(-1))
        return torch.cat(taken)

    def put_sum(self, total: Tensor) -> None:
        """Make `total`, (d,) in float64, what was accumulated: the sums that several processes took, added."""
        parts = torch.split(total, [parameter.numel() for parameter in self.params])
        for parameter, part in zip(self.params, parts, strict=True):
            parameter.summed_grad = part.view_as(parameter).to(parameter.device)

    def _require_accumulated(self) -> None:
        if any(parameter.grad_sample is not None for parameter in self.params):
            raise RuntimeError("gradients are still here: accumulate their group before the release")

    @property
    def grad_samples(self) -> list[Tensor]:
        """One tensor (units, ...) for each parameter; of no units after the last `accumulate`."""
        parts = [(parameter, parameter.grad_sample) for parameter in self.params]
        return [parameter.new_zeros(0, *parameter.shape) if rows is None else rows for parameter, rows in parts]

    @property
    def accumulated_iterations(self) -> int:
        """Always 1: many physical batches make one logical step, and the accountant charges it once."""
        return 1

    def clip_and_accumulate(self) -> None:
        """Clip each unit and add it to the sum, in float64."""
        clipped = clip_rows(self.grad_samples, self.max_grad_norm, self._clipping)
        for parameter, rows in zip(self.params, clipped, strict=True):
            held = parameter.summed_grad
            parameter.summed_grad = rows.sum(0) if held is None else held + rows.sum(0)

    def add_noise(self) -> None:
        """Put sum + noise into each parameter's gradient; added in float64, rounded after."""
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = torch.from_numpy(self._random.noise(parameter.numel(), scale)).view(parameter.shape)
            total = parameter.summed_grad
            if math.isfinite(self._most):
                total = total.clamp(-self._most, self._most)
            noised = noise.to(parameter.device).add_(total)
            parameter.grad = noised.div_(self._normaliser).to(parameter.dtype)

    def scale_grad(self) -> None:
        """Do nothing: `add_noise` has divided by the public constant already."""
