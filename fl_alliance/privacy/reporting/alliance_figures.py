"""Pictures of a whole alliance, in black, white and grey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, Final

from fl_alliance.privacy.reporting.alliance_facts import DataSet, SharedJob
from fl_alliance.privacy.reporting.document import Figure
from fl_alliance.privacy.reporting.figures import BLACK, GREY, Kind, canvas, date_axis, drawn
from fl_alliance.privacy.reporting.words import Words
from fl_alliance.protocol.ids import decimal_text

MOST_JOBS: Final = 24
"""Of the last jobs, so many have a column."""
MOST_NAMES: Final = 20
"""Institutions in one picture."""
MOST_BARS: Final = 16
"""Data sets in one picture."""
MOST_PIECES: Final = 40
"""Rounds of a job that are drawn one by one."""
MOST_LINES: Final = 12
"""Data sets that have a line of their own over time: those that spent most of their cap."""
GAP: Final = 0.8
"""Part of a round's place that its piece fills."""
LONGEST: Final = 24
"""Letters of a name in a picture."""
LINE: Final = 60
"""Letters that fit below a picture side by side."""
DASHES: Final = ("-", "--", ":", "-.")
MARKS: Final = ("o", "s", "^", "D", "v")


def part_figures(jobs: Sequence[SharedJob], names: Sequence[str], kind: Kind, _: Words) -> Iterator[Figure]:
    """Yield `part_figure` of all institutions, so many in each that it fits a page."""
    for first in range(0, len(names), MOST_NAMES):
        yield part_figure(jobs, names[first : first + MOST_NAMES], kind, _)


def caps_figures(datasets: Sequence[DataSet], kind: Kind, _: Words) -> Iterator[Figure]:
    """Yield `caps_figure` of all data sets, so many in each that it fits a page."""
    for first in range(0, len(datasets), MOST_BARS):
        yield caps_figure(datasets[first : first + MOST_BARS], kind, _)


def part_figure(jobs: Sequence[SharedJob], names: Sequence[str], kind: Kind, _: Words) -> Figure:
    """Return a box for each institution and job: a piece for each round, black where it took part."""
    shown = jobs[-MOST_JOBS:]
    below = [_short(job.plan.job) for job in shown]
    steep = len(shown) * max(map(len, below)) > LINE
    figure, axes = canvas(0.5 + 0.33 * len(names) + (max(map(len, below)) * 0.085 if steep else 0.3))
    for row, name in enumerate(reversed(names)):
        for column, job in enumerate(shown):
            if name in job.plan.names:
                _box(axes, row, column, job, name)
    axes.set_yticks(range(len(names)), labels=[_short(name) for name in reversed(names)], fontsize=9)
    places = [column + 0.5 for column in range(len(shown))]
    axes.set_xticks(places, labels=below, fontsize=9, rotation=90 if steep else 0)
    axes.set(xlim=(0, len(shown)), ylim=(-0.6, len(names) - 0.4))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return drawn(
        figure,
        kind,
        _("Who took part: black are the rounds of a job whose sum has the institution's update in it."),
        _("A row for each institution and a column for each job; no box: not a member. The table has the numbers."),
    )


def _box(axes: Any, row: int, column: int, job: SharedJob, name: str) -> None:
    for left, width, took_part in _pieces(job, name):
        axes.barh(
            row, 0.9 * width, left=column + 0.05 + 0.9 * left, height=0.5, facecolor=BLACK if took_part else "white",
            edgecolor=BLACK, linewidth=0.7,
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _pieces(job: SharedJob, name: str) -> Iterator[tuple[float, float, bool]]:
    """Yield begin, width and blackness of a box's pieces: one for each round, or of many rounds their share."""
    count = len(job.records)
    if count > MOST_PIECES:
        share = job.rounds_of(name) / count
        yield from ((0, share, True), (share, 1 - share, False))
        return
    for place, record in enumerate(job.records):
        yield place / count, GAP / count, name in {upload.member for upload in record.uploads}


def caps_figure(datasets: Sequence[DataSet], kind: Kind, _: Words) -> Figure:
    """Return a bar for each data set: black is spent of its cap for ever."""
    figure, axes = canvas(0.3 + 0.46 * len(datasets))
    for place, dataset in enumerate(datasets):
        row = len(datasets) - 1 - place
        gauge = dataset.total
        axes.barh(row, 100, height=0.42, facecolor="white", edgecolor=BLACK)
        axes.barh(row, gauge.percent, height=0.42, facecolor=BLACK, edgecolor=BLACK)
        axes.text(
            0,
            row + 0.27,
            f"{dataset.title}: {gauge.percent} % (ε {decimal_text(gauge.spent)} / {decimal_text(gauge.cap)})",
            fontsize=9,
            va="bottom",
        )
    axes.set(xlim=(0, 100.4), ylim=(-0.35, len(datasets) - 0.25))
    axes.set_axis_off()
    return drawn(
        figure,
        kind,
        _("Part of each data set's cap that is spent (black)."),
        _("One bar for each data set, filled as far as its cap is spent; the table has the numbers."),
    )


def together_figure(datasets: Sequence[DataSet], kind: Kind, _: Words) -> Figure:
    """Return what part of its cap each data set had spent, charge by charge."""
    most = sorted(datasets, key=lambda dataset: -dataset.total.percent)[:MOST_LINES]
    figure, axes = canvas(3.8 + 0.12 * len(most))
    for dataset, dash, mark, place in zip(most, cycle(DASHES), cycle(MARKS), range(MOST_LINES), strict=False):
        times = [datetime.fromtimestamp(moment.time, UTC) for moment in dataset.moments]
        parts = [100 * float(moment.dataset) / float(dataset.total.cap) for moment in dataset.moments]
        axes.step(
            times, parts, where="post", linestyle=dash, color=BLACK if place % 2 == 0 else GREY, linewidth=1.4,
            marker=mark, markevery=[len(parts) - 1], markersize=5, label=_short(dataset.title),
        )  # fmt: skip
    axes.axhline(100, color=GREY, linewidth=2)
    axes.set(ylabel=_("per cent of the cap (RDP)"), ylim=(0, max(112.0, axes.get_ylim()[1])))
    axes.margins(x=0.03)
    date_axis(axes)
    figure.legend(frameon=False, loc="outside lower left", fontsize=9, ncols=2)
    return drawn(
        figure,
        kind,
        _("What part of its cap each data set has spent over time; the grey line is the cap."),
        _("One rising line of steps for each data set below a horizontal line at 100 per cent."),
    )
