"""`docs/first-round.md` is true: all that it says is typed, by real processes over mutual TLS, and compared."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fl_alliance.parties.auditor import verify_evidence
from tests.parties.joining import free_port

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-round.md"
SITES = ("clinic", "hospital", "school")
SAID = re.compile(r"    (admin|clinic)([$>]) (.*)")
FILE = re.compile(r"`(\S+\.(?:toml|json))`")


@dataclass(frozen=True)
class Step:
    """What the page says next: a person types `command` and sees `prints`, or sees more, or has a file."""

    who: str
    command: str = ""
    prints: tuple[str, ...] = ()
    file: str = ""
    content: str = ""


def steps() -> list[Step]:
    """Return what the page says, in its order."""
    found: list[Step] = []
    name, content = "", list[str]()
    inside = False
    for line in PAGE.read_text().splitlines():
        if line.startswith("```"):
            if inside:
                found.append(Step("clinic", file=name, content="\n".join(content) + "\n"))
            inside, content = not inside, []
        elif inside:
            content.append(line)
        elif match := FILE.match(line):
            name = match[1]
        elif match := SAID.match(line):
            who, kind, said = match.groups()
            found.append(Step(who, said) if kind == "$" else Step(who, prints=(said,)))
        elif line.startswith("    "):
            found[-1] = replace(found[-1], prints=(*found[-1].prints, line.strip()))
    return found


class Desk:
    """One person's terminals. What is printed in any of them is read in order."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._folder, self._log, self._read = name, folder, folder / f"{name}.log", 0
        self._log.touch()
        self._processes: list[subprocess.Popen[bytes]] = []

    def types(self, command: str, answers: int) -> None:
        words = [sys.executable, "-m", "fl_alliance.cli", *shlex.split(command)[1:]]
        quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                words,
                cwd=self._folder,
                env={**os.environ, **quiet, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert process.stdin is not None
        process.stdin.write(b"y\n" * answers)
        process.stdin.close()
        self._processes.append(process)

    def sees(self, line: str, seconds: float = 240.0) -> str:
        """Wait for text like `line`, behind all that was seen before, and return it."""
        like, end = re.compile("[^\n]*".join(map(re.escape, line.split("...")))), time.monotonic() + seconds
        while not (match := like.search(text := self._log.read_text()[self._read :])):
            assert time.monotonic() < end, f"{self.name} never saw {line!r} but {text[-3000:]!r}"
            time.sleep(0.05)
        self._read += match.end()
        return match.group()

    def leaves(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(60)


class Stage:
    """The machine on which all of them sit: names and ports of the page become those of loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports, self.codes = folder, two_ports(), dict[str, str]()
        self.desks = {name: Desk(folder, name) for name in ("admin", *SITES)}
        self.typed: Counter[str] = Counter()

    def play(self, step: Step) -> None:
        everywhere = ("clinic",) if "doctor" in step.command else SITES  # it loads torch, which takes seconds
        for who in ("admin",) if step.who == "admin" else everywhere:
            if step.file:
                content = step.content if step.file.endswith(".json") else self._here(step.content, who)
                (self.folder / self._here(step.file, who)).write_text(content)
                continue
            if step.command:
                self._types(who, step)
            for line in step.prints:
                seen = self.desks[who].sees(self._here(line.removesuffix("[y/N]: y"), who))
                if seen.startswith("fla1~"):
                    self.codes[seen.split("~")[1]] = seen

    def _types(self, who: str, step: Step) -> None:
        command = self._here(step.command, who)
        if "fla1~" in command:
            command = f"{command.partition('fla1~')[0]}{self.codes[who]}"
        self.typed[who] += 1
        self.desks[who].types(command, answers=sum(line.endswith("[y/N]: y") for line in step.prints))

    def _here(self, text: str, who: str) -> str:
        text = text.replace("coordinator.example.org", "127.0.0.1")
        text = text.replace("9443", str(self.ports[0])).replace("9444", str(self.ports[1]))
        return text if who == "admin" else text.replace("clinic", who)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    shutil.copytree(ROOT / "deploy" / "demo" / "model", tmp_path / "model")
    made = Stage(tmp_path)
    yield made
    for desk in made.desks.values():
        desk.leaves()


def test_the_page_from_nothing_to_the_first_round_is_what_happens(stage: Stage) -> None:
    said = steps()
    assert [step.file for step in said if step.file] == ["clinic/institution.toml", "clinic/policy.toml", "plan.json"]
    assert sum(bool(step.command) for step in said) == 9
    for step in said:
        stage.play(step)
        if step.command.startswith("fl-alliance institution join"):
            for name in SITES:
                write_letters(stage.folder / name)
    assert max(stage.typed.values()) <= 5
    records = {
        (stage.folder / name / "jobs/first/evidence/rounds/0001/record.dsse.json").read_bytes() for name in SITES
    }
    assert len(records) == 1
    for name in SITES:
        assert verify_evidence(stage.folder / name / "jobs/first/evidence", root=None, say=lambda _: None).charges == 1


def two_ports() -> tuple[int, int]:
    """Return two free ports, one above the other."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            if port < 65_535 and probe.connect_ex(("127.0.0.1", port + 1)):
                return port, port + 1


def write_letters(home: Path) -> None:
    rows = [
        {"patient": f"{home.name}-{n // 2}", "prompt": f"Define: word {n}", "answer": f"a thing number {n}"}
        for n in range(8)
    ]
    (home / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
