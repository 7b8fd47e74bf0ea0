"""What an audit costs: time and memory of `fl-alliance audit verify`, and of installing what it needs.

    python -m bench.audit [--rounds 100] [--members 10] [--install] [--json FILE]

The evidence is made on paper: real keys, signatures, ledgers, log and formats, as long as real ones; nothing is trained
and no ciphertext exists, which an auditor never sees anyway. The command is run as a person runs it, in a process of
its own. With `--install` a new virtual environment gets `fl-alliance[audit]` and nothing else, and verifies there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from bench import figures
from bench.figures import Column, Line, Report, Row
from fl_alliance.protocol.documents import AllianceMembers
from fl_alliance.protocol.plan import Member
from tests.evidence.alliance import key_of, members_of
from tests.evidence.folder import ME
from tests.evidence.house import settle
from tests.evidence.shared import Alliance, Job

MIB: Final = 1 << 20
MAX_SECONDS: Final = 30.0
MAX_INSTALL_SECONDS: Final = 90.0
MAX_INSTALL_MIB: Final = 330.0
WORDS: Final = "from fl_alliance.cli import main; main()"

COLUMNS: Final = (
    Column("what", "what"),
    Column("files", "files", ",d"),
    Column("mib", "MiB", ".1f"),
    Column("wall", "wall\ns", ".1f"),
    Column("cpu", "CPU\ns", ".1f"),
    Column("peak", "peak\nMiB", ".0f"),
)
NOTES: Final = (
    "wall, CPU, peak: of the command's process, from its start to its end; imports and both accountants are in it.",
    "installed: what pip takes with an empty cache, and the environment's folder without pip itself.",
)


class _Job(Job):
    """A job of more members than a list on paper usually has."""

    def everyone(self) -> AllianceMembers:
        return members_of(self.plan.names)


def bundles(folder: Path, rounds: int, members: int) -> list[Path]:
    """Return a bundle of each institution, of one job with so many rounds and members."""
    names = (ME, *(f"site-{number:02d}" for number in range(2, members + 1)))
    alliance, enough = Alliance(folder / "paper"), members // 2 + 1
    job = _Job(
        alliance,
        folder / "paper" / "evidence" / "job-1" / ME,
        rounds=rounds,
        members=tuple(Member(name=name, declared_units=1000) for name in names),
        threshold=enough,
        quorum=enough,
        privacy={"noise_multiplier": "4"},
    )
    made, now = job.everybody(), job.time(rounds) + 1000
    return [
        settle(folder / at.name, at.name, job.everyone(), {"job-1": at}, at / "ledger.jsonl", now=now) for at in made
    ]


def verified(what: str, python: str, places: Sequence[Path]) -> Row:
    """Run the command on `places` with the interpreter `python`; return what it took."""
    words = [python, "-c", WORDS, "audit", "verify", *map(str, places), "--root", key_of("root").keyid]
    with tempfile.TemporaryFile() as out:
        started = time.monotonic()
        process = subprocess.Popen(words, stdout=out, env=_environment(python))
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        out.seek(0)
        said = out.read()
    if status != 0 or not said.endswith(b"the evidence holds\n"):
        raise SystemExit(f"{what}: status {status}: {said[-500:]!r}")
    return {
        "what": what,
        "files": sum(_files(place) for place in places),
        "mib": sum(place.stat().st_size for place in places) / MIB,
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 1024,
    }


def _files(bundle: Path) -> int:
    from fl_alliance.evidence.archive import Archive

    with Archive.open(bundle) as archive:
        return len(archive.names)


def _environment(python: str) -> dict[str, str]:
    """Without the path that finds this checkout, where the interpreter is another one's."""
    return {name: value for name, value in os.environ.items() if python == sys.executable or name != "PYTHONPATH"}


def installed(folder: Path) -> tuple[Row, str]:
    """Return what it took to install `fl-alliance[audit]` from this checkout, and the interpreter that has it."""
    venv.create(folder, with_pip=True)
    python, bare = str(folder / "bin" / "python"), _size(folder)
    project = Path(__file__).parents[1]
    words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    started = time.monotonic()
    subprocess.run([*words, f"{project}[audit]"], check=True, env=_environment(python), cwd=folder)
    row = {
        "what": "install the extra audit",
        "wall": time.monotonic() - started,
        "mib": (_size(folder) - bare) / MIB,
    }
    return row, python


def _size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Of the job.")] = 100,
    members: Annotated[int, typer.Option(min=3, help="Institutions of the job.")] = 10,
    install: Annotated[bool, typer.Option("--install", help="Also in a new environment; needs the network.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="3 rounds of 4 institutions: shows only that it runs.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="File for the figures as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for the table as Markdown.")] = None,
) -> None:
    """Measure what it takes to verify evidence."""
    if quick:
        rounds, members = 3, 4
    screen = Console(stderr=True, highlight=False)
    rows: list[Row] = []
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        screen.print(f"making evidence of {rounds} rounds and {members} institutions ...")
        made = bundles(folder, rounds, members)
        if install:
            screen.print("installing ...")
            row, python = installed(folder / "venv")
            rows.append(row)
            lines += [
                Line(
                    what="install fl-alliance[audit], s", value=figures.number(row, "wall"), limit=MAX_INSTALL_SECONDS
                ),
                Line(what="install fl-alliance[audit], MiB", value=figures.number(row, "mib"), limit=MAX_INSTALL_MIB),
            ]
            rows.append(verified("one bundle, with nothing else", python, made[:1]))
        screen.print("verifying ...")
        rows.append(verified("one bundle", sys.executable, made[:1]))
        rows.append(verified(f"{members} bundles together", sys.executable, made))
    one = next(row for row in rows if row["what"] == "one bundle")
    what = f"one bundle of {rounds} rounds and {members} institutions, s"
    lines.append(Line(what=what, value=figures.number(one, "wall"), limit=MAX_SECONDS))
    report = Report(
        bench="audit",
        title="Verifying evidence",
        columns=COLUMNS,
        rows=rows,
        lines=lines,
        notes=NOTES,
        packages=("fl-alliance", "cryptography", "pydantic", "dp-accounting"),
        settings={"rounds": rounds, "members": members},
    )
    figures.publish(report, json_file=json, markdown_file=markdown)


if __name__ == "__main__":
    typer.run(main)
