"""What nginx tells of each request: which version it went to, how it ended and how long it took.

A line has three fields, and each of them a value for every process that was tried.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

from deployment.releasing.target import Histogram, Observation

FORMAT = "$upstream_addr\\t$upstream_status\\t$upstream_response_time"
_EDGES = tuple(round(0.001 * 1.15**step, 6) for step in range(80))
"""Seconds: from a millisecond to a minute, 15% apart."""
_PARTS = re.compile(r"\s*[,:]\s+")
_BLOCK = 1 << 20


class Counted:
    """Counters by port, from a log that grows.

    Args:
        path: Of the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._rest = b""
        self._ports: dict[int, _Port] = {}

    def read(self) -> None:
        """Take in what has come since; all of it where the log began anew."""
        try:
            with self._path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                file = (found.st_dev, found.st_ino)
                if file != self._file or found.st_size < self._offset:
                    self._file, self._offset, self._rest, self._ports = file, 0, b"", {}
                stream.seek(self._offset)
                while block := stream.read(_BLOCK):
                    self._offset += len(block)
                    *lines, self._rest = (self._rest + block).split(b"\n")
                    for line in lines:
                        self._line(line.decode("ascii", "replace"))
        except FileNotFoundError:
            self._file, self._offset, self._rest, self._ports = None, 0, b"", {}

    def of(self, ports: Mapping[int, object] | set[int]) -> Observation:
        """What the processes on some ports were given, together."""
        found = [self._ports[port] for port in ports if port in self._ports]
        counts = [sum(column) for column in zip(*(each.counts for each in found), strict=True)]
        return Observation(
            requests=sum(each.requests for each in found),
            errors=sum(each.errors for each in found),
            refused=sum(each.refused for each in found),
            latency=Histogram(
                edges=_EDGES, counts=tuple(counts) if counts else (0,) * (len(_EDGES) + 1)
            ),
        )

    def _line(self, line: str) -> None:
        fields = line.split("\t")
        if len(fields) != 3:
            return
        addresses, statuses, seconds = (_PARTS.split(field) for field in fields)
        for address, status, taken in zip(addresses, statuses, seconds, strict=False):
            port = address.rpartition(":")[2]
            # A client that hung up before the answer says nothing of the version.
            if port.isdigit() and status.isdigit():
                self._ports.setdefault(int(port), _Port()).add(int(status), taken)


class _Port:
    def __init__(self) -> None:
        self.requests = self.errors = self.refused = 0
        self.counts = [0] * (len(_EDGES) + 1)

    def add(self, status: int, taken: str) -> None:
        self.requests += 1
        self.errors += status >= 500
        self.refused += 400 <= status < 500
        try:
            self.counts[bisect_left(_EDGES, float(taken))] += 1
        except ValueError:
            self.counts[-1] += 1
