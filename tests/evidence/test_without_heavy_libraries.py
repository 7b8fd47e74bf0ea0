"""The auditor's machine has none of the heavy libraries: an import hook refuses them, and the audit still passes.

One byte changed in any file of the folder ends it with the file's name and the step.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fl_alliance import cli
from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.bundle import MANIFEST, check_manifest
from tests.evidence.alliance import key_of
from tests.evidence.folder import Folder
from tests.evidence.released import released

HEAVY = (
    "torch", "transformers", "peft", "opacus", "safetensors", "flwr", "grpc", "tenseal", "Crypto", "sqlalchemy",
    "structlog", "starlette", "uvicorn", "pyarrow",
)  # fmt: skip
SIGNING = ("model_signing", "sigstore", "OpenSSL")
"""An extra of its own, for released adapters only."""
HOOK = """
import atexit, sys
tried = []
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in REFUSED:
            tried.append(name)
            raise ModuleNotFoundError(f'no {name} on this machine', name=name)
sys.meta_path.insert(0, Refuse())
atexit.register(lambda: print('tried', *tried, file=sys.stderr))
"""
MAIN = "from fl_alliance.cli import main\nmain()\n"
EVERY_HELP = """
import click, typer
from fl_alliance.cli import app

def commands(command, words):
    yield words
    for name, inner in getattr(command, 'commands', {}).items():
        yield from commands(inner, [*words, name])

for words in commands(typer.main.get_command(app), []):
    assert app([*words, '--help'], standalone_mode=False) in (None, 0), words
    print('HELP', *words)
"""


def run(
    program: str, *arguments: object, absent: tuple[str, ...] = (*HEAVY, *SIGNING)
) -> subprocess.CompletedProcess[str]:
    """Run `program` under the hook; the last line on stderr says what it tried to import in vain."""
    words = [sys.executable, "-c", f"REFUSED = {absent}\n{HOOK}{program}", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folder(tmp_path_factory.mktemp("honest") / "evidence").build()


@pytest.fixture
def copy(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "evidence"))


def test_the_audit_passes_where_no_heavy_library_can_be_imported(honest: Path):
    done = run(MAIN, "audit", "verify", honest, "--root", key_of("root").keyid)
    assert done.stderr == "tried\n"
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [f"({step})" for step in range(1, 12)]
    assert lines[-1] == "the evidence holds"


def test_the_audit_also_refuses_there_by_file_and_step(copy: Path):
    flip(copy / "ledger.jsonl", 100)
    done = run(MAIN, "audit", "verify", copy)
    assert done.returncode == 10
    assert done.stderr.startswith("EvidenceRefused: step 1, ledger.jsonl: digest sha256:")
    assert done.stderr.endswith("\ntried\n")


def test_every_command_can_say_there_what_it_does():
    done = run(EVERY_HELP)
    assert done.stderr == "tried\n"
    assert done.returncode == 0
    said = {line for line in done.stdout.splitlines() if line.startswith("HELP")}
    assert {"HELP audit verify", "HELP coordinator run", "HELP institution run", "HELP demo"} <= said
    assert len(said) >= 15


def test_the_audit_of_a_released_adapter_passes_where_no_heavy_library_can_be_imported(tmp_path: Path):
    job = released(tmp_path / "job")
    words = ("audit", "model", job / "adapter", "--evidence", job / "evidence", "--root", key_of("root").keyid)
    done = run(MAIN, *words, absent=HEAVY)
    assert (done.returncode, done.stderr) == (0, "tried\n")
    assert done.stdout.endswith("\nthe model holds\n")
    (job / "adapter" / "model.sig").unlink()
    done = run(MAIN, *words, absent=HEAVY)
    assert done.returncode == 1
    assert done.stderr == "EvidenceRefused: step 1, model.sig: is missing, every released adapter has it\ntried\n"


def test_the_audit_of_a_released_adapter_says_what_to_install(tmp_path: Path):
    done = run(MAIN, "audit", "model", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("BadConfig: this command needs model_signing: install fl-alliance[audit-model]")


@pytest.mark.parametrize("library", [*HEAVY, *SIGNING])
def test_the_hook_sees_also_an_import_that_the_program_survives(library: str):
    done = run(f"try:\n    import {library}.inner\nexcept ImportError:\n    pass")
    assert done.returncode == 0
    assert done.stderr == f"tried {library}\n"


def test_a_command_that_needs_more_says_in_one_line_what_to_install(tmp_path: Path):
    (tmp_path / "institution.toml").write_text(
        'name = "clinic"\nalliance = "zoo"\ncoordinator = "localhost:1"\nmodel_folder = "model"\n'
        '[data]\nname = "cases"\npath = "cases.jsonl"\nunit_column = "patient"\n'
    )
    done = run(MAIN, "institution", "check", tmp_path)
    assert done.returncode == 1
    first, _ = done.stderr.splitlines()
    assert first.startswith("BadConfig: this command needs ")
    assert "fl-alliance[institution]" in first


# ---- one byte


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of a job of one round: small enough to try each byte."""
    return Folder(tmp_path / "evidence", rounds=1).build()


def flip(path: Path, position: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


def refused(folder: Path, name: str) -> bool:
    with pytest.raises(EvidenceRefused) as error:
        check_manifest(folder)
    return str(error.value).startswith(f"step 1, {name}: ")


def test_each_single_byte_of_the_manifest_counts(small: Path):
    size = (small / MANIFEST).stat().st_size
    for position in range(size):
        flip(small / MANIFEST, position, 1 << position % 8)
        assert refused(small, MANIFEST), position
        flip(small / MANIFEST, position, 1 << position % 8)
    check_manifest(small)


def test_each_single_byte_of_the_smallest_files_counts(small: Path):
    """All kinds of a file, down to the root's key of some hundred bytes."""
    by_size = sorted((path for path in small.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    for path in by_size[:2]:
        name = path.relative_to(small).as_posix()
        for position in range(path.stat().st_size):
            flip(path, position, 1 << position % 8)
            assert refused(small, name), (name, position)
            flip(path, position, 1 << position % 8)
    check_manifest(small)


def test_the_command_names_every_single_file_that_was_changed(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Exit code 10, one line with step and file, and nothing that looks like success."""
    monkeypatch.setattr(sys, "argv", ["fl-alliance", "audit", "verify", str(copy)])
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert len(files) > 40
    for number, path in enumerate(files):
        flip(path, number * 7919 % path.stat().st_size)
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        assert left.value.code == 10
        assert err.startswith(f"EvidenceRefused: step 1, {path.relative_to(copy).as_posix()}: ")
        assert err.count("\n") == 1
        assert "holds" not in out
        flip(path, number * 7919 % path.stat().st_size)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    assert capsys.readouterr().out.endswith("the evidence holds\n")
