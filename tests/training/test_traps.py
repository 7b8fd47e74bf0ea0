"""Traps of Opacus 1.6.0 with transformers and peft: what goes wrong elsewhere without an error, one named test each.

Where a trap is cheap to spring, the test springs it too: if it no longer does harm, the test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from opacus import GradSampleModule
from peft import PeftModel
from torch import Tensor
from transformers import Qwen3ForCausalLM

from fl_alliance.errors import BadPlan
from fl_alliance.training import session as session_module
from fl_alliance.training.base import load_base, model_files
from fl_alliance.training.batches import Performance, groups
from fl_alliance.training.dp import clip_rows
from fl_alliance.training.encode import Encoded, collate
from fl_alliance.training.evaluate import heldout_loss
from fl_alliance.training.model import attach_adapter, trained_parameters
from fl_alliance.training.session import TrainingSession
from tests.training import tiny

Loss = Callable[[Any, Sequence[Encoded]], Tensor]


def ours(model: Any, rows: Sequence[Encoded]) -> Tensor:
    return session_module.summed_loss(model, collate(rows, 0))


def mean_over_all_tokens(model: Any, rows: Sequence[Encoded]) -> Tensor:
    """What `labels=` gives: the loss of the batch, scaled up as Opacus scales a mean."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([(*row.ids, *[0] * (width - len(row.ids))) for row in rows])
    labels = torch.tensor([(*row.labels, *[-100] * (width - len(row.labels))) for row in rows])
    loss: Tensor = model(input_ids=ids, labels=labels, use_cache=False).loss
    return loss * len(rows)


def clipped_sum(model: Any, rows: Sequence[Encoded], bound: float, loss: Loss) -> Tensor:
    for parameter in trained_parameters(model):
        parameter.grad_sample = None  # type: ignore[attr-defined]
    loss(model, rows).backward()  # type: ignore[no-untyped-call]
    clipped = clip_rows([parameter.grad_sample for parameter in trained_parameters(model)], bound)  # type: ignore[attr-defined]
    return torch.cat([part.sum(0).flatten() for part in clipped])


def one_record(length: int, seed: int) -> Encoded:
    ids = tuple(np.random.default_rng(seed).integers(3, 4096, length).tolist())
    return Encoded(ids, ids)


def test_labels_mean_loss_a_removed_record_moves_the_sum_by_at_most_c(folder: Path) -> None:
    """31 short records and a long one. With the mean over all tokens, the long one shrinks the 31 others."""
    model = tiny.plain_model(folder)
    GradSampleModule(model, loss_reduction="sum")
    rows = [one_record(6, 1)] * 31 + [one_record(256, 2)]
    bound = 1.01 * float(tiny.plain_gradient(tiny.plain_model(folder), rows[:1]).norm())

    def moved(loss: Loss) -> float:
        with_it, without = (clipped_sum(model, some, bound, loss) for some in (rows, rows[:31]))
        return float((with_it - without).norm()) / bound

    assert moved(ours) <= 1.0
    assert moved(mean_over_all_tokens) > 5.0


def test_empty_sample_is_a_step_of_noise_alone_that_is_charged(folder: Path) -> None:
    """Elsewhere: an error on 0 rows, a step that is skipped and not charged, or a random record in its place."""
    session = tiny.session_of(folder, steps_per_round=5)
    update = session.train_round(tiny.records_with([])).update
    assert np.count_nonzero(update) == len(update)
    assert session.history == [(4.0, 0.5, 5)]


def test_a_sample_whose_records_have_no_target_is_an_empty_one(folder: Path) -> None:
    session = tiny.session_of(folder, max_tokens=8, sampling_rate="1", noise_multiplier=tiny.NO_NOISE)
    records = tiny.records_of({"a": [tiny.dialogue(3)], "b": [(tiny.Turn("user", "word " * 40), *tiny.dialogue(1))]})
    assert session._units(records) == [[], []]
    assert np.abs(session.train_round(records).update).max() < 1e-12
    assert session.history[0][2] == 3


def test_second_and_third_round_use_the_same_hooks(folder: Path) -> None:
    """Elsewhere: "Trying to add hooks twice", or each round accounted as if it were the first."""
    fields = {"sampling_rate": "1", "noise_multiplier": tiny.NO_NOISE}
    session, records = tiny.session_of(folder, **fields), tiny.records_with([1, 3])
    updates = []
    for _ in range(3):
        updates.append(session.train_round(records).update)
        session.apply(updates[-1])
    fresh = tiny.session_of(folder, **fields)
    fresh.restore(tiny.somewhere(len(fresh.vector)) + updates[0] + updates[1])
    assert np.allclose(updates[2], fresh.train_round(records).update, rtol=1e-3, atol=1e-8)
    assert session.history[0][2] == 9


