"""python run.py stack: which stacks there are, and what is in one."""

from __future__ import annotations

import typer

from cli.options import StackName

app = typer.Typer(help="Look at the stacks.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Name the stacks that are configured."""
    from cli.plan import console
    from deployment.stacks import STACKS

    for file in sorted(STACKS.glob("*.yaml")):
        console.print(file.stem)


@app.command("show")
def show(stack: StackName = "local") -> None:
    """Show where a stack keeps runs, artifacts and models."""
    from cli.plan import console
    from deployment.stacks import load_stack

    loaded = load_stack(stack)
    for name, value in (
        ("kind", loaded.kind),
        ("home", loaded.folder),
        ("zenml", loaded.zenml_config),
        ("artifacts", loaded.folder / "artifacts"),
        ("mlflow", loaded.tracking_uri),
        ("ledger", loaded.folder / "ledger"),
    ):
        console.print(f"[dim]{name:<10}[/] ", end="")
        console.print(str(value), markup=False, soft_wrap=True)
