"""The demo on a terminal: one bar for each party while it runs, then the table. Without a terminal: plain lines."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fl_alliance.parties.demo import Outcome
from fl_alliance.parties.setup import COORDINATOR


class ConsoleScreen:
    """`stage.Screen` with rich. Where nobody sees bars move, each round and each finished bar becomes a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._done: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description:30}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Show one line."""
        self._console.print(line, soft_wrap=True)

    def bar(self, party: str, done: float, total: float, note: str = "") -> None:
        """Show how far `party` is; the first call makes its bar."""
        if party not in self._bars:
            self._bars[party] = self._progress.add_task(party, total=total, note=note)
        self._progress.update(self._bars[party], completed=done, note="" if done == total else note)
        moved = done != self._done.get(party, 0)
        if not self._console.is_terminal and moved and (party == COORDINATOR or done == total):
            self.say(f"{party}: {done:g}/{total:g}")
        self._done[party] = done


def show_outcome(console: Console, outcome: Outcome) -> None:
    """Print the table, what each institution spent, and where everything is."""
    table = Table(title="Held-out loss, nats per token of the answer (lower is better)")
    table.add_column("trained by")
    for column in ("mean", *outcome.sites):
        table.add_column(_words(column), justify="right")
    for line in outcome.lines:
        style = "bold" if line.name == "alliance" else None
        table.add_row(_words(line.name), f"{line.mean:.4f}", *(f"{loss:.4f}" for loss in line.each), style=style)
    console.print(table)
    for found in outcome.findings:
        console.print(
            f"{found.institution}: epsilon {found.costs.job_pld} (PLD), {found.costs.job_rdp} (RDP) "
            f"at delta {found.delta} for each {found.unit}",
            soft_wrap=True,
        )
    per = outcome.upload_bytes / outcome.parameters
    console.print(f"upload   {outcome.upload_bytes} bytes a round, {outcome.parameters} parameters: {per:.2f} each")
    console.print(f"adapter  {outcome.adapter}", soft_wrap=True)
    for report in outcome.reports:
        console.print(f"report   {report}", soft_wrap=True)
    root = outcome.findings[0].root
    console.print(f"verify   fl-alliance audit verify {outcome.reports[0].parent} --root {root}", soft_wrap=True)
    console.print("time     " + ", ".join(f"{part} {seconds:.0f} s" for part, seconds in outcome.seconds.items()))


def _words(name: str) -> str:
    """Names break at spaces, so that a narrow terminal shows them whole."""
    return name.replace("-", " ")
