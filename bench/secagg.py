"""What a secure sum costs, in bytes and CPU seconds, beside plain floats, Flower's SecAgg+ and NVFlare's CKKS.

    python -m bench.secagg [--quick] [--json FILE]

See `secagg_schemes` for what each step is.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console

from bench import figures
from bench.figures import Column, Line, Report, Row
from bench.secagg_schemes import CLIP, Ckks, DoubleMasks, Measured, Plain, Scheme, SecAggPlus

BITS: Final = (8, 12, 16)
PEER: Final = "CKKS, NVFlare's parameters"
LINE_MEMBERS: Final = 20
"""Members of the alliance that the lines are about."""

MAX_RATIO: Final = 0.35 / 1.27
"""CPU seconds: ours at most 0.35 where CKKS with NVFlare's parameters takes 1.27."""

LONG: Final = 100_000_000
"""Parameters times members above which a size is done in one round: adding alone is then minutes of CPU."""

COLUMNS: Final = (
    Column("parameters", "parameters", ",d"),
    Column("members", "n", "d"),
    Column("scheme", "scheme"),
    Column("upload_bytes", "upload\nB/param", ".2f"),
    Column("upload_ratio", "of\nfloat32", ".2f"),
    Column("sum_bytes", "sum\nB/param", ".2f"),
    Column("fixed_point", "fixed\npoint s", ".3f"),
    Column("encrypt", "encrypt\ns", ".3f"),
    Column("masks", "masks\ns", ".3f"),
    Column("add", "add one\ns", ".4f"),
    Column("add_all", "add n\ns", ".3f"),
    Column("open", "open\ns", ".3f"),
    Column("total", "total\ns", ".3f"),
    Column("peer_ratio", "of\nCKKS", ".3f"),
)

NOTES: Final = (
    "s: CPU seconds of one process with one thread, for all parameters of the row: median of the rounds, of "
    "which a row with parameters times n above 100 million has one.",
    "masks: of one member, its self mask and n - 1 pairwise ones. add one: add n / n; add n reads n uploads, adds them "
    "and writes the sum. open: of one opener, with n self masks taken off.",
    "total: encrypt + masks + add one + open; fixed point is not in it, as CKKS has none.",
    "of float32: upload bytes over 4 bytes. of CKKS: total over that of CKKS with NVFlare's parameters, same run.",
)


def measure(parameters: int, members: int, rounds: int) -> list[Row]:
    """Return one row for each scheme; the schemes take turns, so that a busy machine is as busy for each."""
    update = np.clip(np.random.default_rng(1).normal(0.0, 0.01, parameters), -CLIP, CLIP).astype(np.float32)
    ours = [DoubleMasks(members, bits) for bits in BITS]
    schemes: list[Scheme] = [Plain(members), SecAggPlus(members), *ours, Ckks(members)]
    seen: dict[str, list[Measured]] = {}
    for _ in range(rounds):
        for scheme in schemes:
            for measured in scheme.measure(update):
                seen.setdefault(measured.scheme, []).append(measured)
            gc.collect()
    rows = [_row(parameters, members, done) for done in seen.values()]
    peer = next(figures.number(row, "total") for row in rows if row["scheme"] == PEER)
    return [{**row, "peer_ratio": figures.number(row, "total") / peer} for row in rows]


def _row(parameters: int, members: int, done: Sequence[Measured]) -> Row:
    seconds = figures.medians([measured.seconds for measured in done])
    add = seconds["add_all"] / members
    upload = done[0].upload / parameters
    return {
        "parameters": parameters,
        "members": members,
        "scheme": done[0].scheme,
        "rounds": len(done),
        "upload_bytes": upload,
        "upload_ratio": upload / 4,
        "sum_bytes": done[0].total / parameters,
        **seconds,
        "add": add,
        "total": seconds["encrypt"] + seconds["masks"] + add + seconds["open"],
    }


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Return the promises about bytes and time, for each size of 20 members."""
    lines = []
    for row in rows:
        if row["members"] != LINE_MEMBERS:
            continue
        where = f"{row['scheme']}, {row['parameters']:,} parameters, n = {LINE_MEMBERS}"
        limit = {"fl_alliance, 8 bits": 2.8, "fl_alliance, 16 bits": 4.2}.get(str(row["scheme"]))
        if limit is not None:
            lines.append(Line(what=f"{where}: upload B/param", value=figures.number(row, "upload_bytes"), limit=limit))
        if row["scheme"] == "fl_alliance, 16 bits":
            lines.append(
                Line(what=f"{where}: total of {PEER}", value=figures.number(row, "peer_ratio"), limit=MAX_RATIO)
            )
    return lines


def main(
    parameters: Annotated[str, typer.Option(help="Lengths of the vector, by commas.")] = "1000000,4400000",
    members: Annotated[str, typer.Option(help="Numbers of members, by commas.")] = "3,20,100",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each size; the largest have one.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Only 1,000,000 parameters and 20 members.")] = False,
    json: Annotated[Path | None, typer.Option(help="File for the figures as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for the table as Markdown.")] = None,
) -> None:
    """Measure what a secure sum costs beside plain floats, Flower's SecAgg+ and NVFlare's CKKS."""
    if quick:
        parameters, members = "1000000", "20"
    screen = Console(stderr=True, highlight=False)
    rows: list[Row] = []
    for size in _numbers(parameters):
        for count in _numbers(members):
            screen.print(f"{size:,} parameters, {count} members ...")
            rows += measure(size, count, rounds if size * count <= LONG else 1)
    report = Report(
        bench="secagg",
        title="Secure sums",
        columns=COLUMNS,
        rows=rows,
        lines=lines_of(rows),
        notes=NOTES,
        section=("parameters", "members"),
        packages=("fl-alliance", "tenseal", "flwr", "numpy", "cryptography"),
        settings={"parameters": parameters, "members": members, "rounds": rounds, "rounds_of_long_sizes": 1},
    )
    figures.publish(report, json_file=json, markdown_file=markdown)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace("_", "").split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers with commas between") from None


if __name__ == "__main__":
    typer.run(main)
