"""A model of the model on features that a person can picture, and which of them it needs.

Gradient boosting is fitted to the model's scores and judged on documents of groups that it was not
fitted on; each feature is then shuffled there (permutation importance: Breiman 2001, "Random
Forests", section 10). What it says holds for the share of the score that it explains, no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.explanation.features import NAMES, features
from tamis.target import Floats

FOLDS = 5
SHUFFLES = 5
FEWEST_DOCUMENTS = 50
MOST_SOURCES = 30
SOURCE = "source"


class Importance(BaseModel):
    """What the surrogate loses without a feature.

    Attributes:
        feature: Its name.
        loss: Loss of R2 on held-out documents when it is shuffled, mean over the folds.
        spread: Standard deviation of that over folds and shuffles.
        direction: Spearman of feature and score; None for the source and for a constant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    feature: str
    loss: float
    spread: float
    direction: float | None


class Surrogate(BaseModel):
    """A model of the scores.

    Attributes:
        r2: Share of the variance of the scores that it explains on held-out documents.
        documents: Documents behind it.
        folds: Each was held out in one of so many.
        importances: Of its features, the largest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    r2: float
    documents: int
    folds: int
    importances: tuple[Importance, ...]

    def sentence(self) -> str:
        """How far it is to be trusted."""
        share = f"{max(self.r2, 0):.0%}"
        return (
            f"The surrogate explains {share} of the score's variance on documents that it was not "
            f"fitted on (R2 {self.r2:.3f}, {self.documents} documents, {self.folds} folds by "
            "group). Importances say what it needs, not what the model does with the rest."
        )


def fit_surrogate(
    texts: Sequence[str], scores: Floats, sources: Sequence[str], groups: Sequence[str], seed: int
) -> Surrogate | None:
    """Fit the surrogate and measure its features.

    Args:
        texts: Documents (n).
        scores: Of the model (n,).
        sources: Source of each (n,); the rarest count as one.
        groups: Group of each (n,), never split between fit and judgement.
        seed: Of the fit and the shuffles.

    Returns:
        None with fewer than fifty documents, fewer than five groups, or equal scores.
    """
    from threadpoolctl import threadpool_limits

    if len(texts) < FEWEST_DOCUMENTS or len(set(groups)) < FOLDS or np.ptp(scores) == 0:
        return None
    table = np.column_stack([features(texts), _coded(sources)])
    names = (*NAMES, SOURCE)
    # On so few rows threads wait for each other longer than they work.
    with threadpool_limits(1):
        held_out, every = _judged(table, scores, groups, seed)
    importances = [
        Importance(
            feature=name,
            loss=float(every[row].mean()),
            spread=float(every[row].std()),
            direction=None if name == SOURCE else _direction(table[:, row], scores),
        )
        for row, name in enumerate(names)
    ]
    return Surrogate(
        r2=float(1 - ((scores - held_out) ** 2).sum() / ((scores - scores.mean()) ** 2).sum()),
        documents=len(texts),
        folds=FOLDS,
        importances=tuple(sorted(importances, key=lambda each: -each.loss)),
    )


def _judged(
    table: Floats, scores: Floats, groups: Sequence[str], seed: int
) -> tuple[Floats, Floats]:
    """Predictions of held-out documents (n,), and losses of R2 by feature and shuffle (f, s)."""
    from sklearn.model_selection import GroupKFold

    held_out, losses = np.zeros(len(table)), [np.zeros((table.shape[1], 1))]
    for fit, judge in GroupKFold(FOLDS).split(table, groups=list(groups)):
        found = _booster(table.shape[1] - 1, seed).fit(table[fit], scores[fit])
        held_out[judge] = found.predict(table[judge])
        if np.ptp(scores[judge]) > 0:
            losses.append(_losses(found, table[judge], scores[judge], seed))
    return held_out, np.concatenate(losses[1:] or losses, axis=1)


def _booster(source: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=80,
        learning_rate=0.08,
        max_leaf_nodes=8,
        min_samples_leaf=8,
        categorical_features=[source],
        early_stopping=False,
        random_state=seed,
    )


def _losses(found: Any, table: Floats, scores: Floats, seed: int) -> Floats:
    """Loss of R2 for each feature and shuffle (f, s)."""
    from sklearn.inspection import permutation_importance

    measured = permutation_importance(
        found, table, scores, scoring="r2", n_repeats=SHUFFLES, random_state=seed
    )
    return np.asarray(measured.importances, dtype=np.float64)


def _coded(sources: Sequence[str]) -> NDArray[np.int64]:
    names, counts = np.unique(np.asarray(sources, dtype=str), return_counts=True)
    often = names[np.argsort(-counts, kind="stable")][:MOST_SOURCES].tolist()
    codes = {name: code for code, name in enumerate(often)}
    return np.array([codes.get(source, len(codes)) for source in sources], dtype=np.int64)


def _direction(values: Floats, scores: Floats) -> float | None:
    from scipy.stats import spearmanr

    if np.ptp(values) == 0:
        return None
    return float(spearmanr(values, scores).statistic)
