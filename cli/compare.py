"""python run.py compare: model families and text preparations on the same folds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

_WIDE = 190

if TYPE_CHECKING:
    from tamis.comparison.report import Comparison
    from tamis.comparison.settings import Variant
    from tamis.task import Task


def compare(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Only this one of compare.models. Repeatable."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Write the table as Markdown.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Write the picture as PNG.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Train every model of the task's comparison on the same folds; say which to deploy."""
    from cli.plan import prepare, show_plan
    from cli.result import Clock, IntervalOut, Result, check_writable, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    for path in (table, picture):
        check_writable(path)
    variants = _variants(loaded, models or [])
    from tamis.corpus.sources import stamp

    stamped = stamp(loaded.sources)
    if dry_run:
        show_plan(f"compare {loaded.name} on {stack}", _plan(loaded, variants))
        write(Result(verb="compare", task=loaded.name, stack=stack, status="planned"), result)
        return
    from deployment.session import open_session

    with open_session(stack, experiments=("tamis_comparison",)) as session:
        from cli import execute
        from pipelines.comparison import comparison

        ran = execute.run(
            session,
            comparison,
            task=loaded,
            variants=variants,
            stamp=stamped,
            home=session.scratch,
        )
        found: Comparison = ran.load("rank_variants", "comparison")
        outcome = Result(
            verb="compare",
            task=loaded.name,
            stack=stack,
            run_id=str(ran.run.id),
            cost=ran.cost,
            cross_validation={
                row.name: IntervalOut(**row.figure.model_dump(exclude={"groups"}))
                for row in found.rows
            },
            outputs={"deploy": found.deploy} if found.deploy else {},
            seconds=clock.seconds(),
        )
    _show(found)
    if table is not None:
        table.write_text(found.to_markdown(), encoding="utf-8")
    if picture is not None:
        picture.write_bytes(found.picture())
    write(outcome, result)


def _variants(task: Task, models: list[str]) -> list[Variant]:
    """Those of the models that were asked for; of all, where none was.

    Raises:
        UsageError: There is no such model.
    """
    from tamis.errors import UsageError

    known = task.compare.models
    for name in models:
        if name not in known:
            allowed = ", ".join(known)
            raise UsageError(f"--model: given {name!r}; allowed: {allowed}")
    chosen = {name: model for name, model in known.items() if not models or name in models}
    only = task.compare.model_copy(update={"models": chosen})
    return list(only.variants(task.model))


def _plan(task: Task, variants: list[Variant]) -> list[tuple[str, object]]:
    policy = task.compare.policy
    return [
        ("pipeline", "ingest, validate, split, fold, try each variant, rank"),
        ("variants", ", ".join(variant.name for variant in variants)),
        ("folds", f"{task.compare.folds}, and the task's own split"),
        ("metric", task.metric),
        (
            "deploy",
            f"within {policy.within:.1%} of the best, at least {policy.documents_per_second:g} "
            f"documents a second of one core, the {policy.prefer}",
        ),
    ]


def _show(found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found.task}: models on the same folds", title_justify="left")
    for number, header in enumerate(found.headers):
        table.add_column(header, justify="left" if number < 2 else "right")
    for row in found.rows:
        quiet = "dim" if row.family == "baseline" else ""
        table.add_row(*found.cells(row), style="bold" if row.name == found.deploy else quiet)
    # The table is wide: what is not a terminal has no width of its own.
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    console.print(table)
    console.print(found.lead, markup=False, soft_wrap=True)
