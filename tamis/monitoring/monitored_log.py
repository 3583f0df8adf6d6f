"""A window to watch, from the request log: what was kept of it decides what can be seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tamis.monitoring.feedback import Joined, join
from tamis.monitoring.gathering import Gathering, Row, Vector
from tamis.monitoring.monitored import MonitorWindow, finish
from tamis.monitoring.windows import Reader

if TYPE_CHECKING:
    import pyarrow as pa

    from tamis.models.classifier import Classifier
    from tamis.models.encoder import Progress
    from tamis.target import Target
    from tamis.task import Task

SOURCE = "served"
LABELS_FROM = timedelta(days=7)
"""How long before a window documents may have been served whose labels came in it."""

_COLUMNS = (
    "at", "id", "request_id", "index", "model_version", "score", "characters", "tokens",
    "language", "text", "embedding", "shadow",
)  # fmt: skip
_LATE = tuple(name for name in _COLUMNS if name not in ("text", "embedding", "language"))


def window_of_log(
    log: Path,
    start: datetime,
    end: datetime,
    task: Task,
    version: str,
    model: Classifier | None = None,
    progress: Progress | None = None,
    labels_from: timedelta = LABELS_FROM,
) -> MonitorWindow:
    """What one version of a model answered in a span of time.

    Records of other versions and of shadows are counted and left out. Labels count that came
    since ``start``, also to documents that were served up to ``labels_from`` before.

    Args:
        log: Folder of the request log.
        start: From when.
        end: Until when, exclusive.
        task: Its target, seed and ``monitor`` section.
        version: Of the model that is watched, in the registry.
        model: Embeds and scores where texts were kept; without it kept vectors are taken.
        progress: Told how many documents were embedded.
        labels_from: See above.

    Raises:
        UsageError: There is no such log.
        OutputBusy: Another process maintains it.
    """
    gathered = Gathering(task.monitor.max_documents, task.seed)
    counts = gathered.counts
    with Reader(log) as reader:
        joined = join(reader, start - labels_from)
        rows = _Rows(f"{task.name}/{version}", task.target, joined, start, gathered)
        if joined.of:
            for batch in reader.batches(start - labels_from, start, _LATE):
                for row in rows.of(batch, only_labelled=True):
                    gathered.add_labelled(row)
        for batch in reader.batches(start, end, _COLUMNS, shadow=True):
            for row in rows.of(batch):
                gathered.add(row)
        counts["dropped"] = reader.dropped(start, end)
        counts["quarantined"] = reader.quarantined(start, end)
    counts["unknown_labels"] = joined.unknown
    source = f"request log, {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    return finish(gathered, model, start, end, source, scores_logged=True, progress=progress)


class _Rows:
    """Turns records into rows."""

    def __init__(
        self, version: str, target: Target, joined: Joined, start: datetime, gathered: Gathering
    ) -> None:
        self._version, self._target, self._joined = version, target, joined
        self._start, self._gathered = start, gathered

    def of(self, batch: pa.RecordBatch, only_labelled: bool = False) -> list[Row]:
        counts = self._gathered.counts
        light = [name for name in batch.schema.names if name != "embedding"]
        vectors = batch["embedding"] if "embedding" in batch.schema.names else None
        rows = []
        for number, record in enumerate(batch.select(light).to_pylist()):
            given = (record["request_id"], record["index"]) in self._joined.of
            if only_labelled and not given:
                continue
            if record["shadow"]:
                counts["shadows"] += 1
            elif record["model_version"] != self._version:
                counts["others"] += not only_labelled
            else:
                label = self._label(record) if given else np.nan
                if not (only_labelled and np.isnan(label)):
                    rows.append(_row(record, label, _reading(vectors, number)))
        return rows

    def _label(self, record: dict[str, Any]) -> float:
        given = self._joined.of[record["request_id"], record["index"]].label
        if given.at < self._start:
            return np.nan
        try:
            return self._target.encode(given.label)
        except ValueError:
            self._gathered.counts["bad_labels"] += 1
            return np.nan


def _row(record: dict[str, Any], label: float, vector: Callable[[], Vector | None] | None) -> Row:
    score = record["score"]
    place = f"{record['request_id']}\x00{record['index']}\x00{record['at'].timestamp()!r}"
    text = record.get("text")
    same = f"{record['id']}\x00{record['characters']}\x00{record['tokens']}"
    return Row(
        id=record["id"],
        text=text,
        characters=record["characters"],
        score=score if score is not None and np.isfinite(score) else np.nan,
        language=record.get("language"),
        source=SOURCE,
        # Documents of one request are not taken to belong together: batches come in any order.
        group=record["id"],
        label=label,
        moment=f"{not np.isnan(label):d} {record['at'].isoformat()} {place}",
        vector=vector,
        same=_mark(same) if text is None else None,
        content=f"{record['id']}\x00{place}\x00{score!r}\x00{record['characters']}",
    )


def _mark(same: str) -> bytes:
    return hashlib.blake2b(same.encode("utf-8", "replace"), digest_size=16).digest()


def _reading(vectors: Any, number: int) -> Callable[[], Vector | None] | None:
    """Reads a vector of a batch if it is one: vectors are many numbers, and few are wanted."""
    if vectors is None or not vectors[number].is_valid:
        return None

    def read() -> Vector | None:
        found = np.asarray(vectors[number].values.to_numpy(zero_copy_only=False), dtype=np.float32)
        norm = float(np.linalg.norm(found)) if len(found) else 0.0
        return found / norm if np.isfinite(norm) and norm > 0 else None

    return read
