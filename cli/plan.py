"""What every verb does first: check the task, the stack and the result file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cli.result import check_writable

if TYPE_CHECKING:
    from tamis.task import Task

console = Console(highlight=False)


def prepare(task: str, stack: str, settings: list[str], result: Path | None) -> Task:
    """The task, once everything that can be wrong before the work has been looked at.

    Raises:
        UsageError: Something is wrong with what was asked for.
    """
    from deployment.stacks import load_stack
    from tamis.task import load_task

    check_writable(result)
    loaded = load_task(task, settings)
    load_stack(stack)
    return loaded


def show_plan(title: str, lines: list[tuple[str, object]]) -> None:
    """Print what would be done."""
    console.print(f"[bold]{title}[/] [dim](dry run: nothing was run)[/]")
    for name, value in lines:
        console.print(f"  [dim]{name:<10}[/] ", end="")
        console.print(str(value), markup=False, soft_wrap=True)
