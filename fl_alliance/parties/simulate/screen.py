"""A simulation's outcome on a terminal: a table of the phases, who left and why, and whether the sum is right."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from fl_alliance.parties.simulate.outcome import Outcome

_MOST_NAMES = 8


def show_outcome(console: Console, outcome: Outcome) -> None:
    """Print what was simulated, the table, and what came of it."""
    console.print(_table(outcome))
    for line in _lines(outcome):
        console.print(line, soft_wrap=True, markup=False)


def _table(outcome: Outcome) -> Table:
    settings = outcome.settings
    table = Table(
        title=f"{settings.members} members, {settings.parameters} parameters, {outcome.rounds} of {settings.rounds} "
        f"rounds recorded, threshold {outcome.threshold}, quorum {outcome.quorum}",
        title_justify="left",
    )
    table.add_column("awaited answer")
    titles = ("asked", "heard", "member\nup kB", "member\ndown kB", "coord.\nin MB", "coord.\nout MB")
    for title in (*titles, "member\nCPU s", "slowest\nCPU s", "coord.\nCPU s", "wall\ns"):
        table.add_column(title, justify="right")
    for row in outcome.rows:
        table.add_row(
            row.phase,
            str(row.asked),
            str(row.heard),
            f"{row.member_up / 1e3:.1f}",
            f"{row.member_down / 1e3:.1f}",
            f"{row.coordinator_in / 1e6:.2f}",
            f"{row.coordinator_out / 1e6:.2f}",
            f"{row.member_seconds:.3f}",
            f"{row.slowest_seconds:.3f}",
            f"{row.coordinator_seconds:.3f}",
            f"{row.wall_seconds:.1f}",
        )
    return table


def _lines(outcome: Outcome) -> Iterator[str]:
    yield (
        "a load and fault test of the protocol: updates are noise from a stand-in, no model was trained and no record "
        "read; nothing here says anything about privacy"
    )
    yield (
        "of all rounds; bytes at the coordinator's end; of a member: mean of those who took part; wall: "
        "coordinator and all members, one after another"
    )
    yield from _who_left(outcome)
    waited, peak = f"{outcome.waited_seconds:.0f} s", f"{outcome.peak_bytes / 1e6:.0f} MB"
    yield f"waited   {waited} of the simulated clock, for members and messages that did not come; peak memory {peak}"
    yield f"result   {_result(outcome)}"


def _who_left(outcome: Outcome) -> Iterator[str]:
    """One line for each reason: a deadline names all who missed it."""
    reasons: dict[str, list[str]] = {}
    for name, reason in outcome.left.items():
        reasons.setdefault(reason, []).append(name)
    if not reasons:
        yield "left     nobody"
    for reason, names in reasons.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        why = reason if len(names) == 1 else reason.replace(", ".join(names), "them")
        yield f"left     {', '.join(names[:_MOST_NAMES])}{more}: {why}"


def _result(outcome: Outcome) -> str:
    compared = outcome.compared
    if compared is None:
        return f"aborted: {outcome.reason}"
    said = "not all have the same adapter" if compared.others else "all have the same adapter"
    return (
        f"{len(compared.survivors)} survivors: {said}; at most {compared.off:.3g} levels of the fixed point from the "
        f"plain mean ({compared.allowed:g} allowed); the auditor accepts the evidence of {compared.survivors[0]}"
    )
