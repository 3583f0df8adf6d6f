"""Pictures of a window beside its reference, as inline SVG in the colours of ``tamis.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.evaluation.bootstrap import Interval
from tamis.html import Html

Floats = NDArray[np.float64]
BINS = 30
_HALF, _WHOLE = 460, 920
_LEFT, _RIGHT, _BASE, _HIGH = 40, 12, 190, 150
_FIGURES = 210
"""Width beside bars for what is written there."""


class Beside(BaseModel):
    """Shares of a window and of its reference in the same bins.

    Attributes:
        edges: Of the bins (bins + 1,).
        window: Share of the window's documents in each (bins,).
        reference: Of the reference's; empty where it is not known.
        logarithmic: The bins are equal in logarithms.
        median: Of the window and of the reference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edges: tuple[float, ...]
    window: tuple[float, ...]
    reference: tuple[float, ...]
    logarithmic: bool = False
    median: tuple[float | None, float | None] = (None, None)


def beside(
    window: NDArray[np.number],
    reference: NDArray[np.number],
    low: float,
    high: float,
    logarithmic: bool = False,
) -> Beside:
    """Histograms over the same bins; values that are no numbers are left out.

    Args:
        window: Values (n,).
        reference: Values (m,).
        low: Lower end; what lies below counts in the first bin.
        high: Upper end, likewise.
        logarithmic: Bins equal in logarithms; ``low`` is above 0 then.
    """
    mine, theirs = _finite(window), _finite(reference)
    high = high if high > low else low + 1
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    return Beside(
        edges=tuple(edges.tolist()),
        window=_shares(mine, edges),
        reference=_shares(theirs, edges) if len(theirs) else (),
        logarithmic=logarithmic,
        median=(_median(mine), _median(theirs)),
    )


