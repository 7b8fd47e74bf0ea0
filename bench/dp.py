"""What privacy costs in a step of training: time and peak memory of DP-LoRA beside plain LoRA on the same batch.

    python -m bench.dp [--shape tiny,0.5b] [--tokens 64,256] [--quick] [--json FILE]

Both train the same adapter (rank 8 on all linear layers) of the same base with Adam; the private step is the product's
own, with clipping by unit and noise. See `dp_steps`. Nothing is downloaded: the tiny base is the demo's, the 0.5B one
has the shape of Qwen2 0.5B and random weights, on which time and memory do not depend.
"""

from __future__ import annotations

import json as json_text
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from bench import dp_steps, figures
from bench.dp_steps import METHODS, PARTS, SHAPES, Case
from bench.figures import Column, Line, Report, Row
from fl_alliance.training.process import prepare_process

RECORDS: Final = 8
MAX_TIME: Final = 1.08
MAX_MEMORY: Final = 1.10
LINE_SHAPE: Final = "0.5b"
"""The lines are about this shape; in the tiny one the fixed cost of a hook is most of a step."""

COLUMNS: Final = (
    Column("shape", "shape"),
    Column("method", "method"),
    Column("tokens", "tokens", "d"),
    Column("size", "adapter", ",d"),
    Column("plain_s", "plain\ns", ".3f"),
    Column("private_s", "private\ns", ".3f"),
    Column("time_ratio", "time\nratio", ".3f"),
    Column("fastest_ratio", "of the\nfastest", ".3f"),
    *(Column(part, f"{part}\n%", ".2f") for part in PARTS),
    Column("rest", "rest\n%", ".2f"),
    Column("plain_mib", "plain\nMiB", ",.0f"),
    Column("private_mib", "private\nMiB", ",.0f"),
    Column("memory_ratio", "memory\nratio", ".3f"),
    Column("loaded_mib", "loaded\nMiB", ",.0f"),
)

NOTES: Final = (
    "s: CPU seconds of one step of 8 records, median. time ratio: median of "
    "the ratios of a plain and a private step taken one after the other. of the fastest: the fastest private step over "
    "the fastest plain one, which a busy machine disturbs less.",
    "hooks: gradients of each record, summed by unit. clip: norms, clipping and the sum of the units. noise: drawn and "
    "added. All in % of a plain step, measured inside the private step; rest: what the time ratio has beyond them, "
    "below 0 if the private step is spared something or the machine was busy.",
    "MiB: peak of the whole process over two steps, each in a process of its own; loaded: of that, what the loaded "
    "model and the libraries take before the first step.",
)


def measure(case: Case) -> Row:
    """Return the row of `case`: its time and both peaks, each from a process of its own."""
    timed = _child("time", case)
    return {
        "shape": case.shape,
        "method": case.method,
        "tokens": case.tokens,
        "records_per_unit": case.records_per_unit,
        "size": timed["size"],
        "rounds": case.rounds,
        **_time(timed["pairs"], timed["parts"]),
        **_memory(case),
    }


def _time(pairs: Sequence[Sequence[float]], parts: Mapping[str, float]) -> Row:
    plain, private = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(second / first for first, second in pairs)
    percent = {part: 100 * spent / plain for part, spent in parts.items()}
    return {
        "plain_s": plain,
        "private_s": private,
        "time_ratio": ratio,
        "fastest_ratio": min(pair[1] for pair in pairs) / min(pair[0] for pair in pairs),
        **percent,
        "rest": 100 * (ratio - 1) - sum(percent.values()),
    }


def _memory(case: Case) -> Row:
    plain, private = (_child(kind, case) for kind in ("plain", "private"))
    return {
        "plain_mib": plain["peak"] / 2**20,
        "private_mib": private["peak"] / 2**20,
        "memory_ratio": private["peak"] / plain["peak"],
        "loaded_mib": plain["loaded"] / 2**20,
    }


def _child(asked: str, case: Case) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.dp_steps", asked, dp_steps.as_argument(case)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json_text.loads(done.stdout)
    return found


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Return the promises about time and memory, for each row of the 0.5B shape."""
    lines = []
    for row in rows:
        if row["shape"] == LINE_SHAPE:
            where = f"{row['method']}, {row['tokens']} tokens, {row['records_per_unit']} records a unit"
            ratios = (("time", "time_ratio", MAX_TIME), ("peak memory", "memory_ratio", MAX_MEMORY))
            lines += [
                Line(what=f"{where}: {what} of plain LoRA", value=figures.number(row, key), limit=limit)
                for what, key, limit in ratios
            ]
    return lines


def main(
    shape: Annotated[str, typer.Option(help="Bases: tiny, 0.5b, or both by a comma.")] = "tiny,0.5b",
    tokens: Annotated[str, typer.Option(help="Lengths of a record, by commas.")] = "64,256",
    methods: Annotated[str, typer.Option(help="Adapters: ffa-lora, lora, by commas.")] = "ffa-lora,lora",
    records_per_unit: Annotated[int, typer.Option(min=1, max=RECORDS, help="Records of a unit; 8 in all.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of steps of each row.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Only the tiny base.")] = False,
    json: Annotated[Path | None, typer.Option(help="File for the figures as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for the table as Markdown.")] = None,
) -> None:
    """Measure the time and the peak memory of a step of DP-LoRA beside plain LoRA."""
    shapes = ("tiny",) if quick else _among(shape, SHAPES)
    prepare_process()
    screen = Console(stderr=True, highlight=False)
    rows: list[Row] = []
    for name in shapes:
        with tempfile.TemporaryDirectory() as folder:
            base = str(dp_steps.make_base(name, Path(folder)))
            for length in map(int, tokens.split(",")):
                for method in _among(methods, METHODS):
                    screen.print(f"{name}, {length} tokens, {method} ...")
                    case = Case(
                        shape=name, method=method, tokens=length, records=RECORDS, records_per_unit=records_per_unit,
                        rounds=rounds, threads=threads, folder=base,
                    )  # fmt: skip
                    rows.append(measure(case))
    report = Report(
        bench="dp",
        title=f"A step of DP-LoRA beside plain LoRA: {RECORDS} records, {records_per_unit} a unit",
        columns=COLUMNS,
        rows=rows,
        lines=lines_of(rows),
        notes=NOTES,
        section=("shape", "tokens"),
        packages=("fl-alliance", "torch", "transformers", "peft", "opacus", "numpy"),
        settings={"records": RECORDS, "records_per_unit": records_per_unit, "rounds": rounds, "threads": threads},
    )
    figures.publish(report, json_file=json, markdown_file=markdown)


def _among(text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return names


if __name__ == "__main__":
    typer.run(main)
