"""python run.py package: a registered model as a Bento, with all that an image of it needs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ModelVersion, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from deployment.packaging.record import Package
    from tamis.scoring.settings import BackendName

_MEGABYTE = 1_000_000


class Backend(StrEnum):
    """What runs the model."""

    onnx_int8 = "onnx-int8"
    onnx = "onnx"
    torch = "torch"
    torch_bf16 = "torch-bf16"
    torch_packed = "torch-packed"


def package(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    version: ModelVersion = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for packages; the stack's own by default."),
    ] = None,
    backend: Annotated[
        Backend | None,
        typer.Option(
            "--backend", help="What runs the model; onnx-int8 by default where it passes the gate."
        ),
    ] = None,
    trial: Annotated[
        bool,
        typer.Option("--trial/--no-trial", help="Start the service from the package and ask it."),
    ] = True,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Build the Bento of a registered version, its lock file, Dockerfile and list of materials."""
    from cli.plan import console, prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    from deployment.session import open_session
    from tamis.errors import UsageError

    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"--output: given {str(output)!r}; allowed: a folder")
    with open_session(stack) as session:
        from deployment.packaging.build import package as build
        from deployment.registry import Registry

        chosen = Registry().get(loaded.name, version or "champion")
        where = (output or session.home / "packages").resolve()
        told = Result(
            verb="package",
            task=loaded.name,
            stack=stack,
            status="planned",
            model_version=chosen.version,
        )
        if dry_run:
            asked = backend.value if backend else loaded.scoring.backend
            lines: list[tuple[str, object]] = [
                ("version", chosen.version),
                ("backend", "onnx-int8 if it passes the gate" if asked == "auto" else asked),
                ("output", where / loaded.name),
            ]
            show_plan(f"package {loaded.name}", lines)
            write(told, result)
            return
        name: BackendName | None = backend.value if backend else None
        with console.status("Preparing the model, building the Bento, trying its service"):
            folder, made, new = build(loaded, chosen, session.home, where, name, trial)
    what = "is packed" if new else "was packed before"
    console.print(
        f"[green]✓[/] {loaded.name} version {made.version} {what}: {folder}", soft_wrap=True
    )
    for line in _about(made):
        console.print(f"  {line}", soft_wrap=True)
    console.print(f"  docker build --tag tamis-{made.task}:{made.version} {folder}", soft_wrap=True)
    write(
        told.model_copy(
            update={
                "status": "done",
                "threshold": made.threshold,
                "outputs": {
                    "package": str(folder),
                    "bento": str(folder / "bento"),
                    "fingerprint": made.fingerprint,
                },
                "seconds": clock.seconds(),
            }
        ),
        result,
    )


def _about(made: Package) -> list[str]:
    """A few lines on what is in it."""
    sizes = made.sizes
    megabytes = ", ".join(
        f"{name} {size / _MEGABYTE:,.0f} MB"
        for name, size in (("packages", sizes.packages), ("model", sizes.model))
    )
    hashed = "with hashes" if made.hashed else "without hashes"
    tried = "its service was started and scored" if made.tried else "its service was not tried"
    return [
        f"{made.backend}: {made.reason}",
        f"{made.packages} packages {hashed}; on top of the base image: {megabytes}; {tried}",
        f"fingerprint {made.fingerprint[:16]}, code {made.code}",
    ]
