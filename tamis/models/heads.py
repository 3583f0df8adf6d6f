"""Heads on pooled vectors: ridge, kernel, small MLP. Fitted by scikit-learn, kept as arrays.

Every head is one of three formulas over named arrays, so that it is saved as safetensors and
serves without scikit-learn:

    linear   x W + b
    kernel   exp(-gamma |x - landmark|^2) W + b
    mlp      relu(x W1 + b1) W2 + b2
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.models.settings import Formula, HeadKind
from tamis.target import Target

Array = NDArray[Any]

KERNEL_LANDMARKS = 1_000
"""From four times as many documents on, the kernel is approximated (Nystroem)."""


ARRAYS: dict[Formula, tuple[str, ...]] = {
    "linear": ("weight", "bias"),
    "kernel": ("weight", "bias", "landmarks", "gamma"),
    "mlp": ("weight", "bias", "hidden_weight", "hidden_bias"),
}


@dataclass(frozen=True)
class Head:
    """A fitted head.

    Attributes:
        formula: Which of the three formulas.
        arrays: Its arrays by name, float32.
    """

    formula: Formula
    arrays: dict[str, Array]

    def check(self) -> None:
        """Do nothing when every array of the formula is there.

        Raises:
            ValueError: One is missing.
        """
        if missing := [name for name in ARRAYS[self.formula] if name not in self.arrays]:
            raise ValueError(f"the head lacks the array {missing[0]}")

    def outputs(self, vectors: Array) -> NDArray[np.float64]:
        """Outputs (n, k) for vectors (n, d): a value on the scale, or one logit a class."""
        a = self.arrays
        if self.formula == "kernel":
            landmarks = a["landmarks"]
            squares = (vectors**2).sum(1)[:, None] + (landmarks**2).sum(1)[None]
            distance = np.maximum(squares - 2 * vectors @ landmarks.T, 0)
            vectors = np.exp(-a["gamma"][0] * distance)
        elif self.formula == "mlp":
            vectors = np.maximum(vectors @ a["hidden_weight"] + a["hidden_bias"], 0)
        return np.asarray(vectors @ a["weight"] + a["bias"], dtype=np.float64)


@dataclass(frozen=True)
class Candidate:
    """A kind of head with its settings, not yet fitted."""

    kind: HeadKind
    settings: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value:g}' for name, value in self.settings)})"


def candidates(kinds: tuple[HeadKind, ...]) -> Iterator[Candidate]:
    """The settings that are tried for each kind."""
    grids: dict[HeadKind, list[dict[str, float]]] = {
        "ridge": [{"alpha": alpha} for alpha in (0.1, 0.3, 1.0, 3.0)],
        "kernel": [{"C": c, "gamma": gamma} for c in (3.0, 10.0) for gamma in (1.0, 3.0)],
        "mlp": [{"hidden": 32, "alpha": 3.0}],
    }
    for kind in kinds:
        for settings in grids[kind]:
            yield Candidate(kind, tuple(settings.items()))


def fit(
    candidate: Candidate,
    target: Target,
    vectors: Array,
    labels: Array,
    seed: int,
    weights: Array | None = None,
) -> Head:
    """Fit one head.

    Args:
        candidate: Kind and settings.
        target: Ordinal targets are regressed, the others classified.
        vectors: Training vectors (n, d).
        labels: Encoded labels (n,).
        seed: Of whatever is random in the fit.
        weights: Weight of each document (n,); None where each weighs the same.
    """
    from threadpoolctl import threadpool_limits

    settings = dict(candidate.settings)
    fitters = {"ridge": _fit_linear, "kernel": _fit_kernel, "mlp": _fit_mlp}
    # On small matrices the threads of BLAS wait for each other: one is up to 20 times cheaper.
    with threadpool_limits(1 if len(vectors) <= 5_000 else None, user_api="blas"):
        x = vectors.astype(np.float64)
        head = fitters[candidate.kind](target, x, labels, weights, seed, settings)
    return Head(head.formula, {k: np.asarray(v, np.float32) for k, v in head.arrays.items()})


def linear_model(target: Target, alpha: float) -> Any:
    """A ridge regression, or a logistic one of like strength, not yet fitted."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if target.kind == "ordinal":
        return Ridge(alpha=alpha)
    return LogisticRegression(C=10 / alpha, max_iter=1_000)


