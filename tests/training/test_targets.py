"""Adapter targets by model type: every mixer of a hybrid is adapted, or the plan is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

from fl_alliance.errors import BadPlan
from fl_alliance.training.base import load_base, model_files
from fl_alliance.training.encode import encode_units
from fl_alliance.training.model import attach_adapter, count_modules
from fl_alliance.training.targets import TARGETS
from tests.training import tiny

PLAIN = TARGETS["qwen3"]
HYBRID = tuple(sorted(TARGETS["qwen3_5_text"]))
DELTA_NET = ("in_proj_a", "in_proj_b", "in_proj_qkv", "in_proj_z", "out_proj")
MODULES = 4 * 3 + 1 * 4 + 3 * 5
"""Of four layers: an MLP in each, attention in the last, Gated DeltaNets in the first three."""


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hybrid")
    config = Qwen3_5TextConfig(
        vocab_size=4096, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
        linear_value_head_dim=8, max_position_embeddings=512, initializer_range=0.2, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    Qwen3_5ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny.DEMO / name, folder / name)
    return folder


@pytest.fixture
def strict_arithmetic() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_list_of_each_type_is_every_linear_module_of_its_layers(folder: Path, hybrid: Path) -> None:
    for where in (folder, hybrid):
        base, _ = load_base(where, model_files(where))
        names = {n.rsplit(".", 1)[-1] for n, part in base.named_modules() if isinstance(part, nn.Linear)} - {"lm_head"}
        assert names == set(TARGETS[json.loads((where / "config.json").read_text())["model_type"]])


def test_a_list_for_plain_attention_is_refused_on_a_hybrid(hybrid: Path) -> None:
    """PEFT takes it and adapts the mixer of one layer in four."""
    base, _ = load_base(hybrid, model_files(hybrid))
    plan = tiny.adapter_of(targets=tuple(sorted(PLAIN)), modules=count_modules(base, PLAIN))
    with pytest.raises(
        BadPlan, match=r"hit self_attn and skip linear_attn, the mixer of 3 layers: add some of in_proj"
    ):
        attach_adapter(base, plan)


def test_a_list_for_the_delta_net_alone_is_refused_too(hybrid: Path) -> None:
    base, _ = load_base(hybrid, model_files(hybrid))
    with pytest.raises(BadPlan, match=r"hit linear_attn and skip self_attn, the mixer of 1 layers"):
        attach_adapter(base, tiny.adapter_of(targets=DELTA_NET, modules=15))


def test_the_mlps_alone_skip_no_mixer_of_a_kind(hybrid: Path) -> None:
    base, _ = load_base(hybrid, model_files(hybrid))
    attach_adapter(base, tiny.adapter_of(targets=("down_proj", "up_proj"), modules=8))


def test_a_target_that_the_type_does_not_have_is_refused(folder: Path) -> None:
    base, _ = load_base(folder, model_files(folder))
    with pytest.raises(BadPlan, match=r"adapter target in_proj_z: qwen3 has down_proj, gate_proj, k_proj"):
        attach_adapter(base, tiny.adapter_of(targets=("in_proj_z", "q_proj"), modules=2))


def test_a_hybrid_s_units_are_clipped_as_a_plain_loop_clips_them(hybrid: Path, strict_arithmetic: None) -> None:
    """Recurrent state and short convolutions keep no memory from one record to another, right padding included."""
    adapter = {"targets": HYBRID, "modules": MODULES}
    fields = {"sampling_rate": "1", "noise_multiplier": tiny.NO_NOISE, "clip_norm": "0.5", "steps_per_round": 1}
    session = tiny.session_of(hybrid, adapter=adapter, **fields)
    records = tiny.records_with([2, 1, 3])
    update = session.train_round(records).update
    model = tiny.plain_model(hybrid, tiny.adapter_of(**adapter))
    total = torch.zeros(len(update), dtype=torch.float64)
    for unit in encode_units(session.tokenizer, records, 64):
        gradient = tiny.plain_gradient(model, unit)
        total += gradient * min(1.0, 0.5 / (float(gradient.norm()) * 1.001))
    expected = -total.numpy() / 1000
    assert np.abs(update - expected).max() < 1e-4 * np.abs(expected).max()
