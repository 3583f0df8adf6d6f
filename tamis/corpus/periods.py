"""Old documents, those of earlier windows, and a window of new ones, as one set."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from tamis.corpus.dataset import SCHEMA, Dataset, DatasetInfo, build, concatenate


def no_documents(task: str) -> Dataset:
    """A set of none."""
    info = DatasetInfo(
        task=task,
        fingerprint="",
        documents=0,
        labelled=0,
        sources={},
        licences={},
        labels_by="",
        left_out=(),
    )
    return build(SCHEMA.empty_table(), info)


def join_periods(documents: Dataset, window: Dataset, earlier: Dataset) -> Dataset:
    """All documents that a challenger learns from or is judged on, each once.

    A document that comes twice by its id is taken from the task's sources before the window, and
    from the window before earlier ones. A document of the window that an earlier one had under
    another id keeps that id, and with it the side that it was on. What clients send again of the
    task's own documents, word for word, is left out of the window: it is no new document.

    Args:
        documents: What the task's sources hold.
        window: The new documents.
        earlier: What the champion knows from earlier windows.
    """
    own = set(documents.strings("sha256").tolist())
    window = window.take(np.array([t not in own for t in window.strings("sha256")], dtype=bool))
    texts = earlier.strings("sha256").tolist()
    had = dict(zip(texts, earlier.strings("id").tolist(), strict=True))
    taken = {*documents.strings("id").tolist(), *window.strings("id").tolist()}
    rows = zip(window.strings("id").tolist(), window.strings("sha256").tolist(), strict=True)
    known = set(had.values())
    ids = [
        name if name in known or had.get(text, name) in taken else had.get(text, name)
        for name, text in rows
    ]
    place = window.table.schema.get_field_index("id")
    table = window.table.set_column(place, SCHEMA.field("id"), pa.array(ids, pa.string()))
    parts = [documents, build(table, window.info), earlier]
    return concatenate([part for part in parts if len(part)])


def of_windows(documents: Dataset, window: Dataset, earlier: Collection[str]) -> set[str]:
    """Ids of the documents that came in with windows and that the task's sources do not hold.

    Args:
        documents: What the task's sources hold.
        window: The new documents.
        earlier: Ids that the champion knows from earlier windows.
    """
    return {*window.strings("id").tolist(), *earlier} - set(documents.strings("id").tolist())


def carried(documents: Dataset, ids: Collection[str]) -> Dataset:
    """Those of the documents that have one of these ids."""
    wanted = set(ids)
    rows = [name in wanted for name in documents.strings("id").tolist()]
    return documents.take(np.array(rows, dtype=bool))
