"""The load on a service: keep-alive connections in a closed loop, each request after an answer.

A process of its own, so that its CPU time is not the service's; ``bench/serving.py`` runs it::

    python bench/serving_load.py SPEC.json RESULT.json

It opens the connections, sends what warms the service up, prints ``ready``, waits for a line,
sends the requests, prints ``done`` and writes what came of them. HTTP/1.1 is read just so far as
an answer needs; whatever does not fit is an error, and the connection is opened anew.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONNECT_S = 10.0


class Load:
    """Requests, shared by all connections in the order of the sequence.

    Args:
        spec: ``port``, ``path``, ``headers``, ``bodies`` (texts), ``connections``, ``warm``
            (requests before it counts), ``requests`` or ``seconds`` (how much), ``timeout_s``.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        head = "".join(f"{name}: {value}\r\n" for name, value in spec["headers"].items())
        start = f"POST {spec['path']} HTTP/1.1\r\nHost: 127.0.0.1:{spec['port']}\r\n{head}"
        self.wires = []
        for body in spec["bodies"]:
            content = body.encode()
            size = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            self.wires.append((start + size).encode() + content)
        self.waiting: Iterator[int] = iter(())
        self.latencies: list[float] = []
        self.finished: list[float] = []
        self.answers: dict[int, bytes] = {}
        self.failures: Counter[str] = Counter()
        self.keep = False
        self.timeout = float(spec.get("timeout_s", 30.0))

    def begin(self, requests: int | None, seconds: float | None, keep: bool) -> None:
        """Set the next part of the run: so many requests, or all that fit in so many seconds."""
        self.latencies, self.finished, self.answers = [], [], {}
        self.failures, self.keep = Counter(), keep
        self.began = time.perf_counter()
        end = self.began + (seconds or 0)

        def numbers() -> Iterator[int]:
            number = 0
            while number < requests if requests is not None else time.perf_counter() < end:
                yield number
                number += 1

        self.waiting = numbers()

    def note(self, number: int, started: float, status: int, body: bytes) -> None:
        """An answer that came whole."""
        now = time.perf_counter()
        self.latencies.append(now - started)
        self.finished.append(now - self.began)
        if status != 200:
            self.failures[f"status {status}"] += 1
        elif self.keep:
            self.answers[number] = body


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, load: Load) -> None:
        self.load, self.buffer = load, bytearray()
        self.needed: int | None = None
        self.status, self.number, self.started, self.start_of_body = 0, -1, 0.0, 0
        self.transport: Any = None
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self.transport = transport

    def send(self) -> bool:
        """Send the next request; False when there is none."""
        number = next(self.load.waiting, None)
        if number is None:
            self.number = -1
            if not self.ended.done():
                self.ended.set_result(True)
            return False
        self.number, self.needed = number, None
        self.buffer.clear()
        self.started = time.perf_counter()
        self.transport.write(self.load.wires[number % len(self.load.wires)])
        return True

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: note an answer that is whole, and send the next request."""
        self.buffer += data
        if self.number < 0:
            return self.fail("an answer that was not asked for")
        if self.needed is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = bytes(self.buffer[:end]).lower()
            at = head.find(b"\r\ncontent-length:")
            if not head.startswith(b"http/1.1 ") or at < 0:
                return self.fail("no HTTP/1.1 answer with a length")
            self.status = int(head[9:12])
            self.start_of_body = end + 4
            self.needed = end + 4 + int(head[at + 17 :].split(b"\r\n", 1)[0])
            if b"\r\nconnection: close" in head:
                self.load.failures["connection: close"] += 1
        if len(self.buffer) >= self.needed:
            body = bytes(self.buffer[self.start_of_body : self.needed])
            self.load.note(self.number, self.started, self.status, body)
            self.send()
        return None

    def fail(self, why: str) -> None:
        """Count an error and give the connection up."""
        self.load.failures[why] += 1
        self.number = -1
        self.transport.abort()
        if not self.ended.done():
            self.ended.set_result(False)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        if not self.ended.done():
            self.load.failures["connection lost"] += self.number >= 0
            self.ended.set_result(False)


async def opened(load: Load) -> Connection:
    """A new connection."""
    loop = asyncio.get_running_loop()
    made = loop.create_connection(lambda: Connection(load), "127.0.0.1", load.spec["port"])
    return (await asyncio.wait_for(made, CONNECT_S))[1]


async def used(load: Load, found: Connection) -> Connection:
    """Send over a connection until nothing waits; what is lost or too slow is opened anew."""
    found.ended = asyncio.get_running_loop().create_future()
    found.send()
    while True:
        done, _ = await asyncio.wait({found.ended}, timeout=load.timeout)
        if done and found.ended.result():
            return found
        late = found.number >= 0 and time.perf_counter() - found.started > load.timeout
        if not done and late:
            found.fail("no answer in time")
        if found.ended.done() and not found.ended.result():
            found = await opened(load)
            found.send()


async def driven(spec: dict[str, Any]) -> dict[str, Any]:
    """Everything, as the module says; returns what is written."""
    load = Load(spec)
    connections = [await opened(load) for _ in range(spec["connections"])]
    load.begin(spec.get("warm", 0), None, False)
    connections = list(await asyncio.gather(*(used(load, each) for each in connections)))
    warm_failures = load.failures
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cpu = time.process_time()
    load.begin(spec.get("requests"), spec.get("seconds"), bool(spec.get("keep")))
    connections = list(await asyncio.gather(*(used(load, each) for each in connections)))
    cpu = time.process_time() - cpu
    print("done", flush=True)
    for each in connections:
        each.transport.abort()
    return {
        "seconds": max(load.finished, default=0.0),
        "latencies": load.latencies,
        "finished": load.finished,
        "failures": dict(load.failures + warm_failures),
        "client_cpu_s": cpu,
        "scores": {number: scores(body) for number, body in load.answers.items()},
    }


def scores(body: bytes) -> list[float] | None:
    """The scores in an answer of a service or a peer; None where there are none."""
    try:
        answer = json.loads(body)
        if "predictions" in answer:
            return [float(each) for each in answer["predictions"]]
        return [float(each["score"]) for each in answer["documents"]]
    except (ValueError, TypeError, KeyError):
        return None


def main() -> None:
    """Run what the first argument says, and write the second."""
    import uvloop

    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(driven(spec))
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
