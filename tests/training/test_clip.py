"""`clip_rows` keeps its promise for any input; `UnitOptimizer` clips units, not rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from fl_alliance.protocol.plan import Member
from fl_alliance.training.dp import MARGIN, UnitOptimizer, clip_rows
from fl_alliance.training.gradients import add_by_unit
from fl_alliance.training.noise import SecretRandom
from tests.training import tiny

BOUNDS = st.floats(min_value=1e-6, max_value=1e6)
ANY_FLOAT32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
UNIT_FLOAT32 = st.floats(-1, 1, width=32)


def rows_of(elements: st.SearchStrategy[float]) -> st.SearchStrategy[list[Tensor]]:
    """Two tensors with the same number of rows, of shapes (n, 3) and (n, 2, 2)."""

    def parts(n: int) -> st.SearchStrategy[list[Tensor]]:
        shapes = ((n, 3), (n, 2, 2))
        return st.tuples(*(hnp.arrays(np.float32, shape, elements=elements) for shape in shapes)).map(
            lambda arrays: [torch.from_numpy(array) for array in arrays]
        )

    return st.integers(0, 4).flatmap(parts)


def flat(rows: list[Tensor]) -> Tensor:
    return torch.cat([part.double().flatten(1) for part in rows], 1)


@given(rows=rows_of(ANY_FLOAT32), bound=BOUNDS)
def test_no_row_is_longer_than_the_bound_whatever_is_in_it(rows: list[Tensor], bound: float) -> None:
    lengths = flat(clip_rows(rows, bound)).norm(dim=1)
    assert bool((lengths <= bound).all())


@given(rows=rows_of(ANY_FLOAT32), bound=BOUNDS)
def test_a_row_that_is_not_finite_gives_zero_and_the_others_are_as_alone(rows: list[Tensor], bound: float) -> None:
    clipped = flat(clip_rows(rows, bound))
    for place, row in enumerate(flat(rows)):
        if bool(row.isfinite().all()):
            alone = flat(clip_rows([part[place : place + 1] for part in rows], bound))[0]
            assert torch.allclose(clipped[place], alone, rtol=1e-12, atol=0)
        else:
            assert clipped[place].tolist() == [0.0] * 7


@given(rows=rows_of(UNIT_FLOAT32), bound=BOUNDS)
def test_a_short_row_is_kept_and_a_long_one_keeps_its_direction(rows: list[Tensor], bound: float) -> None:
    for before, after in zip(flat(rows), flat(clip_rows(rows, bound)), strict=True):
        length = float(before.norm())
        if length * (1 + MARGIN) < bound * (1 - 1e-9):
            assert torch.equal(before, after)
        elif length > 1e-30:
            assert float(after.norm()) == pytest.approx(bound / (1 + MARGIN), rel=1e-9)
            assert torch.allclose(after / after.norm(), before / length, rtol=0, atol=1e-9)


@given(rows=rows_of(ANY_FLOAT32))
def test_shapes_stay_and_the_result_is_float64(rows: list[Tensor]) -> None:
    clipped = clip_rows(rows, 1.0)
    assert [part.shape for part in clipped] == [part.shape for part in rows]
    assert {part.dtype for part in clipped} == {torch.float64}


def test_the_bound_is_over_all_tensors_together() -> None:
    rows = [torch.full((1, 4), 3.0), torch.full((1, 9), 3.0)]
    assert float(flat(clip_rows(rows, 1.0)).norm()) == pytest.approx(1 / (1 + MARGIN))


# ---- the optimizer over rows that a test puts in place of a backward pass


def optimizer_of(folder: Path, size: int = 3) -> tuple[UnitOptimizer, torch.nn.Parameter]:
    parameter = torch.nn.Parameter(torch.zeros(size))
    inner = torch.optim.SGD([parameter], lr=1.0)
    members = tuple(Member(name=name, declared_units=2) for name in ("berlin", "lagos", "lima"))
    plan = tiny.plan_of(folder, clip_norm="1", noise_multiplier=tiny.NO_NOISE, members=members)
    return UnitOptimizer(inner, plan, "lagos", SecretRandom()), parameter  # the normaliser is 0.5 * 2


def moved(optimizer: UnitOptimizer, parameter: torch.nn.Parameter, batches: list[tuple[Tensor, Tensor, int]]) -> Tensor:
    for rows, owner, units in batches:
        parameter.grad_sample = add_by_unit(None, rows, owner, units)  # type: ignore[attr-defined]
        optimizer.accumulate(units)
    optimizer.release()
    return -parameter.detach()


def test_records_of_one_unit_are_summed_before_the_clip(folder: Path) -> None:
    rows = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [-9.0, 0, 0]])
    step = moved(*optimizer_of(folder), [(rows, torch.tensor([0, 1, 0]), 2)])
    assert step.tolist() == pytest.approx([0, 1 / (1 + MARGIN), 0])


def test_two_rows_of_one_unit_never_pass_as_two_units(folder: Path) -> None:
    """As many rows as units: a shortcut that takes each row for a unit would let this one count twice."""
    rows = torch.tensor([[9.0, 0, 0], [9.0, 0, 0]])
    step = moved(*optimizer_of(folder), [(rows, torch.tensor([1, 1]), 2)])
    assert step.tolist() == pytest.approx([1 / (1 + MARGIN), 0, 0])


def test_rows_in_another_order_than_their_units_are_their_units(folder: Path) -> None:
    rows = torch.tensor([[0.5, 0, 0], [0, float("nan"), 0], [0, 0, 0.25]])
    step = moved(*optimizer_of(folder), [(rows, torch.tensor([2, 0, 1]), 3)])
    assert step.tolist() == pytest.approx([0.5, 0, 0.25])


def test_a_row_without_a_unit_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="2 rows of gradient, 1 rows with a unit"):
        moved(*optimizer_of(folder), [(torch.zeros(2, 3), torch.tensor([0]), 1)])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_how_units_are_split_over_batches_changes_nothing(folder: Path, seed: int, cuts: list[int]) -> None:
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(sum(cuts), 3)).astype(np.float32))
    whole = moved(*optimizer_of(folder), [(rows, torch.arange(len(rows)), len(rows))])
    parts = [(part, torch.arange(len(part)), len(part)) for part in rows.split(cuts)]
    assert torch.allclose(whole, moved(*optimizer_of(folder), parts), rtol=1e-6, atol=1e-7)
