"""What a registered model keeps of the documents behind it: monitoring needs no training set.

profile.json          figures and facts
documents.parquet     a row a document: id, score, length, language, source, label; no text
arrays.safetensors    their vectors and hashed words
words.json            in how many documents each common word is
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tamis.config import Strict
from tamis.errors import DataError, ModelError
from tamis.evaluation.bootstrap import Interval
from tamis.monitoring.samples import WORDS, Sample, hashed_words, words_of

if TYPE_CHECKING:
    from tamis.corpus.dataset import Dataset
    from tamis.corpus.split import Assignment
    from tamis.evaluation.figures import Evaluation
    from tamis.models.classifier import Classifier
    from tamis.models.encoder import Progress
    from tamis.models.log import TrainingLog

MOST = 4_000
"""Documents of a profile; a seeded sample of more."""
LEAST_FRESH = 200
"""Documents of a newest window that are enough to compare others with."""
MOST_WORDS = 20_000
_FACTS, _DOCUMENTS, _ARRAYS, _WORDS = (
    "profile.json", "documents.parquet", "arrays.safetensors", "words.json"
)  # fmt: skip


class ProfileFacts(Strict):
    """What is known of a profile as a whole.

    Attributes:
        task: Name of the task.
        data: Fingerprint of the labelled set.
        documents: Documents behind the model, of which the profile holds a sample.
        threshold: Score from which a document is kept.
        scale: Ends of the target's scale.
        metric: Metric of record.
        performance: Figures on the documents that the model never saw.
    """

    format: int = 1
    task: str
    data: str
    documents: int
    threshold: float
    scale: tuple[float, float] = Field(strict=False)
    metric: str
    performance: dict[str, Interval] = Field(default={})


@dataclass(frozen=True)
class ReferenceProfile:
    """A sample of the documents behind a model, and how it did on them.

    Attributes:
        facts: Of the whole.
        sample: Documents of all sides; a score is one that the document was no part of the
            making of (test, cross-validation, no label), NaN where there is none such.
        labels: Encoded labels (n,), NaN where there is none.
        held_out: Test documents and those without a label (n,).
        fresh: Documents of the window that the model was last retrained on, or that was accepted
            as what is normal (n,).
        words: In how many of the documents each common word is.
    """

    facts: ProfileFacts
    sample: Sample
    labels: NDArray[np.float64]
    held_out: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    words: Mapping[str, int]

    def current(self) -> Sample:
        """What windows are compared with: the newest window known, if there is enough of it.

        Old documents are replayed in training, but traffic that has moved on does not come back.
        """
        enough = int(self.fresh.sum()) >= LEAST_FRESH
        return self.sample.take(np.flatnonzero(self.fresh)) if enough else self.sample

    @property
    def threshold(self) -> float:
        """Score from which a document is kept."""
        return self.facts.threshold

    @property
    def scale(self) -> tuple[float, float]:
        """Ends of the target's scale."""
        return self.facts.scale

    @property
    def metric(self) -> str:
        """The metric of record."""
        return self.facts.metric

    @property
    def performance(self) -> Mapping[str, Interval]:
        """Figures on the documents that the model never saw, with intervals."""
        return self.facts.performance

    def save(self, folder: Path) -> None:
        """Write it into an empty or new folder."""
        folder.mkdir(parents=True, exist_ok=True)
        one = self.sample
        table = {name: getattr(one, name) for name in _COLUMNS}
        more = {"labels": self.labels, "held_out": self.held_out, "fresh": self.fresh}
        rows = pa.table(table | more)
        pq.write_table(rows, folder / _DOCUMENTS, compression="zstd")
        arrays: dict[str, NDArray[np.generic]] = {}
        if one.vectors is not None:
            arrays["vectors"] = np.ascontiguousarray(one.vectors)
        if one.words is not None:
            arrays |= {"words_at": one.words.indices.astype(np.int32),
                       "words_from": one.words.indptr.astype(np.int32)}  # fmt: skip
        save_file(arrays, folder / _ARRAYS)
        common = dict(sorted(self.words.items()))
        (folder / _WORDS).write_text(json.dumps(common, ensure_ascii=False), "utf-8")
        # Last, so that a folder with this file is complete.
        (folder / _FACTS).write_text(self.facts.model_dump_json(indent=1), "utf-8")


