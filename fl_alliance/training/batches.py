"""Physical batches of one logical step: sized for speed and memory, without any say in privacy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from fl_alliance.errors import BadConfig
from fl_alliance.training.encode import Batch, Encoded

Unit = Sequence[Encoded]
"""The records of one unit that a step uses."""


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Settings that change speed and memory, and nothing else."""

    micro_batch_rows: int = 256
    """Most rows in one pass through the model."""
    micro_batch_tokens: int = 8192
    """Most tokens, with padding, in one pass."""
    gradient_mib: int = 1024
    """Memory for the gradients of the rows of one pass; bounds the rows of a large adapter."""
    logits_mib: int = 1024
    """Memory for the logits of one pass; bounds the tokens of a large vocabulary."""
    threads: int | None = None
    """Threads of torch in each process; None leaves what the process has."""
    processes: int = 1
    """Processes that share each step, this one among them: one for each GPU, or so many on the CPU (`workers`)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is; auto: a CUDA GPU if torch sees one, else the CPU. Noise is drawn on the CPU either way."""
    gradient_checkpointing: bool = False
    """Compute each block's activations again in the backward pass instead of keeping them: less memory, more time."""

    def torch_device(self, rank: int = 0) -> torch.device:
        """Return the device that `device` names, for process `rank` of `processes`: each has a GPU of its own.

        Raises:
            BadConfig: cuda is asked for and torch sees none, or there are GPUs and fewer of them than processes.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadConfig("device cuda: torch sees no CUDA GPU here; use auto or cpu")
        found = torch.cuda.is_available() if self.device == "auto" else self.device == "cuda"
        if not found or self.processes == 1:
            return torch.device("cuda" if found else "cpu")
        if (seen := torch.cuda.device_count()) < self.processes:
            raise BadConfig(f"processes {self.processes}: torch sees {seen} CUDA GPUs here, one for each is needed")
        return torch.device("cuda", rank)

    def limits(self, adapter_size: int, vocabulary: int) -> tuple[int, int]:
        """Return the most rows and the most tokens of one pass for an adapter of so many coordinates."""
        rows = self.gradient_mib * 2**20 // (4 * adapter_size)
        tokens = self.logits_mib * 2**20 // (4 * vocabulary)
        return max(1, min(self.micro_batch_rows, rows)), max(1, min(self.micro_batch_tokens, tokens))


@dataclass(frozen=True, repr=False)
class Group:
    """Units that are clipped together: no unit is in two groups of a step. Most groups are one pass."""

    passes: tuple[tuple[Encoded, ...], ...]
    unit_of_row: Tensor
    """(rows of all passes,)"""
    units: int


def groups(units: Sequence[Unit], most_rows: int, most_tokens: int) -> Iterator[Group]:
    """Split a step's units into groups of like length. A unit beyond the limits is a group of several passes."""
    pending: list[Unit] = []
    for unit in sorted((unit for unit in units if unit), key=_longest):
        rows = sum(len(other) for other in pending) + len(unit)
        if pending and (rows > most_rows or rows * _longest(unit) > most_tokens):
            yield _group(pending, most_rows, most_tokens)
            pending = []
        pending.append(unit)
    if pending:
        yield _group(pending, most_rows, most_tokens)


def _longest(unit: Unit) -> int:
    return max(len(row.ids) for row in unit)


def _group(units: Sequence[Unit], most_rows: int, most_tokens: int) -> Group:
    rows = tuple(row for unit in units for row in unit)
    owner = torch.tensor([place for place, unit in enumerate(units) for _ in unit])
    size = max(1, min(most_rows, most_tokens // max(len(row.ids) for row in rows)))
    passes = tuple(rows[start : start + size] for start in range(0, len(rows), size))
    return Group(passes=passes, unit_of_row=owner, units=len(units))


def save_activations_memory(model: Any) -> None:
    """Turn gradient checkpointing on in the PEFT model `model`: it computes the same, blocks run forward twice.

    Reentrant: the other kind runs the forward hooks twice for one backward, which Opacus' own hooks take for a module
    used twice (1.6.0: no gradient comes), and activations stay behind. It wants an input that has a gradient, which a
    frozen embedding alone does not give.
    """
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})


def token_losses(model: Any, batch: Batch) -> Tensor:
    """Return the loss of each target of `batch` in nats, (targets,).

    The head is applied to the positions that predict a target only: with a vocabulary of 152 thousand that is most
    of a pass's memory. `model` is the PEFT model; its hooks sit on the adapter's modules and fire here too.
    """
    causal = model.get_base_model()
    batch = batch.to(causal.device)
    hidden = causal.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = causal.lm_head(hidden[batch.row, batch.position])
    return functional.cross_entropy(logits.float(), batch.label, reduction="none")


def summed_loss(model: Any, batch: Batch) -> Tensor:
    """Return the sum over the rows of each row's mean loss (a scalar): a row's gradient depends on that row only."""
    losses = token_losses(model, batch)
    return (losses * batch.weight.to(losses.device)).sum()
