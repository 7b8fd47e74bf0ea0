"""What a round costs beyond training: wall seconds of each phase over Flower on loopback, and where they go.

    python -m bench.rounds [--rounds 10] [--quick] [--json FILE]

A coordinator and three institutions as processes of their own, mutual TLS, real ciphers, ledgers and journals, an
adapter of 1,000,000 parameters; only training is left out (`round_parties`). In the same run, in one process: the
ciphers of a round alone, and the same blobs over HTTPS alone.
"""

from __future__ import annotations

import contextlib
import itertools
import json as json_text
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console
from transformers import AutoModelForCausalLM, Qwen2Config

from bench import figures, rounds_alone
from bench.figures import Column, Line, Report, Row
from fl_alliance.parties import setup
from fl_alliance.parties.demo import stage
from fl_alliance.parties.demo.settings import AdapterSettings, Columns, DemoSettings, PrivacySettings, Site
from fl_alliance.protocol.plan import OptimizerPlan, SumPlan, TrainingPlan
from fl_alliance.training.process import prepare_process

ROOT: Final = Path(__file__).parents[1]
DEMO: Final = ROOT / "deploy" / "demo" / "model"
SITES: Final = ("berlin", "lagos", "lima")
PARAMETERS: Final = 1_000_000
MAX_ROUND: Final = 5.0
MAX_PHASE: Final = 1.0
QUICK: Final = 3

PHASES: Final = {
    "round-keys": "round-opening",
    "sealed-shares": "key-roster",
    "sealed-update": "share-delivery",
    "adding": "",
    "survivors-confirmed": "survivor-list",
    "revealed-shares": "confirmations",
    "sum-checked": "reveal-delivery",
    "adapter-vote": "sum-checks",
    "recording": "",
    "released": "release",
}
"""A phase is named by what ends it; with the request that it answers."""

PARTS: Final = (
    "accountant", "cipher", "worker start", "worker end", "blobs", "adapter", "fsync", "journal", "signatures",
    "canonical JSON",
)  # fmt: skip
"""Spans in an institution's answer; the rest of it is `other`."""

_EVENT: Final = re.compile(r"round \d+/\d+: (\S+)(?: from (\S+))?")
_OWN: Final = {"SumAdded": "adding", "RecordSigned": "recording"}
_CIPHER: Final = frozenset({"Seal", "AddAgain", "OpenSum"})
"""Work that is the cipher's, but for the spans in it."""

COLUMNS: Final = (
    Column("phase", "phase"),
    Column("seconds", "wall\ns", ".3f"),
    Column("worst", "worst\ns", ".3f"),
    Column("there", "there\ns", ".3f"),
    Column("answer", "answer\ns", ".3f"),
    Column("back", "back\ns", ".3f"),
    *(Column(part, f"{part}\ns".replace(" ", "\n", 1), ".3f") for part in (*PARTS, "other")),
)

NOTES: Final = (
    "wall: median over the rounds; worst: of all rounds. there: from the end of the phase before to the moment at "
    "which the institution that answers last begins; answer: what it does; back: from then until the coordinator has "
    "the answer in its journal. The columns behind are parts of answer, each without what is in another.",
    "adding, recording: the coordinator alone. CPU: of all processes, also the coordinator's threads and the workers.",
)


