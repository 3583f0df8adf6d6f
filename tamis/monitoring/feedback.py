"""Feedback: labels that clients give to documents that were served, days later or at once.

Labels are appended and never changed. A label belongs to the last time that its document was
served before the label came; of several for one serving the last counts, and the earlier stay.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.segments import FEEDBACK, BadLine, SegmentWriter, lines, names

if TYPE_CHECKING:
    import pyarrow as pa

    from tamis.monitoring.windows import Reader

_SKEW = timedelta(seconds=5)
"""How far clocks may be apart: a label that is this much older than the answer is one on it."""
_LONGEST = 1_000
_MOST_OF_ONE = 100
"""Labels of one document that are looked at, the last; more are counted."""
_SEGMENT_BYTES = 8 << 20
_SEGMENT_SECONDS = 86_400.0

LABEL_COLUMNS = ("label", "label_at", "labels")
"""Columns that labels add to a window: the last as text, when it came, how many there were."""


class Label(msgspec.Struct, frozen=True):
    """What a document should have been given.

    Attributes:
        id: Of the document, as the answer named it.
        label: A number on the task's scale, or the name of a class.
        at: When the label came, UTC.
        key: Name of the API key of whoever gave it; None where there is none.
    """

    id: str
    label: int | float | str
    at: datetime
    key: str | None = None

    @property
    def text(self) -> str:
        """The label as text: of a whole number without a point, as classes are written."""
        if isinstance(self.label, float) and self.label.is_integer():
            return str(int(self.label))
        return str(self.label)


class FeedbackLog:
    """Labels in a folder of a request log; several processes may share it, and threads this.

    Args:
        folder: Of the request log.
        settings: Of the request log.

    Raises:
        OSError: The folder cannot be written to.
    """

    def __init__(self, folder: Path, settings: RequestLogSettings) -> None:
        # A segment must be closed long before it is deleted, though nobody gives labels.
        seconds = min(_SEGMENT_SECONDS, settings.retention_days * 86_400 / 2)
        self._out = SegmentWriter(folder / FEEDBACK, _SEGMENT_BYTES, seconds)
        self._lock = threading.Lock()

    def append(self, labels: Sequence[Label]) -> int:
        """Keep labels; they are on the disk when this returns.

        Returns:
            How many were taken. A label that is no finite number or text, or an id or label of
            more than 1,000 characters, is not.

        Raises:
            OSError: The disk failed; none was taken.
        """
        made = b"".join(_line(label) for label in labels if _usable(label))
        if made:
            with self._lock:
                self._out.rotate()
                self._out.append(made)
                self._out.sync()
        return made.count(b"\n")

    def close(self) -> None:
        """Close the segment; a later label begins another."""
        with self._lock:
            self._out.close()


@dataclass(frozen=True)
class Given:
    """The labels of one serving of a document.

    Attributes:
        label: The last.
        earlier: Those before it, oldest first.
    """

    label: Label
    earlier: tuple[Label, ...] = ()


@dataclass(frozen=True)
class Joined:
    """Labels beside the requests that they belong to.

    Attributes:
        of: Labels by request id and index.
        labels: Labels that were read.
        unknown: Of those, labels of documents that the log does not hold.
        unreadable: Lines that are no labels.
    """

    of: dict[tuple[str, int], Given]
    labels: int
    unknown: int
    unreadable: int

    @property
    def repeated(self) -> int:
        """Labels that later ones took the place of."""
        return sum(len(given.earlier) for given in self.of.values())


def read_labels(folder: Path) -> Iterator[Label | BadLine]:
    """Labels of a log, segment by segment; what is none comes with the reason."""
    decode = msgspec.json.Decoder(Label).decode
    for name in names(folder / FEEDBACK):
        for item in lines(folder / FEEDBACK / name):
            if isinstance(item, BadLine):
                yield item
                continue
            try:
                found = decode(item[1])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                yield BadLine(item[0], "invalid_label", item[1][:2_048])
                continue
            if found.at.tzinfo is None:
                found = msgspec.structs.replace(found, at=found.at.replace(tzinfo=UTC))
            yield found


def join(reader: Reader, start: datetime | None = None) -> Joined:
    """Find the request that each label belongs to.

    A label of one API key is none for documents of another. Memory grows with the labels, not
    with the requests.

    Args:
        reader: An open reader of the log.
        start: Labels from before it, and requests likewise, are left alone; all count by default.
    """
    from tamis.monitoring.forgotten import Forgotten

    forgotten = Forgotten(reader.folder)
    by_document: dict[str, list[Label]] = {}
    read = unreadable = 0
    for item in read_labels(reader.folder):
        if isinstance(item, BadLine):
            unreadable += 1
        elif (start is None or item.at >= start - _SKEW) and not forgotten.holds(item.id, item.at):
            read += 1
            by_document.setdefault(item.id, []).append(item)
    wanted = {
        name: _Wanted(sorted(labels, key=lambda label: label.at)[-_MOST_OF_ONE:])
        for name, labels in by_document.items()
    }
    _look(reader, start, wanted)
    found: dict[tuple[str, int], list[Label]] = {}
    for each in wanted.values():
        for label, serving in zip(each.labels, each.servings, strict=True):
            if serving is not None:
                found.setdefault(serving[1:], []).append(label)
    unknown = sum(
        len(by_document[name])
        for name, each in wanted.items()
        if all(serving is None for serving in each.servings)
    )
    of = {place: Given(labels[-1], tuple(labels[:-1])) for place, labels in found.items()}
    return Joined(of, read, unknown, unreadable)


_Serving = tuple[datetime, str, int]


class _Wanted:
    """Labels of a document by time, and for each the last serving before it so far."""

    def __init__(self, labels: list[Label]) -> None:
        self.labels = labels
        self.servings: list[_Serving | None] = [None] * len(labels)

    def see(self, at: datetime, request: str, index: int, key: str | None) -> None:
        for i in range(len(self.labels) - 1, -1, -1):
            label, best = self.labels[i], self.servings[i]
            if label.at + _SKEW < at:
                break
            same = key is None or label.key is None or key == label.key
            if same and (best is None or best[0] <= at):
                self.servings[i] = at, request, index


def _look(reader: Reader, start: datetime | None, wanted: dict[str, _Wanted]) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not wanted:
        return
    documents = pa.array(wanted, pa.string())
    columns = ["id", "at", "request_id", "index", "key"]
    for batch in reader.batches(start, None, columns):
        some = batch.filter(pc.is_in(batch["id"], documents))
        for row in some.to_pylist():
            wanted[row["id"]].see(row["at"], row["request_id"], row["index"], row["key"])


def with_labels(batch: pa.RecordBatch, joined: Joined) -> pa.RecordBatch:
    """The rows with ``LABEL_COLUMNS``, which are empty where no label came.

    Args:
        batch: Rows with ``request_id`` and ``index``.
        joined: Labels.
    """
    import pyarrow as pa

    places = zip(batch["request_id"].to_pylist(), batch["index"].to_pylist(), strict=True)
    given = [joined.of.get(place) for place in places]
    added: tuple[pa.Array, ...] = (
        pa.array([each.label.text if each else None for each in given], pa.string()),
        pa.array([each.label.at if each else None for each in given], pa.timestamp("us", "UTC")),
        pa.array([len(each.earlier) + 1 if each else 0 for each in given], pa.int64()),
    )
    for name, column in zip(LABEL_COLUMNS, added, strict=True):
        batch = batch.append_column(name, column)
    return batch


def _usable(label: Label) -> bool:
    value = label.label
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    if isinstance(value, str):
        sound = 0 < len(value) <= _LONGEST
    else:
        sound = math.isfinite(value) and abs(value) < 1e15
    return sound and 0 < len(label.id) <= _LONGEST


def _line(label: Label) -> bytes:
    try:
        return msgspec.json.encode(label) + b"\n"
    except UnicodeEncodeError:
        # Such an id was logged with a question mark for each lone surrogate, too.
        plain = {
            name: value.encode("utf-8", "replace").decode()
            for name in label.__struct_fields__
            if isinstance(value := getattr(label, name), str)
        }
        return msgspec.json.encode(msgspec.structs.replace(label, **plain)) + b"\n"
