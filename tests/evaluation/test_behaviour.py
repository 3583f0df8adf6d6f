"""The machinery of behaviour tests: judging, intervals, settings, drawing of documents."""

import re

import numpy as np
import pytest
from pydantic import ValidationError

from tamis.config import validate
from tamis.errors import ConfigError, DataError
from tamis.evaluation.behaviour import Documents, behave, draw, of_test_side
from tamis.evaluation.behaviour_figures import BehaviourReport
from tamis.evaluation.behaviour_settings import BehaviourSettings, Case, with_cases
from tamis.models.classifier import ClassifierInfo, Scores, TrainedOn
from tamis.task import TASKS, Task, TextLimits, load_task
from tests.evaluation.examples import BINARY, ORDINAL
from tests.tiny import labelled, tiny_task

NOTHING = BehaviourSettings(invariance={}, direction={}, noise=())


class Rule:
    """Scores by a function of the text, on the scale of a target."""

    def __init__(self, rule, target=ORDINAL, threshold=2.5):
        self.rule, self.scored = rule, []
        self.info = ClassifierInfo(
            task="toy", task_fingerprint="f", target=target, text=TextLimits(), family="linear",
            head="a rule", threshold=threshold, seed=0,
            trained_on=TrainedOn(fingerprint="d", train=(), validation=(), test=()),
        )  # fmt: skip

    def score(self, texts, progress=None):
        self.scored += texts
        values = np.array([self.rule(text) for text in texts], dtype=np.float64)
        return Scores(values, np.ones(len(texts), dtype=np.int64))


def documents(texts, groups=None):
    ids = [f"d{row}" for row in range(len(texts))]
    return Documents(ids, texts, groups or [f"g{row}" for row in range(len(texts))])


TEXTS = [
    f"Item {n} is here. It is number {n} of the list, and no more is known." for n in range(40)
]


def only(**given):
    """Settings with nothing but what is given."""
    bare = {"invariance": {}, "direction": {}, "noise": (), **given}
    return BehaviourSettings.model_validate(bare)


def judged(model, settings, texts=TEXTS, groups=None):
    (test,) = behave(model, settings, documents(texts, groups), 0).tests
    return test


def shifted(by, share=1.0):
    """A model that a link moves by so many points, in the first so many texts."""
    first = set(TEXTS[: round(share * len(TEXTS))])

    def rule(text):
        base = text.split(" https://")[0]
        return 2.0 + (by if base != text and base in first else 0)

    return Rule(rule)


def test_invariance_measures_change_on_the_scale_and_flips():
    settings = only(invariance={"link": {"median": 0.1, "p95": 0.1, "flipped": 0.0}})
    found = judged(shifted(0.4), settings)
    assert found.passed
    assert found.figures["median"].value == pytest.approx(0.4 / 5)
    assert found.figures["flipped"].value == 0
    assert 0 < found.figures["flipped"].high < 0.15  # forty without a flip do not prove none
    assert found.changes == pytest.approx((0.4,) * 5)
    over = judged(shifted(0.6), settings)
    assert not over.passed
    assert over.figures["flipped"].value == 1


def test_the_percentile_sees_what_the_median_does_not():
    settings = only(invariance={"link": {"median": 0.0, "p95": 0.02, "flipped": 1.0}})
    found = judged(shifted(1.0, share=0.1), settings)
    assert found.figures["median"].value == 0
    assert found.figures["p95"].value == pytest.approx(0.2)
    assert not found.passed
    assert [e.id for e in found.examples[:4]] == ["d0", "d1", "d2", "d3"]


def test_groups_widen_the_intervals():
    settings = only(invariance={"link": {}})
    alone = judged(shifted(1.0, 0.5), settings).figures["flipped"]
    pairs = [f"g{row // 4}" for row in range(40)]
    grouped = judged(shifted(1.0, 0.5), settings, groups=pairs).figures["flipped"]
    assert grouped.groups == 10
    assert grouped.value == alone.value == 0.5
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_direction_counts_only_documents_that_reach_the_threshold():
    good = {text: 4.0 if n < 15 else 1.0 for n, text in enumerate(TEXTS)}
    found = judged(Rule(lambda text: good.get(text, 1.0)), only(direction={"outline": {}}))
    assert (found.n, found.passed) == (15, True)
    assert found.figures["fall"].value == pytest.approx(3 / 5)
    small = dict.fromkeys(TEXTS, 2.6)
    settings = only(direction={"outline": {"fall": 0.1}})
    assert not judged(Rule(lambda text: small.get(text, 2.4)), settings).passed


