"""Which documents a challenger and the champion are compared on."""

from types import SimpleNamespace

import numpy as np
import pytest

from tamis.corpus.split import Assignment
from tamis.evaluation.rivals import Rivals, compare_rivals
from tamis.models.info import Replayed, TrainedOn
from tests.tiny import labelled, tiny_task

OLD, NEW = 60, 80


class Fake:
    """Scores are the label and noise, which the text tells."""

    def __init__(self, old_noise, new_noise, trained=(), replay=None, window=()):
        self.noise = {"old": old_noise, "new": new_noise}
        on = TrainedOn(
            fingerprint="f", train=tuple(trained), validation=(), test=(), window=tuple(window)
        )
        self.info = SimpleNamespace(trained_on=on, threshold=2.5, replay=replay)
        self.read = []

    def score(self, texts):
        self.read += texts
        values = []
        for text in texts:
            period, number, label = text.split()[:3]
            rng = np.random.default_rng([int(number), int(100 * self.noise[period])])
            values.append(float(label) + self.noise[period] * rng.normal())
        return SimpleNamespace(values=np.array(values))


def documents(period, count, name=None):
    labels = [float(i % 6) for i in range(count)]
    texts = [f"{period} {i} {label}" for i, label in enumerate(labels)]
    return labelled(texts, labels, ids=[f"{name or period}{i}" for i in range(count)])


def rivals(challenger, champion, window=None, tested_old=OLD, **policy):
    old, new = documents("old", OLD), documents("new", NEW)
    both = labelled(
        old.texts() + new.texts(), [*old.labels, *new.labels],
        ids=[*old.strings("id").tolist(), *new.strings("id").tolist()],
    )  # fmt: skip
    ids = both.strings("id").tolist()
    split = Assignment(
        fingerprint="f",
        sides={
            "train": tuple(ids[tested_old:OLD]), "validation": (),
            "test": tuple(ids[:tested_old] + ids[OLD:]),
        },
        groups={name: name for name in ids},
    )  # fmt: skip
    task = tiny_task("nowhere", retrain=policy)
    return Rivals(task, challenger, champion, both, split, window or new)


def failed(decision):
    return [reason.check for reason in decision.reasons if not reason.passed]


def detail(decision, check):
    return next(reason.detail for reason in decision.reasons if reason.check == check)


def test_a_challenger_that_gains_on_the_window_and_holds_the_old_passes():
    decision, comparison = compare_rivals(rivals(Fake(0.5, 0.5), Fake(0.5, 3.0)))
    assert decision.passed, decision.reasons
    assert (comparison.old.gain.n, comparison.new.gain.n) == (OLD, NEW)
    assert comparison.new.gain.low > 0
    for check, n in (("old_period", OLD), ("new_period", NEW)):
        said = detail(decision, check)
        assert f"{n} test documents" in said
        assert str(getattr(comparison, check.removesuffix("_period")).gain) in said


@pytest.mark.parametrize(
    ("challenger", "champion", "policy", "failing"),
    [
        (Fake(0.5, 0.9), Fake(0.5, 0.9), {}, ["new_period"]),
        (Fake(3.0, 0.5), Fake(0.5, 3.0), {}, ["old_period"]),
        (Fake(0.5, 0.5), Fake(0.5, 3.0), {"new_gain": 0.9}, ["new_period"]),
        (Fake(0.5, 0.5), Fake(0.5, 3.0), {"min_labelled": 100}, ["new_labels"]),
    ],
    ids=["no gain", "forgets", "gains too little", "few labels"],
)
def test_a_challenger_that_shows_too_little_is_refused(challenger, champion, policy, failing):
    decision, _ = compare_rivals(rivals(challenger, champion, **policy))
    assert failed(decision) == failing


def test_a_gain_that_chance_explains_is_no_gain():
    """By the point estimate alone it would pass, and with the margin of the old period as well."""
    decision, comparison = compare_rivals(rivals(Fake(0.5, 0.9), Fake(0.5, 1.0)))
    assert comparison.new.gain.value > 0
    assert comparison.new.gain.low > -0.05
    assert comparison.new.gain.low <= 0
    assert failed(decision) == ["new_period"]
    assert "its lower end must lie above 0" in detail(decision, "new_period")


def test_documents_that_the_champion_was_trained_on_judge_nobody():
    champion = Fake(0.5, 3.0, trained=[f"new{i}" for i in range(20)])
    decision, comparison = compare_rivals(rivals(Fake(0.5, 0.5), champion))
    assert comparison.new.gain.n == NEW - 20
    assert not any(text.startswith("new 3 ") for text in champion.read)
    assert "20 test documents that the champion was trained on are left out" in detail(
        decision, "new_labels"
    )


def test_documents_of_earlier_windows_are_old_and_those_of_this_one_are_known_by_text():
    again = documents("new", 50, name="exported_anew")
    _, comparison = compare_rivals(rivals(Fake(0.5, 0.5), Fake(0.5, 3.0), window=again))
    assert (comparison.old.gain.n, comparison.new.gain.n) == (OLD + NEW - 50, 50)


def test_a_period_without_test_documents_refuses():
    decision, comparison = compare_rivals(rivals(Fake(0.5, 0.5), Fake(0.5, 3.0), tested_old=0))
    assert comparison.old is None
    assert failed(decision) == ["old_documents", "old_period"]


def test_documents_of_earlier_windows_that_are_gone_are_counted():
    champion = Fake(0.5, 3.0, window=["old3", "lost1", "lost2"])
    decision, _ = compare_rivals(rivals(Fake(0.5, 0.5), champion))
    assert decision.passed
    assert "2 of the 3 documents" in detail(decision, "earlier_windows")
    whole, _ = compare_rivals(rivals(Fake(0.5, 0.5), Fake(0.5, 3.0, window=["old3"])))
    assert "earlier_windows" not in [reason.check for reason in whole.reasons]


def test_what_old_and_new_documents_weighed_is_said():
    replay = Replayed(old=300, new=30, old_weight=0.5, new_weight=6.0)
    decision, _ = compare_rivals(rivals(Fake(0.5, 0.5, replay=replay), Fake(0.5, 3.0)))
    said = detail(decision, "new_labels")
    assert "300 old documents of weight 0.5, 30 new ones of 6" in said
