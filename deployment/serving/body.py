"""Bodies of requests, read no further and no longer than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from deployment.serving.problems import Problem, too_large, too_slow, unfit
from tamis.serving.settings import RequestLimits

Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, limits: RequestLimits, model: type[Body]) -> Body:
    """The body of a request as a model.

    Raises:
        Problem: It is too large, too slow, no JSON, or not what the model asks for.
    """
    content = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limits.body_bytes:
                    raise too_large("Bytes of a body", limits.body_bytes, "too_large")
    except TimeoutError:
        raise too_slow(limits.body_seconds) from None
    except ClientDisconnect:
        raise Problem(400, "gone", "The client went away.") from None
    return parse(bytes(content), model)


def parse(content: bytes, model: type[Body]) -> Body:
    """JSON as a model.

    Raises:
        Problem: It is no JSON, or not what the model asks for.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise unfit(error) from None


async def lines(request: Request, limits: RequestLimits) -> AsyncIterator[bytes | Problem]:
    """The lines of a body as they come, blank ones left out; a problem for one that is too long.

    Raises:
        Problem: Nothing came for too long, or the client went away.
    """
    rest, skipping = bytearray(), False
    incoming = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(limits.body_seconds):
                chunk = await anext(incoming)
        except StopAsyncIteration:
            break
        except TimeoutError:
            raise too_slow(limits.body_seconds) from None
        except ClientDisconnect:
            raise Problem(400, "gone", "The client went away.") from None
        if b"\n" in chunk:  # else the rest, which may be long, is not searched again
            *whole, last = bytes(rest + chunk).split(b"\n")
            rest = bytearray(last)
        else:
            whole = []
            rest += chunk
        for line in whole:
            if skipping:
                skipping = False
            elif len(line) > limits.body_bytes:
                yield too_large("Bytes of a line", limits.body_bytes, "too_large")
            elif line.strip():
                yield line
        if len(rest) > limits.body_bytes:
            if not skipping:
                yield too_large("Bytes of a line", limits.body_bytes, "too_large")
            rest, skipping = bytearray(), True
    if rest.strip() and not skipping:
        yield bytes(rest)
