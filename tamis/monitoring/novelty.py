"""What is new in a window: the documents that drifted most, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.monitoring.monitored import MonitorWindow
from tamis.monitoring.profile import ReferenceProfile
from tamis.monitoring.samples import Sample
from tamis.monitoring.typical_words import typical_words

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

EXCERPT = 240
"""Characters shown of a document."""
_DOCUMENTS = 12
_COMPARED = 2_000
_FEWEST = 20
_NEIGHBOURS = 5
_FOLDS = 5
_RARE = 0.9
_CLUSTERED = 1_000
_CLUSTERS = 6
_LEVEL = 0.01
_FIELD = 80


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NovelDocument(_Frozen):
    """A document unlike those behind the model.

    Attributes:
        id: Of the document.
        source: Where it came from.
        language: ISO 639; empty where not known.
        score: None where there is none.
        novelty: Share of the reference's documents that are less unusual.
        characters: Of the whole text.
        excerpt: Its beginning; None where texts were not kept.
    """

    id: str
    source: str
    language: str
    score: float | None
    novelty: float
    characters: int
    excerpt: str | None


class Cluster(_Frozen):
    """New documents that are alike, and more than such documents are among the reference.

    Attributes:
        size: Documents of the sample.
        share: Of the window.
        reference_share: Of the reference that lies there.
        words: Typical ones; none where texts were not kept.
        languages: Most frequent ones, and how many documents are in them.
        sources: Likewise.
        mean_score: None where there is none.
        kept: Share that the model keeps; None without scores.
        documents: Those nearest to the middle.
    """

    size: int
    share: float
    reference_share: float
    words: tuple[str, ...]
    languages: dict[str, int]
    sources: dict[str, int]
    mean_score: float | None
    kept: float | None
    documents: tuple[NovelDocument, ...]


class Novelty(_Frozen):
    """What is new in a window.

    Attributes:
        documents: Those that drifted most, first the most unusual one.
        clusters: What is new, the largest first.
        unlike: Share of the window that is unlike the reference, beyond the tenth that is the
            most unusual of any sample; None where there are no vectors.
        auc: How well window and reference are told apart, 0.5 to 1; None likewise.
        measured: Documents that were looked at.
    """

    documents: tuple[NovelDocument, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    unlike: float | None = None
    auc: float | None = None
    measured: int = 0


@dataclass(frozen=True)
class Unusual:
    """How unusual documents are, as ranks among the reference: 1 is more than all of it.

    Attributes:
        window: Of the window's documents (n,).
        reference: Of the reference's own (m,).
        auc: Of the classifier that tells them apart.
    """

    window: Floats
    reference: Floats
    auc: float


def find_novelty(window: MonitorWindow, profile: ReferenceProfile, seed: int) -> Novelty:
    """Look for what is new.

    A document is as unusual as the mean of two ranks among the reference: of its distance to
    the five nearest documents of the reference, and of what a classifier says that was fitted,
    on other folds, to tell window and reference apart. Clusters are those of k-means on the most
    unusual tenth; one is shown when significantly fewer documents of the reference lie there
    (Fisher's exact test, Bonferroni).

    Args:
        window: With vectors; without them nothing is found.
        profile: Of the model.
        seed: Of folds, clusters and samples.
    """
    vectors = window.sample.vectors
    reference = profile.current().at_most(_COMPARED, seed)
    if vectors is None or reference.vectors is None:
        return Novelty()
    sound = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    known = np.flatnonzero(np.isfinite(reference.vectors).all(axis=1))
    alike = vectors.shape[1:] == reference.vectors.shape[1:]
    if not alike or min(len(sound), len(known)) < _FEWEST:
        return Novelty()
    rows = sound
    if len(sound) > _COMPARED:
        drawn = np.random.default_rng(seed).choice(len(sound), _COMPARED, replace=False)
        rows = sound[np.sort(drawn)]
    mine = window.sample.take(rows)
    theirs = reference.take(known)
    found = how_unusual(mine, theirs, seed)
    edge = float(np.quantile(found.reference, _RARE))
    beyond = float((found.window > edge).mean())
    view = _View(window, rows, found.window)
    order = np.argsort(-found.window, kind="stable")[:_DOCUMENTS]
    return Novelty(
        documents=tuple(view.document(int(i)) for i in order),
        clusters=_clusters(view, mine, theirs, found, edge, profile, seed),
        unlike=float(np.clip((beyond - (1 - _RARE)) / _RARE, 0, 1)),
        auc=found.auc,
        measured=len(mine),
    )


def how_unusual(window: Sample, reference: Sample, seed: int) -> Unusual:
    """How unusual each document of a window is, and of the reference itself.

    Args:
        window: With vectors (n, d), all finite.
        reference: With vectors (m, d), all finite.
        seed: Of the folds.
    """
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    ours, known = _vectors(window), _vectors(reference)
    with threadpool_limits(1, user_api="blas"):
        far, own = _distances(ours, known, False), _distances(known, known, True)
        told = _domain(ours, known, window, reference, seed)
    said, said_own = told[: len(ours)], told[len(ours) :]
    labels = np.repeat([1, 0], [len(ours), len(known)])
    return Unusual(
        window=(_ranks(far, own) + _ranks(said, said_own)) / 2,
        reference=(_ranks(own, own) + _ranks(said_own, said_own)) / 2,
        auc=float(roc_auc_score(labels, told)),
    )


def _vectors(sample: Sample) -> Floats:
    if sample.vectors is None:
        raise ValueError("a sample without vectors has no novelty")
    return sample.vectors.astype(np.float64)


def _distances(some: Floats, known: Floats, same: bool) -> Floats:
    """Mean distance (n,) to the nearest five of the known ones, itself left out."""
    found = np.empty(len(some))
    squares = (known**2).sum(1)
    near = min(_NEIGHBOURS, len(known) - same)
    for start in range(0, len(some), 500):
        part = some[start : start + 500]
        distance = (part**2).sum(1)[:, None] + squares[None] - 2 * part @ known.T
        if same:
            distance[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        nearest = np.partition(distance, near - 1, axis=1)[:, :near]
        found[start : start + 500] = np.sqrt(np.maximum(nearest, 0)).mean(1)
    return found


def _domain(ours: Floats, known: Floats, window: Sample, reference: Sample, seed: int) -> Floats:
    """Held-out values (n + m,) of a ridge classifier; what came together shares a fold."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    x, y = np.vstack([ours, known]), np.repeat([1, 0], [len(ours), len(known)])
    groups = np.concatenate([np.char.add("w ", window.groups), np.char.add("r ", reference.groups)])
    _, groups = np.unique(groups, return_inverse=True)
    sides = [len(np.unique(groups[y == side])) for side in (0, 1)]
    grouped = min(sides) >= 2 * _FOLDS
    apart = StratifiedGroupKFold if grouped else StratifiedKFold
    folds = apart(_FOLDS, shuffle=True, random_state=seed)
    model = RidgeClassifier(alpha=1.0, class_weight="balanced")
    return np.asarray(
        cross_val_predict(
            model, x, y, cv=folds, groups=groups if grouped else None, method="decision_function"
        )
    )


def _ranks(values: Floats, known: Floats) -> Floats:
    """Share of the known that lies below; beyond all of them a little more the farther it is."""
    ranks = np.searchsorted(np.sort(known), values, side="left") / len(known)
    spread = float(np.quantile(known, 0.99) - np.quantile(known, 0.5)) or 1.0
    return np.asarray(ranks + 1e-3 * np.clip((values - known.max()) / spread, 0, 10))


@dataclass(frozen=True)
class _View:
    """Documents of a window by their place among those that were looked at."""

    window: MonitorWindow
    rows: NDArray[np.intp]
    unusual: Floats

    def document(self, at: int) -> NovelDocument:
        row, sample = int(self.rows[at]), self.window.sample
        score = float(sample.scores[row])
        return NovelDocument(
            id=str(sample.ids[row])[:_FIELD],
            source=str(sample.sources[row])[:_FIELD],
            language=str(sample.languages[row]),
            score=score if np.isfinite(score) else None,
            novelty=float(min(self.unusual[at], 1.0)),
            characters=int(sample.characters[row]),
            excerpt=None if self.window.texts is None else excerpt(self.window.texts[row]),
        )

    def texts(self, places: NDArray[np.intp]) -> list[str]:
        texts = self.window.texts
        return [] if texts is None else [texts[int(self.rows[at])] for at in places]


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * EXCERPT]).split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…"


