"""python run.py select: decide again from stored scores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from cli.filter import Format, check_threshold
from cli.options import ResultFile

if TYPE_CHECKING:
    from tamis.scoring.select import Criterion

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}


def select(
    scores: Annotated[str, typer.Option("--scores", help="Output of a finished filter.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or URL of the new one.")],
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Keep from this score.")
    ] = None,
    top_percent: Annotated[
        float | None,
        typer.Option("--top-percent", help="Keep this share of the scored, best first."),
    ] = None,
    token_budget: Annotated[
        str | None, typer.Option("--token-budget", help="Keep the best up to so many: 500M, 20B.")
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option("--set", help="Change a later stage, such as rules.enabled=true. Repeatable."),
    ] = [],  # noqa: B006
    format_: Annotated[Format, typer.Option("--format", help="Of the rows.")] = Format.parquet,
    workers: Annotated[
        int, typer.Option("--workers", "-j", min=0, help="Processes; 0: one for every core.")
    ] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over in --output.")] = False,
    result: ResultFile = None,
) -> None:
    """Decide again over a filter's scores, without the model."""
    from cli.result import Clock, Result, check_writable, write

    clock = Clock()
    check_writable(result)
    criterion = _criterion(threshold, top_percent, token_budget)
    from cli import figures
    from tamis.engine.base import available_cores
    from tamis.engine.local import LocalEngine
    from tamis.scoring.filter_report import FilterReport
    from tamis.scoring.scored import scored_shards
    from tamis.scoring.select import read_report
    from tamis.scoring.select import select as run

    scored_shards(scores)
    before: FilterReport = read_report(scores)
    check_threshold(threshold, (before.summary.low, before.summary.high))
    selection = run(
        scores,
        output,
        criterion,
        settings=settings,
        form=format_.value,
        engine=LocalEngine(workers or available_cores()),
        fresh=fresh,
    )
    report = selection.report
    figures.show_filter(report)
    figures.console.print(f"  threshold: {selection.threshold:g} (was {before.threshold:g})")
    if selection.unscored:
        told = ", ".join(f"{name} {n:,}" for name, n in sorted(selection.unscored.items()))
        figures.console.print(
            f"  without a score, and left out as before: {told}", markup=False, soft_wrap=True
        )
    if selection.student_only and selection.threshold != before.threshold:
        figures.console.print(
            f"  {selection.student_only:,} documents have the score of a student only; nothing was "
            "promised about it at another threshold than the cascade's",
            soft_wrap=True,
        )
    counts = figures.of_filter(report) | {"unscored": sum(selection.unscored.values())}
    outcome = Result(
        verb="select",
        stack="local",
        model_version=report.model_version,
        threshold=selection.threshold,
        counts=counts,
        outputs={"output": output, "report": f"{output}/report.html"},
        seconds=clock.seconds(),
    )
    figures.console.print("  look at it: ", end="")
    figures.console.print(outcome.outputs["report"], markup=False, soft_wrap=True)
    write(outcome, result)


def _criterion(
    threshold: float | None, top_percent: float | None, token_budget: str | None
) -> Criterion:
    from tamis.errors import UsageError
    from tamis.scoring.select import Criterion

    given = [value for value in (threshold, top_percent, token_budget) if value is not None]
    if len(given) != 1:
        raise UsageError(
            f"select: given {len(given)} criteria; allowed: exactly one of --threshold, "
            "--top-percent and --token-budget"
        )
    if threshold is not None:
        return Criterion("threshold", threshold)
    if top_percent is not None:
        return Criterion("top_share", percent_of(top_percent))
    return Criterion("token_budget", tokens(token_budget or ""))


def percent_of(given: float) -> float:
    """The share that ``--top-percent`` names.

    Raises:
        UsageError: It keeps all or nothing.
    """
    from tamis.errors import UsageError

    if not 0 < given < 100:
        raise UsageError(f"--top-percent: given {given:g}; allowed: above 0 and below 100")
    return given / 100


def tokens(given: str) -> int:
    """A number of tokens, written as ``20B``, ``1.5M`` or ``300000``.

    Raises:
        UsageError: It is none.
    """
    from tamis.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBGT]?)", given.strip().replace(",", "").upper())
    number = float(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= number < 1e18:
        raise UsageError(f"--token-budget: given {given!r}; allowed: tokens such as 500M or 20B")
    return round(number)
