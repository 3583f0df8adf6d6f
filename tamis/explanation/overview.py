"""What moves a model's scores, over a sample of its task's documents.

The model's test documents are left out, so that what is seen here cannot find its way into a model
that is then judged on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.dataset import Dataset
from tamis.errors import DataError
from tamis.explanation.deletion import DeletionCheck, check_explanations
from tamis.explanation.explain import explainer
from tamis.explanation.intervals import mean_interval
from tamis.explanation.report import FeatureWeight, ModelExplanation, SourceEffect, WordEffect
from tamis.explanation.surrogate import fit_surrogate
from tamis.explanation.words import Explanation
from tamis.models.classifier import Classifier
from tamis.models.encoder import Progress

SAMPLE = 100
SCORED = 1_000
"""Most documents that are scored for sources and surrogate, unless more are explained."""
SHOWN = 25
CANDIDATES = 75
"""Words of each direction for which an interval is drawn."""
FEWEST_HOLDERS = 5
LEAST_SHARE = 0.03
MOST_SOURCES = 30
CHECKED = 60
"""Most documents whose words are deleted."""


class _Word(NamedTuple):
    """Weights of a word, one for each document that holds it, and those documents' groups."""

    weights: list[float]
    groups: list[str]


def explain_model(
    classifier: Classifier,
    documents: Dataset,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelExplanation:
    """What moves a model's scores.

    Args:
        classifier: Of any family.
        documents: Labelled documents of its task; those it was tested on are left out.
        sample: Documents to explain.
        seed: Of the sample and whatever is drawn after.
        progress: Told after every document that was explained.

    Raises:
        DataError: No document is left.
    """
    known = classifier.info.trained_on.known()
    ids = documents.strings("id").tolist()
    rows = np.array([row for row, name in enumerate(ids) if known.get(name) != "test"], dtype=int)
    if not len(rows):
        raise DataError(f"{classifier.info.task}: no document is left beside the test documents")
    drawn = np.random.default_rng(seed).permutation(rows)
    scored = documents.take(drawn[: max(sample, SCORED)])
    texts, groups = scored.texts(), scored.strings("group").tolist()
    sources = scored.strings("source").tolist()
    values = classifier.score(texts).values
    explain, explanations = explainer(classifier), []
    for done, text in enumerate(texts[:sample], start=1):
        explanations.append(explain(text))
        if progress is not None:
            progress(done, min(sample, len(texts)))
    raising, lowering = word_effects(explanations, groups[: len(explanations)], seed)
    largest, smallest = _features(classifier)
    return ModelExplanation(
        task=classifier.info.task,
        family=classifier.info.family,
        method=explanations[0].method,
        unit=explanations[0].unit,
        documents=len(explanations),
        scored=len(texts),
        drawn_from=f"{len(rows)} labelled documents that are not the model's test documents",
        raising=raising,
        lowering=lowering,
        sources=_sources(sources, values, groups, seed),
        largest=largest,
        smallest=smallest,
        surrogate=fit_surrogate(texts, values, sources, groups, seed),
        deletion=_checked(classifier, explanations[:CHECKED], groups, seed),
    )


def word_effects(
    explanations: Sequence[Explanation], groups: Sequence[str], seed: int
) -> tuple[tuple[WordEffect, ...], tuple[WordEffect, ...]]:
    """Words that raise and that lower the score, by the end of the interval nearest to nothing.

    A word counts from five groups on (fewer make intervals too narrow), and from 3% of documents.

    Args:
        explanations: Of documents (n).
        groups: Group of each (n,).
        seed: Of the intervals.
    """
    found: dict[str, _Word] = {}
    for explanation, group in zip(explanations, groups, strict=True):
        own: dict[str, float] = {}
        for word in explanation.words:
            name = word.text.casefold()
            own[name] = own.get(name, 0.0) + word.weight
        for name, weight in own.items():
            holders = found.setdefault(name, _Word([], []))
            holders.weights.append(weight)
            holders.groups.append(group)
    fewest = max(FEWEST_HOLDERS, LEAST_SHARE * len(explanations))
    often = {
        name: word
        for name, word in found.items()
        if len(word.weights) >= fewest and len(set(word.groups)) >= FEWEST_HOLDERS
    }
    return _surest(often, 1, seed), _surest(often, -1, seed)


def _surest(words: dict[str, _Word], sign: int, seed: int) -> tuple[WordEffect, ...]:
    def promise(name: str) -> float:
        weights = sign * np.array(words[name].weights)
        return float(weights.mean() - 2 * weights.std() / np.sqrt(len(weights)))

    names = sorted(words, key=lambda name: (-promise(name), name))[:CANDIDATES]
    effects = [
        WordEffect(
            word=name,
            weight=mean_interval(np.array(words[name].weights), words[name].groups, seed),
        )
        for name in names
        if sign * np.mean(words[name].weights) > 0
    ]
    effects.sort(key=lambda e: -e.weight.low if sign > 0 else e.weight.high)
    return tuple(effects[:SHOWN])


def _sources(
    sources: Sequence[str], values: NDArray[np.float64], groups: Sequence[str], seed: int
) -> tuple[SourceEffect, ...]:
    """Mean score of the sources with most documents."""
    names, counts = np.unique(np.asarray(sources, dtype=str), return_counts=True)
    often = names[np.argsort(-counts, kind="stable")][:MOST_SOURCES].tolist()
    found = []
    for name in often:
        rows = [row for row, source in enumerate(sources) if source == name]
        own = [groups[row] for row in rows]
        found.append(SourceEffect(source=name, score=mean_interval(values[rows], own, seed)))
    return tuple(sorted(found, key=lambda each: -each.score.value))


def _features(
    classifier: Classifier,
) -> tuple[tuple[FeatureWeight, ...], tuple[FeatureWeight, ...]]:
    """Features of largest and of smallest weight, of a linear model."""
    from tamis.explanation.linear import effects, is_additive
    from tamis.models.linear import LinearClassifier

    if not isinstance(classifier, LinearClassifier) or not is_additive(classifier.info.target):
        return (), ()
    weights, _ = effects(classifier)
    names = [f"{name!r}" for block in classifier.terms for name in block.names]
    order = np.argsort(-weights, kind="stable")

    def shown(rows: NDArray[np.int64]) -> tuple[FeatureWeight, ...]:
        return tuple(FeatureWeight(feature=names[row], weight=float(weights[row])) for row in rows)

    return shown(order[:SHOWN]), shown(order[::-1][:SHOWN])


def _checked(
    classifier: Classifier, explanations: Sequence[Explanation], groups: Sequence[str], seed: int
) -> DeletionCheck | None:
    try:
        return check_explanations(classifier, explanations, groups[: len(explanations)], seed=seed)
    except DataError:
        return None
