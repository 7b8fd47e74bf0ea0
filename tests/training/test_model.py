"""The adapter: the same starting point at every member, one vector in one order, a folder with one digest."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import Qwen3ForCausalLM

from fl_alliance.errors import BadPlan, StoreFailed
from fl_alliance.protocol.ids import digest_of
from fl_alliance.training.base import load_base, model_files
from fl_alliance.training.model import (
    adapter_digest,
    adapter_size,
    adapter_vector,
    attach_adapter,
    count_modules,
    save_adapter,
    set_adapter_vector,
    trained_parameters,
)
from tests.training import tiny

EVERY = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def adapted(folder: Path, **changes: Any) -> Any:
    base, _ = load_base(folder, model_files(folder))
    return attach_adapter(base, tiny.adapter_of(**changes))


def factors(model: Any, letter: str) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if f"lora_{letter}" in name}


# ---- the starting point


def test_ffa_trains_b_and_freezes_a(folder: Path) -> None:
    model = adapted(folder)
    assert all(not parameter.requires_grad for parameter in factors(model, "A").values())
    assert trained_parameters(model) == [parameter for _, parameter in sorted(factors(model, "B").items())]
    assert adapter_size(model) == 2 * 2 * (32 + 16)  # layers, rank, outputs of q and v


def test_plain_lora_trains_both(folder: Path) -> None:
    model = adapted(folder, method="lora")
    assert adapter_size(model) == 2 * 2 * (32 + 16) + 4 * 2 * 32
    assert [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and "lora_" not in name
    ] == []


def test_b_starts_at_zero_so_that_the_adapter_does_nothing_yet(folder: Path) -> None:
    model, ids = adapted(folder), torch.tensor([[5, 6, 7]])
    assert not any(parameter.any() for parameter in factors(model, "B").values())
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, Qwen3ForCausalLM.from_pretrained(folder)(input_ids=ids).logits)


def test_a_is_the_same_at_all_members_whatever_their_generator_is_doing(folder: Path) -> None:
    torch.manual_seed(1)
    one = factors(adapted(folder), "A")
    torch.manual_seed(2)
    torch.rand(100)
    other = factors(adapted(folder, method="lora"), "A")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_depends_on_seed_and_name_and_not_on_which_modules_are_beside_it(folder: Path) -> None:
    base = factors(adapted(folder), "A")
    seeds = factors(adapted(folder, public_seed=8), "A")
    more = factors(adapted(folder, targets=EVERY, modules=14), "A")
    assert not any(torch.equal(base[name], seeds[name]) for name in base)
    assert all(torch.equal(base[name], more[name]) for name in base)
    drawn = [tuple(parameter.flatten().tolist()) for parameter in more.values()]
    assert len(set(drawn)) == len(drawn)


def test_golden_numbers_of_a(folder: Path) -> None:
    """SHAKE-256, no library's generator: members with another version of torch get these numbers too."""
    first = factors(adapted(folder), "A")["base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"]
    label = b"fl-alliance/1|lora_A|7|base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    words = struct.unpack("<64I", hashlib.shake_256(label).digest(256))
    assert first.dtype == torch.float32
    assert first.flatten().tolist() == [to_float32(((w + 0.5) / 2**31 - 1) / 32**0.5) for w in words]
    assert first[0, :3].tolist() == [-0.0909130796790123, 0.09088235348463058, 0.11702292412519455]


