"""A window to watch, from files: any documents, exported windows, or what a filter wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from tamis.corpus.document import Document
from tamis.corpus.manifest import is_output, read_manifest, read_rows
from tamis.corpus.readers import list_shards, read_shard
from tamis.corpus.source_settings import FilesSource
from tamis.corpus.store import open_store
from tamis.errors import UsageError
from tamis.monitoring.export import window_source
from tamis.monitoring.gathering import Gathering, Row
from tamis.monitoring.monitored import MonitorWindow, finish

if TYPE_CHECKING:
    from tamis.corpus.dataset import Dataset
    from tamis.models.classifier import Classifier
    from tamis.models.encoder import Progress
    from tamis.task import Task

_PARTS = ("kept", "dropped", "duplicates")
_EMPTY = frozenset({"empty_text", "missing_text"})


def window_of_files(
    paths: Sequence[str],
    task: Task,
    version: str,
    model: Classifier | None = None,
    source: FilesSource | None = None,
    progress: Progress | None = None,
) -> MonitorWindow:
    """Documents of files, folders, globs or URLs; of a filter's output all that it scored.

    A score counts where the file says that this version made it (and no student of a cascade);
    else the model scores the document if it is one of the sample.

    Args:
        paths: Files of documents, outputs of ``filter``, or files of ``requests window``.
        task: Its target, columns (``corpus``), seed and ``monitor`` section.
        version: Of the model that is watched, in the registry.
        model: Embeds, and scores what has no score of it.
        source: How the files are written, where it is otherwise than ``corpus`` says.
        progress: Told how many documents were embedded.

    Raises:
        UsageError: A path matches nothing, or no file of a known format.
    """
    gathered = Gathering(task.monitor.max_documents, task.seed)
    made = _Made(task, f"{task.name}/{version}", gathered)
    outputs = [path for path in paths if is_output(path)]
    files = [path for path in paths if path not in outputs]
    for output in outputs:
        for row in made.of_output(output):
            gathered.add(row)
    if files:
        for row in made.of_files(files, source):
            gathered.add(row)
    if not outputs and not files:
        raise UsageError("--window: given nothing; allowed: a file, a folder, a glob or a URL")
    told = ", ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")
    first, last = made.span
    return finish(gathered, model, first, last, told, scores_logged=False, progress=progress)


def window_of_dataset(
    documents: Dataset,
    task: Task,
    version: str,
    model: Classifier | None = None,
    progress: Progress | None = None,
) -> MonitorWindow:
    """A window of documents that were read already, such as those of ``retrain.window``.

    Args:
        documents: Labelled or not; their labels are encoded.
        task: Its seed and ``monitor`` section.
        version: Of the model that is watched.
        model: Embeds and scores.
        progress: Told how many documents were embedded.
    """
    gathered = Gathering(task.monitor.max_documents, task.seed)
    made = _Made(task, f"{task.name}/{version}", gathered)
    columns = ["id", "text", "label", "source", "group"]
    for batch in documents.table.select(columns).to_batches(1_000):
        for row in batch.to_pylist():
            label = math.nan if row["label"] is None else float(row["label"])
            gathered.add(
                made.row(row["id"], row["text"], row["source"], {"group": row["group"]}, label)
            )
    gathered.counts["quarantined"] = len(documents.info.left_out)
    told = ", ".join(sorted(documents.info.sources)[:5]) or "no documents"
    return finish(gathered, model, None, None, told, scores_logged=False, progress=progress)


class _Made:
    """Turns rows of files into rows of a window, and keeps the span of time that they tell."""

    def __init__(self, task: Task, version: str, gathered: Gathering) -> None:
        self._task, self._version, self._counts = task, version, gathered.counts
        self._low, self._high = task.target.scale
        self._first: datetime | None = None
        self._last: datetime | None = None

    @property
    def span(self) -> tuple[datetime | None, datetime | None]:
        """The first and the last time that was told."""
        return self._first, self._last

    def of_files(self, paths: Sequence[str], source: FilesSource | None) -> Iterator[Row]:
        """Rows of plain files and of exported windows."""
        found = source or window_source(paths)
        columns = found.columns if found is not None else self._task.corpus
        table = found.table if found is not None else None
        labels = found.labels if found is not None else None
        for shard in list_shards(paths):
            for each in read_shard(shard, columns, table=table):
                if not isinstance(each, Document):
                    self._counts["quarantined"] += 1
                    self._counts["without_text"] += each.reason in _EMPTY
                    continue
                facts = each.metadata
                if facts.get("shadow") is True:
                    self._counts["shadows"] += 1
                    continue
                given = facts.get(columns.label) if columns.label else None
                if columns.group:
                    facts = facts | {"group": facts.get(columns.group)}
                label = self._label(labels.of, given) if labels else self._label(None, given)
                yield self.row(each.id, each.text, each.source, facts, label)

    def of_output(self, output: str) -> Iterator[Row]:
        """Documents that a filter scored; the others are counted."""
        store, manifest = open_store(output), read_manifest(output)
        self._counts["quarantined"] += manifest.counts.quarantined
        files = [file.path for record in manifest.shards for file in record.files]
        for path in files:
            if not path.startswith(tuple(f"{part}/" for part in _PARTS)):
                continue
            try:
                for each in read_rows(store, path):
                    yield from self._filtered(each, path)
            except (OSError, pa.ArrowException, msgspec.DecodeError, KeyError):
                self._counts["unreadable_files"] += 1

    def _filtered(self, each: dict[str, Any], path: str) -> Iterator[Row]:
        if each.get("score") is None:
            exact = path.startswith("duplicates/")
            self._counts["taken_out_repeated" if exact else "taken_out"] += 1
            return
        facts = _metadata(each.get("metadata"))
        given = facts.get(self._task.corpus.label or "")
        by_student = each.get("encoder_score") is None and each.get("student_score") is not None
        said = {
            "group": facts.get(self._task.corpus.group or ""),
            "language": each.get("language"),
            "score": None if by_student else each.get("score"),
            "model_version": each.get("model_version"),
        }
        yield self.row(
            str(each["id"]), each["text"], each["source"], said, self._label(None, given)
        )

    def row(
        self, name: str, text: str, source: str | None, facts: dict[str, Any], label: float
    ) -> Row:
        """A document with what a file says of it."""
        score, language = self._score(facts), facts.get("language")
        at = _moment(facts.get("at"))
        if at is not None:
            self._first = min(self._first or at, at)
            self._last = max(self._last or at, at)
        group = facts.get("group")
        # Without its row: the same documents are the same window in whatever files they lie.
        content = f"{name}\x00{source}\x00{score!r}\x00{len(text)}\x00{text[:2_000]}"
        return Row(
            id=name,
            text=text,
            characters=len(text),
            score=score,
            language=language if isinstance(language, str) else None,
            source=source or "",
            group=str(group) if group is not None else name,
            label=label,
            moment=f"{not np.isnan(label):d} {at} {name} {label!r}",
            vector=None,
            same=None,
            content=content,
        )

    def _score(self, facts: dict[str, Any]) -> float:
        """Of this model, if the file has one."""
        score = facts.get("score")
        if facts.get("model_version") != self._version or isinstance(score, bool):
            return math.nan
        try:
            found = float(score)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return math.nan
        return found if self._low <= found <= self._high else math.nan

    def _label(self, meaning: Any, given: Any) -> float:
        if given is None or given == "":
            return math.nan
        try:
            return self._task.target.encode(meaning(given) if meaning else given)
        except ValueError:
            self._counts["bad_labels"] += 1
            return math.nan


def _moment(found: Any) -> datetime | None:
    """A time of a column, or as JSON has it."""
    try:
        at = datetime.fromisoformat(found) if isinstance(found, str) else found
    except ValueError:
        return None
    if not isinstance(at, datetime):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _metadata(found: Any) -> dict[str, Any]:
    try:
        read = msgspec.json.decode(found) if isinstance(found, str) else found
    except msgspec.DecodeError:
        return {}
    return read if isinstance(read, dict) else {}
