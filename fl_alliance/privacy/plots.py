"""Pictures of what privacy costs, as SVG, readable in black and white. Needs the extra `report` (matplotlib)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from fl_alliance.errors import BadConfig
from fl_alliance.privacy.planner import Suggestion


def trade_off(
    points: Sequence[tuple[Decimal, Decimal, Decimal]], *, chosen: Suggestion, target: Decimal, delta: Decimal
) -> bytes:
    """Return a picture of epsilon over the noise multiplier, by both accountants, with target and choice marked.

    Args:
        points: (sigma, epsilon by PLD, epsilon by RDP), as `planner.curve` gives them.
        chosen: the suggestion that the curve goes through.
        target: epsilon that was asked for.
        delta: of both.

    Returns: an SVG document; the same input gives the same bytes.

    Raises:
        BadConfig: matplotlib is not installed.
    """
    figure, axes = _figure()
    sigma = [float(point[0]) for point in points]
    axes.plot(sigma, [float(point[1]) for point in points], color="black", label="PLD (caps are compared with it)")
    axes.plot(sigma, [float(point[2]) for point in points], color="black", linestyle="--", label="RDP")
    axes.axhline(float(target), color="0.5", linewidth=1, label=f"target {target}")
    axes.plot([float(chosen.noise_multiplier)], [float(chosen.epsilon_pld)], "o", color="black")
    axes.annotate(
        f"sigma {chosen.noise_multiplier}",
        (float(chosen.noise_multiplier), float(chosen.epsilon_pld)),
        xytext=(8, 8),
        textcoords="offset points",
    )
    axes.set(
        xlabel="noise multiplier sigma",
        ylabel=f"epsilon at delta {delta:f}",
        yscale="log",
        title=f"q = {chosen.sampling_rate}, {chosen.steps} steps",
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend(frameon=False)
    return _svg(figure)


def _figure() -> tuple[Any, Any]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise BadConfig("plot: matplotlib is not installed, install fl-alliance[report]") from None
    mpl.rcParams["svg.hashsalt"] = "fl-alliance"
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()
