"""Hooks that sum by unit while the pass runs: nothing is held for a record, and nobody's rows are somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fl_alliance.errors import BadPlan
from fl_alliance.training.batches import Performance
from fl_alliance.training.gradients import UnitGradients, add_by_unit, row_gradients
from fl_alliance.training.model import trained_parameters
from tests.training import tiny


@given(rows=st.integers(1, 4), tokens=st.integers(1, 5), inputs=st.integers(1, 9), outputs=st.integers(1, 9))
def test_a_row_s_gradient_is_what_autograd_gives_for_that_row_alone(
    rows: int, tokens: int, inputs: int, outputs: int
) -> None:
    """Wide and tall weights: the product is taken from either side."""
    seed = torch.Generator().manual_seed(rows + 10 * tokens + 100 * inputs + 1000 * outputs)
    x = torch.randn(rows, tokens, inputs, generator=seed)
    back = torch.randn(rows, tokens, outputs, generator=seed)
    weight = torch.zeros(outputs, inputs, requires_grad=True)
    found = row_gradients(x, back)
    assert found.is_contiguous()
    for row in range(rows):
        (alone,) = torch.autograd.grad((nn.functional.linear(x[row], weight) * back[row]).sum(), weight)
        assert torch.allclose(found[row], alone, rtol=1e-5, atol=1e-5)


@given(owners=st.lists(st.integers(0, 3), min_size=1, max_size=8), cut=st.integers(0, 8))
def test_rows_add_up_by_unit_over_passes(owners: list[int], cut: int) -> None:
    owner = torch.tensor(owners)
    rows = torch.arange(1.0, len(owners) + 1)[:, None].repeat(1, 3)
    total: Tensor | None = None
    for part, whose in zip(rows.tensor_split([cut]), owner.tensor_split([cut]), strict=True):
        total = add_by_unit(total, part.clone(), whose, 4)
    assert total is not None
    for unit in range(4):
        assert total[unit].tolist() == [float(rows[owner == unit, 0].sum())] * 3


def test_rows_and_units_that_do_not_match_are_refused() -> None:
    rows, owner = torch.ones(2, 3), torch.tensor([0, 1])
    with pytest.raises(RuntimeError, match="2 rows of gradient, 1 rows with a unit"):
        add_by_unit(None, rows, owner[:1], 1)
    with pytest.raises(RuntimeError, match="gradients of 3 units are still here, the pass is of 2"):
        add_by_unit(torch.zeros(3, 3), rows, owner, 2)


def test_a_pass_that_nobody_announced_is_refused(folder: Path) -> None:
    session = tiny.session_of(folder)
    with pytest.raises(RuntimeError, match="1 rows of gradient, 0 rows with a unit"):
        session.model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False).logits.sum().backward()


def test_what_is_held_does_not_grow_with_the_records_of_a_unit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = tiny.session_of(folder, Performance(micro_batch_rows=2))
    optimizer, seen = session._optimizer(), []
    accumulate = optimizer.accumulate

    def watch(units: int) -> None:
        seen.extend((units, len(parameter.grad_sample)) for parameter in trained_parameters(session.model))  # type: ignore[attr-defined]
        accumulate(units)

    monkeypatch.setattr(optimizer, "accumulate", watch)
    session._step(optimizer, session._units(tiny.records_with([7])))
    assert seen == [(1, 1)] * 4


def test_a_group_with_another_number_of_units_is_refused(folder: Path) -> None:
    """Hooks that stayed silent, in eval mode say: the step would be noise alone, and charged."""
    session = tiny.session_of(folder)
    optimizer = session._optimizer()
    with pytest.raises(RuntimeError, match="gradients of 0 units, the group has 2"):
        optimizer.accumulate(2)


def test_a_release_with_gradients_that_were_not_accumulated_is_refused(folder: Path) -> None:
    """They would be clipped as units of their own: one whose group was half done would count twice."""
    session = tiny.session_of(folder)
    optimizer = session._optimizer()
    trained_parameters(session.model)[0].grad_sample = torch.ones(1, 3)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="accumulate their group before the release"):
        optimizer.release()


def trained_only(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3).requires_grad_(False), module)


@pytest.mark.parametrize(
    ("module", "named"),
    [(nn.Embedding(3, 3), "weight of a Embedding"), (nn.Linear(3, 3), "weight, bias of a Linear"),
     (nn.LayerNorm(3), "weight, bias of a LayerNorm")],
)  # fmt: skip
def test_what_has_no_gradient_for_each_unit_is_refused(module: Any, named: str) -> None:
    with pytest.raises(BadPlan, match=f"1: no gradient for each unit of {named}"):
        UnitGradients(trained_only(module))
