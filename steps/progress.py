"""Progress of long steps, on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tamis.models.encoder import Progress as Tell


@contextmanager
def embedding(title: str) -> Iterator[Tell]:
    """A bar that counts texts; it is not drawn where there is no terminal."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(f"  {title}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        handle = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(handle, completed=done, total=total)
