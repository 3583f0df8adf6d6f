"""Show how far a long run is: a live bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

LINE_EVERY = 30.0
_REFRESH = 0.5


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is.

    Attributes:
        shards_done: Committed shards, those of earlier runs too.
        shards: All shards.
        documents: Rows dealt with in this run, those of unfinished shards too.
        kept: Kept documents of the committed shards.
        scored: Kept and dropped documents of the committed shards.
        seconds: Since this run began.
        share: Committed bytes of all bytes of input, 0-1.
        share_at_start: The same when this run began.
    """

    shards_done: int
    shards: int
    documents: int
    kept: int
    scored: int
    seconds: float
    share: float
    share_at_start: float

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the bytes done; None before the first shard of this run is."""
        done = self.share - self.share_at_start
        return self.seconds * (1 - self.share) / done if done > 0 else None

    def __str__(self) -> str:
        kept = f"{self.kept / self.scored:.1%} kept" if self.scored else "nothing scored yet"
        left = self.seconds_left
        return (
            f"{self.shards_done:,}/{self.shards:,} shards, {self.documents:,} documents, "
            f"{self.documents / max(self.seconds, 1e-9):,.1f}/s, {kept}, "
            f"{'time left unknown' if left is None else clock(left) + ' left'}"
        )


Progress = Callable[[RunState], None]


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ConsoleProgress:
    """Writes the state of a run to a console.

    Args:
        console: Where; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live: Live | None = None
        self.last_line = time.monotonic()

    def __call__(self, state: RunState) -> None:
        """Show a state; called often."""
        finished = state.shards_done == state.shards
        if self.console.is_terminal:
            if self.live is None:
                self.live = Live(console=self.console, refresh_per_second=4, transient=True)
                self.live.start()
            bar = Table.grid(padding=(0, 2))
            bar.add_row(ProgressBar(1.0, state.share, width=24), str(state))
            self.live.update(bar)
            if finished:
                self.live.stop()
                self.live = None
        elif time.monotonic() - self.last_line >= LINE_EVERY:
            self.last_line = time.monotonic()
            self.console.print(str(state), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            self.live.stop()
            self.live = None


class Ticker:
    """Calls ``show`` now and then from a thread, while a ``with`` block runs, and once at its end.

    Args:
        show: What to call; it must not mind the other thread.
    """

    def __init__(self, show: Callable[[], None]) -> None:
        self.show = show
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._tick, daemon=True)

    def _tick(self) -> None:
        while not self.ended.wait(_REFRESH):
            self.show()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended.set()
        self.thread.join()
        self.show()
