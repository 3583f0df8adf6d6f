"""Records of served requests as they are read back: checked lines, and rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import pyarrow as pa

from tamis.monitoring.request_log import Dropped
from tamis.monitoring.segments import BadLine, lines, started

SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("us", "UTC")),
        ("id", pa.string()),
        ("request_id", pa.string()),
        ("index", pa.int64()),
        ("model_version", pa.string()),
        ("score", pa.float64()),
        ("decision", pa.string()),
        ("characters", pa.int64()),
        ("tokens", pa.int64()),
        ("language", pa.string()),
        ("text", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("shadow", pa.bool_()),
        ("key", pa.string()),
    ]
)
"""Columns of a window of requests."""

_SPAN = timedelta(days=1)
_AT_ONCE = 2_000
_CHARACTERS = 8_000_000

_Short = Annotated[str, msgspec.Meta(max_length=2_000)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="served"):
    """A line of a segment: ``RequestRecord`` as it was written."""

    id: _Short
    request_id: _Short
    index: _Count
    at: datetime
    model_version: _Short
    score: float | None
    decision: _Short
    characters: _Count
    tokens: _Count
    language: _Short | None = None
    text: str | None = None
    embedding: bytes | None = None
    shadow: bool = False
    key: _Short | None = None


def read_segment(path: Path) -> Iterator[Line | Dropped | BadLine]:
    """What is in a segment, line by line; what is no record comes with the reason.

    Records whose time is more than a day off their segment's are none: no window would hold them.
    """
    decode = msgspec.json.Decoder(Line | Dropped).decode
    middle = started(path.name)
    for item in lines(path):
        if isinstance(item, BadLine):
            yield item
            continue
        number, raw = item
        try:
            found = decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # What the library says can repeat the text; its kind does not.
            yield BadLine(number, f"invalid_record ({type(error).__name__})", raw[:2_048])
            continue
        if found.at.tzinfo is None:
            found = msgspec.structs.replace(found, at=found.at.replace(tzinfo=UTC))
        if abs(found.at - middle) > _SPAN:
            yield BadLine(number, "bad_time", raw[:2_048])
        else:
            yield found


def to_batch(found: Sequence[Line]) -> pa.RecordBatch:
    """Rows of ``SCHEMA``."""
    columns = [
        pa.array([_value(line, name) for line in found], SCHEMA.field(name).type)
        for name in SCHEMA.names
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _value(line: Line, name: str) -> object:
    value = getattr(line, name)
    if name == "embedding" and value is not None:
        import numpy as np

        whole = value[: len(value) - len(value) % 2]
        return np.frombuffer(whole, dtype="<f2").astype(np.float32)
    return value


class Rows:
    """Collects records until there are enough of them for a batch."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._characters = 0

    def add(self, line: Line) -> pa.RecordBatch | None:
        """Add one; a batch of all when it is time for one."""
        self._lines.append(line)
        self._characters += len(line.text or "") + len(line.embedding or b"")
        full = len(self._lines) >= _AT_ONCE or self._characters >= _CHARACTERS
        return self.take() if full else None

    def take(self) -> pa.RecordBatch | None:
        """A batch of what is there, if anything is."""
        if not self._lines:
            return None
        batch = to_batch(self._lines)
        self._lines, self._characters = [], 0
        return batch
