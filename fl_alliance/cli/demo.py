"""`fl-alliance demo`: an alliance of three institutions as processes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fl_alliance.cli.words import console


def demo(
    folder: Annotated[Path | None, typer.Option(help="Where to run; a new folder.")] = None,
    settings: Annotated[Path, typer.Option(help="Settings of the job and its institutions.")] = Path(
        "deploy/demo/demo.toml"
    ),
    real: Annotated[
        Path | None, typer.Option(help="Settings file that names a real model folder and real data files.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each institution.")] = 1,
    pooled: Annotated[bool, typer.Option(help="Also train on pooled records without privacy.")] = True,
) -> None:
    """Run a coordinator and its institutions as processes on this machine, and print a table."""
    from fl_alliance.parties.demo import run_demo
    from fl_alliance.parties.demo.screen import ConsoleScreen, show_outcome

    with ConsoleScreen(console) as screen:
        outcome = run_demo(
            real or settings, folder or _next_folder(Path("run")), threads=threads, screen=screen, pooled=pooled
        )
    show_outcome(console, outcome)


def _next_folder(parent: Path) -> Path:
    number = 1
    while (parent / f"demo-{number}").exists():
        number += 1
    return parent / f"demo-{number}"
