"""Show how far a long run is: a live bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tamis.corpus.manifest import Counts

LINE_EVERY = 30.0
_REFRESH = 0.5


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a pass of a run is.

    Attributes:
        phase: Name of the pass.
        items_done: Shards (or other pieces of work) done in this pass.
        items: All of them.
        documents: Rows dealt with in this pass, those of unfinished shards too.
        counts: Of the shards done in this pass.
        seconds: Since this pass began.
        share: Bytes or rows done of all of this pass, 0-1.
    """

    phase: str
    items_done: int
    items: int
    documents: int
    counts: Counts
    seconds: float
    share: float

    @property
    def seconds_left(self) -> float | None:
        """Estimate from what is done; None before anything is."""
        return self.seconds * (1 - self.share) / self.share if self.share > 0 else None

    def __str__(self) -> str:
        left = self.seconds_left
        told = [f"{self.phase}: {self.items_done:,}/{self.items:,}"]
        if self.documents:
            told[0] += " shards"
            rate = self.documents / max(self.seconds, 1e-9)
            told.append(f"{self.documents:,} documents, {rate:,.1f}/s")
        if self.counts.read:
            told.append(f"{self.counts.kept / self.counts.read:.1%} kept")
        told.append("time left unknown" if left is None else f"{clock(left)} left")
        return ", ".join(told)


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
        finished = state.items_done == state.items
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


class Meter:
    """Knows how far a pass is.

    Args:
        phase: Name of the pass.
        sizes: Bytes of each item, or what else its work goes by.
        cells: Rows dealt with by shard, written by workers that share memory; None elsewhere.
        show: Told the state.
        rows: Documents of all items, where they were counted before; 0 elsewhere.
    """

    def __init__(
        self,
        phase: str,
        sizes: Sequence[int],
        cells: Sequence[int] | None,
        show: Progress,
        rows: int = 0,
    ) -> None:
        self.phase, self.cells, self.show_state, self.rows = phase, cells, show, rows
        self.started = time.perf_counter()
        self.items, self.bytes = len(sizes), sum(sizes) or 1
        self.items_done = self.bytes_done = 0
        self.counts = Counts()

    def done(self, size: int, counts: Counts) -> None:
        """An item of ``size`` is done."""
        self.items_done += 1
        self.bytes_done += size
        self.counts += counts

    def show(self) -> None:
        """Tell the state as it is."""
        live = sum(self.cells) if self.cells is not None else 0
        share = self.bytes_done / self.bytes
        if self.rows and self.items_done < self.items:  # shards under way count too
            share = max(share, min(live / self.rows, 0.999))
        self.show_state(
            RunState(
                phase=self.phase,
                items_done=self.items_done,
                items=self.items,
                documents=max(live, self.counts.read),
                counts=self.counts,
                seconds=time.perf_counter() - self.started,
                share=share,
            )
        )


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
