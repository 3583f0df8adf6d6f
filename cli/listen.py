"""python run.py listen: the webhook that alerts come in by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DryRun, Settings, StackName, TaskName


def listen(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65_535)] = 3_010,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Holds the token; else TAMIS_LISTEN_TOKEN does."),
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Take alerts of Alertmanager at /alerts and look at each once, until Ctrl-C."""
    import os
    import sys

    from cli.plan import console, prepare, show_plan
    from deployment.listening.app import check_token
    from deployment.listening.server import TOKEN
    from deployment.listening.server import listen as serve
    from deployment.listening.worker import Command
    from deployment.serving.process import ROOT
    from deployment.session import Session
    from deployment.stacks import load_stack

    loaded = prepare(task, stack, settings, None)
    token = check_token(_read(token_file) if token_file else os.environ.get(TOKEN, ""))
    session = Session(stack, load_stack(stack))
    given = str(Path(task).resolve()) if Path(task).is_file() else task
    monitor = [sys.executable, str(ROOT / "run.py"), "monitor", "--task", given, "--stack", stack]
    monitor += ["--retrain-on-drift", *(part for one in settings for part in ("--set", one))]
    lines: list[tuple[str, object]] = [
        ("address", f"http://{host}:{port}/alerts"),
        ("inbox", session.home / "listening" / loaded.name),
        ("runs", " ".join(["python", "run.py", *monitor[2:], "--trigger", "alertmanager:KEY"])),
    ]
    if dry_run:
        show_plan(f"listen for {loaded.name} on {stack}", lines)
        return
    for name, value in lines:
        console.print(f"  [dim]{name:<8}[/] ", end="")
        console.print(str(value), markup=False, soft_wrap=True)
    environment = {name: value for name, value in os.environ.items() if name != TOKEN}

    def run(trigger: str, request: str) -> list[str]:
        return [*monitor, "--trigger", trigger, "--id", request]

    command = Command(run, Path.cwd(), environment)
    serve(loaded.name, token, session.home, session.ledger, command, host, port)


def _read(file: Path) -> str:
    """The token of a file.

    Raises:
        UsageError: It cannot be read.
    """
    from tamis.errors import UsageError

    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(4_096)
    except (OSError, UnicodeDecodeError):
        given = str(file)
        raise UsageError(f"--token-file: given {given!r}; allowed: a file with a token") from None
