"""The optimizers that DP-SGD needs and torch lacks: Adam without the noise's own variance, and Adam on opened means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_alliance.errors import BadPlan
from fl_alliance.protocol.plan import OptimizerPlan, ServerPlan

Vector = NDArray[np.float64]


def inner_optimizer(
    parameters: Iterable[nn.Parameter], plan: OptimizerPlan, *, noise_std: float = 0.0
) -> torch.optim.Optimizer:
    """Return a fresh optimizer that steps on the noised gradient.

    Args:
        parameters: to train.
        plan: of the optimizer.
        noise_std: standard deviation of the noise in each coordinate of the gradient that it will see.

    Raises:
        BadPlan: torch refuses a setting, such as one below 1 in the plan that is 1.0 as a double.
    """
    rate, momentum, beta2 = float(plan.learning_rate), float(plan.momentum), float(plan.beta2)
    try:
        if plan.name == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=momentum)
        if plan.noise_floor is None:
            return torch.optim.Adam(parameters, lr=rate, betas=(momentum, beta2))
        return CorrectedAdam(parameters, rate, (momentum, beta2), noise_std**2, float(plan.noise_floor))
    except ValueError as error:
        raise BadPlan(f"optimizer {plan.name}: {error}") from error


class CorrectedAdam(torch.optim.Optimizer):
    """Adam whose second moment is freed of the noise's variance (DP-AdamBC: Tang, Shpilevskiy, Lécuyer 2024, alg. 1).

    Under noise of variance s^2 a coordinate's second moment tends to g^2 + s^2, so that plain Adam divides every
    coordinate by nearly the same s and is momentum SGD. Here the step is m / sqrt(max(v - s^2, floor)), both
    moments corrected for their start at 0. What is subtracted is public: privacy is what it was.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], variance: float, floor: float
    ) -> None:
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"betas {betas} must be at least 0 and below 1")
        super().__init__(parameters, {"lr": rate})
        self._betas, self._variance, self._floor = betas, variance, floor

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one step.

        Raises:
            ValueError: for a closure, which would want a gradient of its own.
        """
        if closure is not None:
            raise ValueError("no closure: the noised gradient is there already")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], self.state[parameter])

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float, state: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
        state["step"] += 1
        (beta1, beta2), step = self._betas, state["step"]
        state["first"].lerp_(gradient, 1 - beta1)
        state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        second = (state["second"] / (1 - beta2**step) - self._variance).clamp_(min=self._floor).sqrt_()
        parameter.addcdiv_(state["first"] / (1 - beta1**step), second, value=-rate)


class ServerOptimizer:
    """How the mean update moves the global adapter: the same float64 numbers at every institution.

    `mean`: by the mean (McMahan et al. 2017). `adam`: FedAdam (Reddi et al. 2021, algorithm 2) with the mean as
    pseudo-gradient. The coordinator is blind, so each institution runs it on the sum that it opened; additions,
    products, quotients and roots are exact roundings in IEEE 754, and only those are used. Work after the noise: it
    costs no privacy.
    """

    def __init__(self, plan: ServerPlan, size: int) -> None:
        self._plan = plan
        self._first: Vector = np.zeros(size)
        self._second: Vector = np.zeros(size)

    @property
    def moments(self) -> dict[str, Vector]:
        """What `step` remembers, by name, each (d,); nothing where it moves by the mean."""
        return {} if self._plan.name == "mean" else {"first": self._first, "second": self._second}

    @moments.setter
    def moments(self, found: Mapping[str, Vector]) -> None:
        if found:
            self._first, self._second = found["first"], found["second"]

    def step(self, mean_update: Vector) -> Vector:
        """Return what to add to the adapter, (d,), and remember the moments of `mean_update`, (d,)."""
        if self._plan.name == "mean":
            return mean_update
        beta1, beta2 = float(self._plan.beta1), float(self._plan.beta2)
        self._first = beta1 * self._first + (1 - beta1) * mean_update
        self._second = beta2 * self._second + (1 - beta2) * (mean_update * mean_update)
        moved: Vector = float(self._plan.learning_rate) * self._first / (np.sqrt(self._second) + float(self._plan.tau))
        return moved
