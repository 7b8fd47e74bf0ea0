"""What every bench shares: CPU seconds, rows of figures, lines that must hold, one table, the same as JSON.

A bench measures, makes a `Report` and hands it to `publish`. A figure depends on the machine; a ratio of two figures
of the same run much less so. Therefore the lines that must hold compare ratios or bytes wherever they can.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from rich.console import Console
from rich.table import Table

Figure = float | int | str | None
Row = Mapping[str, Figure]

_PIPE_WIDTH: Final = 160
"""Columns of text where the output is no terminal."""


class Stopwatch:
    """CPU seconds of this process (all its threads, user and system), by the name of the step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the CPU seconds of the block to `name`."""
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


@dataclass(frozen=True)
class Column:
    """One column: the row's key, the title, and the format of its figures."""

    key: str
    title: str
    form: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A promise with a figure: `value` must be `<=` or `>=` `limit`."""

    what: str
    value: float
    limit: float
    relation: Literal["<=", ">="] = "<="

    @property
    def holds(self) -> bool:
        """Whether it does; False for a value that is no number."""
        return self.value <= self.limit if self.relation == "<=" else self.value >= self.limit

    def __str__(self) -> str:
        said = "holds" if self.holds else "DOES NOT HOLD"
        return f"{said}: {self.what}: {self.value:.4g} {self.relation} {self.limit:.4g}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a bench found. Rows that differ in `section` are parted by a line in the table."""

    bench: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    lines: Sequence[Line] = ()
    notes: Sequence[str] = ()
    section: Sequence[str] = ()
    packages: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)


def medians(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return for each key the median over `samples`, which all have the same keys."""
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def number(row: Row, key: str) -> float:
    """Return a figure of a row that is a number (TypeError: it is none)."""
    value = row[key]
    if not isinstance(value, int | float):
        raise TypeError(f"{key} is {value!r}, not a number")
    return value


def command_of(bench: str) -> str:
    """Return the command line that made the figures."""
    return shlex.join(["python", "-m", f"bench.{bench}", *sys.argv[1:]])


def machine(packages: Sequence[str]) -> dict[str, Figure]:
    """Return what the figures depend on: processor, cores, load of the last minute, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    } | {package: version(package) for package in packages}


def publish(report: Report, *, json_file: Path | None = None, markdown_file: Path | None = None) -> None:
    """Print the table and the lines; write the files that are asked for."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(_table(report))
    for text in (*report.notes, *map(str, report.lines)):
        console.print(text, soft_wrap=True, markup=False)
    if json_file is not None:
        json_file.write_text(json.dumps(_as_json(report), indent=2, allow_nan=False) + "\n")
    if markdown_file is not None:
        markdown_file.write_text(_as_markdown(report))


def _table(report: Report) -> Table:
    table = Table(title=report.title, header_style="bold", title_justify="left")
    for column in report.columns:
        table.add_column(column.title, justify="right" if column.form else "left", overflow="fold")
    for row, last in _with_ends(report):
        table.add_row(*_cells(report, row), end_section=last)
    return table


def _with_ends(report: Report) -> Iterator[tuple[Row, bool]]:
    """Yield each row and whether the next one is of another section."""
    for row, after in zip(report.rows, [*report.rows[1:], None], strict=True):
        yield row, after is None or any(row[key] != after[key] for key in report.section)


def _cells(report: Report, row: Row) -> list[str]:
    return [_cell(row.get(column.key), column.form) for column in report.columns]


def _cell(value: Figure, form: str) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, form)


def _as_json(report: Report) -> dict[str, object]:
    return {
        "bench": report.bench,
        "command": command_of(report.bench),
        "machine": machine(report.packages),
        "settings": dict(report.settings),
        "rows": [dict(row) for row in report.rows],
        "lines": [asdict(line) | {"holds": line.holds} for line in report.lines],
        "notes": list(report.notes),
    }


def _as_markdown(report: Report) -> str:
    """Return command, machine, table, notes and lines, as a document has them."""
    about = ", ".join(f"{key} {value}" for key, value in machine(report.packages).items())
    heads = [column.title.replace("\n", " ") for column in report.columns]
    rules = ["--:" if column.form else "---" for column in report.columns]
    grid = [heads, rules, *(_cells(report, row) for row in report.rows)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in grid)
    points = "\n".join(f"* {text}" for text in (*report.notes, *map(str, report.lines)))
    return f"    {command_of(report.bench)}\n\n{about}\n\n{table}\n\n{points}\n"


def _processor() -> str:
    """Return the processor's name as Linux gives it, or what Python knows elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
