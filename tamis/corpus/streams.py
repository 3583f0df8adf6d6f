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
MAX_RATIO = 1_000
"""Repetitive JSON lines under zstd reach 200 to 300; gzip itself ends at 1,032."""
RATIO_FROM = 1 << 26
"""Bytes that may come out of any stream, however small, before its ratio is looked at."""


class BrokenStream(Exception):
    """Compressed data is damaged, ends early or is a bomb; everything before was delivered.

    Attributes:
        reason: Why, as a quarantined row has it.
        line: Number of the line, from 1, in which it broke; 0 when lines are not counted.
        partial: The beginning of that line.
    """

    line = 0
    partial = b""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(slots=True)
class ReadMeter:
    """How far a reader has come.

    Attributes:
        share: Of the shard's bytes, or of its rows where the format counts them; 0 to 1.
    """

    share: float = 0.0


class TrackedFile(io.RawIOBase):
    """A file that remembers that its storage failed.

    Arrow reports damaged data and a failing disk or network alike, as ``OSError``. The first is
    quarantined, the second must stop or repeat the shard: ``error`` tells them apart. A storage
    that ends before the listed size has failed too, whatever it says.

    Args:
        raw: The opened file.
        size: Bytes that it should have; 0 when unknown.

    Attributes:
        error: What the storage raised, as an ``OSError``.
        consumed: Bytes read so far.
    """

    def __init__(self, raw: Any, size: int = 0) -> None:
        super().__init__()
        self.raw, self.size = raw, size
        self.error: OSError | None = None
        self.consumed = 0

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes, fewer only at the end.

        Raises:
            OSError: The storage failed; remembered in ``error``.
        """
        with self._storage():
            data = bytes(self.raw.read(size))
            while len(data) < size and (more := self.raw.read(size - len(data))):
                data += more
            ended = size < 0 or len(data) < size
            if ended and (at := int(self.raw.tell())) < self.size:
                raise OSError(f"the storage ended at byte {at:,} of {self.size:,}")
        self.consumed += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, as ``io`` files do."""
        with self._storage():
            return int(self.raw.seek(offset, whence))

    def tell(self) -> int:
        """The position in the file."""
        with self._storage():
            return int(self.raw.tell())

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true: fsspec files seek, remote ones by range requests."""
        return True

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise
        except Exception as error:
            self.error = as_os_error(error)
            raise self.error from error


def as_os_error(error: Exception) -> OSError:
    """What a storage raised; clients of object stores have exceptions of their own."""
    return error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")


@contextmanager
def open_tracked(url: str, size: int = 0) -> Iterator[TrackedFile]:
    """Open a local path or fsspec URL for reading.

    Args:
        url: What to open.
        size: Bytes that it should have; 0 when unknown.

    Raises:
        OSError: The storage cannot open it.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
        opened = fs.open(path, "rb")
    except Exception as error:
        raise as_os_error(error) from error
    with opened as raw:
        yield TrackedFile(raw, size)


def chunks(
    url: str,
    compression: Compression,
    max_ratio: int = MAX_RATIO,
    size: int = 0,
    meter: ReadMeter | None = None,
) -> Iterator[bytes]:
    """Decompressed bytes of a file, at most 64 KiB at a time; all gzip members and zstd frames.

    Args:
        url: Local path or fsspec URL.
        compression: Of the whole file.
        max_ratio: Bytes that may come out for each that went in, beyond the first 64 MiB.
        size: Bytes that the file should have; 0 when unknown.
        meter: Told of the progress, where the size is known.

    Raises:
        BrokenStream: The compressed data is damaged (after all that could be read of it) or a
            bomb.
        OSError: The storage failed.
    """
    delivered, broken = 0, None
    with open_tracked(url, size) as file:
        read = file.read
        if compression != "none":
            read = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression).read
        while True:
            try:
                data = read(CHUNK)
            except (OSError, pa.ArrowException) as error:
                if file.error is not None:
                    raise file.error from None
                broken = BrokenStream(f"corrupt_{compression}", str(error))
                break
            if not data:
                return
            delivered += len(data)
            if delivered > RATIO_FROM and delivered > max_ratio * file.consumed:
                detail = f"{file.consumed:,} bytes of {compression} became over {delivered:,}"
                raise BrokenStream("zip_bomb", detail)
            if meter is not None and size:
                meter.share = min(1.0, file.consumed / size)
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
