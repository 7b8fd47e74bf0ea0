"""The report's pictures, in black, white and grey. None without matplotlib, which is in the extra `report`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

from fl_alliance.privacy.report import Gauge
from fl_alliance.privacy.reporting.document import Figure
from fl_alliance.privacy.reporting.facts import JobFacts, Moment
from fl_alliance.privacy.reporting.words import Words
from fl_alliance.privacy.trade_off import TradeOff, gaussian_beta

DOTS_PER_INCH = 220
"""Of the pictures in the PDF."""

BLACK, GREY = "black", "0.45"

Kind = Literal["svg", "png"]
"""The page takes SVG, the PDF takes PNG."""


def kind_for(form: str) -> Kind:
    """Return the kind of pictures that a page ("html") or a PDF takes."""
    return "svg" if form == "html" else "png"


def printed_by(kind: Kind | None) -> str:
    """Return which programs, in which versions, print the same bytes again: pictures differ between versions."""
    names = {
        None: ("fl-alliance",),
        "svg": ("fl-alliance", "matplotlib"),
        "png": ("fl-alliance", "matplotlib", "fpdf2"),
    }
    return ", ".join(f"{name} {version(name)}" for name in names[kind])


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def trade_off_figure(curve: TradeOff, kind: Kind, _: Words) -> Figure:
    """Return both errors of the best test, beside a coin's and Gaussian DP's."""
    figure, axes = canvas(3.9)
    alphas = [place / 200 for place in range(201)]
    betas = [float(curve.beta(alpha)) for alpha in alphas]
    axes.plot([0, 1], [1, 0], color=GREY, linestyle=":", label=_("a guess without the job's release"))
    axes.plot(alphas, betas, color=BLACK, linewidth=1.8, label=_("the best possible test, at least"))
    inner = alphas[1:-1]
    gaussian = [max(0.0, gaussian_beta(float(curve.mu), alpha) - float(curve.delta)) for alpha in inner]
    axes.plot(inner, gaussian, color=BLACK, linestyle="--", linewidth=1, label=f"GDP, μ = {curve.mu:f}")
    axes.fill_between(alphas, betas, facecolor="0.93", edgecolor="none")
    axes.text(0.05, 0.08, _("impossible"), color=BLACK, fontsize=9)
    axes.set(
        xlabel=_("type I error: says “was in” of somebody who was not"),
        ylabel=_("type II error: misses somebody who was"),
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    return drawn(
        figure,
        kind,
        _("How well anybody can tell whether one unit was in: no test has errors in the grey area."),
        _("Curve of the least type II error for each type I error, below the straight line of a guess."),
    )


def budget_figure(gauges: Sequence[Gauge], names: Sequence[str], kind: Kind, _: Words) -> Figure:
    """Return a bar for each cap: black is spent."""
    figure, axes = canvas(0.3 + 0.46 * len(gauges))
    for place, (gauge, name) in enumerate(zip(gauges, names, strict=True)):
        row = len(gauges) - 1 - place
        axes.barh(row, 100, height=0.42, facecolor="white", edgecolor=BLACK)
        axes.barh(row, gauge.percent, height=0.42, facecolor=BLACK, edgecolor=BLACK)
        axes.text(0, row + 0.27, f"{name}: {gauge.percent} %", fontsize=9, va="bottom")
    axes.set(xlim=(0, 100.4), ylim=(-0.35, len(gauges) - 0.25))
    axes.set_axis_off()
    return drawn(
        figure,
        kind,
        _("Part of each cap that is spent (black)."),
        _("One bar for each cap, filled as far as it is spent; the numbers are in the table above."),
    )


def time_figure(
    moments: Sequence[Moment], jobs: Sequence[JobFacts], *, dataset_cap: float, year_cap: float, kind: Kind, _: Words
) -> Figure:
    """Return what the data set and its last year had spent, charge by charge, below both caps."""
    figure, axes = canvas(4.4)
    times = [datetime.fromtimestamp(moment.time, UTC) for moment in moments]
    style: dict[str, Any] = {"where": "post", "color": BLACK}
    axes.step(times, [float(m.dataset) for m in moments], **style, label=_("data set, all jobs (RDP)"))
    axes.step(times, [float(m.year) for m in moments], **style, linestyle=":", label=_("365 days before (RDP)"))
    ends = [job for job in jobs if job.after_tight is not None]
    axes.plot(
        [datetime.fromtimestamp(job.last, UTC) for job in ends],
        [float(job.after_tight or 0) for job in ends],
        "o",
        color=BLACK,
        markersize=4,
        label=_("data set after a job (PLD, compared with the cap)"),
    )
    axes.axhline(dataset_cap, color=GREY, linewidth=2, label=_("cap of the data set"))
    axes.axhline(year_cap, color=GREY, linewidth=1.2, linestyle="--", label=_("cap of 365 days"))
    axes.set(ylabel="ε", ylim=(0, 1.12 * max(dataset_cap, year_cap, float(moments[-1].dataset))))
    axes.margins(x=0.03)
    date_axis(axes)
    figure.legend(frameon=False, loc="outside lower left", fontsize=9)
    return drawn(
        figure,
        kind,
        _("What this data set has spent over time. Nothing is ever taken back; a year's part falls as time passes."),
        _("Rising steps of epsilon over time, and two horizontal lines at the caps; the table below has the numbers."),
    )


def date_axis(axes: Any) -> None:
    """Write days and times as numbers, alike in each language."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    numbers = ["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%H:%M:%S"]  # no names of months: one form in each language
    offsets = ["", "%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d %H:%M"]
    formatter = ConciseDateFormatter(
        locator, formats=numbers, zero_formats=["", "%Y", "%m-%d", "%m-%d", "%H:%M", "%H:%M"], offset_formats=offsets
    )
    axes.xaxis.set_major_formatter(formatter)


def canvas(height: float) -> tuple[Any, Any]:
    """Return an empty drawing as wide as a page's text, `height` in inches, and its axes."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(6.6, height), layout="constrained")
    return figure, figure.subplots()


def drawn(figure: Any, kind: Kind, caption: str, alt: str) -> Figure:
    """Draw `figure`; the same input gives the same bytes."""
    import matplotlib as mpl

    data = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": caption, "svg.fonttype": "path"}):
        figure.savefig(data, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
    return Figure(data.getvalue(), caption, alt)
