"""A small account of what a filter did, mergeable, so that no report reads the corpus again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.corpus.document import Document

BINS = 50
EXAMPLES = 10
OTHER = "(other)"

_EXCERPT = 300
_SOURCES = 50
_SOURCE_LENGTH = 120


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Frozen):
    """A document to look at: where it is, its score, the first 300 characters."""

    id: str
    source: str
    score: float
    shard: str
    row: int
    text: str


class SourceCounts(_Frozen):
    """Documents of one source."""

    kept: int = 0
    dropped: int = 0


class Summary(_Frozen):
    """What a filter did with some documents.

    Attributes:
        low: Lower end of the score's scale.
        high: Upper end.
        threshold: Kept is what scores at least this.
        histogram: Documents by score, in ``BINS`` equal bins of the scale.
        sources: Documents by source; beyond the 50 largest of a shard under ``OTHER``.
        best: Examples with the highest scores, best first.
        nearest: Examples nearest to the threshold, nearest first.
        worst: Examples with the lowest scores, worst first.
        quarantine: Rows by the reason for which they could not be read.
    """

    low: float
    high: float
    threshold: float
    histogram: tuple[int, ...] = (0,) * BINS
    sources: dict[str, SourceCounts] = {}
    best: tuple[Example, ...] = ()
    nearest: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()
    quarantine: dict[str, int] = {}


class Summariser:
    """Adds up documents and summaries.

    Args:
        low: Lower end of the score's scale.
        high: Upper end.
        threshold: Kept is what scores at least this.
    """

    def __init__(self, low: float, high: float, threshold: float) -> None:
        self.low, self.high, self.threshold = low, high, threshold
        self.histogram = np.zeros(BINS, dtype=np.int64)
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.quarantine: Counter[str] = Counter()
        # Ties go by place, so that the account does not depend on the order of merging.
        self.orders: dict[str, Callable[[float], float]] = {
            "best": lambda score: -score,
            "nearest": lambda score: abs(score - threshold),
            "worst": lambda score: score,
        }
        self.examples: dict[str, list[Example]] = {name: [] for name in self.orders}

    def add(self, documents: Sequence[Document], scores: NDArray[np.float64]) -> None:
        """Add scored documents (n of each)."""
        inside = np.clip(scores, self.low, self.high)
        self.histogram += np.histogram(inside, BINS, (self.low, self.high))[0]
        for document, score in zip(documents, scores, strict=True):
            side = self.kept if score >= self.threshold else self.dropped
            side[document.source[:_SOURCE_LENGTH]] += 1
        for name, order in self.orders.items():
            ranks = np.array([order(score) for score in scores])
            chosen = np.argsort(ranks, kind="stable")[:EXAMPLES]
            self._offer(name, [_example(documents[i], float(scores[i])) for i in chosen])

    def quarantined(self, reason: str) -> None:
        """Add one row that could not be read."""
        self.quarantine[reason] += 1

    def merge(self, summary: Summary) -> None:
        """Add another account, over the same scale and threshold."""
        self.histogram += np.array(summary.histogram, dtype=np.int64)
        for source, counts in summary.sources.items():
            self.kept[source] += counts.kept
            self.dropped[source] += counts.dropped
        self.quarantine.update(summary.quarantine)
        for name in self.orders:
            self._offer(name, getattr(summary, name))

    def result(self) -> Summary:
        """The account so far."""
        return Summary(
            low=self.low,
            high=self.high,
            threshold=self.threshold,
            histogram=tuple(self.histogram.tolist()),
            sources=self._sources(),
            quarantine=dict(sorted(self.quarantine.items())),
            **{name: tuple(examples) for name, examples in self.examples.items()},
        )

    def _offer(self, name: str, examples: Iterable[Example]) -> None:
        order = self.orders[name]
        ranked = sorted(
            [*self.examples[name], *examples], key=lambda e: (order(e.score), e.shard, e.row)
        )
        self.examples[name] = ranked[:EXAMPLES]

    def _sources(self) -> dict[str, SourceCounts]:
        total = self.kept + self.dropped
        other = total.pop(OTHER, 0)
        ranked = sorted(total, key=lambda source: (-total[source], source))
        shown = {s: SourceCounts(kept=self.kept[s], dropped=self.dropped[s]) for s in ranked}
        rest = [*ranked[_SOURCES:], *([OTHER] if other else [])]
        if not rest:
            return shown
        result = {source: shown[source] for source in ranked[:_SOURCES]}
        result[OTHER] = SourceCounts(
            kept=sum(self.kept[s] for s in rest), dropped=sum(self.dropped[s] for s in rest)
        )
        return result


def _example(document: Document, score: float) -> Example:
    return Example(
        id=document.id[:200],
        source=document.source[:_SOURCE_LENGTH],
        score=score,
        shard=document.shard,
        row=document.row,
        text=document.text[:_EXCERPT],
    )
