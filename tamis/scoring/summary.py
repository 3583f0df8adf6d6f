"""A small account of what a filter did, mergeable, so that no report reads the corpus again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.scoring.audit import AuditCounts

BINS = 50
EXAMPLES = 10
OTHER = "(other)"

_SIDES = {"keep": "kept", "drop": "dropped", "duplicate": "duplicates"}
_EXCERPT = 300
_SOURCES = 50
_SOURCE_LENGTH = 120


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Frozen):
    """A scored document to look at: where it is, its score, the first 300 characters."""

    id: str
    source: str
    score: float
    shard: str
    row: int
    text: str
    kept: bool = True


class SourceCounts(_Frozen):
    """Documents of one source."""

    kept: int = 0
    dropped: int = 0
    duplicates: int = 0


class Summary(_Frozen):
    """What a filter did with some documents.

    Attributes:
        low: Lower end of the score's scale.
        high: Upper end.
        threshold: Kept is what scores at least this.
        histogram: Scored documents by score, in ``BINS`` equal bins of the scale.
        sources: Documents by source; beyond the 50 largest of a shard under ``OTHER``.
        best: Examples with the highest scores, best first.
        nearest: Examples nearest to the threshold, nearest first.
        worst: Examples with the lowest scores, worst first.
        reasons: Documents that were dropped, or left out as duplicates, by reason.
        pii: Personal data found in documents that came so far, by kind.
        quarantine: Rows by the reason for which they could not be read.
        audit: Documents by who decided, where there was a cascade.
    """

    low: float
    high: float
    threshold: float
    histogram: tuple[int, ...] = (0,) * BINS
    sources: dict[str, SourceCounts] = {}
    best: tuple[Example, ...] = ()
    nearest: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()
    reasons: dict[str, int] = {}
    pii: dict[str, int] = {}
    quarantine: dict[str, int] = {}
    audit: AuditCounts = AuditCounts()


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
        self.sides: dict[str, Counter[str]] = {side: Counter() for side in _SIDES.values()}
        self.reasons: Counter[str] = Counter()
        self.pii: Counter[str] = Counter()
        self.quarantine: Counter[str] = Counter()
        self.audit = AuditCounts()
        # Ties go by place, so that the account does not depend on the order of merging.
        self.orders: dict[str, Callable[[float], float]] = {
            "best": lambda score: -score,
            "nearest": lambda score: abs(score - threshold),
            "worst": lambda score: score,
        }
        self.examples: dict[str, list[Example]] = {name: [] for name in self.orders}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of the output (``tamis.corpus.writers.SCHEMA``), each decided about."""
        for row in rows:
            self.sides[_SIDES[row["decision"]]][row["source"][:_SOURCE_LENGTH]] += 1
            if row["decision"] != "keep":
                self.reasons[row["reason"]] += 1
        scored = [row for row in rows if row["score"] is not None]
        if not scored:
            return
        scores: NDArray[np.float64] = np.array([row["score"] for row in scored])
        inside = np.clip(scores, self.low, self.high)
        self.histogram += np.histogram(inside, BINS, (self.low, self.high))[0]
        for name, order in self.orders.items():
            ranks = np.array([order(score) for score in scores])
            chosen = np.argsort(ranks, kind="stable")[:EXAMPLES]
            self._offer(name, [_example(scored[i]) for i in chosen])

    def demote(self, row: Mapping[str, Any]) -> None:
        """Take a kept row back as a duplicate: it stays scored."""
        source = row["source"][:_SOURCE_LENGTH]
        # Beyond the largest sources of a shard the names are gone.
        source = source if self.sides["kept"][source] else OTHER
        self.sides["kept"][source] -= 1
        self.sides["duplicates"][source] += 1
        self.reasons[row["reason"]] += 1
        here = (row["shard"], row["row"])
        for name, examples in self.examples.items():
            self.examples[name] = [
                e.model_copy(update={"kept": False}) if (e.shard, e.row) == here else e
                for e in examples
            ]

    def personal_data(self, found: Mapping[str, int]) -> None:
        """Add personal data found in a document, by kind."""
        self.pii.update(found)

    def quarantined(self, reason: str) -> None:
        """Add one row that could not be read."""
        self.quarantine[reason] += 1

    def audited(self, counts: AuditCounts) -> None:
        """Add documents by who decided."""
        self.audit += counts

    def merge(self, summary: Summary) -> None:
        """Add another account, over the same scale and threshold."""
        self.histogram += np.array(summary.histogram, dtype=np.int64)
        for source, counts in summary.sources.items():
            for side, sources in self.sides.items():
                sources[source] += getattr(counts, side)
        self.reasons.update(summary.reasons)
        self.pii.update(summary.pii)
        self.quarantine.update(summary.quarantine)
        self.audit += summary.audit
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
            reasons=dict(sorted(self.reasons.items())),
            pii=dict(sorted(self.pii.items())),
            quarantine=dict(sorted(self.quarantine.items())),
            audit=self.audit,
            **{name: tuple(examples) for name, examples in self.examples.items()},
        )

    def _offer(self, name: str, examples: Iterable[Example]) -> None:
        order = self.orders[name]
        ranked = sorted(
            [*self.examples[name], *examples], key=lambda e: (order(e.score), e.shard, e.row)
        )
        self.examples[name] = ranked[:EXAMPLES]

    def _sources(self) -> dict[str, SourceCounts]:
        total = sum(self.sides.values(), Counter[str]())
        other = total.pop(OTHER, 0)
        ranked = sorted(total, key=lambda source: (-total[source], source))
        result = {source: self._counts([source]) for source in ranked[:_SOURCES]}
        rest = [*ranked[_SOURCES:], *([OTHER] if other else [])]
        return {**result, OTHER: self._counts(rest)} if rest else result

    def _counts(self, sources: Sequence[str]) -> SourceCounts:
        return SourceCounts(
            **{side: sum(found[s] for s in sources) for side, found in self.sides.items()}
        )


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        id=row["id"][:200],
        source=row["source"][:_SOURCE_LENGTH],
        score=row["score"],
        shard=row["shard"],
        row=row["row"],
        text=row["text"][:_EXCERPT],
        kept=row["decision"] == "keep",
    )
