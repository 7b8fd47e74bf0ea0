"""The doctor on the machine: libraries of other versions, GPUs and settings that don't fit, and a whole dry run."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from fl_alliance import cli
from fl_alliance.errors import BadConfig
from fl_alliance.parties.doctor import dry_run, examine_by_dry_run, examine_institution, machine
from fl_alliance.parties.doctor.finding import Finding
from fl_alliance.training import devices
from fl_alliance.training.devices import Gpu
from fl_alliance.training.session import TrainingSession
from tests.parties.conftest import Alliance, build_in

GIB = 2**30


def one(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


# ---- libraries


def asks(monkeypatch: pytest.MonkeyPatch, asked: list[str], installed: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(machine, "requires", lambda _: asked)
    monkeypatch.setattr(machine, "version", version)


ASKED = [
    "pydantic<2.15,>=2.11",
    'flwr==1.41.0; extra == "coordinator"',
    'fl-alliance[coordinator]; extra == "institution"',
    'torch<2.14,>=2.13; extra == "institution"',
    'pytest<10,>=9; extra == "dev"',
]
RIGHT = {"pydantic": "2.12.1", "flwr": "1.41.0", "torch": "2.13.0+cu130"}


def test_what_a_party_asks_for_is_its_extra_with_those_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asks(monkeypatch, ASKED, RIGHT)
    assert [each.name for each in machine.requirements("institution")] == ["flwr", "pydantic", "torch"]
    assert [each.name for each in machine.requirements("coordinator")] == ["flwr", "pydantic"]
    assert one(machine.versions("institution")).state == "ok"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flwr": "1.42.0"}, "flwr is 1.42.0, must be ==1.41.0"),
        ({"torch": "2.14.0"}, "torch is 2.14.0, must be <2.14,>=2.13"),
        ({"pydantic": None}, "pydantic is absent"),
    ],
)
def test_a_library_of_another_version_is_wrong(
    change: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks(monkeypatch, ASKED, {name: number for name, number in {**RIGHT, **change}.items() if number is not None})
    finding = one(machine.versions("institution"))
    assert (finding.state, finding.said) == ("wrong", said)
    assert "pip install" in finding.mend


def test_a_coordinator_is_not_asked_for_what_only_institutions_need(monkeypatch: pytest.MonkeyPatch) -> None:
    asks(monkeypatch, ASKED, {name: number for name, number in RIGHT.items() if name != "torch"})
    assert one(machine.versions("coordinator")).state == "ok"


# ---- GPU

BIG = Gpu("NVIDIA H100", free=60 * GIB, total=80 * GIB)


@pytest.mark.parametrize(
    ("found", "device", "state", "said"),
    [
        ((), "auto", "ok", 'torch sees none; device is "auto": training is on the CPU'),
        ((), "cpu", "ok", "training is on the CPU"),
        ((), "cuda", "wrong", 'torch sees none; device is "cuda"'),
        ((BIG,), "auto", "ok", "NVIDIA H100, 60.0 of 80.0 GiB free"),
        ((BIG,), "cpu", "look", 'device is "cpu", though there is NVIDIA H100'),
        ((BIG, Gpu("small", GIB, GIB)), "cuda", "look", "small, 1.0 of 1.0 GiB free"),
    ],
)
def test_gpu_and_settings_are_compared(
    found: tuple[Gpu, ...], device: str, state: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: found)
    finding = one(machine.gpu(device, 2 * GIB))
    assert finding.state == state
    assert said in finding.said


def test_a_gpu_that_is_seen_and_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", fails)
    with pytest.raises(BadConfig, match="torch sees 2 and can't use them: RuntimeError: driver too old"):
        devices.gpus()


def fails(*_: object) -> None:
    raise RuntimeError("driver too old")


# ---- dry run


@pytest.fixture(scope="module")
def alliance(tmp_path_factory: pytest.TempPathFactory) -> Alliance:
    return build_in(tmp_path_factory.mktemp("dry-run"), rounds=1)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_goes_through_the_whole_protocol_reads_no_record_and_charges_nothing(
    alliance: Alliance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, opened, trained = alliance.home("clinic"), [], []
    before = files(alliance.folder)
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        original = getattr(module, name)

        def spy(path: Any, *given: Any, original: Any = original, **named: Any) -> Any:
            opened.append(str(path))
            return original(path, *given, **named)

        monkeypatch.setattr(module, name, spy)
    train = TrainingSession.train_round
    monkeypatch.setattr(TrainingSession, "train_round", lambda *given: trained.append(given) or train(*given))
    monkeypatch.setattr(sys, "argv", ["fl-alliance", "institution", "doctor", str(home), "--dry-run"])
    with pytest.raises(SystemExit):  # nobody answers at the coordinator's address
        cli.main()
    said = capsys.readouterr().out
    assert "ok     dry run: job: one round with two made-up partners" in said
    assert "ok     dry run: audit: the evidence of it holds" in said
    assert len(trained) == 3
    assert any(path.endswith("/clinic.jsonl") and "fl-alliance-dry-run-" in path for path in opened)
    assert not [path for path in opened if path == str(alliance.folder.parent / "data" / "clinic.jsonl")]
    assert files(alliance.folder) == before
    assert not [path for path in opened if "fl-alliance-dry-run-" in path and Path(path).exists()]


def test_a_dry_run_that_fails_says_where(alliance: Alliance, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise BadConfig("device cuda: torch sees no CUDA GPU here; use auto or cpu")

    monkeypatch.setattr(TrainingSession, "__init__", fails)
    findings = list(examine_by_dry_run(alliance.home("clinic")))
    assert (findings[-1].what, findings[-1].state) == ("dry run", "wrong")
    assert "device cuda: torch sees no CUDA GPU here" in findings[-1].said


def test_a_model_that_cannot_be_used_is_replaced_by_the_demos_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, why = dry_run._model(tmp_path / "nowhere")
    assert model == dry_run.DEMO_MODEL
    assert "nowhere" in why
    assert dry_run._model(dry_run.DEMO_MODEL) == (dry_run.DEMO_MODEL, "")
    monkeypatch.setattr(dry_run, "_free_memory", lambda: 1 << 20)
    assert "MiB for three parties, 1 MiB are free" in dry_run._model(dry_run.DEMO_MODEL)[1]
    monkeypatch.setattr(dry_run, "DEMO_MODEL", tmp_path / "no demo here either")
    with pytest.raises(BadConfig, match="there is no demo model here"):
        dry_run._model(tmp_path / "nowhere")


def test_the_institutions_own_settings_are_what_is_tried(alliance: Alliance) -> None:
    home = alliance.home("clinic")
    config = dry_run.load(dry_run.InstitutionConfig, home / "institution.toml")
    config = config.model_copy(update={"threads": 3, "gradient_checkpointing": True, "metrics": "127.0.0.1:9464"})
    text = dry_run._configuration("clinic", config, Path("model"), Path("place"))
    assert "threads = 3\n" in text
    assert "gradient_checkpointing = true\n" in text
    assert "9464" not in text
    assert str(alliance.folder.parent / "data") not in text


def test_without_the_option_nothing_is_run(alliance: Alliance) -> None:
    assert not [finding for finding in examine_institution(alliance.home("clinic")) if "dry run" in finding.what]
