"""HTTP for answers of a server that is not trusted: no compression, no answer of any length."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

MOST_BYTES = 4 * 2**20


class AnswerTooLong(Exception):
    """The server sends more than any answer can have."""


class _Bounded(httpx2.AsyncByteStream):
    """A stream that breaks off when it is too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for chunk in self._stream:
            seen += len(chunk)
            if seen > MOST_BYTES:
                raise AnswerTooLong(f"over {MOST_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Refuses compressed answers, which may be small on the wire only, and long ones."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the answer is read through a bounded stream.

        Raises:
            AnswerTooLong: The answer is compressed, though that was not asked for.
        """
        request.headers["Accept-Encoding"] = "identity"
        response = await super().handle_async_request(request)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            await response.aclose()
            raise AnswerTooLong("compressed, though that was not asked for")
        stream = response.stream
        if isinstance(stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(stream)
        return response
