import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from tamis.errors import DataError, UsageError
from tamis.evaluation.report import Evaluation, agreement, cross_validate
from tests.evaluation.examples import (
    BINARY,
    CLASSES,
    ORDINAL,
    documents,
    evaluation,
    noisy,
)


@pytest.fixture(scope="module")
def made() -> Evaluation:
    return evaluation()


def test_json_round_trip_is_exact(made):
    text = made.model_dump_json()
    again = Evaluation.model_validate_json(text)
    assert again == made
    assert again.model_dump_json() == text
    assert (again.scores() == made.scores()).all()


def test_figures_are_those_of_the_predictions(made):
    labels, scores = made.labels(), made.scores()
    assert made.model.figures["mae"].value == pytest.approx(np.abs(labels - scores).mean())
    assert made.figure == made.model.figures["spearman"]
    (dropped_right, kept_wrong), (dropped_wrong, kept_right) = made.decision.counts
    assert kept_right + dropped_wrong == (labels >= 3).sum()
    assert kept_right + kept_wrong == (scores >= 2.6).sum()
    assert dropped_right + dropped_wrong == (scores < 2.6).sum()
    assert sum(map(sum, made.confusion.counts)) == made.n == 120
    assert made.groups == 60


def test_confusion_rounds_half_up():
    found = evaluation(
        n=6, labels=np.array([0.0, 1, 2, 3, 4, 5]), scores=np.array([0.5, 1.4, 2.5, 3, 4.49, 5])
    )
    said = [row.index(1) for row in found.confusion.counts]
    assert said == [1, 1, 3, 3, 4, 5]


def test_gains_are_model_minus_baseline_and_positive_when_better(made):
    baselines = {scorer.name: scorer for scorer in made.baselines}
    assert set(made.gains) == set(baselines) == {"median", "length", "source", "tfidf"}
    model, source = made.model.figures, baselines["source"].figures
    gains = made.gains["source"]
    assert gains["spearman"].value == pytest.approx(
        model["spearman"].value - source["spearman"].value
    )
    assert gains["mae"].value == pytest.approx(source["mae"].value - model["mae"].value)
    assert gains["mae"].low > 0


def test_slices_have_gains_only_where_documents_suffice(made):
    assert {part.kind for part in made.slices} == {"family", "source", "length"}
    for part in made.slices:
        assert set(part.figures) == {"spearman", "f1"}
        assert bool(part.gains) == (part.n >= 30)
    within = next(part for part in made.slices if part.name == "book/a")
    # Within one source the source says nothing.
    assert within.baselines["source"].value == 0


def test_ceiling_of_two_readings():
    first = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    second = np.array([0.0, 1.0, 2.0, 3.0, 5.0, np.nan])
    found = agreement(ORDINAL, first, second)
    assert found.n == 5
    assert found.exact == pytest.approx(0.8)
    # Quadratic kappa: 1 - observed over expected squared disagreement.
    a, b = first[:5], second[:5]
    assert found.kappa == pytest.approx(1 - 0.2 / np.subtract.outer(a, b).__pow__(2).mean())
    assert found.f1 == 1.0
    assert agreement(ORDINAL, first, np.full(6, np.nan)) is None
    same = agreement(ORDINAL, np.ones(4), np.ones(4))
    assert same.kappa is None
    assert same.spearman is None
    assert same.exact == 1.0


def test_kappa_of_classes_ignores_their_order():
    first, second = np.array([0.0, 1, 2, 0, 1, 2]), np.array([0.0, 1, 2, 0, 1, 0])
    swapped = agreement(
        CLASSES, *(np.array([1.0, 0.0, 2.0])[a.astype(int)] for a in (first, second))
    )
    assert agreement(CLASSES, first, second).kappa == pytest.approx(swapped.kappa)


def test_ceiling_may_come_from_more_documents():
    wider = agreement(ORDINAL, np.arange(6.0), np.arange(6.0))
    assert evaluation(ceiling=wider).ceiling == wider
    assert evaluation(second_labels=None).ceiling is None


