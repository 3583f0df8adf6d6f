"""The picture that goes with an alert: scores of a window beside those of the reference."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from tamis.monitoring.report import MonitorReport

_COLOURS = {"ok": "#2f7d5b", "notice": "#6d675d", "warning": "#b0822c", "alarm": "#c4522d"}


def draw(report: MonitorReport) -> bytes:
    """PNG of 900 by 420 pixels."""
    figure = Figure(figsize=(7.5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    title = "\n".join(textwrap.wrap(report.headline(), 84)[:2])
    figure.suptitle(
        title.replace("$", r"\$"),
        x=0.01,
        ha="left",
        fontsize=10,
        weight="bold",
        color=_COLOURS[report.severity],
    )
    found = report.looks.scores
    if found is None:
        axes.text(0.5, 0.5, "no document has a score", ha="center", va="center")
        axes.set_axis_off()
    else:
        widths = [b - a for a, b in zip(found.edges, found.edges[1:], strict=False)]
        axes.bar(
            found.edges[:-1], found.window, widths, align="edge", color="#c4522d", alpha=0.7,
            label="this window",
        )  # fmt: skip
        if found.reference:
            axes.stairs(found.reference, found.edges, color="#23211d", label="reference")
        axes.axvline(report.looks.threshold, color="#2f7d5b", ls="--", lw=1, label="threshold")
        axes.set_xlabel(f"score, {report.documents:,} documents of {report.task}")
        axes.set_ylabel("share of the documents")
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
