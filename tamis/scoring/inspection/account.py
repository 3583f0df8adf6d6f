"""The records of an output, added up; what is held does not grow with the documents."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tamis.corpus.manifest import Counts, ShardRecord
from tamis.scoring.inspection.models import PARTS, Part
from tamis.scoring.summary import BINS, Example, Summary

BELOW = "score<threshold"
"""The reason of documents that the threshold drops."""


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """What is needed of a shard's record.

    Attributes:
        position: In the run, from 0.
        files: Paths of its files that have rows, by part.
        reasons: Rows of each part by reason; of the kept ones under ``kept``.
    """

    position: int
    files: Mapping[str, tuple[str, ...]]
    reasons: Mapping[Part, Mapping[str, int]]


class Account:
    """Adds up records.

    Args:
        nearest: Examples near the threshold that are held for each side.

    Attributes:
        shards: Of all records.
        counts: Rows of all shards.
        totals: Rows of each part by reason.
        scale: Lowest and highest score and the threshold; None before the first record.
        histogram: Scored documents by score (BINS,).
    """

    def __init__(self, nearest: int) -> None:
        self.shards: list[ShardFiles] = []
        self.counts = Counts()
        self.totals: dict[Part, Counter[str]] = {part: Counter() for part in PARTS}
        self.scale: tuple[float, float, float] | None = None
        self.histogram = np.zeros(BINS, dtype=np.int64)
        self._size = nearest
        self._nearest: dict[Part, list[tuple[float, int, Example]]] = {"kept": [], "dropped": []}

    def add(self, record: ShardRecord) -> None:
        """Add a shard.

        Raises:
            ValidationError: Its summary is damaged.
        """
        reasons: dict[Part, dict[str, int]] = {part: {} for part in PARTS}
        reasons["kept"]["kept"] = record.counts.kept
        if record.summary:
            summary = Summary.model_validate(record.summary)
            for reason, number in summary.reasons.items():
                part: Part = "duplicates" if reason.endswith("_duplicate") else "dropped"
                reasons[part][reason] = number
            reasons["quarantine"] = summary.quarantine
            self._add_scores(record.position, summary)
        files: dict[str, list[str]] = defaultdict(list)
        for file in record.files:
            if file.rows:
                files[file.path.partition("/")[0]].append(file.path)
        paths = {part: tuple(found) for part, found in files.items()}
        self.shards.append(ShardFiles(record.position, paths, reasons))
        self.counts += record.counts
        for name, numbers in reasons.items():
            self.totals[name].update(numbers)

    def _add_scores(self, position: int, summary: Summary) -> None:
        self.scale = (summary.low, summary.high, summary.threshold)
        self.histogram += np.array(summary.histogram, dtype=np.int64)
        for example in summary.nearest:
            if not example.kept and example.score >= summary.threshold:
                continue  # something else than the threshold took it out
            side: Part = "kept" if example.kept else "dropped"
            entry = (abs(example.score - summary.threshold), position, example)
            self._nearest[side].append(entry)
            if len(self._nearest[side]) > 8 * self._size:
                self._nearest[side] = self._closest(side)

    def _closest(self, side: Part) -> list[tuple[float, int, Example]]:
        found = self._nearest[side]
        return heapq.nsmallest(self._size, found, key=lambda e: (e[0], e[1], e[2].row))

    def nearest(self, side: Part) -> dict[tuple[int, int], Example]:
        """Examples nearest to the threshold on a side, by position of the shard and row."""
        return {(position, e.row): e for _, position, e in self._closest(side)}

    @property
    def threshold(self) -> float:
        """Kept is what scores at least this; 0 before the first record."""
        return self.scale[2] if self.scale else 0.0

    def reasons(self, part: Part) -> list[str]:
        """Names that rows of a part have as their reason, most frequent first."""
        numbers = self.totals[part]
        found = [name for name, number in numbers.items() if number]
        return sorted(found, key=lambda name: (-numbers[name], name))
