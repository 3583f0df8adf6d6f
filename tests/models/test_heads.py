import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVR

from tamis.models import heads
from tamis.models.heads import Candidate, candidates, fit
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget

ORDINAL = OrdinalTarget(kind="ordinal", keep_at_least=3.0)
BINARY = BinaryTarget(kind="binary", negative="no", positive="yes")
CLASSES = ClassesTarget(kind="classes", classes=("a", "b", "c"), keep=("c",))
TARGETS = {"ordinal": ORDINAL, "binary": BINARY, "classes": CLASSES}
KINDS = ("ridge", "kernel", "mlp")


def unit(n, seed, d=6):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def problem(target, n=240, seed=0):
    """Unit vectors whose first entry says the label, with a little noise."""
    x = unit(n, seed)
    value = x[:, 0] + np.random.default_rng(seed + 1).normal(0, 0.03, n)
    if target.kind == "ordinal":
        return x, np.clip(2.5 + 4 * value, 0, 5)
    edges = [0.0] if target.kind == "binary" else [-0.15, 0.15]
    return x, np.digitize(value, edges).astype(float)


def one(kind):
    return next(iter(candidates((kind,))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_head_learns_an_easy_problem_for_every_target(kind, target):
    x, y = problem(target)
    head = fit(one(kind), target, x[:180], y[:180], 0)
    outputs = head.outputs(x[180:])
    assert outputs.shape == (60, target.n_outputs)
    assert all(array.dtype == np.float32 for array in head.arrays.values())
    scores = target.score(outputs)
    if target.kind == "ordinal":
        assert spearmanr(scores, y[180:]).statistic > 0.9
        assert np.abs(scores - y[180:]).mean() < 0.35
    else:
        assert (outputs.argmax(1) == y[180:]).mean() > 0.75
        kept = target.kept(y[180:])
        assert scores[kept].mean() > scores[~kept].mean() + 0.3


def probabilities(head, x):
    """Softmax of the head's outputs (n, k)."""
    outputs = head.outputs(x)
    return np.exp(outputs - np.logaddexp.reduce(outputs, axis=1)[:, None])


class TestArraysReproduceScikitLearn:
    @pytest.mark.parametrize("alpha", [0.1, 3.0])
    def test_ridge(self, alpha):
        x, y = problem(ORDINAL)
        candidate = Candidate("ridge", (("alpha", alpha),))
        expected = Ridge(alpha=alpha).fit(x, y).predict(x)
        found = fit(candidate, ORDINAL, x, y, 0).outputs(x)[:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-4)

    @pytest.mark.parametrize("target", [BINARY, CLASSES], ids=["binary", "classes"])
    def test_logistic(self, target):
        x, y = problem(target)
        model = LogisticRegression(C=10 / 0.3, max_iter=1_000).fit(x.astype(float), y)
        head = fit(Candidate("ridge", (("alpha", 0.3),)), target, x, y, 0)
        exact = model.predict_proba(x.astype(float))
        np.testing.assert_allclose(probabilities(head, x), exact, atol=1e-4)

    @pytest.mark.parametrize("candidate", list(candidates(("kernel",))), ids=str)
    def test_exact_kernel(self, candidate):
        x, y = problem(ORDINAL)
        model = SVR(epsilon=0.1, **dict(candidate.settings)).fit(x.astype(float), y)
        found = fit(candidate, ORDINAL, x, y, 0).outputs(x)[:, 0]
        np.testing.assert_allclose(found, model.predict(x.astype(float)), atol=1e-4)

    @pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
    @pytest.mark.parametrize("candidate", list(candidates(("kernel",))), ids=str)
    def test_nystroem(self, monkeypatch, target, candidate):
        monkeypatch.setattr(heads, "KERNEL_LANDMARKS", 40)
        x, y = problem(target)
        settings = dict(candidate.settings)
        kernel = Nystroem(gamma=settings["gamma"], n_components=40, random_state=3)
        mapped = kernel.fit_transform(x.astype(float))
        head = fit(candidate, target, x, y, 3)
        assert head.formula == "kernel"
        assert head.arrays["landmarks"].shape == (40, 6)
        if target.kind == "ordinal":
            model = Ridge(alpha=1 / settings["C"]).fit(mapped, y)
            np.testing.assert_allclose(head.outputs(x)[:, 0], model.predict(mapped), atol=1e-4)
        else:
            model = LogisticRegression(C=10 * settings["C"], max_iter=1_000).fit(mapped, y)
            exact = model.predict_proba(mapped)
            np.testing.assert_allclose(probabilities(head, x), exact, atol=1e-4)

    @pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
    def test_mlp(self, target):
        x, y = problem(target)
        family = MLPRegressor if target.kind == "ordinal" else MLPClassifier
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = family(
                hidden_layer_sizes=(32,), alpha=3.0, solver="lbfgs", max_iter=200, random_state=5
            )
            model.fit(x.astype(float) * np.sqrt(6), y)
        head = fit(one("mlp"), target, x, y, 5)
        scaled = x.astype(float) * np.sqrt(6)
        if target.kind == "ordinal":
            np.testing.assert_allclose(head.outputs(x)[:, 0], model.predict(scaled), atol=1e-4)
        else:
            exact = model.predict_proba(scaled)
            np.testing.assert_allclose(probabilities(head, x), exact, atol=1e-4)


def test_many_documents_take_the_approximate_kernel(monkeypatch):
    monkeypatch.setattr(heads, "KERNEL_LANDMARKS", 50)
    x, y = problem(ORDINAL)
    exact = fit(one("kernel"), ORDINAL, x[:200], y[:200], 0)
    rough = fit(one("kernel"), ORDINAL, x[:201], y[:201], 0)
    assert len(rough.arrays["landmarks"]) == 50 < len(exact.arrays["landmarks"])
    few = fit(one("kernel"), BINARY, x[:30], (x[:30, 0] > 0).astype(float), 0)
    assert len(few.arrays["landmarks"]) == 30


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_missing_in_training_gets_no_probability(kind, absent):
    x, y = problem(CLASSES)
    seen = y != absent
    head = fit(one(kind), CLASSES, x[seen], y[seen], 0)
    outputs = head.outputs(x)
    assert outputs.shape == (240, 3)
    assert probabilities(head, x)[:, absent].max() < 1e-3
    assert (outputs[seen].argmax(1) == y[seen]).mean() > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_head(kind):
    x, y = problem(BINARY)
    one_, two = (fit(one(kind), BINARY, x, y, 7) for _ in range(2))
    assert one_.arrays.keys() == two.arrays.keys()
    for name, array in one_.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name])


def test_candidates_are_named_by_their_settings():
    named = [str(candidate) for candidate in candidates(KINDS)]
    assert len(set(named)) == len(named) == 9
    assert named[0] == "ridge(alpha=0.1)"
    assert [c.kind for c in candidates(("mlp", "ridge"))] == ["mlp"] + ["ridge"] * 4


def test_outputs_of_no_documents_are_none():
    x, y = problem(ORDINAL)
    for kind in KINDS:
        assert fit(one(kind), ORDINAL, x, y, 0).outputs(x[:0]).shape == (0, 1)