def histogram(found: Beside, label: str, threshold: float | None = None) -> Html:
    """The window as bars, the reference as a line; with the threshold, if there is one."""
    bins = len(found.window)
    span = _HALF - _LEFT - _RIGHT
    top = max([*found.window, *found.reference, 1e-9])
    step = span / max(bins, 1)
    parts = [_grid(top)]
    for i, share in enumerate(found.window):
        tall = max(_HIGH * share / top, 1.0 if share else 0)
        told = f"{found.edges[i]:.4g} to {found.edges[i + 1]:.4g}: {share:.1%}"
        if found.reference:
            told += f", reference {found.reference[i]:.1%}"
        parts.append(
            f'<rect x="{_LEFT + i * step + 0.5:.1f}" y="{_BASE - tall:.1f}" '
            f'width="{step - 1:.1f}" height="{tall:.1f}" rx="1.5" fill="var(--mark)" '
            f'opacity=".75"><title>{told}</title></rect>'
        )
    if found.reference:
        path = " ".join(
            f"{'M' if i == 0 else 'L'}{_LEFT + i * step:.1f} {_BASE - _HIGH * share / top:.1f} "
            f"H{_LEFT + (i + 1) * step:.1f}"
            for i, share in enumerate(found.reference)
        )
        parts.append(f'<path d="{path}" fill="none" stroke="var(--ink)" stroke-width="1.6"/>')
    for i in range(0, bins + 1, max(1, bins // 5)):
        side = "end" if i == bins else "middle"
        at = _LEFT + i * step + (4 if i == bins else 0)
        parts.append(_text(at, _BASE + 17, _number(found.edges[i]), side, "--soft"))
    if threshold is not None and found.edges[0] <= threshold <= found.edges[-1]:
        at = _LEFT + span * (threshold - found.edges[0]) / (found.edges[-1] - found.edges[0])
        side, gap = ("end", -6) if at > _HALF / 2 else ("start", 6)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="24" y2="{_BASE}" stroke="var(--keep)" '
            f'stroke-width="1.5" stroke-dasharray="5 4"/>'
            + _text(at + gap, 34, f"kept from {threshold:.3g}", side, "--keep")
        )
    return _figure(label, _HALF, 214, parts, legend=bool(found.reference))


def pairs(rows: Mapping[str, tuple[float, float | None]], label: str, whole: bool = False) -> Html:
    """A bar of the window's share over one of the reference's for each name.

    Args:
        rows: Both shares by name; None where the reference's is not known.
        label: What is shown.
        whole: The picture is as wide as the page, and not half of it.
    """
    width, names = (_WHOLE, 200) if whole else (_HALF, 150)
    top = max([value for pair in rows.values() for value in pair if value is not None] + [1e-9])
    span, parts = width - names - 60, []
    for row, (name, (window, reference)) in enumerate(rows.items()):
        y = 30 + 34 * row
        parts.append(_text(names - 10, y + 15, _short(name), "end", "--ink"))
        for offset, value, colour in ((0, window, "--mark"), (12, reference, "--drop")):
            if value is None:
                continue
            wide = max(span * value / top, 1.0 if value else 0)
            parts.append(
                f'<rect x="{names}" y="{y + offset}" width="{wide:.1f}" height="10" rx="2" '
                f'fill="var({colour})"/>'
                + _text(names + wide + 6, y + offset + 9, f"{value:.1%}", "start", "--soft", 10.5)
            )
    known = any(reference is not None for _, reference in rows.values())
    return _figure(label, width, 34 + 34 * len(rows), parts, legend=known, filled=True)


def closeness(rows: Sequence[tuple[str, float, str, bool]], label: str) -> Html:
    """How close each test is to its threshold, on a scale where 1 is the threshold.

    Args:
        rows: Name, statistic over threshold, what to write beside, whether it is beyond.
        label: What is shown.
    """
    most = max([1.5, *(min(value, 3.0) for _, value, _, _ in rows)])
    names = 200
    span, parts = _WHOLE - names - _FIGURES - 20, []
    for row, (name, value, told, beyond) in enumerate(rows):
        y = 28 + 28 * row
        wide = max(span * min(max(value, 0.0), most) / most, 1.0)
        colour = "--mark" if beyond else "--drop"
        parts.append(
            _text(names - 10, y + 12, _short(name), "end", "--ink")
            + f'<rect x="{names}" y="{y}" width="{wide:.1f}" height="15" rx="2" '
            f'fill="var({colour})"/>' + _text(_WHOLE - _FIGURES, y + 12, told, "start", "--soft")
        )
    at, bottom = names + span / most, 34 + 28 * len(rows)
    parts.append(
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="20" y2="{bottom}" stroke="var(--ink)" '
        f'stroke-width="1.3" stroke-dasharray="5 4"/>'
        + _text(at, 14, "threshold", "middle", "--ink")
    )
    return _figure(label, _WHOLE, bottom + 4, parts)


def intervals(rows: Sequence[tuple[str, Interval | None, float | None, str]], label: str) -> Html:
    """Figures with their intervals on one scale.

    Args:
        rows: Name, interval, a bare figure where there is no interval, colour of the style.
        label: What is shown.
    """
    ends = [v for _, found, bare, _ in rows for v in _values(found, bare)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    low, high = low - 0.08 * (high - low + 0.02), high + 0.08 * (high - low + 0.02)
    names = 200
    span, parts = _WHOLE - names - _FIGURES - 20, []

    def x(value: float) -> float:
        return names + span * (value - low) / (high - low)

    for row, (name, found, bare, colour) in enumerate(rows):
        y = 24 + 30 * row
        value = found.value if found else bare
        if value is None:
            continue
        parts.append(_text(names - 10, y + 4, _short(name), "end", "--ink"))
        told = f"{value:.3f}"
        if found:
            parts.append(
                f'<line x1="{x(found.low):.1f}" x2="{x(found.high):.1f}" y1="{y}" y2="{y}" '
                f'stroke="var({colour})" stroke-width="3"/>'
            )
            told += f" ({found.low:.3f} to {found.high:.3f})"
        parts.append(
            f'<circle cx="{x(value):.1f}" cy="{y}" r="5" fill="var({colour})"/>'
            + _text(_WHOLE - _FIGURES, y + 4, told, "start", "--soft")
        )
    return _figure(label, _WHOLE, 14 + 30 * len(rows), parts)


def _values(found: Interval | None, bare: float | None) -> list[float]:
    if found is not None:
        return [found.low, found.high, found.value]
    return [] if bare is None else [bare]


def _figure(
    label: str,
    width: int,
    height: int,
    parts: Sequence[str],
    legend: bool = False,
    filled: bool = False,
) -> Html:
    drawn = "\n".join([*parts, _legend(width, filled) if legend else ""])
    return Html(
        f'<figure><figcaption>{escape(label)}</figcaption><svg viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(label)}">\n{drawn}\n</svg></figure>'
    )


def _legend(width: int, filled: bool) -> str:
    mark = (
        f'<rect x="{width - 90}" y="4" width="16" height="10" rx="2" fill="var(--drop)"/>'
        if filled
        else f'<line x1="{width - 90}" x2="{width - 74}" y1="9" y2="9" stroke="var(--ink)" '
        f'stroke-width="1.6"/>'
    )
    return (
        f'<rect x="{width - 196}" y="4" width="16" height="10" rx="2" fill="var(--mark)" '
        f'opacity=".75"/>'
        + _text(width - 175, 13, "this window", "start", "--soft", 11)
        + mark
        + _text(width - 69, 13, "reference", "start", "--soft", 11)
    )


def _grid(top: float) -> str:
    parts = [
        f'<line x1="{_LEFT}" x2="{_HALF - _RIGHT}" y1="{_BASE}" y2="{_BASE}" stroke="var(--soft)"/>'
    ]
    for share in (0.5, 1.0):
        y = _BASE - _HIGH * share
        parts.append(
            f'<line x1="{_LEFT}" x2="{_HALF - _RIGHT}" y1="{y}" y2="{y}" stroke="var(--line)"/>'
            + _text(_LEFT - 6, y + 4, f"{top * share:.0%}", "end", "--soft", 11)
        )
    return "".join(parts)


def _text(x: float, y: float, told: str, anchor: str, colour: str, size: float = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" '
        f'fill="var({colour})">{escape(told)}</text>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def _number(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value / 1_000:.3g}k"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"


def _finite(values: NDArray[np.number]) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    return found[np.isfinite(found)]


def _shares(values: Floats, edges: Floats) -> tuple[float, ...]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return tuple((counts / max(len(values), 1)).tolist())


def _median(values: Floats) -> float | None:
    return float(np.median(values)) if len(values) else None
