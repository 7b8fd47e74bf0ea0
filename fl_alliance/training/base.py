"""The base model's folder: what may be in it, what must be in it, and how it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from fl_alliance.errors import BadModel
from fl_alliance.protocol.plan import ModelFile
from fl_alliance.training.targets import TARGETS

ALLOWED_SUFFIXES = (".json", ".safetensors", ".jinja", ".txt", ".md", ".model")
"""None of them can hold code. Pickle files (.bin, .pt, .pth, .pkl, .ckpt) can: they run when they are opened."""

ADAPTER = "adapter_config.json"
"""transformers puts the adapter that it describes into the base, without a word."""


def model_files(folder: Path) -> tuple[ModelFile, ...]:
    """Return the name and digest of each file of `folder`, sorted by name.

    Raises:
        BadModel: there is no such folder, or it holds a subfolder, a link or a file that has no business there.
    """
    if not folder.is_dir():
        raise BadModel(f"{folder.name} is not a folder")
    return tuple(_model_file(path) for path in sorted(folder.iterdir(), key=lambda path: path.name))


def _model_file(path: Path) -> ModelFile:
    if path.is_symlink():
        raise BadModel(f"{path.name} is a symbolic link: copy the file itself (cp -L)")
    if not path.is_file():
        raise BadModel(f"{path.name} is not a plain file: a model folder has no subfolders")
    if path.name == ADAPTER:
        raise BadModel(f"{path.name}: the folder holds an adapter, which would be loaded into the base: merge it first")
    if path.suffix.lower() not in ALLOWED_SUFFIXES:
        raise BadModel(f"{path.name} can hold code or is of no use; allowed are {', '.join(ALLOWED_SUFFIXES)}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        return ModelFile(name=path.name, digest="sha256:" + digest)
    except ValidationError as error:
        raise BadModel(f"{path.name!r} is not a name that a plan can hold") from error


def check_model(folder: Path, files: Sequence[ModelFile]) -> None:
    """Refuse `folder` unless it holds exactly `files`, none of which runs code, and an architecture we know.

    Not checked: that nobody swaps a file between this call and the loading; the folder is the institution's own.

    Raises:
        BadModel: names the file, what was seen and what is right.
    """
    there = {file.name: file.digest for file in model_files(folder)}
    planned = {file.name: file.digest for file in files}
    for name in sorted(planned.keys() - there.keys()):
        raise BadModel(f"{name} is in the plan and not in the folder {folder.name}")
    for name in sorted(there.keys() - planned.keys()):
        raise BadModel(f"{name} is in the folder {folder.name} and not in the plan")
    for name, digest in planned.items():
        if there[name] != digest:
            raise BadModel(f"{name} has digest {there[name]}, the plan says {digest}")
    _check_architecture(folder)


def _check_architecture(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        content = _json(path)
        if isinstance(content, dict) and "auto_map" in content:
            raise BadModel(f"{path.name} has auto_map: it asks to run code that comes with the model")
    if not (folder / "config.json").is_file():
        raise BadModel(f"{folder.name} has no config.json")
    config = _json(folder / "config.json")
    seen = config.get("model_type") if isinstance(config, dict) else None
    if seen not in TARGETS:
        raise BadModel(f"config.json has model_type {seen!r}; known are {', '.join(TARGETS)}")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{path.name} is not JSON") from error


def load_base(folder: Path, files: Sequence[ModelFile], *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Check `folder` against `files`, then return its model (in `dtype`, frozen) and its tokenizer.

    Nothing is fetched, no code of the folder runs, only safetensors are read. Private training needs float32: in
    bfloat16, who else is in a pass moves a unit's gradient by 1 % of C (measured), beyond `dp.MARGIN`.

    Raises:
        BadModel: see `check_model`; or the files do not make a model.
    """
    check_model(folder, files)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except Exception as error:  # the loaders raise whatever they like on damaged files
        raise BadModel(f"{folder.name} can't be loaded: {type(error).__name__}: {error}") from error
    if len(tokenizer) > model.config.vocab_size:  # else it fails at the first record that has such a token
        raise BadModel(f"the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}")
    model.requires_grad_(False)
    return model, tokenizer
