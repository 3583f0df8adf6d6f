"""python run.py serve: a registered model behind an HTTP API, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ModelVersion, Settings, StackName, TaskName

if TYPE_CHECKING:
    from tamis.scoring.settings import BackendName


def serve(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    version: ModelVersion = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65_535)] = 3_000,
    backend: Annotated[
        str | None, typer.Option("--backend", help="That scores; what the task says by default.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="File of API keys; the one that `keys create` writes."),
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Serve the champion until Ctrl-C: the page, /score and more; docs/serving.md."""
    import os

    from cli.plan import console, prepare, show_plan

    loaded = prepare(task, stack, settings, None)
    named = _backend(backend)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment.registry import Registry
        from deployment.serving.prepare import prepare as make
        from deployment.serving.process import ROOT, command, environment
        from deployment.serving.runtime import processes_of

        chosen = Registry().get(loaded.name, version or "champion")
        file = keys or session.home / "serving" / "keys.json"
        log = session.home / "serving" / "requests" / loaded.name
        lines: list[tuple[str, object]] = [
            ("address", f"http://{host}:{port}/"),
            ("keys", file if loaded.serve.auth == "keys" else "none asked for"),
            ("log", log if loaded.serve.log.enabled else "none"),
        ]
        if dry_run:
            show_plan(f"serve {loaded.name} version {chosen.version}", lines)
            return
        _require_key(file, loaded.serve.auth)
        with console.status("preparing the model"):
            folder = make(loaded, chosen, session.home, named)
    console.print(f"[green]✓[/] {loaded.name} version {chosen.version} from {folder.name}")
    for name, value in lines:
        console.print(f"  [dim]{name:<8}[/] {value}", soft_wrap=True)
    os.chdir(ROOT)
    bento = session.home / "serving" / "bentoml" / str(port)
    variables = environment(folder, log=log, keys_file=file, home=bento)
    arguments = command(port, host, processes_of(loaded.serve))
    os.execve(arguments[0], arguments, variables)  # noqa: S606


def _backend(given: str | None) -> BackendName | None:
    """The backend that was asked for.

    Raises:
        UsageError: It is none.
    """
    from typing import cast, get_args

    from tamis.errors import UsageError
    from tamis.scoring.settings import BackendName

    names = get_args(BackendName)
    if given is not None and given not in names:
        raise UsageError(f"--backend: given {given!r}; allowed: {', '.join(names)}")
    return cast("BackendName | None", given)


def _require_key(file: Path, auth: str) -> None:
    """Refuse to start a service that nobody may ask.

    Raises:
        UsageError: There is no key in force.
    """
    from tamis.errors import UsageError
    from tamis.serving.keys import read_keys

    if auth == "keys" and all(key.revoked for key in read_keys(file).keys):
        raise UsageError(
            f"{file}: given no key in force; allowed: one from `python run.py keys create NAME`, "
            "or --set serve.auth=none for a service that only you can reach"
        )
