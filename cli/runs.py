"""python run.py runs, logs, stop: look at what runs, and end it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.options import StackName

if TYPE_CHECKING:
    from deployment.session import Session

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's name or id, or its beginning.")
]


def runs(
    stack: StackName = "local",
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=200, help="How many.")] = 10,
) -> None:
    """List the last runs on a stack, newest first."""
    from cli.plan import console
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment.runs import recent

        found = recent(session, number)
        if not found:
            console.print(f"no run on {stack} yet")
            return
        console.print(_table(session, found))


def _table(session: Session, found: list[Any]) -> Table:
    from deployment.runs import status_of

    table = Table(box=None, pad_edge=False)
    for column in ("run", "task", "status", "minutes"):
        # A name that is cut is no name.
        fixed = {"overflow": "fold"} if column == "task" else {"no_wrap": True}
        table.add_column(column, justify="right" if column == "minutes" else "left", **fixed)
    styles = {"completed": "green", "failed": "red", "stopped": "yellow", "running": "cyan"}
    for run in found:
        status = status_of(session, run)
        style = styles.get(status, "dim")
        began, ended = run.start_time or run.created, run.end_time
        minutes = f"{(ended - began).total_seconds() / 60:.1f}" if ended else ""
        table.add_row(
            run.name,
            ", ".join(tag.name for tag in run.tags),
            f"[{style}]{status}[/]",
            minutes,
        )
    return table


def logs(
    run: RunName,
    stack: StackName = "local",
    step: Annotated[str | None, typer.Option("--step", help="One step; all by default.")] = None,
) -> None:
    """Print the logs of a run's steps."""
    from cli.plan import console
    from deployment.session import open_session

    with open_session(stack):
        from deployment import logs as reading

        names = [step] if step else reading.step_names(run)
        if not names:
            console.print("no step has begun")
        for name in names:
            for line in reading.lines(run, name):
                console.print(f"[dim]{name} |[/] ", end="")
                console.print(line, markup=False, soft_wrap=True)


def stop(run: RunName, stack: StackName = "vertex") -> None:
    """End a run on Vertex AI: its job there, and the record in ZenML."""
    from cli.plan import console
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment import runs as stopping

        with console.status("waiting for the job to end"):
            job = stopping.stop(session, run)
        console.print(f"[green]✓[/] run {run}: its job {job.id} is {job.state.lower()}")
