"""A window of documents that a model is watched on: a sample of bounded size, and what was counted.

It is read from the request log or from files, see ``tamis.monitoring.monitored_log`` and
``tamis.monitoring.monitored_files``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamis.monitoring.gathering import Gathering, Row, Vector
from tamis.monitoring.samples import Sample, Strings, hashed_words

if TYPE_CHECKING:
    from tamis.models.classifier import Classifier
    from tamis.models.encoder import Progress

Floats = NDArray[np.float64]
COUNTS = (
    "records", "others", "shadows", "dropped", "quarantined", "taken_out", "taken_out_repeated",
    "with_text", "without_text", "empty", "broken_encoding", "repeated", "scored", "computed",
    "score_asked", "without_score", "labelled", "bad_labels", "unknown_labels",
    "labelled_without_score", "left_out", "unreadable_files",
)  # fmt: skip
"""What is counted of a window; see ``MonitorWindow``."""


@dataclass(frozen=True)
class Labelled:
    """Labelled documents with the model's scores; a sample of very many.

    Attributes:
        scores: (n,).
        labels: Encoded labels (n,).
        groups: What came together (n,).
    """

    scores: Floats
    labels: Floats
    groups: Strings

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class MonitorWindow:
    """Documents that came in some span of time, or that are in some files.

    ``counts`` holds, of all documents and not just of the sample:

    - ``records`` of the model; ``others``, ``shadows``: of other versions, left out
    - ``dropped``, ``quarantined``: that the log had no room for; that are no records
    - ``taken_out``: that the filter took out before a score, left out;
      ``taken_out_repeated``: of those, as exact duplicates, counted apart
    - ``with_text``; ``without_text``: rows of files in which there is none
    - ``empty``, ``broken_encoding``; ``repeated``: whose text came before
    - ``scored``: with a score of this model; ``computed``: of the sample, scored here
    - ``score_asked``, ``without_score``: that should have one, and that have none
    - ``labelled``, ``bad_labels``, ``unknown_labels``, ``labelled_without_score``
    - ``left_out``: of the sample, without the text or vector that the others have
    - ``unreadable_files``: of a filter's output

    Attributes:
        sample: Documents, each once, at most ``monitor.max_documents``.
        texts: Of the sample (n,); None if they were not kept.
        labels: Encoded labels of the sample (n,), NaN where there is none.
        labelled: All labelled documents, those that were served before the window too.
        start: From when; None where files do not say.
        end: Until when, exclusive.
        source: What was read, for people.
        fingerprint: sha256 over the content, labels included, whatever its order.
        counts: See above.
    """

    sample: Sample
    texts: tuple[str, ...] | None
    labels: Floats
    labelled: Labelled
    start: datetime | None
    end: datetime | None
    source: str
    fingerprint: str
    counts: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.sample)


def finish(
    gathered: Gathering,
    model: Classifier | None,
    start: datetime | None,
    end: datetime | None,
    source: str,
    scores_logged: bool,
    progress: Progress | None = None,
) -> MonitorWindow:
    """Make a window of what was gathered; scores and vectors that are missing are computed.

    Args:
        gathered: All documents.
        model: Scores and embeds where texts were kept; None leaves out what was not kept.
        start: From when.
        end: Until when, exclusive.
        source: What was read.
        scores_logged: Every record should have come with a score.
        progress: Told how many documents were embedded.
    """
    counts = gathered.counts
    held = gathered.sample()
    rows, has_text = _alike(held)
    counts["left_out"] = len(held) - len(rows)
    texts = [row.text or "" for row in rows] if has_text else None
    vectors = _kept_vectors(rows)
    scores = np.array([row.score for row in rows], dtype=np.float64)
    if texts and model is not None:
        missing = np.flatnonzero(np.isnan(scores))
        vectors, _ = model.embed(texts, progress)
        if len(missing):
            scores[missing] = _finite(model.score([texts[i] for i in missing]).values)
            counts["computed"] = int(np.isfinite(scores[missing]).sum())
    asked = counts["records"] - counts["empty"] if scores_logged else len(rows)
    found = counts["scored"] + counts["computed"] if scores_logged else np.isfinite(scores).sum()
    counts["score_asked"], counts["without_score"] = asked, max(0, asked - int(found))
    counts["repeated"] = gathered.repeated()
    labelled = _labelled(gathered, model)
    return MonitorWindow(
        sample=Sample(
            ids=_strings(row.id for row in rows),
            scores=scores,
            characters=np.array([row.characters for row in rows], dtype=np.int64),
            languages=_languages(rows, texts),
            sources=_strings(row.source for row in rows),
            groups=_strings(row.group for row in rows),
            vectors=None if vectors is None else np.asarray(vectors, dtype=np.float32),
            words=hashed_words(texts) if texts else None,
        ),
        texts=None if texts is None else tuple(texts),
        labels=np.array([row.label for row in rows], dtype=np.float64),
        labelled=labelled,
        start=start,
        end=end,
        source=source,
        fingerprint=gathered.fingerprint(),
        counts=dict(sorted({**dict.fromkeys(COUNTS, 0), **counts}.items())),
    )


def _alike(rows: list[Row]) -> tuple[list[Row], bool]:
    """The rows that have what most have: texts, else vectors; and whether they have texts."""
    for name in ("text", "vector"):
        having = [row for row in rows if getattr(row, name) is not None]
        if rows and 2 * len(having) >= len(rows):
            return having, name == "text"
    return rows, False


def _kept_vectors(rows: Sequence[Row]) -> Vector | None:
    found = [row.vector() for row in rows if row.vector is not None]
    vectors = [each for each in found if each is not None]
    if not rows or len(vectors) < len(rows) or len({each.shape for each in vectors}) > 1:
        return None
    return np.vstack(vectors)


def _labelled(gathered: Gathering, model: Classifier | None) -> Labelled:
    rows = gathered.labelled()
    scores = np.array([row.score for row in rows], dtype=np.float64)
    missing = [i for i, row in enumerate(rows) if np.isnan(row.score) and row.text]
    if missing and model is not None:
        scores[missing] = _finite(model.score([rows[i].text or "" for i in missing]).values)
    known = np.flatnonzero(np.isfinite(scores))
    gathered.counts["labelled_without_score"] = len(rows) - len(known)
    return Labelled(
        scores=scores[known],
        labels=np.array([row.label for row in rows], dtype=np.float64)[known],
        groups=_strings(row.group for row in rows)[known],
    )


def _languages(rows: Sequence[Row], texts: list[str] | None) -> Strings:
    found = [row.language or "" for row in rows]
    if texts is not None:
        from tamis.monitoring.profile import languages_of

        missing = [i for i, language in enumerate(found) if not language]
        told = languages_of([texts[i] for i in missing]).tolist() if missing else []
        for i, language in zip(missing, told, strict=True):
            found[i] = language
    return _strings(found)


def _strings(values: Iterable[str]) -> Strings:
    return np.array(list(values), dtype=np.str_)


def _finite(values: Floats) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)
