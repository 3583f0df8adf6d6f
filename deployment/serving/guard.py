"""What every request passes first: known route, key, rate, size, time; and what every answer bears.

An ASGI middleware around the whole service, BentoML's own routes included.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.serving.problems import Headers, Problem, as_problem, busy, too_large
from tamis.serving.rate import RateLimiter

if TYPE_CHECKING:
    from deployment.serving.runtime import Runtime

logger = logging.getLogger("tamis.serving")

ASKED = frozenset({"/score", "/score_stream", "/feedback", "/predict"})
"""Routes that need a key."""
ROUTES = dict.fromkeys(ASKED, "POST") | dict.fromkeys(
    ("/", "/page.js", "/page.css", "/model", "/docs.json", "/livez", "/readyz", "/metrics"), "GET"
)
UNTIMED = frozenset({"/score_stream"})
"""Routes that take as long as their input comes."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
_SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


class Guard:
    """The middleware.

    Args:
        app: What it guards.
        runtime: The service at work; None before it has started.
    """

    def __init__(self, app: ASGIApp, runtime: Callable[[], Runtime | None]) -> None:
        self.app, self._runtime = app, runtime
        self._limiter: RateLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        runtime = self._runtime()
        if scope["type"] != "http" or runtime is None:
            await self.app(scope, receive, send)
            return
        started, headers = time.perf_counter(), dict(scope["headers"])
        request_id = _request_id(headers)
        path = runtime.environment.routes.get(scope["path"], scope["path"])
        if path != scope["path"]:
            scope = {**scope, "path": path, "raw_path": path.encode()}
        route, status, sending = path if path in ROUTES else "other", 0, False
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        more = [*_SECURITY, (b"x-request-id", request_id.encode())]
        if path in ASKED:
            more.append((b"x-model-version", runtime.served.name.encode()))

        async def answer(message: Message) -> None:
            nonlocal status, sending
            if message["type"] == "http.response.start":
                status, sending = message["status"], True
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            if len(headers) < len(scope["headers"]):
                _check_twice(scope["headers"])
            name = self._admit(runtime, path, scope["method"], headers)
            state.update(key=name, shadow=headers.get(b"x-tamis-shadow") == b"1")
            if path in UNTIMED or path not in ASKED:
                await self.app(scope, receive, answer)
            else:
                async with asyncio.timeout(runtime.settings.limits.seconds):
                    await self.app(scope, receive, answer)
        except Exception as error:
            problem = as_problem(error)
            if problem.code == "internal":
                logger.error("request %s failed", request_id, exc_info=error)
            if not sending:  # else the answer ends here, and the client sees that it is cut
                await _refuse(problem, request_id, answer)
                state["problem"] = problem.code
        finally:
            if "problem" in state:
                runtime.metrics.rejected.labels(reason=state["problem"]).inc()
            runtime.metrics.answered(route, status or 499, time.perf_counter() - started)

    def _admit(self, runtime: Runtime, path: str, method: str, headers: dict[bytes, bytes]) -> str:
        """The name behind the key of a request that may go on.

        Raises:
            Problem: It may not.
        """
        allowed = ROUTES.get(path)
        if allowed is None:
            raise Problem(404, "not_found", "There is no such route; /docs.json lists them.")
        if method != allowed:
            raise Problem(
                405, "method_not_allowed", f"This route takes {allowed}.", {"Allow": allowed}
            )
        if path == "/readyz" and not runtime.ready:
            raise busy(5, "not_ready")
        if path not in ASKED:
            return ""
        name = _name_of(runtime, path, headers)
        self._check_rate(runtime, name)
        _check_body(headers, runtime.settings.limits.body_bytes, streamed=path in UNTIMED)
        return name

    def _check_rate(self, runtime: Runtime, name: str) -> None:
        most = runtime.settings.rate.requests_per_minute
        if self._limiter is None:
            self._limiter = RateLimiter(most)
        if seconds := self._limiter.take(name):
            wait = math.ceil(seconds)
            message = f"This key may ask {most:,} times a minute; try again in {wait} s."
            raise Problem(429, "too_often", message, {"Retry-After": str(wait)})


def _name_of(runtime: Runtime, path: str, headers: dict[bytes, bytes]) -> str:
    # Vertex AI lets through whom IAM allows, and passes no header of theirs on.
    fronted = path in runtime.environment.routes.values()
    if runtime.settings.auth == "none" or fronted:
        return "anonymous"
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    name = runtime.environment.keys.who(key.strip()) if scheme.lower() == "bearer" else None
    if name is None:
        raise Problem(
            401,
            "unauthorized",
            "A key is needed: Authorization: Bearer KEY, with one that is in force.",
            {"WWW-Authenticate": "Bearer"},
        )
    return name


def _check_twice(headers: Headers) -> None:
    """Refuse a second key: what stands in front may have looked at another one than this."""
    if sum(name == b"authorization" for name, _ in headers) > 1:
        raise Problem(
            401, "unauthorized", "Authorization stands twice.", {"WWW-Authenticate": "Bearer"}
        )


def _check_body(headers: dict[bytes, bytes], most: int, *, streamed: bool) -> None:
    """Refuse by its headers what need not be read."""
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    allowed = (
        (b"application/x-ndjson", b"application/jsonl") if streamed else (b"application/json",)
    )
    if kind not in allowed:
        name = allowed[0].decode()
        raise Problem(415, "unsupported_type", f"The body has to be {name}, in UTF-8.")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise Problem(415, "compressed", "Compressed bodies are not taken.")
    length = headers.get(b"content-length", b"")
    if not streamed and length.isdigit() and int(length) > most:
        raise too_large("Bytes of a body", most, "too_large")


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def _refuse(problem: Problem, request_id: str, send: Send) -> None:
    body = problem.body(request_id)
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # What was not read of the body would be taken for the next request.
        (b"connection", b"close"),
    ]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
