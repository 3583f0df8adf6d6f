"""A window with its labels: feedback where it came, else what the judge said.

The file is written as `requests window` writes one, so that whatever reads those reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.corpus.document import Document, content_hash, normalise
from tamis.corpus.readers import list_shards, read_shard
from tamis.corpus.source_settings import Columns, FilesSource
from tamis.corpus.store import open_store
from tamis.errors import DataError
from tamis.monitoring.export import window_source
from tamis.task import Task

NAME = "window.parquet"
_COLUMNS = Columns(text="text", label="label", id="id", source="source")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "text", "label", "source", "labelled_by")],
    metadata={b"tamis.window": b"1"},
)
_ROWS = 1_000
FEEDBACK = "feedback"


def source_of(task: Task, files: tuple[str, ...]) -> FilesSource:
    """How the files of a window are read: as windows of the log, or like the task's own files.

    Raises:
        UsageError: A path matches nothing.
        DataError: There are none.
    """
    if not files:
        raise DataError(
            f"{task.name}: the window has no documents to train on: the log kept no text of them"
        )
    served = window_source(files)
    own = [source for source in task.sources if isinstance(source, FilesSource)]
    like = own[0] if own else FilesSource(kind="files", path="")
    return served or like.model_copy(update={"path": files})


def with_labels(source: FilesSource, labels: str, folder: str) -> FilesSource:
    """Write the window again, with the judge's labels where there are no others.

    Args:
        source: The window.
        labels: Parquet of labels, as annotation writes it.
        folder: Folder or URL for the file.

    Returns:
        How it is read; ``labels_by`` says that a language model gave labels.
    """
    judged, judge = read_labels(labels)
    store = open_store(folder)
    with store.create(NAME) as sink:
        writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), _SCHEMA, compression="zstd")
        rows = _rows(source, judged, judge)
        while some := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema=_SCHEMA))
        writer.close()
    return labelled_source(source, f"{folder}/{NAME}", judge)


def labelled_source(source: FilesSource, file: str, judge: str) -> FilesSource:
    """How the file is read that ``with_labels`` wrote."""
    return FilesSource(
        kind="files",
        path=(file,),
        columns=_COLUMNS,
        labels_by=f"{source.labels_by}; and {judge}, a language model (not people)",
        licence=source.licence,
    )


def read_labels(url: str) -> tuple[dict[str, str], str]:
    """Labels by content hash, as text, and who gave them."""
    import fsspec

    columns = ["sha256", "score", "labelled_by"]
    with fsspec.open(url, "rb") as file:
        rows = pq.read_table(file, columns=columns).to_pylist()
    found = {row["sha256"]: _text(row["score"]) for row in rows}
    makers = sorted({row["labelled_by"] for row in rows})
    return found, ", ".join(makers) or "nobody"


def _rows(source: FilesSource, judged: dict[str, str], judge: str) -> Iterator[dict[str, Any]]:
    for document in _documents(source):
        label = _given(source, document)
        by = None if label is None else FEEDBACK
        if label is None:
            label = judged.get(content_hash(normalise(document.text)))
            by = None if label is None else judge
        yield {
            "id": document.id if document.id_given else None,
            "text": document.text.encode("utf-8", "replace").decode(),
            "label": label,
            "source": document.source or document.shard,
            "labelled_by": by,
        }


def _documents(source: FilesSource) -> Iterable[Document]:
    paths = [source.path] if isinstance(source.path, str) else list(source.path)
    for shard in list_shards(paths):
        for item in read_shard(shard, source.columns, table=source.table):
            if isinstance(item, Document) and isinstance(item.text, str):
                yield item


def _given(source: FilesSource, document: Document) -> str | None:
    """The label that came with a document; one that means nothing is none."""
    given = document.metadata.get(source.columns.label) if source.columns.label else None
    if given in (None, ""):
        return None
    try:
        return _text(given if source.labels is None else source.labels.of(given))
    except ValueError:
        return None


def _text(label: Any) -> str:
    whole = isinstance(label, float) and label.is_integer()
    return str(int(label)) if whole else str(label)
