"""Windows of the request log as files of documents, which ``retrain --window`` reads as they are.

A file holds each text once, with its label where feedback came, and without the answers of shadow
versions: clients that ask twice are part of the traffic, but not of what a model learns from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.corpus.document import normalise
from tamis.corpus.source_settings import Columns, FilesSource
from tamis.corpus.store import HashingFile, LocalStore
from tamis.errors import UsageError
from tamis.monitoring.feedback import LABEL_COLUMNS, Joined, join, with_labels
from tamis.monitoring.records import SCHEMA
from tamis.monitoring.windows import Reader

FORMATS = (".parquet", ".jsonl")
SOURCE = "served"
"""What the documents of a window have for a source."""
_MARK = b"tamis.window"
_LINE_KEYS = frozenset({"request_id", "model_version", "decision", "text"})
_LONGEST_LINE = 32 << 20


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        documents: Rows of the file.
        labelled: How many carry a label.
        repeated: Records left out, for their text is there already.
        without_text: Records left out, for no text of them was kept.
        dropped: Records that the service had no room for then.
        quarantined: Lines of the log that are no records.
        labels: Labels that came since the window began.
        unknown: Of those, labels of documents that the log does not hold.
        replaced: Labels that later ones took the place of.
    """

    documents: int
    labelled: int
    repeated: int
    without_text: int
    dropped: int
    quarantined: int
    labels: int
    unknown: int
    replaced: int


def export(
    reader: Reader, start: datetime, end: datetime, output: Path, everything: bool = False
) -> Exported:
    """Write what was served in a span of time to a file; it appears as a whole.

    Args:
        reader: An open reader of the log.
        start: From when.
        end: Until when, exclusive.
        output: ``.parquet`` or ``.jsonl``; replaced if it is there.
        everything: Write every record: repeated ones, shadows, those without text, embeddings.

    Raises:
        UsageError: The name ends in something else, or the file cannot be written.
    """
    if output.suffix not in FORMATS:
        allowed = f"a name that ends in {' or '.join(FORMATS)}"
        raise UsageError(f"--output: given {str(output)!r}; allowed: {allowed}")
    joined = join(reader, start)
    choice = None if everything else _Choice(reader, start, end, joined)
    count: Counter[str] = Counter()
    store = LocalStore(str(output.parent), output.parent)
    try:
        with store.create(output.name) as sink, _writing(sink, output.suffix, everything) as write:
            for batch in reader.batches(start, end, _columns(everything), shadow=everything):
                found = with_labels(batch, joined)
                found = found if choice is None else found.filter(choice(found, count))
                if found.num_rows:
                    source = pa.array([SOURCE] * found.num_rows, pa.string())
                    found = found.append_column("source", source)
                    count["documents"] += found.num_rows
                    count["labelled"] += found.num_rows - found["label"].null_count
                    write(found)
    except OSError as error:
        given = f"--output: given {str(output)!r}"
        raise UsageError(f"{given}; allowed: a file that can be written ({error})") from None
    return Exported(
        documents=count["documents"],
        labelled=count["labelled"],
        repeated=count["repeated"],
        without_text=count["without_text"],
        dropped=reader.dropped(start, end),
        quarantined=reader.quarantined(start, end),
        labels=joined.labels,
        unknown=joined.unknown,
        replaced=joined.repeated,
    )


class _Choice:
    """Of records with the same text one: the one whose label came last, else the first."""

    def __init__(self, reader: Reader, start: datetime, end: datetime, joined: Joined) -> None:
        self._seen: set[bytes] = set()
        self._labelled: dict[bytes, tuple[datetime, tuple[str, int]]] = {}
        if not joined.of:
            return
        for batch in reader.batches(start, end, ["request_id", "index", "text"]):
            for row in batch.to_pylist():
                place = row["request_id"], row["index"]
                given = joined.of.get(place)
                if given is not None and row["text"] is not None:
                    mark = _mark(row["text"])
                    best = self._labelled.get(mark)
                    if best is None or best[0] <= given.label.at:
                        self._labelled[mark] = given.label.at, place

    def __call__(self, batch: pa.RecordBatch, count: Counter[str]) -> pa.Array:
        """Which rows stay; what does not is counted."""
        texts, requests = batch["text"].to_pylist(), batch["request_id"].to_pylist()
        rows = zip(texts, requests, batch["index"].to_pylist(), strict=True)
        stays = [self._stays(text, (request, index), count) for text, request, index in rows]
        return pa.array(stays, pa.bool_())

    def _stays(self, text: str | None, place: tuple[str, int], count: Counter[str]) -> bool:
        if text is None:
            count["without_text"] += 1
            return False
        mark = _mark(text)
        best = self._labelled.get(mark)
        if mark in self._seen or (best is not None and best[1] != place):
            count["repeated"] += 1
            return False
        self._seen.add(mark)
        return True


def _mark(text: str) -> bytes:
    return sha256(normalise(text).encode("utf-8", "surrogatepass")).digest()[:16]


def _columns(everything: bool) -> list[str]:
    return [name for name in SCHEMA.names if everything or name not in ("embedding", "shadow")]


@contextmanager
def _writing(sink: HashingFile, suffix: str, everything: bool) -> Iterator[Any]:
    """Takes batches of rows, in the format of a suffix."""
    try:
        if suffix == ".jsonl":
            encode = msgspec.json.Encoder().encode

            def write_lines(batch: pa.RecordBatch) -> None:
                sink.write(b"".join(encode(row) + b"\n" for row in batch.to_pylist()))

            yield write_lines
            return
        schema = pa.schema(
            [SCHEMA.field(name) for name in _columns(everything)]
            + list(
                zip(LABEL_COLUMNS, (pa.string(), SCHEMA.field("at").type, pa.int64()), strict=True)
            )
            + [("source", pa.string())],
            metadata={_MARK: b"1"},
        )
        writer = pq.ParquetWriter(
            pa.PythonFile(sink, "w"), schema, compression="zstd", write_page_checksum=True
        )
        yield lambda batch: writer.write_batch(batch.replace_schema_metadata({_MARK: b"1"}))
        writer.close()
    except BaseException:
        sink.abandon()
        raise


def window_source(paths: Sequence[str]) -> FilesSource | None:
    """How to read files that ``export`` wrote, whatever a task's own files are like.

    Args:
        paths: Paths, globs or URLs.

    Returns:
        None if one of them is something else.

    Raises:
        UsageError: A path matches nothing.
    """
    from tamis.corpus.readers import list_shards

    shards = list_shards(list(paths))
    if not shards or not all(_is_ours(shard.url) for shard in shards):
        return None
    columns = Columns(text="text", label="label", id="id", source="source")
    return FilesSource(
        kind="files",
        path=tuple(paths),
        columns=columns,
        labels_by="feedback of clients on served documents",
        licence="as agreed with those who sent them",
    )


def _is_ours(url: str) -> bool:
    """Whether a file begins as ``export`` begins one."""
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            if url.endswith(".parquet"):
                return _MARK in (pq.read_schema(file).metadata or {})
            # A file in a bucket knows no ``readline(size)``.
            row = msgspec.json.decode(file.read(_LONGEST_LINE).partition(b"\n")[0])
            return isinstance(row, dict) and row.keys() >= _LINE_KEYS
    except (OSError, ValueError, pa.ArrowException, msgspec.MsgspecError):
        return False
