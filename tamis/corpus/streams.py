"""The bytes of a shard: opened, decompressed and cut into lines, never held as a whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
import pyarrow as pa

Compression = Literal["none", "gzip", "zstd"]

CHUNK = 1 << 16
HEAD = 4096
"""Bytes of broken input that are kept to show what was found."""


class BrokenStream(Exception):
    """Compressed data is damaged or ends early; everything before was delivered.

    Attributes:
        line: Number of the line, from 1, in which it broke; 0 when lines are not counted.
        partial: The beginning of that line.
    """

    line = 0
    partial = b""


class TrackedFile(io.RawIOBase):
    """A file that remembers that its storage failed.

    Arrow reports damaged data and a failing disk or network alike, as ``OSError``. The first is
    quarantined, the second must stop or repeat the shard: ``error`` tells them apart.
    """

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self.raw = raw
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes; raises what the storage raises, and remembers it."""
        try:
            return bytes(self.raw.read(size))
        except Exception as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, as ``io`` files do."""
        return int(self.raw.seek(offset, whence))

    def tell(self) -> int:
        """The position in the file."""
        return int(self.raw.tell())

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true: fsspec files seek, remote ones by range requests."""
        return True


@contextmanager
def open_tracked(url: str) -> Iterator[TrackedFile]:
    """Open a local path or fsspec URL for reading.

    Raises:
        OSError: The storage cannot open it.
    """
    fs, path = fsspec.core.url_to_fs(url)
    with fs.open(path, "rb") as raw:
        yield TrackedFile(raw)


def chunks(url: str, compression: Compression) -> Iterator[bytes]:
    """Decompressed bytes of a file, at most 64 KiB at a time.

    Raises:
        BrokenStream: The compressed data is damaged, after all that could be read of it.
        OSError: The storage failed.
    """
    with open_tracked(url) as file:
        if compression == "none":
            while data := file.read(CHUNK):
                yield data
            return
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)
        delivered = 0
        while True:
            try:
                data = stream.read(CHUNK)
            except (OSError, pa.ArrowException) as error:
                if file.error is not None:
                    raise file.error from None
                broken = BrokenStream(str(error))
                break
            if not data:
                return
            delivered += len(data)
            yield data
    yield from _salvage(url, compression, delivered)
    raise broken


def _salvage(url: str, compression: Compression, offset: int) -> Iterator[bytes]:
    """What lies between ``offset`` and the damage: a failed read loses its good beginning."""
    found = bytearray()
    with open_tracked(url) as file:
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)
        try:
            while offset and (data := stream.read(min(offset, CHUNK))):
                offset -= len(data)
            while data := stream.read(1):
                found += data
        except (OSError, pa.ArrowException):
            if file.error is not None:
                raise file.error from None
    yield bytes(found)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, without its line feed.

    Attributes:
        number: From 1.
        data: The bytes; only the beginning when the line is over the limit.
        length: Bytes that the line really has.
        whole: False when the line was over the limit and is not in ``data``.
    """

    number: int
    data: bytes
    length: int
    whole: bool


class _Collector:
    """The line being read; stops keeping bytes once it is over the limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.number = limit, 1
        self.parts: list[bytes] = []
        self.length = 0

    def add(self, piece: bytes) -> None:
        fitted = self.length <= self.limit
        self.length += len(piece)
        if self.length <= self.limit:
            self.parts.append(piece)
        elif fitted:
            self.parts = [b"".join([*self.parts[:2], piece])[:HEAD]]

    def take(self) -> Line:
        line = Line(self.number, b"".join(self.parts), self.length, self.length <= self.limit)
        self.parts, self.length, self.number = [], 0, self.number + 1
        return line


def lines(data: Iterable[bytes], limit: int) -> Iterator[Line]:
    """Cut a stream of bytes at line feeds; memory stays near ``limit`` whatever the line.

    Args:
        data: The stream, in pieces of any size.
        limit: Longest line kept, in bytes; of a longer one only the beginning is.

    Raises:
        BrokenStream: As ``data`` raised it, with the line it broke in.
    """
    line = _Collector(limit)
    try:
        for chunk in data:
            first, *others = chunk.split(b"\n")
            line.add(first)
            for piece in others:
                yield line.take()
                line.add(piece)
    except BrokenStream as error:
        error.line, error.partial = line.number, b"".join(line.parts[:2])[:HEAD]
        raise
    if line.length:
        yield line.take()
