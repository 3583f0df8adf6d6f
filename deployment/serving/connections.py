"""Bounds on what comes before a request reaches the application; uvicorn sets none.

Without them anybody could hold connections and memory, key or no key, by a head that never ends.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployment.serving.problems import Problem

HEAD_BYTES = 64 * 1024
"""Most of a request line and its headers; one read of the socket may come on top."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose heads end, and whose connections close on what nobody reads.

    A connection is closed when it has sent no whole head within ``patience`` seconds, and as long
    after an answer to a request whose body still comes.
    """

    patience: ClassVar[Callable[[], float]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a first head."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head, self._in_message, self._head = True, False, 0
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._relax()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is not yet whole counts."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > HEAD_BYTES:
            self._refuse()
        else:
            self._hurry()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._in_message, self._head = True, True, 0

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._relax()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._in_message = False
        self._relax()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What still comes of the request that was answered is not read for long."""
        unread = self._in_message and not self._in_head and self.cycle.response_complete
        super().on_response_complete()
        if unread:
            self._hurry()

    def _hurry(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(type(self).patience(), self._give_up)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.close()

    def _refuse(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        message = f"Bytes of a head: at most {HEAD_BYTES:,} are allowed."
        body = Problem(status, "head_too_large", message).body(uuid.uuid4().hex)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def bound_connections(patience: Callable[[], float]) -> None:
    """Have the servers that this process starts from now on use it.

    Args:
        patience: Seconds that a head may take.
    """
    BoundedProtocol.patience = staticmethod(patience)
    auto.AutoHTTPProtocol = BoundedProtocol