def _clusters(
    view: _View,
    window: Sample,
    reference: Sample,
    found: Unusual,
    edge: float,
    profile: ReferenceProfile,
    seed: int,
) -> tuple[Cluster, ...]:
    from scipy.stats import fisher_exact
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    order = np.argsort(-found.window, kind="stable")
    new = order[found.window[order] > edge][:_CLUSTERED]
    old = np.flatnonzero(found.reference > edge)
    if len(new) < _FEWEST // 2:
        return ()
    ours, known = _vectors(window), _vectors(reference)
    with threadpool_limits(1):
        size = max(1, min(20, len(new) - 1, ours.shape[1]))
        reduced = PCA(size, random_state=seed).fit(ours[new])
        points, others = reduced.transform(ours[new]), reduced.transform(known[old])
        centres, members = _grouped(points, seed)
    nearest = ((others[:, None] - centres[None]) ** 2).sum(2).argmin(1)
    clusters = []
    for number, centre in enumerate(centres):
        here = np.flatnonzero(members == number)
        there = int((nearest == number).sum())
        table = [[len(here), len(window) - len(here)], [there, len(reference) - there]]
        p = float(fisher_exact(table, alternative="greater").pvalue)
        if len(here) < 3 or p > _LEVEL / len(centres):
            continue
        nearby = np.argsort(((points[here] - centre) ** 2).sum(1), kind="stable")[:3]
        places = new[here]
        scores = window.scores[places][np.isfinite(window.scores[places])]
        clusters.append(
            Cluster(
                size=len(here),
                share=len(here) / len(window),
                reference_share=there / len(reference),
                words=typical_words(view.texts(places), profile.words, len(profile.sample)),
                languages=_frequent(window.languages[places]),
                sources=_frequent(window.sources[places]),
                mean_score=float(scores.mean()) if len(scores) else None,
                kept=float((scores >= profile.threshold).mean()) if len(scores) else None,
                documents=tuple(view.document(int(places[i])) for i in nearby),
            )
        )
    return tuple(sorted(clusters, key=lambda cluster: -cluster.size))


def _grouped(points: Floats, seed: int) -> tuple[Floats, NDArray[np.intp]]:
    """Centres and members of the k-means clusters with the best silhouette (Rousseeuw 1987)."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    best, sharp = (points.mean(0, keepdims=True), np.zeros(len(points), dtype=np.intp)), 0.1
    most = min(_CLUSTERS, len(points) // 5, len(np.unique(points.round(6), axis=0)) - 1)
    for k in range(2, most + 1):
        fit = KMeans(k, n_init=3, random_state=seed).fit(points)
        if len(np.unique(fit.labels_)) < k:
            continue
        value = float(silhouette_score(points, fit.labels_))
        if value > sharp:
            best, sharp = (fit.cluster_centers_, fit.labels_.astype(np.intp)), value
    return best


def _frequent(values: NDArray[np.str_]) -> dict[str, int]:
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:3]
    return {str(names[i])[:_FIELD]: int(counts[i]) for i in order if names[i]}