_COLUMNS = ("ids", "scores", "characters", "languages", "sources", "groups")


def load_profile(folder: Path) -> ReferenceProfile:
    """Read what ``ReferenceProfile.save`` wrote.

    Raises:
        ModelError: The folder is incomplete or damaged.
    """
    try:
        facts = ProfileFacts.model_validate_json((folder / _FACTS).read_text("utf-8"))
        table = pq.read_table(folder / _DOCUMENTS)
        arrays = load_file(folder / _ARRAYS)
        words = json.loads((folder / _WORDS).read_text("utf-8"))
        held = {name: np.array(table[name].to_pylist()) for name in _COLUMNS if table.num_rows}
        sample = Sample(
            ids=held["ids"].astype(str),
            scores=held["scores"].astype(np.float64),
            characters=held["characters"].astype(np.int64),
            languages=held["languages"].astype(str),
            sources=held["sources"].astype(str),
            groups=held["groups"].astype(str),
            vectors=arrays.get("vectors"),
            words=_words(arrays, table.num_rows),
        )
        labels = table["labels"].to_numpy().astype(np.float64)
        held_out, fresh = (
            np.array(table[name].to_pylist(), dtype=bool) for name in ("held_out", "fresh")
        )
    except (OSError, KeyError, ValueError, pa.ArrowException, SafetensorError) as error:
        told = type(error).__name__ if isinstance(error, ValidationError) else error
        raise ModelError(f"reference profile {folder}: {str(told).splitlines()[0]}") from None
    return ReferenceProfile(facts, sample, labels, held_out, fresh, words)


def profile_of(
    classifier: Classifier,
    documents: Dataset,
    split: Assignment,
    evaluation: Evaluation,
    log: TrainingLog,
    metric: str,
    window: Collection[str] = (),
    progress: Progress | None = None,
) -> ReferenceProfile:
    """The profile of a model that has just been trained and judged.

    Args:
        classifier: The model.
        documents: All that it was trained, tuned and tested on, and those without a label.
        split: Their sides.
        evaluation: Its figures; the scores of test documents are taken from it.
        log: Of the training; the scores of the other labelled documents are taken from its
            cross-validation.
        metric: Metric of record.
        window: Ids of the documents of the window that it was retrained on.
        progress: Told how many documents were embedded.
    """
    info = classifier.info
    kept = _sampled(documents, set(window), info.seed)
    texts, ids = kept.texts(), kept.strings("id")
    held_out = np.isin(ids, split.sides["test"]) | np.isnan(kept.labels)
    fresh = np.isin(ids, list(window))
    vectors, _ = classifier.embed(texts, progress)
    common: Counter[str] = Counter(word for text in texts for word in words_of(text))
    sample = Sample(
        ids=ids,
        scores=_scores(classifier, kept, evaluation, log),
        characters=np.array([len(text) for text in texts], dtype=np.int64),
        languages=languages_of(texts),
        sources=kept.strings("source"),
        groups=np.array([split.groups.get(name, name) for name in ids.tolist()], dtype=str),
        vectors=vectors,
        words=hashed_words(texts),
    )
    facts = ProfileFacts(
        task=info.task,
        data=documents.info.fingerprint,
        documents=len(documents),
        threshold=info.threshold,
        scale=info.target.scale,
        metric=metric,
        performance={str(name): figure for name, figure in evaluation.model.figures.items()},
    )
    return ReferenceProfile(
        facts, sample, kept.labels, held_out, fresh, dict(common.most_common(MOST_WORDS))
    )