def linear_weights(target: Target, model: Any) -> dict[str, Array]:
    """Weight (d, k) and bias (k,) of a fitted linear model, one logit for every class."""
    weight = np.atleast_2d(model.coef_).T
    bias = np.atleast_1d(model.intercept_)
    if target.kind == "ordinal":
        return {"weight": weight, "bias": bias}
    if len(model.classes_) == 2:
        weight = np.hstack([np.zeros_like(weight), weight])
        bias = np.append(0.0, bias)
    return _all_classes(target, model.classes_, weight, bias)


def _all_classes(target: Target, seen: Array, weight: Array, bias: Array) -> dict[str, Array]:
    """Put the outputs at their classes' places; a class never seen gets no probability."""
    places = seen.astype(int)
    full_weight = np.zeros((len(weight), target.n_outputs))
    full_bias = np.full(target.n_outputs, -30.0)
    full_weight[:, places], full_bias[places] = weight, bias
    return {"weight": full_weight, "bias": full_bias}


def _fit_linear(
    target: Target, x: Array, y: Array, w: Array | None, seed: int, settings: dict[str, float]
) -> Head:
    model = linear_model(target, settings["alpha"]).fit(x, y, sample_weight=w)
    return Head("linear", linear_weights(target, model))


def _fit_kernel(
    target: Target, x: Array, y: Array, w: Array | None, seed: int, settings: dict[str, float]
) -> Head:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.svm import SVR

    gamma = settings["gamma"]
    if target.kind == "ordinal" and len(x) <= 4 * KERNEL_LANDMARKS:
        svr = SVR(C=settings["C"], gamma=gamma, epsilon=0.1).fit(x, y, sample_weight=w)
        arrays = {"landmarks": svr.support_vectors_, "weight": svr.dual_coef_.T}
        return Head("kernel", {**arrays, "bias": svr.intercept_, "gamma": np.array([gamma])})
    landmarks = min(KERNEL_LANDMARKS, len(x))
    nystroem = Nystroem(gamma=gamma, n_components=landmarks, random_state=seed)
    model = linear_model(target, 1 / settings["C"])
    model.fit(nystroem.fit_transform(x), y, sample_weight=w)
    arrays = linear_weights(target, model)
    # The Nystroem map is linear in the kernel values, so it folds into the weights.
    arrays["weight"] = nystroem.normalization_.T @ arrays["weight"]
    arrays |= {"landmarks": nystroem.components_, "gamma": np.array([gamma])}
    return Head("kernel", arrays)


def _fit_mlp(
    target: Target, x: Array, y: Array, w: Array | None, seed: int, settings: dict[str, float]
) -> Head:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    scale = np.sqrt(x.shape[1])  # unit vectors have tiny entries, which slow the optimiser down
    family = MLPRegressor if target.kind == "ordinal" else MLPClassifier
    model = family(
        hidden_layer_sizes=(int(settings["hidden"]),),
        alpha=settings["alpha"],
        solver="lbfgs" if len(x) <= 5_000 else "adam",
        max_iter=200,
        random_state=seed,
    )
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopping at max_iter is a form of early stopping here
        model.fit(x * scale, y, sample_weight=w)
    weight, bias = model.coefs_[1], model.intercepts_[1]
    arrays = {"weight": weight, "bias": bias}
    if target.kind != "ordinal":
        if len(model.classes_) == 2:
            weight, bias = np.hstack([np.zeros_like(weight), weight]), np.append(0.0, bias)
        arrays = _all_classes(target, model.classes_, weight, bias)
    arrays |= {"hidden_weight": model.coefs_[0] * scale, "hidden_bias": model.intercepts_[0]}
    return Head("mlp", arrays)
