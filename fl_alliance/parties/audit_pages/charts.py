"""Pictures as SVG in black, white and grey: budgets over time. No library draws them: `fl-alliance[audit]` stays small.

Whatever is written into them is escaped. A number in a picture stands in a table beside it, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from fl_alliance.privacy.report import Gauge

WIDTH: Final = 560
"""Of every picture, in its own units; the page scales it. Letters are 13 high."""
HALF: Final = 340
"""Of a picture that stands beside something."""
ROW: Final = 62
MARGIN: Final = 8
Point = tuple[int, float]
"""Unix seconds, epsilon."""


@dataclass(frozen=True)
class Line:
    """What one data set has spent, step by step."""

    label: str
    points: tuple[Point, ...]
    """After each charge, by RDP."""
    dots: tuple[Point, ...]
    """After each job, by PLD, which caps are compared with."""
    cap: float


def budgets_over_time(lines: Sequence[Line]) -> Markup:
    """Return a row for each line below one axis of time; the top of a row's frame is its cap."""
    span = _span(point for line in lines for point in line.points)
    height = ROW * len(lines) + 26
    rows = Markup("").join(_row(line, place * ROW, span) for place, line in enumerate(lines))
    alt = "A row for each data set: a rising step for each charge, in a frame whose top is the cap."
    return _picture(height, rows + _time_axis(span, ROW * len(lines) + 6, MARGIN, WIDTH - MARGIN), alt)


def _row(line: Line, top: int, span: Point) -> Markup:
    frame_top, bottom = top + 20, top + ROW - 4
    x, y = _scale(span, (MARGIN, WIDTH - MARGIN)), _scale((0, line.cap), (bottom, frame_top))
    return Markup(
        '<text x="{x}" y="{label_y}">{label}</text>'
        '<rect x="{x}" y="{y}" width="{width}" height="{height}" class="frame"/>{area}{dots}'
    ).format(
        x=MARGIN,
        label_y=top + 14,
        label=line.label,
        y=frame_top,
        width=WIDTH - 2 * MARGIN,
        height=bottom - frame_top,
        area=_area(line.points, x, y, bottom, WIDTH - MARGIN),
        dots=_dots(line.dots, x, y),
    )


def spent_over_time(
    dataset: Sequence[Point], year: Sequence[Point], dots: Sequence[Point], *, dataset_cap: float, year_cap: float
) -> Markup:
    """Return what a data set and its last year had spent, below both caps, with an axis of epsilon."""
    left, top, bottom = 44, 12, 250
    span = _span(dataset)
    most = 1.12 * max(dataset_cap, year_cap, *(value for _, value in dataset))
    x, y = _scale(span, (left, WIDTH - MARGIN)), _scale((0, most), (bottom, top))
    caps = Markup("").join(
        Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" class="{}"/><text x="{}" y="{}">{}</text>').format(
            left, WIDTH - MARGIN, _n(y(cap)), _n(y(cap)), kind, left + 6, _n(y(cap) + shift), text
        )
        for cap, kind, shift, text in (
            (dataset_cap, "cap", -5, f"cap of the data set: {dataset_cap:g}"),
            (year_cap, "cap dashed", 15, f"cap of 365 days: {year_cap:g}"),
        )
    )
    inner = (
        _epsilon_axis(most, y, left)
        + caps
        + _area(dataset, x, y, bottom, WIDTH - MARGIN)
        + _path(_steps(year, x, y, WIDTH - MARGIN), "line dotted")
        + _dots(dots, x, y)
        + _time_axis(span, bottom + 6, left, WIDTH - MARGIN)
    )
    return _picture(bottom + 28, inner, "Epsilon over time as rising steps, below two lines at the caps.")


