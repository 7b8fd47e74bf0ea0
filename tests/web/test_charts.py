"""The pictures of the auditor's pages: as high as the numbers, below the caps, and texts stay texts."""

from __future__ import annotations

import re
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from fl_alliance.parties.audit_pages import charts
from fl_alliance.privacy.report import Gauge

DAY = 86_400


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def corners(picture: ElementTree.Element, kind: str) -> list[list[tuple[float, float]]]:
    lines = [line for line in picture.iter("polyline") if line.get("class") == kind]
    return [[tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()] for line in lines]  # type: ignore[misc]


def row(**changes: object) -> charts.Line:
    fields = {"label": "lagos", "points": ((0, 1.0), (DAY, 3.0)), "dots": ((DAY, 2.5),), "cap": 4.0}
    return charts.Line(**(fields | changes))  # type: ignore[arg-type]


def test_a_row_is_as_high_as_what_was_spent_of_its_cap() -> None:
    picture = drawn(charts.budgets_over_time([row(), row(cap=8.0)]))
    frames = [rect for rect in picture.iter("rect") if rect.get("class") == "frame"]
    for frame, line, cap in zip(frames, corners(picture, "line"), (4.0, 8.0), strict=True):
        top, height = float(frame.get("y", "")), float(frame.get("height", ""))
        parts = [(top + height - y) / height for _, y in line]
        assert parts[0] == 0
        assert parts[1:] == pytest.approx([1 / cap, 1 / cap, 3 / cap, 3 / cap], abs=0.02)


def test_rows_share_one_axis_of_time() -> None:
    picture = drawn(charts.budgets_over_time([row(), row(points=((10 * DAY, 1.0),))]))
    first, second = corners(picture, "line")
    assert first[0][0] == charts.MARGIN
    assert first[1][0] < first[2][0] < second[0][0] < charts.WIDTH - charts.MARGIN


def test_what_passes_a_cap_is_drawn_at_the_edge_and_not_outside() -> None:
    picture = drawn(charts.budgets_over_time([row(points=((0, 99.0),))]))
    frame = next(rect for rect in picture.iter("rect") if rect.get("class") == "frame")
    assert min(y for _, y in corners(picture, "line")[0]) == float(frame.get("y", ""))


def test_caps_are_labelled_lines_above_and_below_what_was_spent() -> None:
    points = [(0, 1.0), (DAY, 3.0)]
    picture = drawn(charts.spent_over_time(points, points, [(DAY, 2.5)], dataset_cap=5.0, year_cap=2.0))
    heights = {line.get("class"): float(line.get("y1", "")) for line in picture.iter("line")}
    top = min(y for _, y in corners(picture, "line")[0])
    assert heights["cap"] < top < heights["cap dashed"]
    said = [text.text for text in picture.iter("text")]
    assert {"cap of the data set: 5", "cap of 365 days: 2"} <= set(said)


def test_a_bar_is_filled_as_far_as_its_cap_is_spent() -> None:
    gauges = [("job", Gauge("job", Decimal(1), Decimal(4))), ("year", Gauge("year", Decimal(9), Decimal(4)))]
    picture = drawn(charts.gauges(gauges))
    widths = {
        kind: [float(r.get("width", "")) for r in picture.iter("rect") if r.get("class") == kind]
        for kind in ("frame", "full")
    }
    assert [full / frame for full, frame in zip(widths["full"], widths["frame"], strict=True)] == pytest.approx(
        [0.25, 1]
    )


def test_a_text_can_not_end_the_picture() -> None:
    hostile = "</text></svg><script>"
    picture = drawn(charts.budgets_over_time([row(label=hostile)]))
    assert hostile in [text.text for text in picture.iter("text")]


@pytest.mark.parametrize("points", [(), ((5, 1.0),)])
def test_no_charge_or_a_single_one_can_be_drawn(points: tuple[charts.Point, ...]) -> None:
    assert drawn(charts.budgets_over_time([row(points=points, dots=())])).tag == "svg"


@pytest.mark.parametrize(
    ("last", "form"), [(30 * DAY, r"\d{4}-\d\d-\d\d"), (DAY, r"\d\d-\d\d \d\d:\d\d"), (60, r"\d\d:\d\d:\d\d")]
)
def test_the_axis_names_days_hours_or_seconds_as_long_as_it_is(last: int, form: str) -> None:
    picture = drawn(charts.budgets_over_time([row(points=((0, 1.0), (last, 2.0)), dots=())]))
    marks = [text.text or "" for text in picture.iter("text") if text.get("class") == "axis"]
    assert len(marks) == 4
    assert all(re.fullmatch(form, mark) for mark in marks)
