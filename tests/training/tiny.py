"""A Qwen3 of two layers with random weights and the demo's tokenizer, plans over it, and plain gradients to compare."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from fl_alliance.protocol.plan import AdapterPlan, Member, OptimizerPlan, PrivacyPlan, SumPlan, TrainingPlan
from fl_alliance.training.base import load_base, model_files
from fl_alliance.training.batches import Performance
from fl_alliance.training.encode import Encoded
from fl_alliance.training.model import attach_adapter, set_adapter_vector, trained_parameters
from fl_alliance.training.records import Records, Turn, records_of
from fl_alliance.training.session import TrainingSession

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "model"
NO_NOISE = "0.000000000000000001"
"""The smallest noise multiplier that a plan can hold: far below float32."""
SENTENCE = "a small bone of the inner ear that carries sound from the drum to the nerve in most animals"
WORDS = SENTENCE.split()


def make_folder(folder: Path, *, tied: bool = False, seed: int = 0) -> Path:
    """Write the model. Its weights are larger than at a usual start, so that gradients are not all alike."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=4096, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=512, tie_word_embeddings=tied,
        initializer_range=0.2, pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, folder / name)
    return folder


def adapter_of(**changes: Any) -> AdapterPlan:
    fields: dict[str, Any] = {"rank": 2, "alpha": 8, "targets": ("q_proj", "v_proj"), "modules": 4, "public_seed": 7}
    return AdapterPlan(**(fields | changes))


def plan_of(folder: Path, *, adapter: dict[str, Any] | None = None, **changes: Any) -> TrainingPlan:
    """Return a plan over `folder`; `changes` are fields of the plan or of its privacy part."""
    privacy = {
        "unit": "patient", "clip_norm": "1", "noise_multiplier": "4", "sampling_rate": "0.5", "steps_per_round": 3,
        "records_per_unit": 4, "delta": "0.00001", "epsilon_cap": "8",
    }  # fmt: skip
    privacy |= {name: changes.pop(name) for name in list(changes) if name in PrivacyPlan.model_fields}
    fields: dict[str, Any] = {
        "alliance": "clinics", "job": "job-1", "rounds": 2, "threshold": 2, "quorum": 2,
        "members": tuple(Member(name=name, declared_units=1000) for name in ("berlin", "lagos", "lima")),
        "model": model_files(folder),
        "adapter": adapter_of(**(adapter or {})),
        "optimizer": OptimizerPlan(name="sgd", learning_rate="1"),
        "privacy": PrivacyPlan(**privacy),
        "sum": SumPlan(coordinate_clip="0.5"),
        "max_tokens": 64,
    }  # fmt: skip
    return TrainingPlan(**(fields | changes))


def session_of(folder: Path, performance: Performance | None = None, **changes: Any) -> TrainingSession:
    """Return a session whose global adapter is not the starting point: at B = 0 some gradients vanish."""
    session = TrainingSession(folder, plan_of(folder, **changes), "lagos", performance)
    session.restore(somewhere(len(session.vector)))
    return session


def somewhere(size: int) -> Any:
    return np.random.default_rng(5).normal(scale=0.3, size=size)


def dialogue(words: int, place: int = 0) -> tuple[Turn, ...]:
    answer = " ".join(WORDS[(place + step) % len(WORDS)] for step in range(words))
    return (Turn("user", f"Define: {WORDS[place % len(WORDS)]}"), Turn("assistant", answer))


def records_with(sizes: Sequence[int]) -> Records:
    """Return one unit for each of `sizes`, with so many records, of many lengths."""
    units = {
        f"unit-{place}": [dialogue(1 + (5 * place + 3 * k) % 11, place + k) for k in range(size)]
        for place, size in enumerate(sizes)
    }
    return records_of(units)


def plain_model(folder: Path, adapter: AdapterPlan | None = None) -> Any:
    """Return the same model as `session_of` has, without hooks."""
    base, _ = load_base(folder, model_files(folder))
    model = attach_adapter(base, adapter or adapter_of())
    set_adapter_vector(model, somewhere(sum(parameter.numel() for parameter in trained_parameters(model))))
    return model


def plain_gradient(model: Any, unit: Sequence[Encoded]) -> torch.Tensor:
    """Return a unit's gradient (d,) in float64 by autograd: one record at a time, no padding, the model's own head."""
    total = torch.zeros(sum(parameter.numel() for parameter in trained_parameters(model)), dtype=torch.float64)
    for record in unit:
        logits = model(input_ids=torch.tensor([record.ids]), use_cache=False).logits[0, :-1]
        loss = functional.cross_entropy(logits, torch.tensor(record.labels[1:]), ignore_index=-100)
        parts = torch.autograd.grad(loss, trained_parameters(model))
        total += torch.cat([part.flatten() for part in parts]).double()
    return total
