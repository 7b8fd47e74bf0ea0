"""A gradient for each unit, out of one backward pass: Opacus' hooks, summed by unit while the pass runs.

What differs from `opacus.GradSampleModule` 1.6.0, and why:

* rows of one unit are added up as they come, over all passes of a group: what is held is one gradient for each unit,
  however many records it has;
* the product is taken with its short side first, which is two to three times as fast for a LoRA factor;
* only the weights of Linear modules are known; anything else that is trained is refused, not approximated.

The hooks themselves, and when they fire, are Opacus'.
"""

from __future__ import annotations

from typing import Any

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fl_alliance.errors import BadPlan


class UnitGradients(GradSampleModule):  # type: ignore[misc]  # opacus has no types
    """Hooks that leave `parameter.grad_sample`, (units, ...) in float32, for each trained parameter of a model.

    Before each pass, `expect` says whose rows come. Passes add up until somebody takes `grad_sample` away
    (`UnitOptimizer.accumulate`).

    Guarantees: after a backward pass of a loss that is a sum over rows, `grad_sample[u]` is the sum of the gradients of
    the rows of unit u since the last take.
    Not guaranteed: that a unit's rows are all there; `batches.groups` sees to that.
    """

    def __init__(self, model: nn.Module) -> None:
        """Attach the hooks.

        Raises:
            BadPlan: something is trained that is not the weight of a Linear module.
        """
        for name, module in model.named_modules():
            trained = [part for part, parameter in module.named_parameters(recurse=False) if parameter.requires_grad]
            if trained and (type(module) is not nn.Linear or trained != ["weight"]):
                raise BadPlan(f"{name}: no gradient for each unit of {', '.join(trained)} of a {type(module).__name__}")
        super().__init__(model, loss_reduction="sum")
        self._unit_of_row, self._units = torch.zeros(0, dtype=torch.long), 0

    def expect(self, unit_of_row: Tensor, units: int) -> None:
        """Announce the next pass: for each of its rows, `unit_of_row` (rows,), on the CPU, its unit below `units`."""
        self._unit_of_row, self._units = unit_of_row, units

    def capture_backprops_hook(
        self, module: Any, _forward_input: Any, forward_output: Any, loss_reduction: str, batch_first: bool
    ) -> None:
        """Add the rows of one Linear module to its units: what Opacus calls when the module's backward is done."""
        if not self.hooks_enabled:
            return
        activations, backprops = self.rearrange_grad_samples(
            module=module,
            backprops=forward_output[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        if not module.activations:
            del module.max_batch_len
        weight = module.weight
        weight._forward_counter -= 1
        rows = row_gradients(activations[0], backprops)
        weight.grad_sample = add_by_unit(weight.grad_sample, rows, self._unit_of_row, self._units)


def row_gradients(inputs: Tensor, backprops: Tensor) -> Tensor:
    """Return the gradient of a Linear weight for each row: (rows, n, m) of (rows, tokens, m) and (rows, tokens, n)."""
    inputs, backprops = inputs.float(), backprops.float()
    if backprops.shape[-1] <= inputs.shape[-1]:
        return torch.bmm(backprops.transpose(1, 2), inputs)
    return torch.bmm(inputs.transpose(1, 2), backprops).transpose(1, 2).contiguous()


def add_by_unit(total: Tensor | None, rows: Tensor, unit_of_row: Tensor, units: int) -> Tensor:
    """Return `total` (units, ...), or 0 if there is none, with each of `rows` added to its unit; may reuse either.

    `unit_of_row` is on the CPU, whatever the rest is on.

    Raises:
        RuntimeError: there are more or fewer rows than have a unit, or `total` is of another group.
    """
    if len(rows) != len(unit_of_row):
        raise RuntimeError(f"{len(rows)} rows of gradient, {len(unit_of_row)} rows with a unit")
    if total is None:
        if len(rows) == units and torch.equal(unit_of_row, torch.arange(units)):
            return rows  # one record a unit, in order: nothing to add up
        total = rows.new_zeros(units, *rows.shape[1:])
    if len(total) != units:
        raise RuntimeError(f"gradients of {len(total)} units are still here, the pass is of {units}")
    return total.index_add_(0, unit_of_row.to(rows.device), rows)
