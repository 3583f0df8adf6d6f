"""Run one function over many shards in processes of this machine.

Workers are spawned, never forked: the driver may hold threads and a GPU. They end with the
driver, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, MutableSequence, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import RawArray
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tamis.engine.attempts import A_WORKER_DIED, Attempts
from tamis.errors import TamisError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
Loaded = TypeVar("Loaded")

_QUEUED = 1
"""Shards that wait inside the pool for each that runs, so that no worker idles."""


class LocalEngine:
    """Runs functions in processes of this machine; each loads a model of its own.

    Args:
        workers: Processes; 0 runs everything in this one.

    Raises:
        UsageError: ``workers`` is negative.
    """

    def __init__(self, workers: int = 1) -> None:
        _check(workers)
        self._workers = workers

    @property
    def workers(self) -> int:
        """Items that run at the same time."""
        return max(1, self._workers)

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
        """As of ``Engine``; see ``run_shards``."""
        run_shards(
            items,
            work,
            on_done,
            workers=min(self._workers, len(items)),
            initializer=initializer,
            initargs=initargs,
            name=name,
        )

    def place(self, load: Callable[[str], Loaded], model_dir: str) -> Callable[[str], Loaded]:
        """Workers load their own model: ``load`` as it is."""
        return load

    def cells(self, size: int) -> MutableSequence[int]:
        """``size`` counters in shared memory, 0 at first; for ``initargs`` of ``run`` only."""
        # No lock: a killed worker could keep it for ever.
        cells: Any = RawArray("q", max(size, 1))
        return cells  # type: ignore[no-any-return]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is left to free: processes end with ``run``."""


def _check(workers: int) -> None:
    if workers < 0:
        raise UsageError(f"workers: given {workers}; allowed: 0 (in this process) or more")


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
    _check(workers)
    start = _Start(initializer, initargs)
    if workers == 0:
        start.once()
        for item in items:
            on_done(item, work(item))
        return
    _Run(Attempts(items, name), work, on_done, workers, start).run()


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
        attempts: Attempts[Item],
        work: Callable[[Item], Result],
        on_done: Callable[[Item, Result], None],
        workers: int,
        start: _Start,
    ) -> None:
        self.attempts, self.work, self.on_done = attempts, work, on_done
        self.workers, self.start = workers, start
        self.running: dict[Future[Result], int] = {}

    def run(self) -> None:
        while self.attempts.waiting:
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
        while not broken and (self.attempts.waiting or self.running):
            broken = not self._fill(pool)
            done, _ = wait(self.running, return_when=FIRST_COMPLETED)
            for future in done:
                broken = self._settle(future) or broken
        # A broken pool fails all its futures; those that were finished still hold a result.
        for future in list(self.running):
            self._settle(future)

    def _fill(self, pool: ProcessPoolExecutor) -> bool:
        """Submit what may run now; False when the pool turned out to be broken."""
        attempts = self.attempts
        while attempts.may_start(self.running.values(), self.workers * (1 + _QUEUED)):
            try:
                future = pool.submit(_call, self.work, attempts.items[attempts.waiting[0]])
            except BrokenProcessPool:
                return False
            self.running[future] = attempts.waiting.popleft()
        return True

    def _settle(self, future: Future[Result]) -> bool:
        """Deliver a result or put the item back; True when the pool is broken."""
        position = self.running.pop(future)
        try:
            result = future.result()
        except BrokenProcessPool as error:
            self.attempts.lost(position, A_WORKER_DIED, error)
            return True
        except OSError as error:
            self.attempts.lost(position, str(error), error)
            return False
        except TamisError:
            raise
        except Exception as error:
            raise self.attempts.broken(position, f"{type(error).__name__}: {error}") from error
        self.on_done(self.attempts.items[position], result)
        return False