def test_direction_of_too_few_documents_fails_and_says_so():
    found = judged(Rule(lambda text: 1.0), only(direction={"menu": {}}))
    assert not found.passed
    assert "Only 0 documents reach the threshold" in found.detail


def test_a_text_that_a_change_leaves_as_it_is_does_not_count():
    short = [f"One two {n}." for n in range(20)]
    found = judged(Rule(lambda text: 4.0), only(direction={"first_sentence": {}}), texts=short)
    assert found.n == 0


def test_noise_is_judged_by_the_order_of_the_scores():
    settings = only(noise=[{"kind": "typos", "share": 0.05, "spearman": 0.9}])
    place = {text: n / 10 for n, text in enumerate(TEXTS)}
    # The numbers of the texts survive, since only letters are mistyped.
    number = Rule(lambda text: int(re.search(r"[0-9]+", text)[0]) / 10)
    found = judged(number, settings)
    assert found.passed
    assert found.figures["spearman"].value == 1
    turned = Rule(lambda text: place[text] if text in place else 5 - number.rule(text))
    assert not judged(turned, settings).passed


@pytest.mark.parametrize(
    ("case", "higher", "lower", "held"),
    [
        (Case(name="a", higher="good", lower="bad", margin=1.0), 3.0, 2.0, True),
        (Case(name="a", higher="good", lower="bad", margin=1.0), 3.0, 2.5, False),
        (Case(name="a", higher="good", lower="bad"), 3.0, 3.0, False),
        (Case(name="a", text="good", at_least=3.0), 3.0, 0.0, True),
        (Case(name="a", text="good", at_most=2.9), 3.0, 0.0, False),
        (Case(name="a", text="good", at_least=2.0, at_most=2.9), 3.0, 0.0, False),
    ],
)
def test_hand_written_texts(case, higher, lower, held):
    model = Rule(lambda text: {"good": higher, "bad": lower}.get(text, 1.0))
    found = judged(model, only(texts=[case]))
    assert found.passed is held
    assert (not held) == (f"{case.name} (" in found.detail)


def test_a_share_of_the_texts_may_be_asked_for():
    cases = [Case(name=f"c{n}", text=f"t{n}", at_least=float(n)) for n in range(4)]
    model = Rule(lambda text: 2.0)
    assert not judged(model, only(texts=cases)).passed
    assert judged(model, only(texts=cases, hold=0.75)).passed


def test_every_text_is_scored_once():
    model = Rule(lambda text: len(text) / 30)
    behave(model, BehaviourSettings(texts=(Case(name="a", text=TEXTS[0], at_least=0),)),
           documents(TEXTS), 0)  # fmt: skip
    assert len(model.scored) == len(set(model.scored))


def test_other_targets():
    settings = only(invariance={"link": {}}, noise=[{"kind": "ocr", "share": 0.05, "spearman": -1}])
    report = behave(Rule(lambda t: len(t) / 2_000, BINARY, 0.9), settings, documents(TEXTS), 0)
    assert (report.low, report.high) == (0, 1)
    assert all(test.passed for test in report.tests)


def test_a_report_survives_json_and_is_a_page_that_shows_no_markup_of_others():
    hostile = Case(name="<script>alert(1)</script>", text="x", at_least=5.0)
    given = BehaviourSettings(texts=(hostile,))
    report = behave(Rule(lambda t: len(t) / 30), given, documents(TEXTS), 0)
    assert BehaviourReport.model_validate_json(report.model_dump_json()) == report
    page = report.to_html()
    assert "<script" not in page
    assert "data:image/png" in page
    assert "failed" in page
    assert "&lt;script&gt;" in page


def set_of(size):
    texts = [f"text {row} of some words" for row in range(size)]
    ids = [f"doc{row:03d}" for row in range(size)]
    return labelled(texts, [1.0] * size, ids=ids)


