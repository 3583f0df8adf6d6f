"""Which items still wait, how often each has failed, and who may run beside whom."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from tamis.engine.base import ATTEMPTS
from tamis.errors import EngineError

Item = TypeVar("Item")

A_WORKER_DIED = "a worker died"


class Attempts(Generic[Item]):
    """The items of one run by position, each tried ``ATTEMPTS`` times at most.

    Args:
        items: In the order to take them.
        name: What to call an item in errors.
    """

    def __init__(self, items: Sequence[Item], name: Callable[[Item], str]) -> None:
        self.items, self.name = items, name
        self.waiting = deque(range(len(items)))
        self._failures: Counter[int] = Counter()

    def may_start(self, running: Iterable[int], window: int) -> bool:
        """Whether the next item may be handed out now.

        An item that has one try left runs alone: what kills workers may kill those beside it,
        and no item shall fail for good through another's fault.

        Args:
            running: Positions that are handed out already.
            window: Most of them at a time.
        """
        if not self.waiting:
            return False
        running = list(running)
        alone = self._suspect(self.waiting[0]) or any(map(self._suspect, running))
        return len(running) < (1 if alone else window)

    def _suspect(self, position: int) -> bool:
        return self._failures[position] >= ATTEMPTS - 1

    def lost(self, position: int, why: str, cause: BaseException | None = None) -> None:
        """An item was lost through no fault of its own, so far as is known: it waits again.

        Raises:
            EngineError: It was its last try.
        """
        self._failures[position] += 1
        if self._failures[position] >= ATTEMPTS:
            name = self.name(self.items[position])
            raise EngineError(f"shard {name} failed {ATTEMPTS} times: {why}") from cause
        self.waiting.append(position)

    def broken(self, position: int, why: str) -> EngineError:
        """The error for an item that failed in a way that another try would not mend."""
        return EngineError(f"shard {self.name(self.items[position])} failed: {why}")
