"""The systemd units: what they start exists, what a service may touch is closed, systemd itself finds nothing wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fl_alliance.cli import app

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = ("fl-alliance-coordinator.service", "fl-alliance-institution@.service")
HARDENED = {
    "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "", "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes",
    "ProtectControlGroups": "yes", "RestrictNamespaces": "yes", "RestrictSUIDSGID": "yes", "LockPersonality": "yes",
    "DevicePolicy": "closed", "LimitCORE": "0", "UMask": "0077", "User": "fl-alliance",
}  # fmt: skip
TOO_NEW = re.compile(r"Unknown key '(RestartSteps|RestartMaxDelaySec)' in section \[Service\], ignoring")


def settings(name: str) -> dict[str, list[str]]:
    """Every key of a unit with its values, in order; systemd allows a key more than once."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line
            continue
        key, equals, value = line.partition("=")
        assert (section, equals) != ("", ""), line
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_service_may_write_its_own_folder_and_nothing_else(name: str) -> None:
    unit = settings(name)
    for key, value in HARDENED.items():
        assert unit[key] == [value], key
    assert unit["ReadWritePaths"] == unit["WorkingDirectory"]
    assert unit["ReadWritePaths"][0].startswith("/var/lib/fl-alliance/")
    assert set(unit["RestrictAddressFamilies"][0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}


@pytest.mark.parametrize("name", NAMES)
def test_a_service_comes_back_after_a_failure_and_not_after_a_stop(name: str) -> None:
    unit = settings(name)
    assert unit["Restart"] == ["on-failure"]
    assert int(unit["RestartSec"][0]) >= 5
    assert (unit["KillSignal"], unit["KillMode"]) == (["SIGTERM"], ["mixed"])
    assert unit["WantedBy"] == ["multi-user.target"]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_that_a_unit_starts_is_there_with_its_options(name: str) -> None:
    program, party, verb, _, *options = settings(name)["ExecStart"][0].split()
    assert program.endswith("/bin/fl-alliance")
    shown = CliRunner().invoke(app, [party, verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert [option for option in options if option.startswith("--") and option not in shown.output] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    """The program of a copy is one that exists; what only a newer systemd knows may be unknown here."""
    copy = tmp_path / name.replace("@.", "@clinic.")
    copy.write_text((UNITS / name).read_text().replace("/opt/fl-alliance/bin/fl-alliance", shutil.which("true") or ""))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line and not TOO_NEW.search(line)]
    assert (done.returncode, said) == (0, [])
