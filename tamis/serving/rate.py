"""How often each key may ask: a sliding window of two counters a key.

Libraries for this keep a log of requests, or a thread that expires counters: under load that costs
more than the rest of the guard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds."""


@dataclass(slots=True)
class _Counts:
    window: int
    now: int = 0
    before: int = 0


class RateLimiter:
    """Counts the requests of each key over a sliding minute.

    The minute that slides is made of the fixed minute that runs and the share of the one before
    that it still covers, as if that one's requests had been spread evenly.

    Args:
        most: Requests a minute; 0 sets no limit.
        clock: Seconds that only rise.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._counts: dict[str, _Counts] = {}

    def take(self, key: str) -> float:
        """Count a request.

        Args:
            key: Name of the key; there are as many as keys in force, so none is forgotten.

        Returns:
            0 where it may pass; else it was not counted, and these are the seconds to wait.
        """
        if not self._most:
            return 0.0
        window, since = divmod(self._clock(), WINDOW)
        counts = self._counts.setdefault(key, _Counts(int(window)))
        if counts.window != int(window):
            counts.before = counts.now if counts.window == int(window) - 1 else 0
            counts.window, counts.now = int(window), 0
        if counts.now + counts.before * (1 - since / WINDOW) + 1 <= self._most:
            counts.now += 1
            return 0.0
        return self._wait(counts, since)

    def _wait(self, counts: _Counts, since: float) -> float:
        """Seconds until one more fits."""
        room = self._most - 1 - counts.now
        if room >= 0 and counts.before:
            return max(0.001, WINDOW * (1 - room / counts.before) - since)
        # The window that runs is full by itself: a part of the next one has to pass.
        return WINDOW - since + max(0.001, WINDOW * (1 - (self._most - 1) / counts.now))
