"""Figures of artifacts, for the terminal and for the result document."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from cli.result import DecisionOut, IntervalOut
from deployment.release import Registered
from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.figures import Comparison, Evaluation
from tamis.monitoring.drift import DriftReport
from tamis.scoring.distill_report import DistillReport
from tamis.scoring.filter_report import FilterReport, audit_lines
from tamis.tuning.search import Tuning

console = Console(highlight=False)


def out(interval: Interval) -> IntervalOut:
    """An interval in the result document's shape."""
    return IntervalOut(value=interval.value, low=interval.low, high=interval.high, n=interval.n)


def of_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """The parts of the result document that an evaluation fills."""
    metric = evaluation.metric
    cross: dict[str, IntervalOut] = {}
    validated = evaluation.cross_validation
    if validated is not None:
        cross = _cross(validated)
    return {
        "metrics": {name: out(figure) for name, figure in evaluation.model.figures.items()},
        "baselines": {b.name: out(b.figures[metric]) for b in evaluation.baselines},
        "gains": {name: out(gain[metric]) for name, gain in evaluation.gains.items()},
        "cross_validation": cross,
    }


def _cross(validated: Comparison) -> dict[str, IntervalOut]:
    metric = validated.metric
    scorers = (validated.model, *validated.baselines)
    found = {scorer.name: out(scorer.figures[metric]) for scorer in scorers}
    found |= {f"gain over {name}": out(g[metric]) for name, g in validated.gains.items()}
    for part in validated.slices:
        found[f"{part.name}: model"] = out(part.figures[metric])
        found |= {f"{part.name}: gain over {n}": out(g) for n, g in part.gains.items()}
    return found


def of_registered(registered: Registered) -> DecisionOut:
    """The decision about a version."""
    return DecisionOut(passed=registered.passed, reasons=registered.reasons)


def show_evaluation(evaluation: Evaluation) -> None:
    """A table of the model beside its baselines."""
    console.print(comparison_table(evaluation, f"on {evaluation.n} test documents"))
    if evaluation.cross_validation is not None:
        n = evaluation.cross_validation.n
        title = f"cross-validated, all {n} labelled documents"
        console.print(comparison_table(evaluation.cross_validation, title))


def comparison_table(comparison: Comparison, title: str) -> Table:
    """Model and baselines with their intervals, and the model's paired gain."""
    metric = comparison.metric
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for name in ("", metric, "95% interval", "gain of the model", "95% interval"):
        table.add_column(name, justify="left" if not name else "right")
    for scorer in (comparison.model, *comparison.baselines):
        figure = scorer.figures[metric]
        gain = comparison.gains.get(scorer.name, {}).get(metric)
        row = [scorer.name, f"{figure.value:.3f}", span(figure)]
        table.add_row(*row, *([f"{gain.value:+.3f}", span(gain)] if gain else ["", ""]))
    return table


def span(interval: Interval) -> str:
    """The ends of an interval."""
    return f"{interval.low:.3f} to {interval.high:.3f}"


def show_registered(registered: Registered) -> None:
    """What became of a version, and why."""
    state = "" if registered.new else " (the same model was registered before)"
    alias = registered.alias or "no alias"
    console.print(f"\n[bold]{registered.task} version {registered.version}[/]: {alias}{state}")
    for reason in registered.reasons:
        mark = "[green]✓[/]" if not reason.startswith("failed") else "[red]✗[/]"
        console.print(f"  {mark} ", end="")
        console.print(reason.split(": ", 1)[-1], markup=False, soft_wrap=True)


def of_filter(report: FilterReport) -> dict[str, int]:
    """Counts of a filter run, for the result document."""
    counts: dict[str, int] = {name: int(n) for name, n in report.counts.model_dump().items()}
    return counts | {
        "tokens_in": report.tokens_in,
        "tokens_kept": report.tokens_kept,
        "characters_in": report.characters_in,
        "characters_kept": report.characters_kept,
        "shards": report.shards,
    }


