"""The webhook: `POST /alerts` with a token, `GET /livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployment.listening.inbox import Full, Inbox
from deployment.listening.metrics import Metrics
from deployment.listening.payload import Notification
from deployment.listening.worker import Worker
from deployment.retraining.request import Trigger
from deployment.serving.body import read
from deployment.serving.problems import Problem, as_problem, busy, too_large
from tamis.errors import UsageError
from tamis.serving.rate import RateLimiter
from tamis.serving.settings import RequestLimits

logger = logging.getLogger("tamis.listening")

LIMITS = RequestLimits(body_bytes=1 << 20, body_seconds=5.0, seconds=10.0)
PER_MINUTE = 120
SHORTEST_TOKEN = 16
_ALLOW = {"/alerts": "POST", "/livez": "GET", "/readyz": "GET", "/metrics": "GET"}
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
Handler = Callable[[Request], Awaitable[Response]]


def check_token(token: str) -> str:
    """A token that is one.

    Raises:
        UsageError: There is none, or it is too easily guessed.
    """
    plain = token.strip()
    if len(plain) < SHORTEST_TOKEN or not plain.isascii() or not plain.isprintable():
        raise UsageError(
            f"listen: allowed: a token of {SHORTEST_TOKEN} and more plain characters, in "
            "TAMIS_LISTEN_TOKEN or in a file (--token-file)"
        )
    return plain


class Webhook:
    """What the routes do.

    Args:
        task: Name of the task.
        token: That a request has to bear.
        inbox: Where alerts are kept.
        worker: That looks at them.
        metrics: Counters.
        limits: Of requests.
        per_minute: Requests a minute, those with and those without the token apart.
    """

    def __init__(
        self,
        task: str,
        token: str,
        inbox: Inbox,
        worker: Worker,
        metrics: Metrics,
        limits: RequestLimits = LIMITS,
        per_minute: int = PER_MINUTE,
    ) -> None:
        self._task, self._token = task, sha256(token.encode()).digest()
        self._inbox, self._worker, self._metrics = inbox, worker, metrics
        self._limits, self._limiter = limits, RateLimiter(per_minute)

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/alerts", self._guarded(self.alerts), methods=["POST"]),
            Route("/livez", self._guarded(self.livez), methods=["GET"]),
            Route("/readyz", self._guarded(self.readyz), methods=["GET"]),
            Route("/metrics", self._guarded(self.metrics), methods=["GET"]),
        ]
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: self._no_route},
        )

    async def alerts(self, request: Request) -> Response:
        """Take a notification; what is new in it is on the disk before the answer.

        Raises:
            Problem: It is not taken.
        """
        self._admit(request)
        async with asyncio.timeout(self._limits.seconds):
            found = await read(request, self._limits, Notification)
        counts, new, repeated = Counter[str](), [], ""
        for alert in found.alerts:
            if alert.status == "resolved":
                counts["resolved"] += 1
            elif not alert.is_for(self._task):
                counts["other_task"] += 1
            elif self._inbox.holds(alert.key):
                counts["duplicate"] += 1
                repeated = alert.key
            else:
                new.append(alert)
        try:
            # No await: whoever comes at the same time sees what was taken.
            counts["accepted"] = len(self._inbox.accept(new))
        except Full:
            raise busy(60, "full") from None
        counts["duplicate"] += len(new) - counts["accepted"]
        for outcome, count in counts.items():
            self._metrics.alerts.labels(outcome=outcome).inc(count)
        if counts["accepted"]:
            self._worker.wake()
        if repeated:
            trigger = Trigger(kind="alertmanager", name=repeated)
            why = f"It is a duplicate: {counts['duplicate']} alerts of it came before."
            await self._worker.note(trigger, why)
        told = {name: counts[name] for name in ("accepted", "duplicate", "resolved", "other_task")}
        return JSONResponse(told, status_code=202)

    async def livez(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """Alerts can be taken, and are looked at.

        Raises:
            Problem: They are not.
        """
        if not self._worker.alive:
            raise busy(5, "not_ready")
        return JSONResponse({"status": "ready", "task": self._task})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self._metrics.waiting.set(len(self._inbox.waiting))
        content, kind = await asyncio.to_thread(self._metrics.exposition)
        return Response(content, media_type=kind)

    def _admit(self, request: Request) -> None:
        given = request.headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        digest = sha256(token.strip().encode("latin-1", "replace")).digest()
        known = hmac.compare_digest(digest, self._token) and scheme.lower() == "bearer"
        if seconds := self._limiter.take("known" if known else "unknown"):
            wait = math.ceil(seconds)
            message = f"Too many requests; try again in {wait} s."
            raise Problem(429, "too_often", message, {"Retry-After": str(wait)})
        if not known:
            message = "A token is needed: Authorization: Bearer TOKEN."
            raise Problem(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, "unsupported_type", "The body has to be application/json.")
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Problem(415, "compressed", "Compressed bodies are not taken.")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > self._limits.body_bytes:
            raise too_large("Bytes of a body", self._limits.body_bytes, "too_large")

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            try:
                answer = await handler(request)
            except Exception as error:
                answer = self._refuse(error)
            answer.headers.update(_HEADERS)
            return answer

        return guarded

    def _refuse(self, error: Exception) -> Response:
        """An answer that tells nothing of the inside."""
        problem, name = as_problem(error), uuid.uuid4().hex
        if problem.code == "internal":
            logger.error("request %s failed", name, exc_info=error)
        self._metrics.refused.labels(reason=problem.code).inc()
        headers = {**problem.headers, "Connection": "close"}
        return Response(problem.body(name), problem.status, headers, "application/json")

    async def _no_route(self, request: Request, error: Exception) -> Response:
        allowed = _ALLOW.get(request.url.path)
        if allowed is None:
            return self._refuse(Problem(404, "not_found", "There is no such route."))
        message = f"This route takes {allowed}."
        return self._refuse(Problem(405, "method_not_allowed", message, {"Allow": allowed}))

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._worker.start()
        try:
            yield
        finally:
            await self._worker.stop()