def test_an_optimizer_keeps_nothing_of_an_earlier_round(folder: Path) -> None:
    momentum = tiny.OptimizerPlan(name="sgd", learning_rate="1", momentum="0.9")
    session = tiny.session_of(folder, sampling_rate="1", noise_multiplier=tiny.NO_NOISE, optimizer=momentum)
    records = tiny.records_with([2, 1])
    first, again = session.train_round(records).update, session.train_round(records).update
    assert np.array_equal(first, again)


def test_right_padding_and_what_it_is_filled_with_change_nothing(folder: Path) -> None:
    """Left padding without position_ids moves gradients by 25 %."""
    model = tiny.plain_model(folder)
    rows = [one_record(length, length) for length in (4, 9, 30)]

    def gradient(pad: int) -> Tensor:
        loss = session_module.summed_loss(model, collate(rows, pad))
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained_parameters(model))]).double()

    alone = sum(tiny.plain_gradient(model, [row]) for row in rows)
    assert torch.equal(gradient(0), gradient(4095))
    assert float((gradient(0) - alone).norm()) < 1e-5 * float(alone.norm())


def test_eval_mode_before_a_round_and_between_rounds_does_no_harm(folder: Path) -> None:
    """`from_pretrained` returns a model in eval mode; hooks are silent in it, and the gradient would be missing."""
    session = tiny.session_of(folder, sampling_rate="1", noise_multiplier=tiny.NO_NOISE)
    records = tiny.records_with([1, 2])
    expected = session.train_round(records).update
    session.model.eval()
    heldout_loss(session.model, session.tokenizer, records, 64)
    with torch.no_grad():
        session.model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    assert np.array_equal(session.train_round(records).update, expected)
    assert not [m for m in session.model.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A model in which token 777 has no number: a record that holds it has no finite gradient."""
    folder = tiny.make_folder(tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][777] = float("nan")
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("performance", [Performance(), Performance(micro_batch_rows=1)], ids=["one-pass", "rows-1"])
def test_nan_record_takes_its_unit_out_and_leaves_the_others_as_they_are(
    poisoned: Path, performance: Performance
) -> None:
    """Elsewhere: one such record makes the whole update NaN."""
    session = tiny.session_of(poisoned, performance, noise_multiplier=tiny.NO_NOISE)
    healthy = [[one_record(9, 3)], [one_record(12, 4), one_record(5, 5)]]
    bad = [one_record(7, 6), Encoded((5, 777, 6, 7), (5, 777, 6, 7))]

    def moved(sample: list[list[Encoded]]) -> Any:
        session.restore(tiny.somewhere(len(session.vector)))
        session._step(session._optimizer(), sample)
        return session_module.adapter_vector(session.model) - session.vector

    assert np.isnan(tiny.plain_gradient(tiny.plain_model(poisoned), bad).numpy()).any()
    assert np.allclose(moved([*healthy, bad]), moved(healthy), rtol=1e-3, atol=1e-7)
    assert np.abs(moved(healthy)).max() > 1e-4
    assert np.abs(moved([bad])).max() < 1e-6  # float64 vector, float32 weights


@pytest.mark.parametrize("bound", [1e-3, 0.1, 0.5, 2.0])
def test_float32_rounding_never_lifts_a_row_above_c(bound: float) -> None:
    """float32 all the way gives rows longer than C; float64 and a margin do not, even after rounding to float32."""
    rows = torch.randn(2000, 300, generator=torch.Generator().manual_seed(1)) * 3
    naive = rows * (bound / rows.norm(dim=1)).clamp(max=1)[:, None]
    assert float(naive.double().norm(dim=1).max()) > bound
    assert float(clip_rows([rows], bound)[0].norm(dim=1).max()) < bound
    assert float(clip_rows([rows], bound)[0].float().double().norm(dim=1).max()) < bound


def test_the_whole_step_adds_at_most_c_for_one_unit(folder: Path) -> None:
    """End to end, in float32 weights: two rounds that differ in one unit, no noise."""
    session = tiny.session_of(
        folder, sampling_rate="1", noise_multiplier=tiny.NO_NOISE, steps_per_round=1, clip_norm="0.01"
    )
    units = tiny.records_with([1] * 12 + [4]).units
    some = tiny.records_of(dict(list(units.items())[:-1]))
    moved = session.train_round(tiny.records_of(units)).update - session.train_round(some).update
    assert 0.99 < float(np.linalg.norm(moved)) * 1000 / 0.01 < 1.0 + 1e-3  # float32 weights round by 1e-8


def test_names_after_wrapping_are_those_of_peft(folder: Path, tmp_path: Path) -> None:
    """Opacus puts `_module.` before each name; a folder with such names loads as zeros, with a warning."""
    session = tiny.session_of(folder)
    session.train_round(tiny.records_with([1]))
    session.save(tmp_path / "adapter")
    stored = safetensors.torch.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.layers.") for name in stored)

    loaded = PeftModel.from_pretrained(Qwen3ForCausalLM.from_pretrained(folder), tmp_path / "adapter").eval()
    ids = torch.tensor([[5, 9, 300, 41]])
    with torch.no_grad():
        wanted = session.model.eval()(input_ids=ids, use_cache=False).logits
        bare = Qwen3ForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        got = loaded(input_ids=ids).logits
    assert torch.allclose(got, wanted, rtol=1e-5, atol=1e-5)
    assert float((bare - wanted).abs().max()) > 0.1


def test_normaliser_is_not_an_int_of_a_division() -> None:
    """Opacus: int(N / ceil(N / B)) differs from B for most N. Ours is q times the declared units, here 3.3."""
    plan = tiny.plan_of(tiny.DEMO, sampling_rate="0.0033")
    optimizer = session_module.UnitOptimizer(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), plan, "lagos", session_module.SecretRandom()
    )
    assert optimizer._normaliser == pytest.approx(3.3, rel=1e-12)


def test_packing_never_happens_a_row_is_one_record(folder: Path) -> None:
    """Two records in a row are one gradient: it would be clipped once for two units."""
    session = tiny.session_of(folder)
    units = session._units(tiny.records_with([1, 1, 2, 3]))
    (group,) = groups(units, 100, 10_000)
    batch = collate(group.passes[0], 0)
    assert len(batch.ids) == 7
    for line, row in zip(batch.ids.tolist(), group.passes[0], strict=True):
        assert line == [*row.ids, *[0] * (len(line) - len(row.ids))]
    assert batch.weight.double().sum() == pytest.approx(7)


def test_many_passes_are_one_charge_at_q_and_not_one_at_many_q(folder: Path) -> None:
    """Elsewhere: gradient accumulation charges q times the number of passes, or one step for each."""
    session = tiny.session_of(folder, Performance(micro_batch_rows=1), sampling_rate="1", steps_per_round=1)
    session.train_round(tiny.records_with([3, 3, 3]))
    assert session.history == [(4.0, 1.0, 1)]


@pytest.fixture
def fails_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The third pass ends after its forward half, as when memory runs out."""
    passes = [0]
    original = session_module.summed_loss

    def loss(model: Any, batch: Any) -> Tensor:
        result = original(model, batch)
        passes[0] += 1
        if passes[0] == 3:
            raise MemoryError
        return result

    monkeypatch.setattr(session_module, "summed_loss", loss)
    yield passes
    assert passes[0] > 3


def test_a_forward_without_backward_does_not_spoil_the_next_round(folder: Path, fails_once: list[int]) -> None:
    fields = {"sampling_rate": "1", "noise_multiplier": tiny.NO_NOISE}
    records = tiny.records_with([1, 2, 3])
    session = tiny.session_of(folder, Performance(micro_batch_rows=3), **fields)
    with pytest.raises(MemoryError):
        session.train_round(records)
    held = [m for m in session.model.modules() if getattr(m, "activations", None)]
    assert not held  # private activations do not stay either
    fails_once[0] = 10
    other = tiny.session_of(folder, Performance(micro_batch_rows=3), **fields)
    assert np.array_equal(session.train_round(records).update, other.train_round(records).update)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_embeddings_as_targets_are_refused(folder: Path, target: str) -> None:
    base, _ = load_base(folder, model_files(folder))
    with pytest.raises(BadPlan, match=f"adapter target {target}: qwen3 has down_proj"):
        attach_adapter(base, tiny.adapter_of(targets=(target,), modules=1))


def test_a_tied_head_is_frozen_and_harmless(tmp_path: Path) -> None:
    folder = tiny.make_folder(tmp_path / "model", tied=True)
    session = TrainingSession(folder, tiny.plan_of(folder), "lagos")
    before = session.model.get_base_model().lm_head.weight.clone()
    session.train_round(tiny.records_with([2, 2]))
    assert torch.equal(session.model.get_base_model().lm_head.weight, before)
    assert all("lora_B" in name for name, p in session.model.named_parameters() if p.requires_grad)