def gauges(bars: Sequence[tuple[str, Gauge]]) -> Markup:
    """Return a bar for each cap: black is spent."""
    width = HALF - 2 * MARGIN
    rows = Markup("").join(
        Markup(
            '<text x="{x}" y="{text_y}">{name}: {percent} %</text>'
            '<rect x="{x}" y="{y}" width="{width}" height="16" class="frame"/>'
            '<rect x="{x}" y="{y}" width="{part}" height="16" class="full"/>'
        ).format(
            x=MARGIN,
            text_y=place * 46 + 15,
            name=name,
            percent=gauge.percent,
            y=place * 46 + 21,
            width=width,
            part=_n(width * gauge.percent / 100),
        )
        for place, (name, gauge) in enumerate(bars)
    )
    return _picture(46 * len(bars), rows, "One bar for each cap, filled as far as it is spent.", width=HALF)


# ---- lines


def _steps(points: Sequence[Point], x: Scale, y: Scale, end: float) -> list[tuple[float, float]]:
    """Return the corners of a step line: it rises at each point, and is flat up to `end`."""
    corners: list[tuple[float, float]] = []
    for time, value in points:
        if corners:
            corners.append((x(time), corners[-1][1]))
        corners.append((x(time), y(value)))
    return [*corners, (end, corners[-1][1])] if corners else []


def _area(points: Sequence[Point], x: Scale, y: Scale, bottom: float, end: float) -> Markup:
    corners = _steps(points, x, y, end)
    if not corners:
        return Markup("")
    whole = [(corners[0][0], bottom), *corners]
    return _path([*whole, (end, bottom)], "area") + _path(whole, "line")


def _path(corners: Iterable[tuple[float, float]], kind: str) -> Markup:
    text = " ".join(f"{_n(x)},{_n(y)}" for x, y in corners)
    return Markup('<polyline points="{}" class="{}"/>').format(text, kind)


def _dots(points: Iterable[Point], x: Scale, y: Scale) -> Markup:
    return Markup("").join(
        Markup('<circle cx="{}" cy="{}" r="4" class="full"/>').format(_n(x(time)), _n(y(value)))
        for time, value in points
    )


# ---- axes


class Scale:
    """From a range of values to a range of the picture; what lies outside is drawn at its edge."""

    def __init__(self, values: tuple[float, float], places: tuple[float, float]) -> None:
        self._values, self._places = values, places

    def __call__(self, value: float) -> float:
        """Return the place of `value`."""
        low, high = self._values
        part = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0
        return self._places[0] + part * (self._places[1] - self._places[0])


def _scale(values: tuple[float, float], places: tuple[float, float]) -> Scale:
    return Scale(values, places)


def _span(points: Iterable[Point]) -> tuple[int, int]:
    """Return the first and the last time, with a little room behind; a minute at least."""
    times = [time for time, _ in points]
    first, last = (min(times), max(times)) if times else (0, 0)
    return first, last + max(60, (last - first) // 12)


def _time_axis(span: tuple[int, int], top: int, left: int, right: int) -> Markup:
    first, last = span
    marks = [first + (last - first) * place // 3 for place in range(4)]
    form = "%Y-%m-%d" if last - first >= 3 * 86_400 else "%m-%d %H:%M" if last - first >= 3600 else "%H:%M:%S"
    anchors = ("start", "middle", "middle", "end")
    labels = Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="{}" class="axis">{}</text>').format(
            _n(_scale(span, (left, right))(time)), top + 14, anchor, datetime.fromtimestamp(time, UTC).strftime(form)
        )
        for time, anchor in zip(marks, anchors, strict=True)
    )
    return Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" class="line"/>').format(left, right, top - 6, top - 6) + labels


def _epsilon_axis(most: float, y: Scale, left: int) -> Markup:
    step = _nice(most / 5)
    marks = [place * step for place in range(int(most / step) + 1)]
    return Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="end" class="axis">{}</text>').format(
            left - 6, _n(y(mark) + 4), f"{mark:g}"
        )
        for mark in marks
    ) + Markup('<text x="{}" y="10" text-anchor="end">ε</text>').format(left - 24)


def _nice(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _picture(height: int, inner: Markup, alt: str, *, width: int = WIDTH) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(width, height, alt, inner)
