"""Which Linear modules an adapter may sit on, by model type, so that no mixer of a hybrid is left out in silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import nn

from fl_alliance.errors import BadPlan

_ATTENTION: Final = ("k_proj", "o_proj", "q_proj", "v_proj")
_MLP: Final = ("down_proj", "gate_proj", "up_proj")
_DELTA_NET: Final = ("in_proj_a", "in_proj_b", "in_proj_qkv", "in_proj_z", "out_proj")

TARGETS: Final = {
    "qwen2": (*_ATTENTION, *_MLP),
    "qwen3": (*_ATTENTION, *_MLP),
    "qwen3_5": (*_ATTENTION, *_DELTA_NET, *_MLP),
    "qwen3_5_text": (*_ATTENTION, *_DELTA_NET, *_MLP),
}
"""Every Linear module of a decoder layer, by `model_type`. In Qwen3.5 three mixers in four are Gated DeltaNets (Yang et
al. 2025): a list for plain attention hits none of them, and PEFT says nothing. Mixtures of experts keep theirs in plain
parameters, which LoRA can't adapt."""

_MIXERS: Final = {"linear_attn": _DELTA_NET, "self_attn": _ATTENTION}


def check_targets(model: Any, targets: Sequence[str]) -> None:
    """Return if each of `targets` is a module that `model` may have adapted, and no kind of mixer is left out.

    Raises:
        BadPlan: names the target and the ones that there are, or the mixer that would be skipped and its layers.
    """
    known = TARGETS[model.config.model_type]
    for target in targets:
        if target not in known:
            raise BadPlan(f"adapter target {target}: {model.config.model_type} has {', '.join(sorted(known))}")
    layers = {mixer: _layers_with(model, mixer) for mixer in _MIXERS}
    hit = [mixer for mixer, names in _MIXERS.items() if layers[mixer] and set(names) & set(targets)]
    for mixer, count in layers.items():
        if hit and count and mixer not in hit:
            raise BadPlan(
                f"adapter targets {', '.join(targets)} hit {', '.join(hit)} and skip {mixer}, the mixer of {count} "
                f"layers: add some of {', '.join(_MIXERS[mixer])}"
            )


def _layers_with(model: nn.Module, mixer: str) -> int:
    return sum(name.endswith(f".{mixer}") for name, _ in model.named_modules())
