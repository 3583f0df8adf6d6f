"""python run.py stack: which stacks there are, what is in one, and whether it is ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deployment.components import Component
    from deployment.vertex.settings import VertexStack

app = typer.Typer(help="Look at the stacks, check them, register them.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A stack of configs/stacks, such as local or vertex.")]
GivenName = Annotated[str | None, typer.Option("--stack", "-s", help="Likewise.", hidden=True)]


@app.command("list")
def list_() -> None:
    """Name the stacks that are configured."""
    from cli.plan import console
    from deployment.stacks import stack_names

    for name in stack_names():
        console.print(name)


@app.command("show")
def show(name: Name = "local", stack: GivenName = None) -> None:
    """Show where a stack runs and where it keeps runs, artifacts and models."""
    from cli.plan import console
    from deployment.session import Session
    from deployment.stacks import LocalStack, load_stack

    chosen = stack or name
    loaded = load_stack(chosen)
    session = Session(chosen, loaded)
    lines: list[tuple[str, object]] = [("kind", loaded.kind)]
    if isinstance(loaded, LocalStack):
        lines += [
            ("home", loaded.folder),
            ("zenml", loaded.zenml_config),
            ("artifacts", loaded.folder / "artifacts"),
            ("mlflow", loaded.tracking_uri),
        ]
    else:
        from deployment.vertex.cost import describe

        lines += [
            ("project", f"{loaded.project}, {loaded.region}"),
            ("zenml", loaded.zenml_server),
            ("artifacts", loaded.bucket),
            ("mlflow", loaded.mlflow.tracking_uri),
            ("image", loaded.image),
            ("gpu image", loaded.gpu_image or loaded.image),
            ("runs as", loaded.service_account),
            ("serving", loaded.serving.image if loaded.serving else "none"),
            *((f"  {step}", describe(loaded.machine_of(step))) for step in loaded.steps),
        ]
    for key, value in [*lines, ("outputs", session.outputs), ("ledger", session.ledger)]:
        console.print(f"[dim]{key:<10}[/] ", end="")
        console.print(str(value), markup=False, soft_wrap=True)


@app.command("check")
def check(name: Name = "vertex") -> None:
    """Say what a stack lacks, one line a problem with its mend (exit code 2 if anything)."""
    from cli.plan import console
    from deployment.session import private_zenml
    from deployment.stacks import LocalStack, load_stack, model_of, read_stack

    data, shown = read_stack(name)
    if model_of(data, shown) is LocalStack:
        load_stack(name)
        console.print(f"[green]✓[/] {name} is on this machine: it is made when it is first used")
        return
    from deployment.vertex import check as checks

    found = checks.Findings(wrong=checks.file_problems(data, shown))
    if not found.wrong:
        from deployment.stacks import vertex_stack

        stack = vertex_stack(name)
        with private_zenml(stack), console.status("looking"):
            checks.check(name, stack, found)
    for line in found.good:
        console.print("[green]✓[/] ", end="")
        console.print(line, markup=False, soft_wrap=True)
    for line in found.wrong:
        console.print("[red]✗[/] ", end="")
        console.print(line, markup=False, soft_wrap=True)
    if found.wrong:
        raise typer.Exit(2)
    console.print(f"{name} is ready")


@app.command("up")
def up(name: Name = "vertex") -> None:
    """Register a remote stack with its ZenML server, or mend what is registered."""
    from deployment import components
    from deployment.vertex import remote

    _change(
        name, components.register, "nothing to do: it is as the file says", remote.require_secret
    )


@app.command("down")
def down(name: Name = "vertex") -> None:
    """Take a remote stack out of its ZenML server; runs, artifacts and models stay."""
    from deployment import components

    _change(name, components.remove, "nothing to do: it is not registered")


def _change(
    name: str,
    change: Callable[[str, list[Component]], list[str]],
    nothing: str,
    before: Callable[[VertexStack], None] | None = None,
) -> None:
    from cli.plan import console
    from deployment import components
    from deployment.session import private_zenml
    from deployment.stacks import vertex_stack
    from deployment.vertex import remote

    stack = vertex_stack(name)
    with private_zenml(stack):
        remote.connect(stack)
        if before is not None:
            before(stack)
        done = change(name, components.of_vertex(stack))
    for line in done:
        console.print(f"[green]✓[/] {line}")
    if not done:
        console.print(nothing)
