"""One tiny model for the whole folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from fl_alliance.training.process import prepare_process
from tests.training import tiny

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")  # a busy machine is no fault of the code


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny matrices gain nothing from threads, and a second test run on the machine loses."""
    torch.set_num_threads(1)
    prepare_process()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder. Read only: a test that changes it copies it first."""
    return tiny.make_folder(tmp_path_factory.mktemp("tiny") / "model")