def test_documents_are_drawn_from_those_named_and_by_the_seed():
    data, wanted = set_of(60), [f"doc{row:03d}" for row in range(40)]
    drawn = draw(data, wanted, 20, 0)
    assert len(set(drawn.ids)) == 20
    assert set(drawn.ids) <= set(wanted)
    turned = data.take(np.arange(60)[::-1])
    assert draw(turned, wanted[::-1], 20, 0).ids == drawn.ids
    assert draw(data, wanted, 20, 1).ids != drawn.ids
    assert len(draw(data, wanted, 100, 0).ids) == 40


def test_too_few_documents_are_refused():
    with pytest.raises(DataError, match="9 of the 12 documents"):
        draw(set_of(9), [f"doc{row:03d}" for row in range(12)], 20, 0)
    with pytest.raises(DataError, match="need 10"):
        behave(Rule(lambda t: 1.0), NOTHING, documents(TEXTS[:9]), 0)


def test_nothing_is_scored_where_nothing_is_asked():
    model = Rule(lambda text: 1.0)
    report = of_test_side(tiny_task("nowhere"), model, None, None)
    assert report.tests == ()
    assert report.passed
    assert model.scored == []
    assert "No behaviour tests were asked for" in report.to_html()


def test_off_is_a_word_in_yaml_too(tmp_path):
    assert BehaviourSettings.model_validate({"gate": False}).gate == "off"
    with pytest.raises(ValidationError):
        BehaviourSettings.model_validate({"gate": True})


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"invariance": {"casing": {"median": 2}}}, "invariance.casing.median"),
        ({"invariance": {"colour": {}}}, "invariance"),
        ({"noise": [{"kind": "typos", "share": 0.9, "spearman": 0.5}]}, "noise.0.share"),
        ({"texts": [{"name": "a", "text": "x"}]}, "texts.0.text"),
        ({"texts": [{"name": "a", "higher": "x"}]}, "texts.0.higher"),
        ({"texts": [{"name": "a", "higher": "x", "lower": "y", "at_most": 1}]}, "texts.0.higher"),
        ({"texts": [{"name": "a", "text": "x", "at_least": 1}] * 2}, "texts"),
        ({"gate": "perhaps"}, "gate"),
        ({"sample": 5}, "sample"),
    ],
)
def test_wrong_settings_are_named(given, key):
    with pytest.raises(ConfigError) as caught:
        validate(BehaviourSettings, given, "task.yaml")
    assert caught.value.key.startswith(key)


def test_cases_are_read_beside_the_task_and_travel_with_it(tmp_path):
    (tmp_path / "cases.yaml").write_text("cases:\n- {name: a, text: x, at_least: 1}\n")
    found = with_cases(BehaviourSettings(cases="cases.yaml"), tmp_path)
    assert found.texts == (Case(name="a", text="x", at_least=1),)
    assert BehaviourSettings.model_validate_json(found.model_dump_json()) == found
    assert with_cases(found, tmp_path / "elsewhere") == found
    for text in ("cases: []", "case: 1", "- a", "cases:\n- {name: a, text: x, at_least: 1}\n" * 1 +
                 "- {name: a, text: y, at_least: 1}\n"):  # fmt: skip
        (tmp_path / "cases.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"^cases\.yaml"):
            with_cases(BehaviourSettings(cases="cases.yaml"), tmp_path)
    with pytest.raises(ConfigError, match="gone"):
        with_cases(BehaviourSettings(cases="gone.yaml"), tmp_path)


@pytest.mark.parametrize("file", sorted((TASKS.parent / "behaviour").glob("*.yaml")), ids=str)
def test_the_projects_own_cases_are_right(file):
    low, high = load_task(file.stem).target.scale
    found = with_cases(BehaviourSettings(cases=file.name), file.parent)
    assert len(found.texts) >= 5
    for case in found.texts:
        assert low <= (case.at_least or low) <= high
        assert low <= (case.at_most or high) <= high
        assert case.margin < high - low


def test_a_task_without_the_key_has_them_off():
    given = {"name": "toy", "target": ORDINAL.model_dump(), "sources": [{"kind": "packages"}]}
    assert Task.model_validate(given).behaviour.gate == "off"
