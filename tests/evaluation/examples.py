"""Made-up documents with known properties, shared by the tests of the evaluation."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from tamis.evaluation.baselines import Baseline, fit_baselines
from tamis.evaluation.report import Evaluation, evaluate
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget

ORDINAL = OrdinalTarget(kind="ordinal", minimum=0.0, maximum=5.0, keep_at_least=3.0)
BINARY = BinaryTarget(kind="binary", negative="no", positive="yes")
CLASSES = ClassesTarget(kind="classes", classes=("a", "b", "c"), keep=("b", "c"))

WORDS = ("noise", "blurb", "notes", "lesson", "proof", "theorem")


@dataclass(frozen=True)
class Documents:
    texts: list[str]
    labels: np.ndarray
    sources: list[str]
    groups: list[str]


def documents(n: int, seed: int = 0) -> Documents:
    """Documents whose label shows in their words, a little in their source, not in length."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, n).astype(float)
    texts = [
        " ".join([WORDS[int(np.clip(label + rng.integers(-1, 2), 0, 5))], *["filler"] * int(extra)])
        for label, extra in zip(labels, rng.integers(1, 60, n), strict=True)
    ]
    genre = np.where(labels + rng.normal(0, 2, n) > 2.5, "book/a", "web/b")
    genre = np.where(rng.random(n) < 0.2, "book/c", genre)
    groups = [f"page{i // 2}" for i in range(n)]
    return Documents(texts, labels, genre.tolist(), groups)


@cache
def fitted() -> dict[str, Baseline]:
    """Baselines that saw other documents than those of ``evaluation``."""
    return dict(fit_baselines(ORDINAL, documents(160, seed=1)))


def noisy(labels: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Scores that know the labels up to noise."""
    rng = np.random.default_rng(seed)
    return np.clip(labels + rng.normal(0, noise, len(labels)), 0, 5)


def evaluation(
    noise: float = 0.6, n: int = 120, task: str = "edu_quality", metric: str = "spearman", **changes
) -> Evaluation:
    """An evaluation of a model of that noise beside all four baselines."""
    return (
        _evaluated(noise, n, task, metric)
        if not changes
        else _evaluate(noise, n, task, metric, changes)
    )


@cache
def _evaluated(noise: float, n: int, task: str, metric: str) -> Evaluation:
    return _evaluate(noise, n, task, metric, {})


def _evaluate(noise: float, n: int, task: str, metric: str, changes: dict) -> Evaluation:
    test = documents(n, seed=2)
    baselines = fitted()
    second = np.where(np.arange(n) % 3 == 0, np.clip(test.labels + 1, 0, 5), np.nan)
    given = {
        "task": task,
        "target": ORDINAL,
        "metric": metric,
        "threshold": 2.6,
        "ids": [f"doc{i}" for i in range(n)],
        "texts": test.texts,
        "labels": test.labels,
        "second_labels": second,
        "sources": test.sources,
        "groups": test.groups,
        "scores": noisy(test.labels, noise, seed=3),
        "baseline_scores": {k: b(test.texts, test.sources) for k, b in baselines.items()},
        "baseline_thresholds": {k: b.threshold for k, b in baselines.items()},
        "seed": 7,
    }
    return evaluate(**(given | changes))