def to_float32(number: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def test_a_is_spread_as_kaiming_s_start_is(folder: Path) -> None:
    drawn = torch.cat([part.flatten() for part in factors(adapted(folder, rank=64), "A").values()]).double()
    bound = 1 / 32**0.5  # one over the root of the inputs
    assert float(drawn.abs().max()) <= bound
    assert float(drawn.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert abs(float(drawn.mean())) < 0.05 * bound


def test_the_mean_of_ffa_updates_is_the_update_of_the_mean(folder: Path) -> None:
    """What FFA is for: with A frozen, the average of the members' models is the model of their average."""
    model = adapted(folder)
    a, b = (next(iter(factors(model, letter).values())) for letter in "AB")
    one, other = torch.randn_like(b), torch.randn_like(b)
    assert torch.allclose((one @ a + other @ a) / 2, (one + other) / 2 @ a, atol=1e-6)


@pytest.mark.parametrize("modules", [3, 5])
def test_another_number_of_modules_is_refused(folder: Path, modules: int) -> None:
    with pytest.raises(BadPlan, match=rf"targets q_proj, v_proj hit 4 modules, the plan says {modules}"):
        adapted(folder, modules=modules)


@pytest.mark.parametrize(
    "target", ["in_proj_qkv", "self_attn", "q_norm", "all-linear", r".*q_proj", "self_attn.q_proj"]
)
def test_a_target_that_is_not_the_name_of_a_linear_module_is_refused(folder: Path, target: str) -> None:
    """A skipped mixer, a whole block, a norm, and what peft reads as a pattern."""
    with pytest.raises(BadPlan, match=r"adapter target .*: qwen3 has down_proj"):
        adapted(folder, targets=(target,), modules=1)


def test_every_counted_module_has_an_adapter_and_no_other(folder: Path) -> None:
    model = adapted(folder, targets=EVERY, modules=14)
    assert len(factors(model, "A")) == len(factors(model, "B")) == 14
    base, _ = load_base(folder, model_files(folder))
    assert count_modules(base, EVERY) == 14
    assert not [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]


# ---- the vector


def test_the_vector_is_the_parameters_sorted_by_name(folder: Path) -> None:
    """By name, not in the order in which a version of transformers happens to define its modules."""
    model = adapted(folder, targets=("k_proj", "q_proj", "up_proj"), modules=6)
    names = [
        f"base_model.model.model.layers.{layer}.{module}.lora_B.default.weight"
        for layer in (0, 1)
        for module in ("mlp.up_proj", "self_attn.k_proj", "self_attn.q_proj")
    ]
    with torch.no_grad():
        for place, name in enumerate(names):
            factors(model, "B")[name].fill_(place)
    sizes = [48 * 2, 16 * 2, 32 * 2] * 2
    assert adapter_vector(model).tolist() == [place for place, size in enumerate(sizes) for _ in range(size)]


def test_a_vector_of_float32_values_comes_back_exactly(folder: Path) -> None:
    model = adapted(folder)
    vector = np.random.default_rng(1).normal(size=adapter_size(model)).astype(np.float32).astype(np.float64)
    set_adapter_vector(model, vector)
    assert adapter_vector(model).dtype == np.float64
    assert np.array_equal(adapter_vector(model), vector)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda vector: vector[:-1], "has shape"),
        (lambda vector: vector[None], "has shape"),
        (lambda vector: np.where(np.arange(len(vector)) == 9, np.nan, vector), "not finite"),
        (lambda vector: np.where(np.arange(len(vector)) == 9, np.inf, vector), "not finite"),
        (lambda vector: np.where(np.arange(len(vector)) == 9, 1e39, vector), "not finite"),
    ],
    ids=["short", "two-dimensional", "nan", "infinite", "beyond-float32"],
)
def test_a_vector_that_does_not_fit_is_refused_and_changes_nothing(folder: Path, spoil: Any, expected: str) -> None:
    model = adapted(folder)
    before = adapter_vector(model)
    with pytest.raises(BadPlan, match=expected):
        set_adapter_vector(model, spoil(before + 1))
    assert np.array_equal(adapter_vector(model), before)


# ---- the folder


def saved(folder: Path, target: Path, **changes: Any) -> Path:
    model = adapted(folder, **changes)
    set_adapter_vector(model, tiny.somewhere(adapter_size(model)))
    save_adapter(model, target)
    return target


def test_the_digest_is_the_same_at_two_members_and_of_another_vector_another(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = adapter_digest(saved(folder, tmp_path / "one"))
    torch.manual_seed(2)
    assert adapter_digest(saved(folder, tmp_path / "deep" / "two")) == one
    assert adapter_digest(saved(folder, tmp_path / "three", public_seed=8)) != one
    model = adapted(folder)
    vector = tiny.somewhere(adapter_size(model))
    vector[0] += 1e-3
    set_adapter_vector(model, vector)
    save_adapter(model, tmp_path / "four")
    assert adapter_digest(tmp_path / "four") != one


def test_the_digest_is_of_every_byte_of_the_adapter_and_of_nothing_beside_it(folder: Path, tmp_path: Path) -> None:
    target = saved(folder, tmp_path / "one")
    digests = {adapter_digest(target)}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (target / name).write_bytes((target / name).read_bytes() + b" ")
        digests.add(adapter_digest(target))
    assert len(digests) == 3
    (target / "README.md").write_text("a card of one institution")
    assert adapter_digest(target) in digests
    mine = [target / "adapter_config.json", target / "adapter_model.safetensors"]
    lines = [f"{digest_of(path.read_bytes())} {path.name}\n" for path in mine]
    assert adapter_digest(target) == digest_of("".join(lines).encode())


@pytest.mark.parametrize("method", ["ffa-lora", "lora"])
def test_peft_loads_the_folder_and_the_model_is_ours(folder: Path, tmp_path: Path, method: str) -> None:
    target = saved(folder, tmp_path / "adapter", method=method)
    assert sorted(path.name for path in target.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    loaded = PeftModel.from_pretrained(Qwen3ForCausalLM.from_pretrained(folder), target).eval()
    model, ids = adapted(folder, method=method), torch.tensor([[5, 6, 7, 900]])
    set_adapter_vector(model, tiny.somewhere(adapter_size(model)))
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits, atol=1e-5)


def test_the_config_names_no_path_and_no_member(folder: Path, tmp_path: Path) -> None:
    config = json.loads((saved(folder, tmp_path / "adapter") / "adapter_config.json").read_text())
    assert config == {
        "base_model_name_or_path": "", "bias": "none", "inference_mode": True, "lora_alpha": 8, "lora_dropout": 0.0,
        "peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
    }  # fmt: skip


def test_an_adapter_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    target = saved(folder, tmp_path / "adapter")
    before = adapter_digest(target)
    with pytest.raises(StoreFailed, match="adapter exists already"):
        save_adapter(adapted(folder), target)
    assert adapter_digest(target) == before


def test_a_folder_that_can_not_be_finished_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreFailed, match="adapter can't be written: No space left"):
        save_adapter(adapted(folder), tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_digest_of_no_folder_and_of_half_an_adapter(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="none can't be read"):
        adapter_digest(tmp_path / "none")
    (saved(folder, tmp_path / "adapter") / "adapter_config.json").unlink()
    with pytest.raises(StoreFailed, match="adapter can't be read"):
        adapter_digest(tmp_path / "adapter")
