"""Behaviours of a trained model, and that each test catches a model that is broken for it."""

import numpy as np
import pytest

from tamis.evaluation.behaviour import behave
from tests.model import models
from tests.model.models import LIMITS, Broken, documents

FULL = LIMITS.model_copy(update={"direction": {**LIMITS.direction}})
SHUFFLED = LIMITS.model_validate({"invariance": {}, "direction": {"shuffled": {}}, "noise": ()})


@pytest.fixture(scope="module")
def report(small_model):
    return behave(small_model, LIMITS, documents(), 0)


def test_of(report, kind, name):
    return next(test for test in report.tests if (test.kind, test.name) == (kind, name))


test_of.__test__ = False


def test_a_real_model_behaves(report):
    assert [test.detail for test in report.tests if not test.passed] == []
    kinds = [test.kind for test in report.tests]
    assert kinds == ["invariance"] * 4 + ["direction"] * 3 + ["robustness"] * 2 + ["minimum"]
    assert report.decision().passed


def test_it_is_judged_on_enough_documents_that_move(report):
    """Nothing passes because nothing was tried."""
    for kind, name in (("invariance", "navigation"), ("direction", "menu")):
        found = test_of(report, kind, name)
        assert found.n >= 10
        assert found.changes[0] < 0
    spread = test_of(report, "robustness", "ocr 5%").figures["spearman"]
    assert spread.low < spread.value < 1


@pytest.mark.parametrize(
    ("kind", "name", "rule"),
    [
        ("invariance", "whitespace", models.by_length),
        ("invariance", "whitespace", models.at_random),
        ("invariance", "casing", models.by_capitals),
        ("invariance", "casing", models.at_random),
        ("invariance", "navigation", models.by_menu),
        ("invariance", "navigation", models.at_random),
        ("invariance", "cookies", models.by_menu),
        ("invariance", "cookies", models.at_random),
        ("direction", "outline", models.by_capitals),
        ("direction", "outline", models.constant),
        ("direction", "first_sentence", models.constant),
        ("direction", "menu", models.by_capitals),
        ("direction", "menu", models.by_menu),
        ("robustness", "typos 1%", models.at_random),
        ("robustness", "ocr 5%", models.at_random),
        ("robustness", "ocr 5%", models.constant),
        ("minimum", "texts", models.by_capitals),
        ("minimum", "texts", models.the_other_way),
        ("minimum", "texts", models.constant),
    ],
)
def test_a_broken_model_is_caught(small_model, kind, name, rule):
    found = test_of(behave(Broken(small_model.info, rule), LIMITS, documents(), 0), kind, name)
    assert not found.passed


@pytest.mark.parametrize("rule", [models.by_bag, models.constant])
def test_a_model_that_reads_no_order_is_caught_by_shuffling(small_model, rule):
    found = behave(Broken(small_model.info, rule), SHUFFLED, documents(), 0).tests
    assert [test.passed for test in found] == [False]
    # Words in another order are the same bag, whatever the bag scores.
    assert found[0].n < 10 or found[0].figures["lowered"].value == 0


@pytest.mark.parametrize("rule", [models.by_length, models.at_random, models.by_capitals])
def test_a_broken_model_fails_as_a_whole(small_model, rule):
    report = behave(Broken(small_model.info, rule), LIMITS, documents(), 0)
    assert not report.passed
    assert not report.decision().passed
    assert sum(not test.passed for test in report.tests) >= 2


def test_scores_that_are_no_numbers_fail_and_are_told(small_model):
    report = behave(Broken(small_model.info, models.not_a_number), LIMITS, documents(), 0)
    told = test_of(report, "invariance", "whitespace")
    assert not told.passed
    assert "not finite" in told.detail


def test_it_is_the_same_whatever_the_order_of_the_documents(small_model, report):
    own = documents()
    turned = type(own)(own.ids[::-1], own.texts[::-1], own.groups[::-1])
    again = behave(small_model, LIMITS, turned, 0)
    for one, other in zip(report.tests, again.tests, strict=True):
        assert one.passed == other.passed
        for name, found in one.figures.items():
            assert other.figures[name].value == pytest.approx(found.value)
        np.testing.assert_allclose(one.changes, other.changes, atol=1e-9)


def test_another_seed_makes_other_changes(small_model, report):
    other = behave(small_model, LIMITS, documents(), 1)
    name = ("robustness", "typos 1%")
    assert test_of(other, *name).changes != test_of(report, *name).changes
