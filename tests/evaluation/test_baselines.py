from dataclasses import replace

import numpy as np
import pytest

from tamis.errors import DataError
from tamis.evaluation.baselines import BASELINES, fit_baselines
from tamis.evaluation.metrics import compute
from tests.evaluation.examples import BINARY, CLASSES, ORDINAL, Documents, documents


def test_each_baseline_reads_what_it_says():
    train = documents(200)
    found = fit_baselines(ORDINAL, train)
    assert tuple(found) == BASELINES
    texts, sources = ["theorem", "noise " * 200], ["book/a", "web/b"]
    assert np.unique(found["median"](texts, sources)).tolist() == [np.median(train.labels)]
    by_source = found["source"](texts, sources)
    here = [label for label, s in zip(train.labels, train.sources, strict=True) if s == "book/a"]
    assert by_source[0] == pytest.approx(np.mean(here))
    assert (found["length"](texts, sources) == found["length"](texts, ["x", "y"])).all()
    words = found["tfidf"](texts, sources)
    assert words[0] > words[1]


def test_length_follows_length():
    texts = ["x" * n for n in range(1, 200, 4)]
    labels = np.linspace(0, 5, len(texts))
    train = Documents(texts, labels, ["s"] * len(texts), [str(i) for i in range(len(texts))])
    scores = fit_baselines(ORDINAL, train, names=["length"])["length"](texts, train.sources)
    assert compute(ORDINAL, labels, scores, 3.0)["spearman"] > 0.999  # clipped at the ends


def test_unseen_source_gets_the_mean():
    train = documents(100)
    unseen = fit_baselines(ORDINAL, train, names=["source"])["source"](["a"], ["never seen"])
    assert unseen[0] == pytest.approx(train.labels.mean())


@pytest.mark.parametrize("target", [BINARY, CLASSES])
def test_decision_targets_are_scored_by_probability(target):
    train = documents(200)
    train = replace(train, labels=(train.labels >= 3).astype(float))
    for name, baseline in fit_baselines(target, train).items():
        scores = baseline(train.texts, train.sources)
        assert scores.shape == (200,), name
        assert ((scores >= 0) & (scores <= 1)).all()
    prior = fit_baselines(target, train)["median"](["a"], ["b"])[0]
    assert prior == pytest.approx(train.labels.mean())


def test_scores_stay_on_the_scale():
    train = documents(150)
    for baseline in fit_baselines(ORDINAL, train).values():
        scores = baseline(["x" * 1_000_000, ""], ["", ""])
        assert ((scores >= 0) & (scores <= 5)).all()
        assert baseline([], []).shape == (0,)


def test_thresholds_come_from_validation_where_there_is_one():
    train, validation = documents(150), documents(60, seed=5)
    everything = replace(validation, labels=np.full(60, 5.0))
    nothing = replace(validation, labels=np.zeros(60))
    keep = fit_baselines(ORDINAL, train, everything)
    drop = fit_baselines(ORDINAL, train, nothing)
    for name in BASELINES:
        scores = keep[name](validation.texts, validation.sources)
        assert (scores >= keep[name].threshold).all()
        assert not (scores >= drop[name].threshold).any()
        # The fit itself does not look at validation.
        assert (scores == drop[name](validation.texts, validation.sources)).all()


def test_threshold_without_validation_is_not_fitted_to_memorised_words():
    rng = np.random.default_rng(0)
    # Every text is a word of its own: a fit on it knows its label, one of other folds does not.
    texts = [f"word{i}" for i in range(60)]
    labels = rng.choice([0.0, 5.0], 60, p=[0.7, 0.3])
    train = Documents(texts, labels, ["s"] * 60, [str(i) for i in range(60)])
    found = fit_baselines(ORDINAL, train, names=["tfidf"])["tfidf"]
    own = found(texts, train.sources)
    assert compute(ORDINAL, labels, own, float(np.median(own)))["spearman"] > 0.8
    # Cross-fitted, the words say nothing, and the best that can be done is to keep nearly all.
    assert (found(["unknown"], ["s"]) >= found.threshold - 0.5).all()
    assert found.threshold < (own[labels == 5].min() + own[labels == 0].max()) / 2


def test_degenerate_training_data():
    empty_words = Documents(["?!", "..."] * 10, np.arange(20.0) % 6, [""] * 20, ["g"] * 20)
    found = fit_baselines(ORDINAL, empty_words)
    assert np.isfinite(found["tfidf"](["?", "words"], ["", ""])).all()
    one_class = replace(documents(30), labels=np.ones(30))
    for baseline in fit_baselines(BINARY, one_class).values():
        assert (baseline(["a"], ["b"]) == 1.0).all()
    with pytest.raises(DataError):
        fit_baselines(ORDINAL, Documents([], np.array([]), [], []))


def test_same_seed_same_scores():
    train, test = documents(120), documents(50, seed=9)
    first, second = (fit_baselines(ORDINAL, train, seed=3) for _ in range(2))
    for name in BASELINES:
        a, b = first[name], second[name]
        assert (a(test.texts, test.sources) == b(test.texts, test.sources)).all()
        assert a.threshold == b.threshold