@pytest.mark.parametrize("target", [BINARY, CLASSES])
def test_decision_targets(target):
    test = documents(80)
    labels = (test.labels >= 3).astype(float)
    found = evaluation(
        n=80, target=target, metric="average_precision", labels=labels, second_labels=labels,
        threshold=0.5, scores=np.clip(noisy(test.labels, 0.5, 1) / 5, 0, 1),
        baseline_scores={"median": np.full(80, 0.4)}, baseline_thresholds={"median": 0.4},
    )  # fmt: skip
    assert found.confusion is None
    assert "spearman" not in found.model.figures
    assert found.gains["median"]["average_precision"].low > 0
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    assert "Average precision" in found.to_html()


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(UsageError, match="spearman"):
        evaluation(target=BINARY, labels=np.ones(120))
    with pytest.raises(DataError, match="sources"):
        evaluation(sources=["a"])
    scores = np.ones(120)
    scores[3] = np.nan
    with pytest.raises(DataError, match="1 of 120 scores"):
        evaluation(scores=scores)


def test_same_seed_same_evaluation(made):
    assert evaluation(seed=7) == made  # made anew, not taken from the cache
    assert evaluation(seed=8).figure != made.figure


def test_cross_validation_takes_a_threshold_for_each_document():
    d = documents(150)
    fold = np.arange(150) // 2 % 3
    thresholds = np.array([2.0, 2.5, 3.0])[fold]
    scores = noisy(d.labels, 0.5, 1)
    found = cross_validate(
        target=ORDINAL, metric="spearman", folds=3, texts=d.texts, labels=d.labels,
        sources=d.sources, groups=d.groups, scores=scores, thresholds=thresholds,
        baseline_scores={"median": np.full(150, 2.0)},
        baseline_thresholds={"median": np.full(150, 2.0)}, seed=0,
    )  # fmt: skip
    assert found.model.threshold is None
    right = ((scores >= thresholds) == (d.labels >= 3)).mean()
    assert found.model.figures["accuracy"].value == pytest.approx(right)
    assert found.gains["median"]["spearman"].low > 0.5
    assert any(part.gains for part in found.slices)
    whole = evaluation(cross_validation=found)
    assert Evaluation.model_validate_json(whole.model_dump_json()) == whole
    page = whole.to_html()
    assert "3 folds, 150 documents" in page
    assert f"{found.reliability.sentence()} Over 3 folds" in page
    assert found.reliability.raw_gap is None
    assert whole.reliability.sentence() not in page


def test_what_a_score_means_is_measured_before_and_after():
    d = documents(120, seed=2)
    scores = noisy(d.labels, 0.6, 3)
    found = evaluation(scores=scores, raw_scores=scores / 2).reliability
    assert found.n == 120
    assert found.raw_gap > 2 * found.gap
    assert evaluation().reliability.raw_gap is None


def test_a_report_of_before_it_was_measured_is_read(made):
    old = made.model_dump(exclude={"reliability"})
    read = Evaluation.model_validate(old)
    assert read.reliability is None
    assert "It was not measured." in read.to_html()
    assert "Mean score" in made.to_html()


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_whole_and_needs_nothing_from_elsewhere(made):
    page = made.to_html()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags.seen}
    assert all(
        attrs["src"].startswith("data:image/png;base64,") and attrs["alt"]
        for tag, attrs in tags.seen
        if tag == "img"
    )
    assert not re.search(r'(href|src)="(?!data:)', page)
    text = " ".join(tags.text)
    for expected in ("Spearman", "tfidf", "book/a", "Two readings of 40 documents"):
        assert expected in text
    titles = [page.index(title) for title in ("baselines</h2>", "ceiling</h2>", "slices</h2>")]
    assert all(a < b for a, b in pairwise(titles))


def test_hostile_names_are_text_on_the_page():
    hostile = "<script>alert('x')</script>&\"$\\foo$"
    d = documents(120, seed=2)
    found = evaluation(
        task=hostile,
        sources=[hostile if s == "book/a" else s for s in d.sources],
        baseline_scores={hostile: np.full(120, 2.0)},
        baseline_thresholds={hostile: 2.0},
    )
    page = found.to_html()
    tags = Tags()
    tags.feed(page)
    assert "script" not in {tag for tag, _ in tags.seen}
    assert hostile in "".join(tags.text)