def accepting(
    profile: ReferenceProfile, window: Sample, texts: Sequence[str] | None
) -> ReferenceProfile:
    """The profile in which a window is what later ones are compared with.

    The figures and labels behind the model stay; an earlier accepted window goes.

    Args:
        profile: Of the model.
        window: That somebody looked at and found to be as it should be.
        texts: Of the window, for its words.

    Raises:
        DataError: It is too small, or has no vectors where the profile has some.
    """
    if len(window) < LEAST_FRESH:
        raise DataError(f"--accept: a window of {len(window)} documents; at least {LEAST_FRESH}")
    if profile.sample.vectors is not None and window.vectors is None:
        raise DataError("--accept: a window without vectors; the log keeps no text or embedding")
    labelled = np.flatnonzero(~profile.fresh | np.isfinite(profile.labels))
    old, size = profile.sample.take(labelled), len(window)
    words = Counter(profile.words)
    words.update(word for text in texts or () for word in words_of(text))
    return ReferenceProfile(
        facts=profile.facts,
        sample=old.beside(window),
        labels=np.concatenate([profile.labels[labelled], np.full(size, np.nan)]),
        held_out=np.concatenate([profile.held_out[labelled], np.ones(size, dtype=bool)]),
        fresh=np.repeat([False, True], [len(old), size]),
        words=dict(words.most_common(MOST_WORDS)),
    )


def profile_of_classifier(classifier: Classifier, metric: str) -> ReferenceProfile:
    """What can be said of a model that was registered without a profile: vectors and scores.

    Its scores are those of documents that it was trained on.
    """
    info, vectors = classifier.info, classifier.reference
    size = len(vectors)
    ids = np.array([f"reference-{row}" for row in range(size)], dtype=str)
    nothing = np.full(size, "", dtype=str)
    sample = Sample(
        ids=ids,
        scores=np.asarray(classifier.reference_scores, dtype=np.float64),
        characters=np.zeros(size, dtype=np.int64),
        languages=nothing,
        sources=nothing,
        groups=ids,
        vectors=vectors,
    )
    facts = ProfileFacts(
        task=info.task,
        data=info.trained_on.fingerprint,
        documents=size,
        threshold=info.threshold,
        scale=info.target.scale,
        metric=metric,
    )
    unknown, none = np.full(size, np.nan), np.zeros(size, dtype=bool)
    return ReferenceProfile(facts, sample, unknown, none, none, {})


def fingerprint(folder: Path) -> str:
    """sha256 over a saved profile's files, in hexadecimal."""
    found = hashlib.sha256()
    for name in (_FACTS, _DOCUMENTS, _ARRAYS, _WORDS):
        found.update((folder / name).read_bytes())
    return found.hexdigest()


def languages_of(texts: list[str]) -> NDArray[np.str_]:
    """Language of each text (n,), ISO 639."""
    from tamis.corpus.language import LanguageFilter
    from tamis.corpus.settings import LanguageSettings

    identify = LanguageFilter(LanguageSettings()).identify
    return np.array([identify(text)[0] for text in texts], dtype=str)


def _sampled(documents: Dataset, window: set[str], seed: int) -> Dataset:
    """A seeded sample by content, whatever the order; half of it the window's, if it has many."""
    if len(documents) <= MOST:
        return documents
    marks = zip(documents.strings("id").tolist(), documents.strings("sha256").tolist(), strict=True)
    drawn = [
        (name in window, hashlib.sha256(f"{seed} {mark}".encode()).digest()) for name, mark in marks
    ]
    ranked = sorted(range(len(drawn)), key=lambda row: drawn[row][1])
    new, old = ([row for row in ranked if drawn[row][0] is come] for come in (True, False))
    of_new = min(len(new), max(MOST // 2, MOST - len(old)))
    rows = new[:of_new] + old[: MOST - of_new]
    return documents.take(np.sort(np.array(rows)))


def _scores(
    classifier: Classifier, kept: Dataset, evaluation: Evaluation, log: TrainingLog
) -> NDArray[np.float64]:
    """A score of each document that the document had no part in (n,), NaN where there is none."""
    known = {each.id: each.score for each in evaluation.predictions}
    if log.held_out is not None:
        known = dict(zip(log.held_out.ids, log.held_out.scores, strict=True)) | known
    ids = kept.strings("id").tolist()
    scores = np.array([known.get(name, np.nan) for name in ids])
    fresh = np.flatnonzero(np.isnan(kept.labels))
    if len(fresh):
        scores[fresh] = classifier.score(kept.take(fresh).texts()).values
    return scores


def _words(arrays: Mapping[str, NDArray[np.generic]], rows: int) -> object:
    if "words_at" not in arrays:
        return None
    from scipy.sparse import csr_matrix

    at, starts = arrays["words_at"], arrays["words_from"]
    return csr_matrix((np.ones(len(at), dtype=np.float32), at, starts), shape=(rows, WORDS))
