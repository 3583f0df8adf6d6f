"""What an engine is: something that runs one function over many items, wherever."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableSequence, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Loaded = TypeVar("Loaded")

ATTEMPTS = 3
"""How often an item is tried when workers die or storage fails over it."""


class Engine(Protocol):
    """Runs functions over shards; a context manager that frees its workers at the end."""

    @property
    def workers(self) -> int:
        """Items that run at the same time."""

    def run(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Result],
        on_done: Callable[[Item, Result], None],
        *,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        name: Callable[[Item], str] = str,
    ) -> None:
        """Call ``work`` on every item, each once unless a worker dies over it.

        Args:
            items: In the order to take them.
            work: Importable function; may run again on an item, so it must bear that.
            on_done: Called here, in the caller's thread, with each result as it comes.
            initializer: Called in each worker before its first item.
            initargs: Its arguments.
            name: What to call an item in errors.

        Raises:
            EngineError: A worker died, or storage failed, ``ATTEMPTS`` times over one item.
            TamisError: What ``work`` raised.
        """

    def place(self, load: Callable[[str], Loaded], model_dir: str) -> Callable[[str], Loaded]:
        """A function for workers that gives them the model: their own, or one that they share.

        Args:
            load: Loads the model of a directory.
            model_dir: The directory.
        """

    def cells(self, size: int) -> MutableSequence[int] | None:
        """``size`` counters that workers write and the driver reads, where memory is shared."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def available_cores() -> int:
    """Processors that this process may use: those it may run on, or the quota of its container."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _quota() or sys.maxsize)
    return os.cpu_count() or 1


def _quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Whole processors that the control group (version 2) grants, at least 1; None for no limit."""
    try:
        granted, period = file.read_text("ascii").split()
        return max(1, int(granted) // int(period))
    except (OSError, ValueError):
        return None
