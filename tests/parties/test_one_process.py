"""One process serves a party's folder: a second one is told so before it calls, listens or trains."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance.errors import BadConfig
from fl_alliance.parties import wiring
from fl_alliance.parties.files import only_process
from tests.parties.conftest import Alliance

Build = Callable[..., Alliance]
HOLDER = """
import sys
from pathlib import Path
from fl_alliance.parties.files import only_process
with only_process(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_institution_on_the_same_folder_is_refused(build: Build) -> None:
    home = build(rounds=1).home("clinic")
    said: list[str] = []
    with only_process(home), pytest.raises(BadConfig, match="another process serves this folder; end that one first"):
        wiring.run_institution(home, keep_going=lambda: True, tell=said.append)
    assert said == []


def test_a_second_coordinator_on_the_same_folder_is_refused(build: Build) -> None:
    alliance = build(rounds=1)
    said: list[str] = []
    with only_process(alliance.home("coordinator")), pytest.raises(BadConfig, match="another process serves"):
        wiring.run_coordinator(alliance.home("coordinator"), alliance.plan.job, tell=said.append)
    assert said == []


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BadConfig, match="another process"), only_process(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with only_process(tmp_path), pytest.raises(BadConfig, match="another process"), only_process(tmp_path):
        pass


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(BadConfig, match=r"absent: can't be served \(No such file or directory\)"),
        only_process(tmp_path / "absent"),
    ):
        pass
