"""The LoRA adapter: attached, read and written as one vector, saved as a standard PEFT folder.

With FFA-LoRA (Sun et al. 2024), A is frozen at a public draw and B is trained, so that the mean of the members'
updates is the update of the mean: mean(B A) = mean(B) A.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from fl_alliance.errors import BadPlan, StoreFailed
from fl_alliance.evidence.adapter import adapter_digest
from fl_alliance.protocol.plan import AdapterPlan
from fl_alliance.training.base import check_model, load_base, model_files
from fl_alliance.training.targets import check_targets

__all__ = [
    "adapter_digest",
    "adapter_size",
    "adapter_vector",
    "attach_adapter",
    "check_model",
    "count_modules",
    "load_base",
    "model_files",
    "save_adapter",
    "set_adapter_vector",
    "set_weights",
    "trained_parameters",
]


def count_modules(model: nn.Module, targets: tuple[str, ...]) -> int:
    """Return how many Linear modules of `model` the names `targets` hit; what `AdapterPlan.modules` must say."""
    return sum(
        isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in targets for name, module in model.named_modules()
    )


def attach_adapter(model: Any, plan: AdapterPlan) -> Any:
    """Return the PEFT model: `model` (frozen) with a LoRA adapter at its public starting point, in train mode.

    A is drawn from `plan.public_seed` and the module's name alone: every institution has the same, whatever the order
    of modules, the version of torch and the state of its generator. B is 0. With `ffa-lora` only B is trained.

    Raises:
        BadPlan: `check_targets` refuses them, or the targets hit another number of modules.
    """
    check_targets(model, plan.targets)
    if (found := count_modules(model, plan.targets)) != plan.modules:
        raise BadPlan(f"targets {', '.join(plan.targets)} hit {found} modules, the plan says {plan.modules}")
    config = LoraConfig(
        r=plan.rank, lora_alpha=plan.alpha, lora_dropout=0.0, target_modules=list(plan.targets), task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            parameter.data = _public_draw(plan.public_seed, name, parameter.shape)
            parameter.requires_grad_(plan.method == "lora")
        elif "lora_B" in name:
            parameter.data = torch.zeros(parameter.shape, dtype=torch.float32)
    return adapted.train()


def _public_draw(seed: int, name: str, shape: torch.Size) -> Tensor:
    """Return uniform numbers in +-1/sqrt(inputs), as Kaiming's start of LoRA, that depend on seed and name only.

    SHAKE-256 of the label, 32 bits each, in float64 until the last rounding: no library's generator has a say, since
    none promises the same numbers in its next version, and members that differ in A sum what does not belong together.
    """
    label = f"fl-alliance/1|lora_A|{seed}|{name.replace('.default.', '.')}"
    words = np.frombuffer(hashlib.shake_256(label.encode()).digest(4 * shape.numel()), dtype="<u4")
    drawn = ((words + 0.5) * 2.0**-31 - 1.0) / math.sqrt(shape[-1])
    return torch.from_numpy(drawn.astype(np.float32)).view(shape)


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained, sorted by name: the order of the vector."""
    return [parameter for _, parameter in sorted(model.named_parameters()) if parameter.requires_grad]


def adapter_size(model: nn.Module) -> int:
    """Return d, the number of trained coordinates."""
    return sum(parameter.numel() for parameter in trained_parameters(model))


def adapter_vector(model: nn.Module) -> NDArray[np.float64]:
    """Return the trained parameters as one vector (d,), sorted by name. float32 values, exactly, in float64."""
    parts = [parameter.detach().reshape(-1).cpu().double().numpy() for parameter in trained_parameters(model)]
    return np.concatenate(parts)


def set_adapter_vector(model: nn.Module, vector: NDArray[np.float64]) -> None:
    """Write `vector` (d,) into the trained parameters, rounded to float32.

    Raises:
        BadPlan: it has another length, or a coordinate that is not finite. Nothing has changed then.
    """
    parameters = trained_parameters(model)
    size = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (size,):
        raise BadPlan(f"adapter vector has shape {vector.shape}, the plan's adapter needs ({size},)")
    with np.errstate(over="ignore"):
        rounded = torch.from_numpy(vector.astype(np.float32))
    if not torch.isfinite(rounded).all():
        raise BadPlan("adapter vector has a coordinate that is not finite, or not in float32")
    set_weights(model, rounded)


def set_weights(model: nn.Module, weights: Tensor) -> None:
    """Write `weights` (d,) into the trained parameters, rounded to float32, whatever they are."""
    parameters = trained_parameters(model)
    parts = torch.split(weights, [parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as a PEFT folder that any PEFT program loads: adapter_config.json, adapter_model.safetensors.

    The same vector gives the same bytes at every institution: no path, time or version of a library is in them.
    The folder appears whole or not at all.

    Raises:
        StoreFailed: `folder` exists already, or the disk refuses.
    """
    if folder.exists():
        raise StoreFailed(f"{folder.name} exists already: an adapter is never overwritten")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=".half-", dir=folder.parent))
        try:
            _write_files(model, half)
            half.chmod(0o755)
            half.rename(folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    except OSError as error:
        raise StoreFailed(f"{folder.name} can't be written: {error.strerror}") from error


def _write_files(model: Any, folder: Path) -> None:
    config = model.peft_config["default"]
    content = {
        "base_model_name_or_path": "",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": config.r,
        "target_modules": sorted(config.target_modules),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    state = get_peft_model_state_dict(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    (folder / "adapter_model.safetensors").write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
