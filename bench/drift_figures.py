"""Verdicts to rates with intervals, alarms a quarter, the picture, and the tables of the docs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.drift_windows import NONE, REFERENCE, SHIFTS
from tamis.monitoring.settings import MonitorSettings

Row = dict[str, Any]
Turn = Mapping[str, Any]
"""Verdicts on some windows: ``window``, ``shift``, ``share``, ``seed``, and by detector
``alarms`` (0 or 1 each), ``p`` (where it has one) and, by timed name, ``cpu_s``."""
QUARTER = 91
QUARTERS = 100
PICTURED = 500
DRAWN = (
    ("tamis", "#1a7f5a", "o"),
    ("ks-bonferroni", "#2563a8", "s"),
    ("evidently-default", "#b0623c", "^"),
)
WANTED = ((500, "topic", 0.1, 0.60), (500, "topic", 0.2, 0.98))
"""Window, shift, share, and the least share of windows in which it must be found."""


def wilson(alarms: int, repeats: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(alarms, repeats).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def rows_of(turns: Iterable[Turn], settings: MonitorSettings) -> list[Row]:
    """A row for each detector, window, shift and share."""
    cells: dict[tuple[Any, ...], dict[str, list[Any]]] = {}
    spent: dict[tuple[Any, ...], list[float]] = {}
    for turn in turns:
        at = (turn["window"], turn["shift"], turn["share"])
        for name, alarms in turn["alarms"].items():
            cell = cells.setdefault((name, *at), {"alarms": [], "p": [], "seed": []})
            cell["alarms"] += alarms
            cell["p"] += turn["p"].get(name, [])
            cell["seed"] += [turn["seed"]] * len(alarms)
        for name, seconds in turn["cpu_s"].items():
            spent.setdefault((name, *at), []).extend(seconds)
    found = []
    for (name, window, shift, share), cell in cells.items():
        alarms, repeats = sum(cell["alarms"]), len(cell["alarms"])
        low, high = wilson(alarms, repeats)
        seconds = spent[timed(name), window, shift, share]
        row: Row = {
            "detector": name,
            "window": window,
            "shift": shift,
            "foreign_share": share,
            "rate": round(alarms / repeats, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "repeats": repeats,
            "cpu_s": round(float(np.median(seconds)), 3),
            "budget": round(settings.window_rate, 5),
        }
        if name == "tamis" and shift == NONE:
            row |= policies(cell["p"], cell["seed"], window, settings)
        found.append(row)
    order = {NONE: -1, **{shift: at for at, shift in enumerate(SHIFTS)}}
    return sorted(
        found,
        key=lambda r: (r["window"], order[r["shift"]], r["foreign_share"], r["detector"]),
    )


def timed(detector: str) -> str:
    """The name under which a detector's time was taken: some are one computation."""
    for name in ("evidently", "ks-bonferroni"):
        if detector.startswith(name):
            return name
    return detector


def policies(
    p: Sequence[float], seeds: Sequence[int], window: int, settings: MonitorSettings
) -> Row:
    """False alarms a quarter of daily windows, under the policy and with two windows in a row.

    A quarter is made of windows that were looked at beside one reference, in random order again
    and again, so that what chance made of a reference stays with it for the quarter.
    """
    from tamis.monitoring.alarm import window_level

    by_seed: dict[int, list[float]] = {}
    for value, seed in zip(p, seeds, strict=True):
        by_seed.setdefault(seed, []).append(value)
    rng = np.random.default_rng(0)
    found: Row = {}
    for consecutive in (1, 2):
        policy = settings.model_copy(update={"consecutive": consecutive})
        level = window_level(policy, REFERENCE, window)
        counts = []
        for seed in rng.choice(list(by_seed), QUARTERS):
            values, rounds = by_seed[seed], -(-QUARTER // len(by_seed[seed]))
            days = np.concatenate([rng.permutation(values) for _ in range(rounds)])[:QUARTER]
            counts.append(quarter_alarms((days <= level).tolist(), policy))
        found[f"alarms_a_quarter_{consecutive}"] = round(float(np.mean(counts)), 3)
        found[f"level_{consecutive}"] = round(level, 5)
    return found


def quarter_alarms(drifted: Sequence[bool], settings: MonitorSettings) -> int:
    """Alarms that the policy raises on daily windows one after another."""
    from tamis.monitoring.alarm import Past, rings

    history: list[Past] = []
    now, alarms = datetime(2026, 1, 1, tzinfo=UTC), 0
    for one in drifted:
        now += timedelta(days=1)
        rang = rings(history, now, one, settings).rings
        history = [*history[-30:], Past(end=now, drifted=one, rang=rang)]
        alarms += rang
    return alarms


def missed(rows: Sequence[Row]) -> list[str]:
    """What was to be reached and was not."""
    found = []
    for row in rows:
        if row["detector"] != "tamis":
            continue
        unchanged = not row["foreign_share"]
        cell = f"{row['shift']}, {row['window']} documents, {row['foreign_share']:.0%} foreign"
        if unchanged and row["low"] > row["budget"]:
            found.append(f"{cell}: false alarms {row['rate']:.1%}, budget {row['budget']:.1%}")
        for window, shift, share, least in WANTED:
            is_it = (row["window"], row["shift"], row["foreign_share"]) == (window, shift, share)
            if is_it and row["rate"] < least:
                found.append(f"{cell}: detected in {row['rate']:.0%}, {least:.0%} wanted")
    return found


def table(rows: Sequence[Row], window: int) -> list[str]:
    """Lines of a Markdown table: detectors beside each other, in percent of windows."""
    names = list(dict.fromkeys(row["detector"] for row in rows))
    lines = [f"| shift | foreign | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    cells: dict[tuple[str, float], dict[str, Row]] = {}
    for row in rows:
        if row["window"] == window:
            cells.setdefault((row["shift"], row["foreign_share"]), {})[row["detector"]] = row
    for (shift, share), by_name in cells.items():
        shown = [
            f"{r['rate']:.0%} ({r['low']:.0%}-{r['high']:.0%})" if r else ""
            for r in map(by_name.get, names)
        ]
        lines.append(f"| {shift} | {share:.0%} | {' | '.join(shown)} |")
    return lines


def picture(rows: Sequence[Row], file: Path) -> None:
    """Draw detection against the share of foreign documents, a panel for each shift."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["window"] == PICTURED]
    shifts = [shift for shift in SHIFTS if any(row["shift"] == shift for row in shown)]
    if not shifts:
        return
    figure = Figure(figsize=(2.9 * len(shifts), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shifts), sharey=True, squeeze=False)[0]
    for axes, shift in zip(panels, shifts, strict=True):
        for name, colour, marker in DRAWN:
            mine = [r for r in shown if r["detector"] == name and r["shift"] in (shift, NONE)]
            if any(r["shift"] == shift and not r["foreign_share"] for r in mine):
                mine = [r for r in mine if r["shift"] == shift]
            mine.sort(key=lambda r: r["foreign_share"])
            x = [100 * r["foreign_share"] for r in mine]
            low, high = ([100 * r[end] for r in mine] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(x, [100 * r["rate"] for r in mine], color=colour, marker=marker, ms=5,
                      label=name)  # fmt: skip
        axes.axhline(100 * shown[0]["budget"], color="#222222", lw=0.8, ls=":")
        axes.set_title(shift, fontsize=11)
        axes.set_xlabel("changed labels, %" if shift == "label" else "foreign documents, %")
        axes.set_xticks([0, 10, 20, 40])
        axes.set_ylim(-3, 103)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"windows of {PICTURED} that ring, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(DRAWN), frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
