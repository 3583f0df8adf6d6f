"""Windows of real text of which a known share of the documents is foreign, or none.

    from bench.drift_windows import Windows, windows
    for window in windows("topic", 0.1, 500, repeats=20, seed=1): ...
    drawing = Windows(load_corpus(), seed=1); drawing.reference

The reference and the windows' unchanged documents are drawn at random from the same population,
and no document is in both; each document is at most once in a window. The seed alone chooses the
reference. A window depends on its seed, kind, share, size and number, not on what was drawn before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bench.drift_corpus import ALTERED, Corpus, load_corpus
from tamis.monitoring.samples import Sample

Shift = Literal["topic", "language", "boilerplate", "noise", "label", "genre"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)
NONE = "none"
REFERENCE = 1_800
"""Documents of the reference."""
LABELLED = 0.3
"""Of a window, the share of which labels come back; no more than there are."""
SCALE = (0.0, 5.0)


@dataclass(frozen=True)
class Feedback:
    """Labelled documents: what people said of them, and what the model had (n,) each."""

    scores: NDArray[np.float64]
    labels: NDArray[np.float64]
    groups: NDArray[np.str_]


@dataclass(frozen=True)
class Window:
    """Documents as detectors get them.

    Attributes:
        sample: The documents (n).
        columns: Numbers of each by name (n,), for detectors that take columns.
        foreign: Which of them are not of the reference's population (n,).
        rows: Their rows in the corpus (n,), through which a text is found.
        feedback: Labels that came back, where the window has any. They are of documents drawn
            for themselves, so that the inputs of a window whose labels changed are unchanged.
    """

    sample: Sample
    columns: dict[str, NDArray[np.float64]]
    foreign: NDArray[np.bool_]
    rows: NDArray[np.intp]
    feedback: Feedback | None = None


class Windows:
    """A reference, and windows beside it.

    Args:
        corpus: Documents.
        seed: Which reference.
        reference: Its documents.
    """

    def __init__(self, corpus: Corpus, seed: int, reference: int = REFERENCE) -> None:
        self.corpus, self.seed = corpus, seed
        rng = np.random.default_rng([seed, 1])
        population = rng.permutation(corpus.of("reference"))
        labelled = rng.permutation(corpus.of("labelled"))
        taken, self._unchanged = population[:reference], population[reference:]
        aside = 2 * len(labelled) // 5
        known, self._labelled = labelled[:aside], labelled[aside:]
        self._altered = {
            # What a document of the reference was made into is no new document.
            kind: rows[~np.isin(corpus.twins[rows], taken)]
            for kind, rows in ((kind, corpus.of(kind)) for kind in ALTERED)
        }
        self.reference = self._window(taken, np.zeros(len(taken), dtype=bool), self._told(known))

    def draw(self, shift: str, share: float, size: int, number: int) -> Window:
        """One window.

        Args:
            shift: One of ``SHIFTS``, or ``none``.
            share: Of its documents that are foreign; with ``label``, of its labels that are now
                given the other way round.
            size: Documents.
            number: Which of the windows of this kind.

        Raises:
            ValueError: There are not so many documents.
        """
        key = [self.seed, 2, zlib.crc32(shift.encode()), round(share * 1e6), size, number]
        rng = np.random.default_rng(key)
        if shift == "label":
            rows = self._some(rng, self._unchanged, size, "unchanged")
            labelled = min(round(size * LABELLED), len(self._labelled))
            told = self._told(self._some(rng, self._labelled, labelled, "labelled"))
            changed = rng.permutation(labelled) < round(share * labelled)
            labels = np.where(changed, sum(SCALE) - told.labels, told.labels)
            clean = np.zeros(size, dtype=bool)
            return self._window(rows, clean, replace(told, labels=labels))
        count = 0 if shift == NONE else round(share * size)
        foreign = np.zeros(0, dtype=np.intp)
        if count:
            there = self._altered[shift] if shift in self._altered else self.corpus.of(shift)
            foreign = self._some(rng, there, count, shift)
        unchanged = self._unchanged[~np.isin(self._unchanged, self.corpus.twins[foreign])]
        rows = np.concatenate([self._some(rng, unchanged, size - count, "unchanged"), foreign])
        order = rng.permutation(size)
        return self._window(rows[order], (np.arange(size) >= size - count)[order])

    def _some(
        self, rng: np.random.Generator, rows: NDArray[np.intp], count: int, what: str
    ) -> NDArray[np.intp]:
        if count > len(rows):
            raise ValueError(f"{count} {what} documents are wanted, there are {len(rows)}")
        return rng.choice(rows, count, replace=False)

    def _told(self, rows: NDArray[np.intp]) -> Feedback:
        c = self.corpus
        return Feedback(c.scores[rows], c.labels[rows], c.groups[rows])

    def _window(
        self, rows: NDArray[np.intp], foreign: NDArray[np.bool_], feedback: Feedback | None = None
    ) -> Window:
        c = self.corpus
        sample = Sample(
            ids=c.ids[rows],
            scores=c.scores[rows],
            characters=c.columns["characters"][rows].astype(np.int64),
            languages=c.languages[rows],
            # A request says nothing of where its text is from; it would give the foreign away.
            sources=np.full(len(rows), "requests"),
            groups=c.groups[rows],
            vectors=c.vectors[rows],
            words=c.words[rows],
        )
        columns = {name: values[rows] for name, values in c.columns.items()}
        return Window(sample, columns, foreign, rows, feedback)


def windows(
    shift: str, share: float, size: int, repeats: int, seed: int, folder: Path | None = None
) -> Iterator[Window]:
    """So many windows beside ``reference(seed)``; see ``Windows.draw``."""
    drawing = drawn(seed, folder)
    for number in range(repeats):
        yield drawing.draw(shift, share, size, number)


def reference(seed: int, folder: Path | None = None) -> Window:
    """The reference of ``windows`` of the same seed."""
    return drawn(seed, folder).reference


@cache
def drawn(seed: int, folder: Path | None = None) -> Windows:
    """The windows of a seed on the corpus of a folder, loaded once."""
    return Windows(_corpus(folder), seed)


@cache
def _corpus(folder: Path | None) -> Corpus:
    return load_corpus(folder)
