"""python run.py schedule: have a verb run again and again on Vertex AI."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.options import Settings, StackName, TaskName

if TYPE_CHECKING:
    from deployment.session import Session
    from deployment.vertex.schedules import Schedules
    from tamis.task import Task

SCHEDULED = "scheduled"
"""A moment that is the run's own."""
app = typer.Typer(help="Schedules of a stack on Vertex AI.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Of a schedule, as `schedule list` shows it.")]


class Verb(StrEnum):
    """What can be scheduled."""

    train = "train"
    filter = "filter"
    retrain = "retrain"
    monitor = "monitor"


@app.command("create")
def create(
    verb: Annotated[Verb, typer.Argument(help="What shall run.")],
    cron: Annotated[str, typer.Option("--cron", help="When: five fields, such as '0 3 * * 1'.")],
    task: TaskName = "edu_quality",
    stack: StackName = "vertex",
    name: Annotated[
        str | None, typer.Option("--name", help="Of the schedule; TASK-VERB by default.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="Of a filter or monitor: URLs of documents."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Of a filter: a URL; {date} becomes the day."),
    ] = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Make a schedule; each run takes the champion and the documents that are there then.

    On Vertex AI a scheduled monitor looks and keeps its report. What it finds is acted on by
    `monitor --retrain-on-drift` elsewhere: cron, Cloud Scheduler, a workflow, or `listen`.
    """
    from cli.plan import console, prepare
    from deployment.session import open_session
    from deployment.vertex.schedules import check_cron

    loaded = prepare(task, stack, settings, None)
    check_cron(cron)
    _require_remote(stack, verb, task, cron)
    with open_session(stack, experiments=("tamis_training", "tamis_retraining")) as session:
        from deployment.vertex.schedules import Schedules

        pipeline, parameters = _plan(session, verb, loaded, inputs or [], output)
        title = name or f"{loaded.name}-{verb.value}".replace("_", "-")
        Schedules(session.vertex).create(title, cron, pipeline, {"task": loaded, **parameters})
        console.print(f"[green]✓[/] schedule {title}: {verb.value} {loaded.name} at {cron}")


@app.command("list")
def list_(stack: StackName = "vertex") -> None:
    """List schedules as Vertex AI and ZenML see them."""
    from cli.plan import console
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment.vertex.schedules import Schedules

        found = Schedules(session.vertex).all()
    if not found:
        console.print(f"no schedule on {stack}")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("schedule", "cron", "Vertex AI", "ZenML", "next run", "runs"):
        table.add_column(column, no_wrap=True)
    for each in found:
        zenml = {True: "active", False: "paused", None: "missing"}[each.zenml]
        style = "" if each.agrees else "[yellow]"
        vertex = (each.vertex or "missing").lower()
        table.add_row(
            each.name, each.cron, style + vertex, style + zenml, each.next_run, str(each.runs)
        )
    console.print(table)
    if not all(each.agrees for each in found):
        console.print("[yellow]![/] where the two differ, pausing, resuming or deleting mends it")


@app.command("pause")
def pause(name: Name, stack: StackName = "vertex") -> None:
    """Start no further run."""
    _change(name, stack, "paused")


@app.command("resume")
def resume(name: Name, stack: StackName = "vertex") -> None:
    """Start runs again."""
    _change(name, stack, "resumed")


@app.command("delete")
def delete(name: Name, stack: StackName = "vertex") -> None:
    """Remove a schedule; its runs stay."""
    _change(name, stack, "deleted")


def _change(name: str, stack: str, done: str) -> None:
    from cli.plan import console
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment.vertex.schedules import Schedules

        schedules: Schedules = Schedules(session.vertex)
        {"paused": schedules.pause, "resumed": schedules.resume, "deleted": schedules.delete}[done](
            name
        )
    console.print(f"[green]✓[/] schedule {name} {done}")


def _require_remote(stack: str, verb: Verb, task: str, cron: str) -> None:
    """On this machine cron does it.

    Raises:
        StackError: The stack is local.
    """
    from deployment.stacks import LocalStack, load_stack
    from tamis.errors import StackError

    if isinstance(load_stack(stack), LocalStack):
        more = " --retrain-on-drift --trigger cron" if verb is Verb.monitor else ""
        line = f"{cron} cd THE_PROJECT && .venv/bin/python run.py {verb.value} --task {task}{more}"
        raise StackError(
            f"schedule: given --stack {stack}; allowed: a stack on Vertex AI; here cron does it: "
            f"{line}"
        )


def _plan(
    session: Session, verb: Verb, task: Task, inputs: list[str], output: str | None
) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a verb and its parameters, none of which is fixed to today."""
    from deployment.registry import CHAMPION

    common = {"home": session.scratch}
    if verb is Verb.train:
        from pipelines.training import training

        return training, common | {"stamp": SCHEDULED, "ledger": session.ledger}
    if verb is Verb.retrain:
        from pipelines.retraining import retraining

        stamps = {"stamp": SCHEDULED, "window_stamp": SCHEDULED, "champion_version": CHAMPION}
        return retraining, common | stamps | {"ledger": session.ledger}
    if verb is Verb.monitor:
        from deployment.paths import require_urls
        from deployment.watching import WatchRequest, record_of
        from pipelines.monitoring import monitoring
        from tamis.errors import UsageError

        if not inputs:
            raise UsageError(
                "--input: given nothing; allowed: URLs of the documents that are watched"
            )
        require_urls("--input", inputs)
        history = record_of(session.shared, task.name)
        watch = WatchRequest(window=tuple(inputs), at=SCHEDULED, history=history, version=CHAMPION)
        return monitoring, common | {"request": watch}
    from deployment.filtering import FilterRequest, check_inputs
    from pipelines.filtering import filtering

    request = FilterRequest(
        inputs=tuple(inputs) or ("packages",),
        output=output or f"{session.outputs}/{task.name}/{{date}}",
        version=CHAMPION,
        workers=0,
    )
    check_inputs(task, request, session)
    return filtering, common | {"request": request}
