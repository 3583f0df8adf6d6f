"""Whether a window of documents still resembles what a model was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.decision import Reason
from tamis.task import DriftPolicy

Vectors = NDArray[np.float32]
MOST = 2_000
"""Documents of either side that the tests look at; a seeded sample of more."""


class DriftReport(BaseModel):
    """A window beside the reference.

    Attributes:
        reference: Documents of the reference looked at.
        window: Documents of the window looked at.
        auc: How well a classifier tells the window from the reference, 0.5 (not) to 1.
        auc_z: The same in standard errors above chance.
        mmd: Squared maximum mean discrepancy.
        mmd_p: Its permutation p-value.
        score_ks_p: p-value of a Kolmogorov-Smirnov test on the model's scores; for information.
        drifted: Both tests on the vectors agree that the window differs.
        reasons: The conditions, with figures; one that did not pass is an alarm.
        sources: Documents of the window by source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: int
    window: int
    auc: float
    auc_z: float
    mmd: float
    mmd_p: float
    score_ks_p: float
    drifted: bool
    reasons: tuple[Reason, ...]
    sources: dict[str, int]

    def to_html(self) -> str:
        """One self-contained page."""
        verdict = "The window has drifted." if self.drifted else "No drift was found."
        rows = [("held" if r.passed else "ALARM", r.check, r.detail) for r in self.reasons]
        lead = f"{verdict} {self.window:,} documents beside {self.reference:,}."
        sources = html.table(("source", "documents"), list(self.sources.items()))
        parts = [html.table(("", "test", "found"), rows), html.section("The window", sources)]
        return html.page("Drift", html.join(parts), lead)


def measure_drift(
    reference: Vectors,
    window: Vectors,
    reference_scores: NDArray[np.float64],
    window_scores: NDArray[np.float64],
    sources: dict[str, int],
    policy: DriftPolicy,
    seed: int,
) -> DriftReport:
    """Compare a window with the reference by two tests on the encoder's vectors.

    A domain classifier (Lopez-Paz and Oquab 2017, classifier two-sample test) and the kernel
    two-sample test with permutations (Gretton et al. 2012, section 3). The window has drifted
    when both agree; a window that is too small is never said to have drifted.

    Args:
        reference: Vectors of documents that the model was trained on (n, d).
        window: Vectors of the new documents (m, d).
        reference_scores: The model's scores of the reference (n,).
        window_scores: The model's scores of the window (m,).
        sources: Documents of the window by source.
        policy: Levels of the tests.
        seed: Of samples, folds and permutations.
    """
    rng = np.random.default_rng(seed)
    reference, window = _sample(reference, rng), _sample(window, rng)
    auc = domain_auc(reference, window, seed)
    z = (auc - 0.5) / auc_standard_error(len(reference), len(window)) if len(window) else 0.0
    mmd, p = mmd_test(reference, window, policy.permutations, rng)
    from scipy.stats import ks_2samp

    both = min(len(reference_scores), len(window_scores)) > 1
    ks = float(ks_2samp(reference_scores, window_scores).pvalue) if both else 1.0
    reasons = [
        Reason(
            check="window",
            passed=len(window) >= policy.min_documents,
            detail=f"{len(window)} documents; at least {policy.min_documents} are needed to judge",
        ),
        Reason(
            check="domain classifier",
            passed=bool(z < policy.auc_z),
            detail=f"AUC {auc:.3f}, {z:.1f} standard errors above chance; "
            f"alarm from {policy.auc_z:g}",
        ),
        Reason(
            check="kernel two-sample test",
            passed=p >= policy.alpha,
            detail=f"MMD² {mmd:.4f}, p = {p:.3f} ({policy.permutations} permutations); "
            f"alarm below {policy.alpha:g}",
        ),
    ]
    enough, *alarms = reasons
    return DriftReport(
        reference=len(reference),
        window=len(window),
        auc=auc,
        auc_z=float(z),
        mmd=mmd,
        mmd_p=p,
        score_ks_p=ks,
        drifted=enough.passed and not any(reason.passed for reason in alarms),
        reasons=tuple(reasons),
        sources=sources,
    )


def domain_auc(reference: Vectors, window: Vectors, seed: int) -> float:
    """Area under the ROC curve of a logistic regression that tells two samples apart.

    Scores are held out by five folds, so 0.5 is what equal samples give; samples of fewer than
    two documents give it as well.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    if min(len(reference), len(window)) < 2:
        return 0.5
    x = np.vstack([reference, window]).astype(np.float64)
    y = np.repeat([0, 1], [len(reference), len(window)])
    folds = StratifiedKFold(min(5, len(reference), len(window)), shuffle=True, random_state=seed)
    model = LogisticRegression(C=1.0, max_iter=500, class_weight="balanced")
    with threadpool_limits(1, user_api="blas"):
        scores = cross_val_predict(model, x, y, cv=folds, method="decision_function")
    return float(roc_auc_score(y, scores))


def auc_standard_error(n: int, m: int) -> float:
    """Standard error of the AUC of samples of n and m that do not differ (Mann-Whitney)."""
    return float(np.sqrt((n + m + 1) / (12 * n * m)))


def mmd_test(
    reference: Vectors, window: Vectors, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Squared MMD (biased) under a Gaussian kernel, and its permutation p-value.

    The kernel's width is the median distance of the pooled sample.
    """
    pooled = np.vstack([reference, window]).astype(np.float64)
    squares = (pooled**2).sum(1)
    distance = np.maximum(squares[:, None] + squares[None] - 2 * pooled @ pooled.T, 0)
    n, m = len(reference), len(window)
    if min(n, m) < 2:
        return 0.0, 1.0
    width = float(np.median(distance[np.triu_indices_from(distance, 1)]))
    if width == 0:
        return 0.0, 1.0  # more than half of all pairs are the same: nothing to tell apart
    kernel = np.exp(-distance / width)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.einsum("pi,pi->p", weights @ kernel, weights))

    signs = np.repeat([1 / n, -1 / m], [n, m])
    observed = float(statistic(signs[None])[0])
    shuffled = rng.permuted(np.tile(signs, (permutations, 1)), axis=1)
    p = (1 + int((statistic(shuffled) >= observed).sum())) / (1 + permutations)
    return observed, float(p)


def _sample(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    if len(vectors) <= MOST:
        return vectors
    return vectors[np.sort(rng.choice(len(vectors), MOST, replace=False))]
