"""Settings of speed change speed: the same gradients with checkpointing, one path for any device, float32 only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fl_alliance.errors import BadConfig
from fl_alliance.training import base as base_module
from fl_alliance.training import dp
from fl_alliance.training import session as session_module
from fl_alliance.training.batches import Performance, Unit
from fl_alliance.training.model import trained_parameters
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

RECORDS = tiny.records_with([1, 2, 3, 1])
BARE: dict[str, Any] = {"sampling_rate": "1", "noise_multiplier": tiny.NO_NOISE}
SPARING = Performance(gradient_checkpointing=True)


@pytest.mark.parametrize("method", ["ffa-lora", "lora"])
def test_gradient_checkpointing_trains_the_same_update(folder: Path, method: str) -> None:
    usual, sparing = (
        tiny.session_of(folder, performance, adapter={"method": method}, **BARE) for performance in (None, SPARING)
    )
    expected = usual.train_round(RECORDS).update
    assert np.abs(expected).max() > 1e-5
    for _ in range(2):  # hooks and checkpoints stay over rounds
        found = sparing.train_round(RECORDS).update
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


def test_gradient_checkpointing_runs_each_block_twice(folder: Path) -> None:
    session, runs = tiny.session_of(folder, SPARING), [0]
    session.model.train()

    def count(*_: Any) -> None:
        runs[0] += 1

    for layer in session.model.get_base_model().model.layers:
        layer.mlp.register_forward_hook(count)
    session._step(session._optimizer(), session._units(tiny.records_with([1])))
    assert runs == [4]


def held_after_a_step(session: TrainingSession) -> int:
    session.model.train()
    session._step(session._optimizer(), session._units(tiny.records_with([1])))
    return sum(len(getattr(module, "activations", ())) for module in session.model.modules())


def test_the_other_kind_of_checkpoint_would_keep_private_activations(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`use_reentrant=False` runs hooks twice for one backward; Opacus' own then give no gradient at all."""
    assert held_after_a_step(tiny.session_of(folder, SPARING)) == 0

    def other_kind(model: Any) -> None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    monkeypatch.setattr(session_module, "save_activations_memory", other_kind)
    assert held_after_a_step(tiny.session_of(folder, SPARING)) > 0


class NowhereElse(TorchDispatchMode):
    """Every tensor that is made while the mode is on, by device."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.devices.add(result.device.type)
        return result


def test_a_round_makes_tensors_on_the_model_s_device_only(folder: Path) -> None:
    session = tiny.session_of(folder, Performance(device="cpu"))
    with NowhereElse() as seen:
        session.train_round(RECORDS)
    assert seen.devices == {"cpu"}


def test_a_gpu_that_is_not_there_is_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadConfig, match="device cuda: torch sees no CUDA GPU here"):
        tiny.session_of(folder, Performance(device="cuda"))
    assert Performance().torch_device() == torch.device("cpu")


def test_auto_takes_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Performance().torch_device() == torch.device("cuda")
    assert Performance(device="cpu").torch_device() == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_round_on_the_gpu_equals_one_on_the_cpu(folder: Path) -> None:
    updates = [
        tiny.session_of(folder, Performance(device=device), **BARE).train_round(RECORDS).update
        for device in ("cpu", "cuda")  # type: ignore[misc]
    ]
    assert np.linalg.norm(updates[0] - updates[1]) < 1e-3 * np.linalg.norm(updates[0])


# ---- what a frozen base in bfloat16 would do, and why there is no such setting


def gradients_of(session: TrainingSession, sample: Sequence[Unit], together: bool) -> Tensor:
    """Return the unclipped gradient (units, d) of each unit: all in one pass, or each in a pass of its own."""
    rows = [[unit] for unit in sample] if not together else [list(sample)]
    found = []
    for units in rows:
        session._hooks.expect(torch.arange(len(units)), len(units))
        batch = session_module.collate([record for unit in units for record in unit], 0)
        session_module.summed_loss(session.model, batch).backward()  # type: ignore[no-untyped-call]
        parts = [parameter.grad_sample.flatten(1) for parameter in trained_parameters(session.model)]  # type: ignore[attr-defined]
        found.append(torch.cat(parts, 1).double())
        dp.forget_passes(session.model)
    return torch.cat(found)


def moved_by_company(session: TrainingSession) -> float:
    """Return how far, in C, the clipped sum of 40 units moves when each is in a pass of its own."""
    sample = session._units(tiny.records_with([1] * 40))
    both = [dp.clip_rows([gradients_of(session, sample, together)], 1.0)[0] for together in (True, False)]
    return float((both[0] - both[1]).norm(dim=1).sum())


def test_a_frozen_base_in_bfloat16_would_break_the_bound_and_float32_keeps_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter, the clip and the noise in float32 do not help: the others' gradients move beyond the margin."""
    assert moved_by_company(tiny.session_of(folder)) < dp.MARGIN / 10
    load = base_module.load_base
    monkeypatch.setattr(session_module, "load_base", lambda *args: load(*args, dtype=torch.bfloat16))
    coarse = tiny.session_of(folder)
    assert {parameter.dtype for parameter in trained_parameters(coarse.model)} == {torch.float32}
    moved = moved_by_company(coarse)
    print(f"bfloat16 base: the sum of 40 units moves by {moved:.3g} C")
    assert moved > 10 * dp.MARGIN
