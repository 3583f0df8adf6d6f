"""All verbs, and what becomes of an error: one sentence and an exit code."""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from cli import (
    annotate,
    behaviour,
    compare,
    dashboard,
    data,
    demo,
    distill,
    estimate,
    explain,
    filter,
    inspect,
    keys,
    listen,
    monitor,
    package,
    release,
    requests,
    retrain,
    runs,
    schedule,
    select,
    serve,
    serving_release,
    stack,
    status,
    train,
)
from tamis.errors import TamisError

app = typer.Typer(
    help="Train a document classifier, sift corpora with it, retrain it when the data drift.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused by the gate.",
)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("distill")(distill.distill)
app.command("filter")(filter.filter_)
app.command("estimate")(estimate.estimate)
app.command("explain")(explain.explain)
app.command("select")(select.select)
app.command("inspect")(inspect.inspect)
app.command("annotate")(annotate.annotate)
app.command("listen")(listen.listen)
app.command("monitor")(monitor.monitor)
app.command("retrain")(retrain.retrain)
app.command("behaviour")(behaviour.behaviour)
app.command("serve")(serve.serve)
app.command("package")(package.package)
app.command("promote")(release.promote)
app.command("rollback")(release.rollback)
app.command("release")(serving_release.release)
app.command("status")(status.status)
app.command("demo")(demo.demo)
app.command("dashboard")(dashboard.dashboard)
app.command("runs")(runs.runs)
app.command("logs")(runs.logs)
app.command("stop")(runs.stop)
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(requests.app, name="requests")
app.add_typer(schedule.app, name="schedule")
app.add_typer(stack.app, name="stack")


def main() -> None:
    """Run the command line; ``TAMIS_DEBUG=1`` shows tracebacks."""
    try:
        app()
    except Exception as error:
        found = cause(error)
        if os.environ.get("TAMIS_DEBUG") or found is None:
            raise
        console = Console(stderr=True)
        console.print("[bold red]error[/]:", end=" ")
        console.print(str(found), markup=False, highlight=False, soft_wrap=True)
        sys.exit(found.exit_code)


def cause(error: BaseException | None) -> TamisError | None:
    """The error of ours behind an error that passed through the orchestrator."""
    while error is not None:
        if isinstance(error, TamisError):
            return error
        error = error.__cause__ or error.__context__
    return None
