"""The model folder: exactly the plan's files, nothing that runs code, nothing that leads elsewhere."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_alliance.errors import BadModel
from fl_alliance.training import base
from fl_alliance.training.base import check_model, load_base, model_files
from fl_alliance.training.model import save_adapter
from fl_alliance.training.session import TrainingSession
from tests.training import tiny


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add_weights_as_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def only_weights_as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    add_weights_as_pickle(folder)


def pickle_with_another_name(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))


def link_a_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.rename(folder.parent / "outside.safetensors")
    path.symlink_to(folder.parent / "outside.safetensors")


REFUSED_ALWAYS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickle beside": (add_weights_as_pickle, r"pytorch_model.bin can hold code"),
    "pickle alone": (only_weights_as_pickle, r"pytorch_model.bin can hold code"),
    "checkpoint": (lambda folder: (folder / "weights.PT").touch(), r"weights.PT can hold code"),
    "python": (lambda folder: (folder / "modeling_qwen.py").write_text("1/0"), r"modeling_qwen.py can hold code"),
    "no suffix": (lambda folder: (folder / "LICENSE").touch(), r"LICENSE can hold code or is of no use"),
    "subfolder": (lambda folder: (folder / "deep").mkdir(), r"deep is not a plain file"),
    "link": (link_a_file, r"model.safetensors is a symbolic link"),
    "dangling link": (lambda folder: (folder / "a.json").symlink_to("none"), r"a.json is a symbolic link"),
    "link to a folder": (lambda folder: (folder / "a.json").symlink_to(folder), r"a.json is a symbolic link"),
    "pipe": (lambda folder: os.mkfifo(folder / "a.json"), r"a.json is not a plain file"),
    "odd name": (lambda folder: (folder / "a b.json").write_text("{}"), r"'a b.json' is not a name"),
    "adapter": (
        lambda folder: (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "../other"}'),
        r"adapter_config.json: the folder holds an adapter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_ALWAYS)
def test_what_no_plan_can_allow(copy: Path, name: str) -> None:
    """Refused when a plan is made of the folder, and when a folder is checked against a plan."""
    files = model_files(copy)
    spoil, expected = REFUSED_ALWAYS[name]
    spoil(copy)
    for act in (lambda: model_files(copy), lambda: check_model(copy, files), lambda: load_base(copy, files)):
        with pytest.raises(BadModel, match=expected):
            act()
    assert not Path("exploded").exists()


def test_an_adapter_in_the_folder_would_be_loaded_unsaid(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why it is refused: without the refusal, there is an adapter under the one that is trained."""
    save_adapter(tiny.plain_model(folder), copy.parent / "adapter")
    shutil.copytree(copy.parent / "adapter", copy, dirs_exist_ok=True)
    with pytest.raises(BadModel, match=r"adapter_config.json: the folder holds an adapter"):
        load_base(copy, ())
    monkeypatch.setattr(base, "ADAPTER", "")
    model, _ = load_base(copy, model_files(copy))
    assert [name for name, _ in model.named_parameters() if "lora_B" in name]


REFUSED_BY_PLAN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda folder: (folder / "config.json").unlink(), r"config.json is in the plan and not in the folder"),
    "extra": (lambda folder: (folder / "notes.md").touch(), r"notes.md is in the folder model and not in the plan"),
    "changed": (
        lambda folder: change_json(folder / "config.json", hidden_act="relu"),
        r"config.json has digest sha256:[0-9a-f]{64}, the plan says sha256:[0-9a-f]{64}",
    ),
    "pickle with another name": (pickle_with_another_name, r"model.safetensors has digest"),
}


@pytest.mark.parametrize("name", REFUSED_BY_PLAN)
def test_a_folder_that_is_not_the_plan_s(copy: Path, name: str) -> None:
    files = model_files(copy)
    spoil, expected = REFUSED_BY_PLAN[name]
    spoil(copy)
    with pytest.raises(BadModel, match=expected):
        check_model(copy, files)
    with pytest.raises(BadModel, match=expected):
        load_base(copy, files)


def test_one_flipped_bit_of_the_weights_is_seen(copy: Path) -> None:
    files = model_files(copy)
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (copy / "model.safetensors").write_bytes(raw)
    with pytest.raises(BadModel, match=r"model.safetensors has digest"):
        check_model(copy, files)


REFUSED_CONTENT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another architecture": (
        lambda folder: change_json(folder / "config.json", model_type="qwen3_next"),
        r"model_type 'qwen3_next'; known are qwen2, qwen3, qwen3_5, qwen3_5_text",
    ),
    "no architecture": (lambda folder: (folder / "config.json").write_text("[]"), r"model_type None"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"model has no config.json"),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config.json is not JSON"),
    "config too deep": (lambda folder: (folder / "x.json").write_text("[" * 200_000), r"x.json is not JSON"),
    "own model code": (
        lambda folder: change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"}),
        r"config.json has auto_map",
    ),
    "own tokenizer code": (
        lambda folder: change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tok", None]}),
        r"tokenizer_config.json has auto_map",
    ),
    "pickle in a safetensors file": (pickle_with_another_name, r"model can't be loaded: \w+"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"model can't be loaded: OSError"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"model can't be loaded"),
    "wrong shape": (lambda folder: change_json(folder / "config.json", hidden_size=64), r"model can't be loaded"),
}


@pytest.mark.parametrize("name", REFUSED_CONTENT)
def test_a_folder_that_is_the_plan_s_and_still_no_good(copy: Path, name: str) -> None:
    REFUSED_CONTENT[name][0](copy)
    with pytest.raises(BadModel, match=REFUSED_CONTENT[name][1]):
        load_base(copy, model_files(copy))
    assert not Path("exploded").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_before_a_record_meets_it(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 4096, "content": "<|one-more|>"})
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadModel, match="the tokenizer has 4097 tokens, the model 4096"):
        load_base(copy, model_files(copy))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="none is not a folder"):
        model_files(tmp_path / "none")


def test_an_honest_folder_loads_frozen_in_float32(folder: Path) -> None:
    files = model_files(folder)
    assert [file.name for file in files] == sorted(path.name for path in folder.iterdir())
    model, tokenizer = load_base(folder, files)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert tokenizer.is_fast


def test_a_session_checks_the_folder(copy: Path) -> None:
    plan = tiny.plan_of(copy)
    (copy / "extra.md").touch()
    with pytest.raises(BadModel, match=r"extra.md is in the folder"):
        TrainingSession(copy, plan, "lagos")


def test_hubs_are_out_of_reach() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