@dataclass
class Rounds:
    """What was noted of the rounds: for each, wall seconds and parts by phase; CPU seconds of everybody."""

    phases: list[dict[str, dict[str, float]]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def seconds(self, phase: str) -> list[float]:
        """Return the wall seconds of `phase` in each round."""
        return [found[phase]["seconds"] for found in self.phases]

    @property
    def totals(self) -> list[float]:
        """Wall seconds of each round."""
        return [sum(part["seconds"] for part in found.values()) for found in self.phases]


# ---- the job


def make_base(folder: Path) -> Path:
    """Write a base whose adapter of rank 200 on q_proj and o_proj has exactly `PARAMETERS` trained parameters."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=4096, hidden_size=500, intermediate_size=512, num_hidden_layers=5, num_attention_heads=10,
        num_key_value_heads=2, head_dim=50, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, folder / name)
    return folder


def settings_of(base: Path, rounds: int) -> DemoSettings:
    """Return the demo's settings for the job; the data files get one record each, which nobody trains on."""
    for name in SITES:
        row = {"patient": "1", "prompt": "Define: round", "answer": "what is measured here"}
        (base / f"{name}.jsonl").write_text(json_text.dumps(row) + "\n")
    return DemoSettings(
        alliance="bench",
        job="rounds",
        model=base / "model",
        rounds=rounds,
        threshold=2,
        quorum=3,
        max_tokens=64,
        epsilon_cap="90",
        adapter=AdapterSettings(rank=200, alpha=16, targets=("o_proj", "q_proj"), public_seed=1),
        optimizer=OptimizerPlan(name="adam", learning_rate="0.01", momentum="0.9", beta2="0.99"),
        privacy=PrivacySettings(
            unit="patient",
            clip_norm="0.5",
            noise_multiplier="0.74",
            sampling_rate="0.1",
            steps_per_round=4,
            records_per_unit=4,
            delta="0.000001",
        ),
        sum=SumPlan(coordinate_clip="0.25", bits=16),
        columns=Columns(unit="patient", prompt="prompt", answer="answer"),
        institutions=tuple(
            Site(name=name, train=base / f"{name}.jsonl", heldout=base / f"{name}.jsonl", declared_units=3000)
            for name in SITES
        ),
    )


def run_job(folder: Path, plan: TrainingPlan) -> float:
    """Run the whole job; return its CPU seconds. RuntimeError: a party ended with an error; its log says more."""
    before = sum(os.times()[2:4])
    with contextlib.ExitStack() as stack:
        for name in SITES:
            stack.enter_context(_Party(folder, name, "institution", "run", str(folder / name)))
        home = folder / setup.COORDINATOR
        coordinator = stack.enter_context(_Party(folder, home.name, "coordinator", "run", str(home), plan.job))
        if coordinator.wait(1200) != 0:
            raise RuntimeError((folder / f"{home.name}.log").read_text()[-2000:])
    return sum(os.times()[2:4]) - before


class _Party:
    """A party's process: output in FOLDER/NAME.log, spans in FOLDER/NAME.notes."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "bench.round_parties", str(folder / f"{name}.notes"), *arguments]
        with (folder / f"{name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# ---- what the notes say


def read_rounds(folder: Path) -> Rounds:
    """Return what the notes of a finished job say of its rounds."""
    notes = {name: _lines(folder / f"{name}.notes") for name in (setup.COORDINATOR, *SITES)}
    answers = {name: _answers(notes[name]) for name in SITES}
    rounds = Rounds()
    for (_, began, _), (kind, ended, last) in itertools.pairwise(_ends(notes[setup.COORDINATOR])):
        if kind == "round-keys":
            rounds.phases.append({})
        if kind in PHASES:
            rounds.phases[-1][kind] = _phase(kind, began, ended, answers.get(last), len(rounds.phases))
    rounds.cpu = _cpu(notes, len(rounds.phases))
    return rounds


def _ends(notes: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, str]]:
    """Return the last event of each phase of the coordinator: its kind, when it was journalled, and from whom."""
    events = [(_EVENT.match(line["line"]), line["at"]) for line in notes if line["what"] == "event"]
    named = [(_OWN.get(found[1], found[1]), at, found[2] or "") for found, at in events if found]
    return [list(group)[-1] for _, group in itertools.groupby(named, key=lambda event: event[0])]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the spans in order of their start."""
    lines = [json_text.loads(line) for line in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: float(line["at"]))


@dataclass
class _Answer:
    at: float
    total: float
    parts: dict[str, float]


def _answers(notes: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], _Answer]:
    """Return when an institution answered each request, and where the time went."""
    found: dict[tuple[str, int], _Answer] = {}
    inside = [line for line in notes if line["main"]]
    for line in inside:
        if line["what"] == "handle" and (key := (line["kind"], line["round"])) not in found:
            end = line["at"] + line["total"]
            parts = dict.fromkeys((*PARTS, "other"), 0.0)
            for span in inside:
                if line["at"] <= span["at"] < end:
                    parts[_part(span)] += span["own"]
            found[key] = _Answer(line["at"], line["total"], parts)
    return found


def _part(span: Mapping[str, Any]) -> str:
    if span["what"] == "work" and span["work"] in _CIPHER:
        return "cipher"
    return str(span["what"]) if span["what"] in PARTS else "other"


def _phase(
    phase: str, began: float, ended: float, answers: Mapping[tuple[str, int], _Answer] | None, number: int
) -> dict[str, float]:
    """Return the wall seconds of a phase and their parts at the institution that answered last."""
    row = {"seconds": ended - began}
    if answers is not None and (answer := answers.get((PHASES[phase], number))) is not None:
        row |= {"there": answer.at - began, "answer": answer.total, "back": ended - answer.at - answer.total}
        row |= answer.parts
    return row


