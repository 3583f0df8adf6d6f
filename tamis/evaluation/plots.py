"""Pictures of an evaluation, as PNG bytes.

Drawn on a ``Figure`` of their own (never pyplot), so that they work without a display, in
threads, and leave nothing behind.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.figures import Confusion, Reliability
from tamis.target import Floats, Target

KEPT, DROPPED, INK, QUIET = "#1a7f5a", "#b0623c", "#222222", "#8a8f98"
FAMILY_COLOURS = ("#2563a8", "#b0623c", "#1a7f5a")
MAX_BOXES = 12  # more distinct labels than this are drawn as a plain scatter
DPI = 130


def score_plot(target: Target, labels: Floats, scores: Floats, threshold: float) -> bytes:
    """Score against label, one point a document, with the threshold and a box for each label.

    Args:
        target: What is predicted.
        labels: Encoded labels, (n,).
        scores: Scores on ``target.scale``, (n,).
        threshold: Drawn as a line; what lies on or above it is kept.
    """
    figure, axes = _canvas(7.0, 4.2)
    values = np.unique(labels)
    narrow = len(values) <= MAX_BOXES
    step = float(np.diff(values).min()) if narrow and len(values) > 1 else 1.0
    if narrow:
        axes.boxplot(
            [scores[labels == value] for value in values],
            positions=values.tolist(),
            widths=0.6 * step,
            showfliers=False,
            manage_ticks=False,
            medianprops={"color": INK},
            boxprops={"color": QUIET},
            whiskerprops={"color": QUIET},
            capprops={"color": QUIET},
        )
        axes.set_xticks(values, [_label_name(target, value) for value in values])
    spread = 0.22 * step if narrow else 0.0
    x = labels + np.random.default_rng(0).uniform(-spread, spread, len(labels))
    truth = target.kept(labels)
    for mask, colour, name in ((truth, KEPT, "to keep"), (~truth, DROPPED, "to drop")):
        axes.scatter(x[mask], scores[mask], s=14, color=colour, alpha=0.55, lw=0, label=name)
    axes.axhline(threshold, color=INK, lw=1, ls="--", label=f"threshold {threshold:.2f}")
    axes.set_xlabel("label")
    axes.set_ylabel("score")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _png(figure)


def comparison_plot(metric: str, figures: Mapping[str, Interval]) -> bytes:
    """One dot with its interval for each scorer, in the order given from the top.

    Args:
        metric: What the horizontal axis is called.
        figures: By name of the scorer; the first is drawn as the model.
    """
    names = list(figures)
    figure, axes = _canvas(7.0, 0.9 + 0.42 * len(names))
    for row, name in enumerate(names):
        found, colour = figures[name], KEPT if row == 0 else QUIET
        axes.plot([found.low, found.high], [row, row], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(found.value, row, "o", color=colour, ms=7)
        axes.annotate(
            f"{found.value:.3f}", (found.value, row), (0, 7), textcoords="offset points",
            ha="center", fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), _plain(names))
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.set_xlabel(f"{metric}, 95% interval")
    axes.grid(axis="x", color="#e6e8eb", lw=0.8)
    axes.set_axisbelow(True)
    return _png(figure)


def confusion_plot(confusion: Confusion) -> bytes:
    """Counts of a confusion table; shaded by the share of each row."""
    counts = np.array(confusion.counts)
    size = len(confusion.levels)
    figure, axes = _canvas(1.6 + 0.6 * size, 1.2 + 0.5 * size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.6 else INK
            axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(size), _plain(confusion.levels))
    axes.set_yticks(range(size), _plain(confusion.levels))
    axes.set_xlabel("by score")
    axes.set_ylabel("by label")
    return _png(figure)


def reliability_plot(target: Target, reliability: Reliability) -> bytes:
    """Mean label, with its interval, over mean score in bins; on the diagonal both are equal."""
    figure, axes = _canvas(4.2, 4.0)
    low, high = target.scale
    axes.plot([low, high], [low, high], color=QUIET, lw=1, ls="--", label="equal")
    for part in reliability.bins:
        axes.plot([part.score] * 2, [part.label.low, part.label.high], color=KEPT, lw=1.5)
        axes.plot(part.score, part.label.value, "o", color=KEPT, ms=5)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.set_xlabel("mean score")
    axes.set_ylabel("mean label" if target.kind == "ordinal" else "share to keep")
    return _png(figure)


def quality_cost_plot(
    metric: str, points: Mapping[str, tuple[float, Interval, str]], chosen: str
) -> bytes:
    """Figure with its interval over documents a second of one core, coloured by family.

    Args:
        metric: Name of the figure.
        points: Documents a second, figure and family, by name of the model.
        chosen: The one that is marked.
    """
    figure, axes = _canvas(9.6, 5.0)
    families = sorted({family for _, _, family in points.values()})
    colours = dict(zip(families, FAMILY_COLOURS, strict=False))
    # Numbers at the points, names beside the picture: names would lie on each other.
    for number, (name, (speed, found, family)) in enumerate(points.items(), 1):
        colour, marked = colours.get(family, QUIET), name == chosen
        axes.plot([speed] * 2, [found.low, found.high], color=colour, lw=1, alpha=0.35)
        axes.plot(
            speed,
            found.value,
            "*" if marked else "o",
            color=colour,
            ms=13 if marked else 5,
            ls="",
            label=f"{number}  {_plain([name])[0]}",
        )
        side = 5 if number % 2 else -5
        axes.annotate(
            str(number),
            (speed, found.value),
            xytext=(side, 2),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            fontsize=7,
            color=INK,
        )
    axes.set_xscale("log")
    axes.set_xlabel("documents a second of one core")
    axes.set_ylabel(f"{metric}, 95% interval")
    axes.grid(color="#e6e8eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=7.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    told = ", ".join(families)
    axes.set_title(f"best first; colours: {told}", fontsize=8, loc="left", color=QUIET)
    return _png(figure)


def change_plot(changes: Mapping[str, Sequence[float]]) -> bytes:
    """A box for each test: score afterwards less score before.

    Args:
        changes: By name of the test the 5th, 25th, 50th, 75th and 95th percentile.
    """
    names = list(changes)
    figure, axes = _canvas(7.0, 0.9 + 0.36 * len(names))
    boxes = [
        {"label": "", "whislo": p5, "q1": p25, "med": p50, "q3": p75, "whishi": p95}
        for p5, p25, p50, p75, p95 in changes.values()
    ]
    axes.bxp(
        boxes,
        positions=range(len(names)),
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        manage_ticks=False,
        medianprops={"color": KEPT, "lw": 2},
        boxprops={"color": INK},
        whiskerprops={"color": QUIET},
        capprops={"color": QUIET},
    )
    axes.axvline(0, color=INK, lw=1, ls="--")
    axes.set_yticks(range(len(names)), _plain(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("score afterwards less score before; box: middle half, whiskers: 5% to 95%")
    axes.grid(axis="x", color="#e6e8eb", lw=0.8)
    axes.set_axisbelow(True)
    return _png(figure)


def _label_name(target: Target, value: float) -> str:
    if target.kind == "ordinal":
        return f"{value:g}"
    names = target.classes if target.kind == "classes" else (target.negative, target.positive)
    return _plain([names[int(value)]])[0]


def _plain(names: Sequence[str]) -> list[str]:
    """Names that matplotlib takes as they are: a pair of dollars would be read as mathematics."""
    return [name.replace("$", r"\$") for name in names]


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the version in the file, equal figures give equal bytes.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
