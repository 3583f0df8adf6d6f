"""A cap on what a run may cost, kept before each request is sent and settled after it."""

from __future__ import annotations

import asyncio
import math


class CapReached(Exception):
    """The next request might cost more than is left."""


class Purse:
    """Money that requests reserve before they are sent.

    A reservation is the most that a request can cost, so what is spent never passes the cap as
    long as the server keeps to the limit of an answer. While others are under way it waits for
    theirs to be settled, since most cost less than they reserved.

    Args:
        cap: Most USD; None is no cap.
        spent: USD that were spent before.

    Attributes:
        spent: USD of what was settled, and before.
    """

    def __init__(self, cap: float | None, spent: float = 0.0) -> None:
        self._cap = math.inf if cap is None else cap
        self.spent = spent
        self._reserved: list[float] = []
        self._settled = asyncio.Condition()

    async def reserve(self, most: float) -> None:
        """Set aside what a request can cost.

        Raises:
            CapReached: It does not fit, and nothing under way can change that.
        """
        async with self._settled:
            while self.spent + math.fsum(self._reserved) + most > self._cap:
                if not self._reserved:
                    raise CapReached
                await self._settled.wait()
            self._reserved.append(most)

    async def settle(self, most: float, cost: float) -> None:
        """Give a reservation back, and book what the request did cost."""
        async with self._settled:
            self._reserved.remove(most)
            self.spent += cost
            self._settled.notify_all()