def show_filter(report: FilterReport) -> None:
    """Counts of a filter run, and what each stage did."""
    counts = report.counts
    console.print(
        f"\n[bold]{counts.kept:,} of {counts.read:,} documents kept[/] ({report.kept_share:.1%})"
    )
    console.print(f"  {counts}")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("  stage", "documents", "taken out", "CPU-s", "us/document"):
        table.add_column(name, justify="left" if name == "  stage" else "right", style="dim")
    for name, done in report.stages.items():
        each = f"{1e6 * done.cpu_seconds / done.entered:,.0f}" if done.entered else ""
        removed = f"{done.removed:,}" if done.removed else ""
        entered = f"{done.entered:,}" if done.entered else ""
        table.add_row(f"  {name}", entered, removed, f"{done.cpu_seconds:,.2f}", each)
    console.print(table)
    reasons = sorted(report.summary.reasons.items(), key=lambda item: -item[1])
    if reasons:
        told = ", ".join(f"{name} {number:,}" for name, number in reasons[:8])
        console.print(f"  left out: {told}", markup=False, soft_wrap=True)
    console.print(
        f"  tokens kept: {report.tokens_kept:,} of {report.tokens_in:,} scored; "
        f"{report.documents_per_cpu_second:.1f} documents per CPU-second"
    )
    if report.audit is not None:
        who = report.audit.counts
        console.print(
            f"  cascade: the student decided about {who.dropped + who.kept:,} documents, the "
            f"encoder about {who.sent:,}; audited {who.dropped_audited + who.kept_audited:,}"
        )
        style = "bold red" if report.audit.broken else "dim"
        for line in audit_lines(report.audit):
            console.print(f"  {line}", style=style, markup=False, soft_wrap=True)


def of_drift(drift: DriftReport) -> dict[str, float]:
    """Figures of the drift tests, for the result document."""
    return {
        "drifted": float(drift.drifted),
        "p": drift.p,
        "level": drift.level,
        "window": float(drift.window),
        "reference": float(drift.reference),
        **{test.name: test.value for test in drift.tests},
    }


def show_drift(drift: DriftReport) -> None:
    """What the drift tests found."""
    verdict = "[yellow]the window has drifted[/]" if drift.drifted else "no drift found"
    console.print(f"\n[bold]Drift[/]: {verdict} ({drift.window} documents)")
    for reason in drift.reasons:
        console.print(f"  {reason.check}: {reason.detail}", markup=False, soft_wrap=True)


def of_cascade(report: DistillReport) -> dict[str, IntervalOut]:
    """What a cascade does to its test documents."""
    found = report.test or report.encoder_only
    rates = {"recall": found.recall, "precision": found.precision, "f1": found.f1,
             "sent": found.sent}  # fmt: skip
    return {
        name: IntervalOut(value=rate.value, low=rate.low, high=rate.high, n=rate.n)
        for name, rate in rates.items()
        if rate is not None
    }


def show_cascade(report: DistillReport) -> None:
    """The promise, and what was measured on documents that had no say in it."""
    console.print(f"\n[bold]Cascade[/] {report.calibration.reason}", soft_wrap=True)
    n = report.documents["test"]
    for name, figure in of_cascade(report).items():
        console.print(
            f"  {name:<10} {figure.value:.3f} [dim]({figure.low:.3f} to {figure.high:.3f}) on "
            f"{figure.n:,} of {n:,} test documents[/]"
        )
    speeds = report.documents_per_cpu_second
    console.print(
        f"  {report.gain:.1f} times as many documents a CPU-second as the encoder "
        f"({report.backend}) alone: student {speeds['student']:,.0f}, encoder "
        f"{speeds['encoder']:,.0f}",
        soft_wrap=True,
    )


def show_tuning(found: Tuning) -> None:
    """The trials that count, and the settings to put into the task file."""
    table = Table(title=f"{len(found.trials)} trials on {found.folds} folds", title_justify="left")
    for header in ("trial", "state", f"{found.metric}, mean of folds", "settings"):
        table.add_column(header)
    for trial in (found.own, *found.trials):
        taken = trial.number == found.best
        figure = "" if trial.figure is None else f"{trial.figure:.4f}"
        settings = " ".join(f"{key}={value}" for key, value in trial.settings.items())
        name = "own settings" if trial.number < 0 else str(trial.number)
        table.add_row(name, trial.state, figure, settings, style="bold" if taken else "")
    console.print(table)
    for assignment in found.assignments():
        console.print(f"  --set {assignment}", markup=False, soft_wrap=True)
