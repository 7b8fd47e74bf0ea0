"""What a step adds up equals a plain loop: one unit, one record at a time, by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fl_alliance.protocol.plan import OptimizerPlan
from fl_alliance.training import dp
from fl_alliance.training.batches import Performance, Unit, groups
from fl_alliance.training.encode import Encoded
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

MICRO = [
    Performance(),
    Performance(micro_batch_rows=1),
    Performance(micro_batch_rows=3, micro_batch_tokens=64),
    Performance(gradient_mib=0, logits_mib=0),
]
"""One pass; one row a pass, so that units of many records take several; groups of few; the least that can be."""
SIZES = [1, 1, 1, 2, 7, 3, 1]


@pytest.fixture
def clipped(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The clipped gradient (d,) of each unit, in the order in which a session meets them."""
    seen: list[Tensor] = []
    original = dp.clip_rows

    def spy(rows: Sequence[Tensor], clip_norm: float, clipping: str) -> list[Tensor]:
        result = original(rows, clip_norm, clipping)
        seen.extend(torch.cat([part.flatten(1) for part in result], 1))
        return result

    monkeypatch.setattr(dp, "clip_rows", spy)
    return seen


def in_order(units: Sequence[Unit]) -> list[Unit]:
    """The order of `groups`."""
    return [unit for group in groups(units, 1, 1) for unit in [[row for rows in group.passes for row in rows]]]


def clip(gradient: Tensor, bound: float) -> Tensor:
    return gradient * min(1.0, bound / (float(gradient.norm()) * (1 + dp.MARGIN)))


def whole_sample(session: TrainingSession, sizes: Sequence[int] = SIZES) -> list[Unit]:
    return session._units(tiny.records_with(sizes))


@pytest.mark.parametrize("method", ["ffa-lora", "lora"])
@pytest.mark.parametrize("performance", MICRO, ids=["one-pass", "rows-1", "rows-3", "least"])
def test_each_unit_is_clipped_as_a_plain_loop_would(
    folder: Path, clipped: list[Tensor], performance: Performance, method: str
) -> None:
    """Below the bound, above it, one record and several: clip norm 2 lies between the units' norms."""
    session = tiny.session_of(folder, performance, adapter={"method": method}, clip_norm="2")
    sample = whole_sample(session)
    session._step(session._optimizer(), sample)

    model = tiny.plain_model(folder, session._plan.adapter)
    plain = [tiny.plain_gradient(model, unit) for unit in in_order(sample)]
    assert min(one.norm() for one in plain) < 1.9 < 2.1 < max(one.norm() for one in plain)
    assert len(clipped) == len(SIZES)
    for ours, theirs in zip(clipped, plain, strict=True):
        assert float((ours - clip(theirs, 2.0)).norm()) < 1e-5 * 2.0  # float32 through two layers


@pytest.mark.parametrize("performance", MICRO, ids=["one-pass", "rows-1", "rows-3", "least"])
@pytest.mark.parametrize("momentum", ["0", "0.9"])
def test_a_round_equals_a_plain_loop(folder: Path, performance: Performance, momentum: str) -> None:
    optimizer = OptimizerPlan(name="sgd", learning_rate="50", momentum=momentum)
    session = tiny.session_of(
        folder, performance, sampling_rate="1", noise_multiplier=tiny.NO_NOISE, records_per_unit=10, optimizer=optimizer
    )
    records = tiny.records_with(SIZES)
    update = session.train_round(records).update

    model = tiny.plain_model(folder)
    parameters = tiny.trained_parameters(model)
    start = torch.cat([parameter.detach().flatten() for parameter in parameters])
    inner = torch.optim.SGD(parameters, lr=50.0, momentum=float(momentum))
    for _ in range(3):
        mean = sum(clip(tiny.plain_gradient(model, unit), 1.0) for unit in session._units(records)) / 1000
        at = 0
        for parameter in parameters:
            parameter.grad = mean[at : at + parameter.numel()].view_as(parameter).float()
            at += parameter.numel()
        inner.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in parameters]) - start
    assert float(expected.norm()) > 0.1
    assert float((torch.from_numpy(update) - expected).norm()) < 1e-5 * float(expected.norm())


def test_at_most_k_records_of_a_unit_are_used(folder: Path, clipped: list[Tensor]) -> None:
    session = tiny.session_of(folder, records_per_unit=2, sampling_rate="1", clip_norm="100")
    units = whole_sample(session, [5])
    session._step(session._optimizer(), session._sample(units))

    model = tiny.plain_model(folder)
    single = [tiny.plain_gradient(model, [record]) for record in units[0]]
    pairs = [a + b for place, a in enumerate(single) for b in single[:place]]
    assert min(float((clipped[0] - pair).norm()) for pair in pairs) < 1e-4
    assert min(float((clipped[0] - one).norm()) for one in single) > 1e-2


def test_a_unit_does_not_see_who_shares_its_pass(folder: Path, clipped: list[Tensor]) -> None:
    """But for rounding; the margin of the clip is far above what rounding of all of them can add up to."""
    session = tiny.session_of(folder)
    sample = whole_sample(session, [1] * 40)
    session._step(session._optimizer(), sample)
    together = torch.stack(clipped)
    clipped.clear()
    session.restore(session.vector)
    for unit in in_order(sample):
        session._step(session._optimizer(), [unit])
        session.restore(session.vector)
    shift = together - torch.stack(clipped)
    assert float(shift.norm(dim=1).max()) < 1e-5
    assert float(shift.norm(dim=1).sum()) < dp.MARGIN


def test_private_training_is_float32_whatever_the_folder_says(folder: Path) -> None:
    """In bfloat16 a unit's presence moves the others by 1 % of C each: no margin covers that."""
    bf16 = tiny.DEMO  # its config.json says bfloat16
    session = TrainingSession(bf16, tiny.plan_of(bf16, adapter={"modules": 8}), "lagos")
    assert {parameter.dtype for parameter in session.model.parameters()} == {torch.float32}


# ---- the split into passes


def encoded(length: int) -> Encoded:
    return Encoded(tuple(range(1, length + 1)), tuple(range(1, length + 1)))


units_strategy: Any = st.lists(st.lists(st.integers(2, 20).map(encoded), max_size=6), max_size=12)


@given(units=units_strategy, rows=st.integers(1, 9), tokens=st.integers(1, 120))
def test_every_record_is_in_one_pass_and_no_unit_is_in_two_groups(units: list[Unit], rows: int, tokens: int) -> None:
    made = list(groups(units, rows, tokens))
    found: list[list[Encoded]] = []
    for group in made:
        members: list[list[Encoded]] = [[] for _ in range(group.units)]
        flat = [row for one in group.passes for row in one]
        for row, owner in zip(flat, group.unit_of_row.tolist(), strict=True):
            members[owner].append(row)
        found += members
    wanted = [list(unit) for unit in units if unit]
    key: Callable[[list[Encoded]], Any] = lambda unit: [row.ids for row in unit]  # noqa: E731
    assert sorted(map(key, found)) == sorted(map(key, wanted))


@given(units=units_strategy, rows=st.integers(1, 9), tokens=st.integers(1, 120))
def test_a_pass_stays_within_its_limits_unless_one_row_is_beyond(units: list[Unit], rows: int, tokens: int) -> None:
    for group in groups(units, rows, tokens):
        for one in group.passes:
            assert len(one) == 1 or (len(one) <= rows and len(one) * max(len(row.ids) for row in one) <= tokens)
