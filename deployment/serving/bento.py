"""What BentoML does for every request, and the guard does better."""

from __future__ import annotations

from bentoml._internal.server.http import traffic
from starlette.types import ASGIApp, Receive, Scope, Send


class Untimed:
    """Stands in for BentoML's time-out, which keeps a timer of each request until it runs out.

    That is about 800 bytes a request for as long as the longest request may take, and a task. The
    guard has a time-out of its own, and the processes have no other.

    Args:
        app: What it would time.
        timeout: Not heeded.
    """

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self.app, self.timeout = app, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on."""
        await self.app(scope, receive, send)


def without_timers() -> None:
    """Have the services that this process starts from now on keep no timers."""
    traffic.TimeoutMiddleware = Untimed  # type: ignore[misc,assignment]
