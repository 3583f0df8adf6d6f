"""python run.py monitor: look at a window, tell what drifted, retrain where the policy says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ModelVersion, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from tamis.task import Task

_WHEN = "as 2026-01-31, 2026-01-31T18:30 (UTC), now, or 90m, 24h, 7d ago"


def monitor(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    window: Annotated[
        list[str] | None,
        typer.Option(
            "--window",
            "-w",
            help="Files, outputs of `filter` or URLs; by default the request log.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", envvar="TAMIS_SERVE_LOG", help="Folder of the request log."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help=f"From when, of the log: {_WHEN}.")
    ] = None,
    end: Annotated[str, typer.Option("--to", help="Until when, likewise.")] = "now",
    version: ModelVersion = None,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", help="A URL whose /metrics tell how the service does."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Set the alarm on windows of the reference.")
    ] = False,
    documents: Annotated[
        int, typer.Option("--documents", min=20, help="With --calibrate: of a window.")
    ] = 500,
    accept: Annotated[
        bool, typer.Option("--accept", help="Compare later windows with this one: it is normal.")
    ] = False,
    retrain_on_drift: Annotated[
        bool, typer.Option("--retrain-on-drift", help="Retrain where the task's policy says so.")
    ] = False,
    insist: Annotated[
        bool, typer.Option("--insist", help="Retrain though nothing drifted; limits still hold.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only finish a retraining that was cut off.")
    ] = False,
    trigger: Annotated[
        str, typer.Option("--trigger", help="What started it, such as cron or alertmanager:KEY.")
    ] = "hand",
    request_id: Annotated[
        str | None, typer.Option("--id", help="The same event has the same id, and is taken once.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Compare what is served or sifted with what the model was trained on; alarm, retrain."""
    from cli.plan import prepare
    from cli.result import write
    from deployment.retraining.request import Trigger, TriggerRequest, new_id

    loaded = prepare(task, stack, settings, result)
    retraining = retrain_on_drift or resume
    _require_one({"--calibrate": calibrate, "--accept": accept, "--retrain-on-drift": retraining})
    first, last = _span(loaded, start, end)
    request = TriggerRequest(
        task=loaded.name,
        stack=stack,
        trigger=Trigger.parse(trigger),
        id=request_id or new_id(),
        window=tuple(window or ()),
        log=None if log is None else str(log),
        start=first,
        end=last,
        insist=insist,
    )
    from deployment.session import open_session

    names = ("tamis_training", "tamis_retraining") if retraining else ()
    with open_session(stack, experiments=names) as session:
        from cli.watching import Watcher

        watcher = Watcher(session, loaded, version, tuple(service or ()))
        if dry_run:
            outcome = watcher.plan(request, calibrate, retrain_on_drift)
        elif calibrate:
            outcome = watcher.calibrate(documents)
        elif accept:
            outcome = watcher.accept(request)
        elif retraining:
            outcome = watcher.retrain(request, resume)
        else:
            outcome = watcher.look(request)
    write(outcome, result)
    if outcome.status == "refused":
        raise typer.Exit(3)


def _require_one(given: dict[str, bool]) -> None:
    """At most one of several things to do.

    Raises:
        UsageError: Two are asked for.
    """
    from tamis.errors import UsageError

    asked = [name for name, wanted in given.items() if wanted]
    if len(asked) > 1:
        raise UsageError(f"monitor: given {' and '.join(asked)}; allowed: one of them")


def _span(task: Task, start: str | None, end: str) -> tuple[str, str]:
    """The span of the log, ISO 8601; by default one window that ends now.

    Raises:
        UsageError: It is none.
    """
    from cli.requests import moment
    from tamis.errors import UsageError

    now = datetime.now(UTC)
    last = moment("--to", end, now)
    window = timedelta(hours=task.monitor.window_hours)
    first = last - window if start is None else moment("--from", start, now)
    if first >= last:
        raise UsageError(f"--from: given {start!r}; allowed: a time before --to {end!r}")
    return first.isoformat(), last.isoformat()
