"""Run one function over many shards in processes of this machine.

Workers are spawned, never forked: the driver may hold threads and a GPU. They end with the
driver, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from tamis.errors import EngineError, TamisError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 3
_QUEUED = 1
"""Shards that wait inside the pool for each that runs, so that no worker idles."""


def run_shards(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    on_done: Callable[[Item, Result], None],
    *,
    workers: int = 1,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
    name: Callable[[Item], str] = str,
) -> None:
    """Call ``work`` on every item, each once unless a worker dies over it.

    Args:
        items: The shards, in the order to take them.
        work: Importable function; may run again on an item, so it must bear that.
        on_done: Called here, in the caller's thread, with each result as it comes.
        workers: Processes; 0 runs everything in this one.
        initializer: Called in each process before its first item.
        initargs: Its arguments.
        name: What to call an item in errors.

    Raises:
        EngineError: A worker died, or storage failed, three times over the same item.
        TamisError: What ``work`` raised.
        UsageError: ``workers`` is negative.
    """
    if workers < 0:
        raise UsageError(f"workers: given {workers}; allowed: 0 (in this process) or more")
    start = _Start(initializer, initargs)
    if workers == 0:
        start.once()
        for item in items:
            on_done(item, work(item))
        return
    _Run(items, work, on_done, workers, start, name).run()


class _Start:
    """The initializer, run lazily with the first item, so that its errors come back whole.

    (An executor only reports that its own initializer failed, not why.)
    """

    done = False

    def __init__(self, function: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def once(self) -> None:
        if self.function and not self.done:
            self.function(*self.arguments)
            self.done = True


_start: _Start | None = None


def _begin_worker(start: _Start) -> None:
    global _start
    _start = start
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    # Its sentinel is a pipe that the system closes with the parent, by kill -9 too.
    parent.join()
    os._exit(1)


def _call(work: Callable[[Item], Result], item: Item) -> Result:
    if _start is not None:
        _start.once()
    return work(item)


class _Run(Generic[Item, Result]):
    """One pass over the items, through as many pools as it takes."""

    def __init__(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Result],
        on_done: Callable[[Item, Result], None],
        workers: int,
        start: _Start,
        name: Callable[[Item], str],
    ) -> None:
        self.items, self.work, self.on_done = items, work, on_done
        self.workers, self.start, self.name = workers, start, name
        self.waiting = deque(range(len(items)))
        self.running: dict[Future[Result], int] = {}
        self.failures: Counter[int] = Counter()

    def run(self) -> None:
        while self.waiting:
            with ProcessPoolExecutor(
                max_workers=self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
                initargs=(self.start,),
            ) as pool:
                try:
                    self._use(pool)
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def _use(self, pool: ProcessPoolExecutor) -> None:
        """Work until all is done, or the pool is broken and its items wait again."""
        broken = False
        while not broken and (self.waiting or self.running):
            broken = not self._fill(pool)
            done, _ = wait(self.running, return_when=FIRST_COMPLETED)
            for future in done:
                broken = self._settle(future) or broken
        # A broken pool fails all its futures; those that were finished still hold a result.
        for future in list(self.running):
            self._settle(future)

    def _fill(self, pool: ProcessPoolExecutor) -> bool:
        """Submit what may run now; False when the pool turned out to be broken."""
        while self.waiting:
            item = self.waiting[0]
            # Who failed again and again runs alone, so that the blame is never shared.
            suspect = self.failures[item] >= ATTEMPTS - 1
            suspect_runs = any(self.failures[i] >= ATTEMPTS - 1 for i in self.running.values())
            room = 1 if suspect or suspect_runs else self.workers * (1 + _QUEUED)
            if len(self.running) >= room:
                return True
            try:
                future = pool.submit(_call, self.work, self.items[item])
            except BrokenProcessPool:
                return False
            self.running[future] = self.waiting.popleft()
        return True

    def _settle(self, future: Future[Result]) -> bool:
        """Deliver a result or put the item back; True when the pool is broken."""
        item = self.running.pop(future)
        try:
            result = future.result()
        except (BrokenProcessPool, OSError) as error:
            self.failures[item] += 1
            if self.failures[item] >= ATTEMPTS:
                what = "a worker died" if isinstance(error, BrokenProcessPool) else str(error)
                raise EngineError(
                    f"shard {self.name(self.items[item])} failed {ATTEMPTS} times: {what}"
                ) from error
            self.waiting.append(item)
            return isinstance(error, BrokenProcessPool)
        except TamisError:
            raise
        except Exception as error:
            raise EngineError(
                f"shard {self.name(self.items[item])} failed: {type(error).__name__}: {error}"
            ) from error
        self.on_done(self.items[item], result)
        return False
