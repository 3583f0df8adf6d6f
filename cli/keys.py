"""python run.py keys: who may ask the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import StackName

app = typer.Typer(help="API keys of the service: only their hashes are kept.", no_args_is_help=True)

File = Annotated[
    Path | None, typer.Option("--file", help="File of keys; the stack's own by default.")
]
Name = Annotated[str, typer.Argument(help="Whose key it is.")]


@app.command("create")
def create(name: Name, stack: StackName = "local", file: File = None) -> None:
    """Make a key, and show it this once."""
    from pydantic import ValidationError

    from cli.plan import console
    from tamis.errors import UsageError
    from tamis.serving.keys import ApiKey, hash_of, new_key, read_keys, write_keys

    path = _path(stack, file)
    known = read_keys(path).keys
    if any(key.name == name and not key.revoked for key in known):
        raise UsageError(f"NAME: given {name!r}, which has a key; allowed: another, or revoke it")
    key = new_key()
    try:
        made = ApiKey(name=name, hash=hash_of(key))
    except ValidationError:
        allowed = "1 to 64 letters, digits, dots, dashes and underscores"
        raise UsageError(f"NAME: given {name!r}; allowed: {allowed}") from None
    write_keys(path, [*known, made])
    console.print(f"[green]✓[/] a key for {name}; it is shown this once:", soft_wrap=True)
    console.file.write(key + "\n")


@app.command("revoke")
def revoke(name: Name, stack: StackName = "local", file: File = None) -> None:
    """Take a key back; running services follow within a second."""
    from cli.plan import console
    from tamis.errors import UsageError
    from tamis.serving.keys import read_keys, write_keys

    path = _path(stack, file)
    known = read_keys(path).keys
    names = [key.name for key in known if not key.revoked]
    if name not in names:
        allowed = ", ".join(names) or "none, there is no key in force"
        raise UsageError(f"NAME: given {name!r}; allowed: {allowed}")
    write_keys(
        path,
        [key.model_copy(update={"revoked": key.revoked or key.name == name}) for key in known],
    )
    console.print(f"[green]✓[/] {name} may not ask any more")


@app.command("list")
def list_(stack: StackName = "local", file: File = None) -> None:
    """Who has a key."""
    from cli.plan import console
    from tamis.serving.keys import read_keys

    path = _path(stack, file)
    for key in read_keys(path).keys:
        state = "[dim]revoked[/]" if key.revoked else "in force"
        console.print(f"  {key.name:<24} {state} [dim]sha256 {key.hash[:12]}…[/]")
    console.print(f"  [dim]{path}[/]", soft_wrap=True)


def _path(stack: str, file: Path | None) -> Path:
    if file is not None:
        return file
    from deployment.session import Session
    from deployment.stacks import load_stack

    return Session(name=stack, stack=load_stack(stack)).home / "serving" / "keys.json"
