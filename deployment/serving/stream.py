"""NDJSON in, NDJSON out: batches are scored while the next lines come; answers keep their order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployment.serving.body import lines, parse
from deployment.serving.problems import Problem
from deployment.serving.runtime import Asked, Runtime, asked_by, threads_of
from deployment.serving.schemas import DocumentIn

_TOGETHER = 32
"""Documents that are scored as one."""


class LinesResponse(Response):
    """An answer that is sent while the request is still being read.

    Starlette's own streaming response listens for the client's end meanwhile, and so takes the
    body away from who reads it.

    Args:
        lines: What is sent.
    """

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines as they come."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for some in self.lines:
            await send({"type": "http.response.body", "body": some, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def score_stream(request: Request, runtime: Runtime) -> AsyncIterator[bytes]:
    """A line for each line of the request, in order.

    What is wrong with a line is said in its place, and the others go on. What ends the input
    early is said in a last line without a number.
    """
    ahead: deque[asyncio.Task[bytes]] = deque()
    batch: list[tuple[int, DocumentIn | Problem]] = []
    number, most = 0, threads_of(runtime.settings) + 1
    asked = asked_by(request)

    def send() -> None:
        ahead.append(asyncio.create_task(_scored(runtime, [*batch], asked)))
        batch.clear()

    try:
        try:
            async for line in lines(request, runtime.settings.limits):
                number += 1
                batch.append((number, _document(line)))
                if len(batch) >= _TOGETHER:
                    send()
                while len(ahead) >= most or (ahead and ahead[0].done()):
                    yield await ahead.popleft()
        except Problem as problem:
            send()
            while ahead:
                yield await ahead.popleft()
            yield _failed(None, problem)
            return
        send()
        while ahead:
            yield await ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()


def _document(line: bytes | Problem) -> DocumentIn | Problem:
    if isinstance(line, Problem):
        return line
    try:
        return parse(line, DocumentIn)
    except Problem as problem:
        return problem


async def _scored(
    runtime: Runtime,
    batch: list[tuple[int, DocumentIn | Problem]],
    asked: Asked,
) -> bytes:
    """The answers to some lines."""
    limit = runtime.settings.limits.characters
    good: list[tuple[int, DocumentIn]] = []
    answers: dict[int, bytes] = {}
    for number, each in batch:
        if isinstance(each, Problem):
            answers[number] = _failed(number, each)
        elif len(each.text) > limit:
            message = f"Characters of a document: at most {limit:,} are allowed."
            answers[number] = _failed(number, Problem(413, "too_long", message))
        else:
            good.append((number, each))
    for start in range(0, len(good), runtime.settings.limits.documents):
        part = good[start : start + runtime.settings.limits.documents]
        try:
            for number, out in await runtime.score_numbered(part, asked):
                answers[number] = out.model_dump_json(exclude_none=True).encode() + b"\n"
        except Problem as problem:
            answers |= {number: _failed(number, problem) for number, _ in part}
    return b"".join(answers[number] for number, _ in batch)


def _failed(number: int | None, problem: Problem) -> bytes:
    error = {"code": problem.code, "message": problem.message}
    found = {"error": error} if number is None else {"line": number, "error": error}
    return json.dumps(found).encode() + b"\n"