def _cpu(notes: Mapping[str, Sequence[Mapping[str, Any]]], rounds: int) -> list[float]:
    """Return the CPU seconds of all parties in each round but the last, from its first request to the next one's."""
    spent = [0.0] * (rounds - 1)
    for name in SITES:
        marks = [line["cpu"] for line in notes[name] if line["what"] == "handle" and line["kind"] == "round-opening"]
        for at in range(rounds - 1):
            spent[at] += marks[at + 1] - marks[at]
    marks = [line["cpu"] for line in notes[setup.COORDINATOR] if "round-keys from" in str(line.get("line"))]
    for at in range(rounds - 1):
        spent[at] += marks[len(SITES) * (at + 1)] - marks[len(SITES) * at]
    return spent


def rows_of(rounds: Rounds) -> list[Row]:
    """Return one row for each phase, and one for the whole round."""
    rows: list[Row] = []
    for phase in PHASES:
        found = [one[phase] for one in rounds.phases]
        middle = figures.medians(found)
        rows.append({"phase": phase, **middle, "worst": max(one["seconds"] for one in found)})
    whole = {"phase": "whole round", "seconds": statistics.median(rounds.totals), "worst": max(rounds.totals)}
    parts = {key: _sum(row.get(key) for row in rows) for key in ("there", "answer", "back", *PARTS, "other")}
    return [*rows, whole | parts]


def _sum(values: Iterable[object]) -> float:
    return sum(value for value in values if isinstance(value, float))


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Return the promises."""
    whole = rows[-1]
    slowest = max(rows[:-1], key=lambda row: figures.number(row, "seconds"))
    seconds = figures.number(whole, "seconds")
    return [
        Line(what="round beyond training, wall s", value=seconds, limit=MAX_ROUND),
        Line(
            what=f"slowest phase ({slowest['phase']}), wall s",
            value=figures.number(slowest, "seconds"),
            limit=MAX_PHASE,
        ),
    ]


def main(
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of the job.")] = 10,
    quick: Annotated[bool, typer.Option("--quick", help=f"Only {QUICK} rounds.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for the parties' folders, logs and notes.")] = None,
    json: Annotated[Path | None, typer.Option(help="File for the figures as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for the table as Markdown.")] = None,
) -> None:
    """Measure the wall seconds of a round beyond training, by phase."""
    rounds = QUICK if quick else rounds
    prepare_process()
    screen = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory() as temporary:
        place = keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        make_base(place / "model")
        settings, folder = settings_of(place, rounds), place / "alliance"
        plan = stage.prepare(settings, place, folder, threads=1)
        screen.print(f"{len(SITES)} institutions, {PARAMETERS:,} parameters, {rounds} rounds ...")
        busy, start = _busy(), time.monotonic()
        ours = run_job(folder, plan)
        others = _busy() - busy - ours
        wall = time.monotonic() - start
        found = read_rounds(folder)
        screen.print("the ciphers and the blobs alone ...")
        alone = rounds_alone.measure(PARAMETERS, len(SITES), folder)
    rows, cpu = rows_of(found), statistics.median(found.cpu)
    cores, least = os.cpu_count() or 1, alone.cipher + alone.blobs
    seconds = figures.number(rows[-1], "seconds")
    report = Report(
        bench="rounds",
        title="A round beyond training",
        columns=COLUMNS,
        rows=rows,
        lines=lines_of(rows),
        notes=(
            *NOTES,
            f"CPU of a round: {cpu:.2f} s of all parties. Alone in one process: its ciphers {alone.cipher:.2f} s of "
            f"CPU, its blobs over HTTPS {alone.blobs:.2f} s: the round takes {cpu / least:.2f} times those. On {cores} "
            f"cores they take {least / cores:.2f} s at least: the round's wall time is {seconds * cores / least:.1f} "
            "times that.",
            f"other work on this machine meanwhile: {others / wall:.2f} of {cores} cores.",
        ),
        packages=("fl-alliance", "flwr", "tenseal"),
        settings={"rounds": rounds, "parameters": PARAMETERS, "members": len(SITES)},
    )
    figures.publish(report, json_file=json, markdown_file=markdown)


def _busy() -> float:
    """Return the CPU seconds that all processes of the machine have had (Linux)."""
    fields = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    typer.run(main)
