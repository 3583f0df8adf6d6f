import json

import numpy as np
import pytest

from tamis.evaluation.behaviour_figures import BehaviourReport, BehaviourTest, Example
from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.card import (
    CardInput,
    DataFacts,
    LabelFacts,
    ModelCard,
    ModelFacts,
    SplitSizes,
    model_card,
)
from tamis.evaluation.footprint import GRAMS_PER_KWH, OVERHEAD, WATTS_PER_CORE, Footprint
from tests.evaluation.examples import BINARY, ORDINAL, evaluation


def given(made_by="llm", **changes) -> CardInput:
    fields = {
        "name": "edu_quality",
        "version": "3",
        "created": "2025-11-21",
        "task": "edu_quality",
        "description": "Educational value, 0 to 5.",
        "target": ORDINAL,
        "intended_use": ("Sift web text.",),
        "out_of_scope": ("Judging people.",),
        "limits": ("English only.",),
        "data": DataFacts(
            fingerprint="abc123",
            documents=240,
            origin="Documents of the pinned dependencies.",
            sources={"wikipedia": 90, "docstring": 150},
            licences={"CC BY-SA 3.0": 90, "BSD": 150},
            labels=LabelFacts(made_by=made_by, who="an LLM", instructions="data/rubric.md"),
            left_out={"hash no longer matches": 3},
        ),
        "split": SplitSizes(train=100, validation=20, test=120),
        "model": ModelFacts(
            family="encoder, frozen", head="kernel", preparation=("urls", "stem"), max_tokens=192,
            own={"Backbone": "all-MiniLM-L6-v2", "Weights (sha256)": "53aa", "Layer": "4"},
            max_characters=1800,
        ),
        "footprint": Footprint(cpu_seconds=3_600, wall_seconds=1_800, machine="a laptop"),
        "evaluation": evaluation(),
        "code_version": "0.1.0",
        "seed": 5,
    }  # fmt: skip
    return CardInput(**(fields | changes))


def behaviours(passed=True, name="navigation") -> BehaviourReport:
    found = Interval(value=0.03, low=0.02, high=0.05, n=90, groups=40)
    test = BehaviourTest(
        kind="invariance", name=name, passed=passed, n=90, figures={"median": found},
        limits={"median": 0.04}, detail="A menu moves the score.",
        examples=(Example(id="secret-id", before=3.0, after=2.0),),
    )  # fmt: skip
    return BehaviourReport(
        task="edu_quality", family="encoder, frozen", low=0, high=5, threshold=2.6, documents=90,
        groups=40, seed=0, tests=(test,),
    )  # fmt: skip


def written(**changes):
    """The facts and the Markdown of a card."""
    card = model_card(given(**changes))
    return card.facts(), card.to_markdown()


@pytest.fixture(scope="module")
def card():
    return written()


def test_json_is_plain_and_holds_no_documents(card):
    content, _ = card
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert "predictions" not in content["evaluation"]
    assert "doc17" not in json.dumps(content)
    assert content["data"]["fingerprint"] == "abc123"
    assert content["evaluation"]["gains"]["tfidf"]["spearman"]["n"] == 120


def test_markdown_says_what_has_to_be_said(card):
    _, text = card
    for expected in (
        "Sift web text.", "Judging people.", "abc123", "100 train, 20 validation, 120 test",
        "CC BY-SA 3.0 90", "hash no longer matches 3", "all-MiniLM-L6-v2", "53aa", "kernel",
        "192 tokens", "0.1.0", "**Seed**: 5", "English only.", "mae (lower is better)",
        "gain over tfidf", "Two readings of 40 documents", "book/a (by source)", "2.600",
    ):  # fmt: skip
        assert expected in text, expected


def test_what_a_score_means_is_told_with_the_documents_behind_it(card):
    _, text = card
    section = text.split("## What a score means")[1].split("##")[0]
    found = evaluation().reliability
    assert f"On the test documents: {found.sentence()}" in section
    first = found.bins[0]
    assert f"| {first.score:.2f} | {first.label.value:.2f} (" in section
    assert sum(int(line.split("|")[3]) for line in section.splitlines()[-7:] if "(" in line) == 120
    old = evaluation().model_copy(update={"reliability": None})
    assert "It was not measured." in written(evaluation=old)[1]


def test_labels_of_a_language_model_are_called_so(card):
    _, text = card
    assert "made by a large language model, not by people" in text
    assert "not truth" in text
    _, people = written(made_by="people")
    assert "language model" not in people


def test_what_the_figures_do_not_show_becomes_a_limit():
    guess = evaluation(scores=np.random.default_rng(0).uniform(0, 5, 120))
    content, _ = written(evaluation=guess, limits=())
    unbeaten = [limit for limit in content["limits"] if "not shown to be better" in limit]
    assert len(unbeaten) == 1
    assert "tfidf" in unbeaten[0]
    content, _ = written(evaluation=evaluation(noise=0.1))
    assert not [limit for limit in content["limits"] if "not shown to be better" in limit]


def test_tables_are_rectangular(card):
    _, text = card
    for block in text.split("\n\n"):
        if block.startswith("|"):
            lines = block.splitlines()
            assert len({line.count("|") for line in lines}) == 1
            assert set(lines[1]) == set("| -")


def test_hostile_text_stays_text():
    hostile = "<img src=x onerror=alert(1)> [go](javascript:x) a|b\n# title"
    _, text = written(description=hostile, task=hostile, name=hostile)
    assert "<img" not in text
    assert "[go](" not in text
    assert "\n# title" not in text


def test_other_targets_and_missing_facts():
    bare = evaluation(second_labels=None, baseline_scores={}, baseline_thresholds={}, n=20)
    _, text = written(made_by="unknown", target=BINARY, evaluation=bare)
    assert "the probability of yes rather than no" in text
    assert "No document was labelled twice" in text
    assert "Who made the labels is not known" in text


def test_what_nobody_stated_is_told_to_be_missing():
    _, text = written(intended_use=(), out_of_scope=(), contacts=())
    for key in ("intended_use", "out_of_scope", "contacts"):
        assert f"Not stated (card.{key} of the task file)." in text
    _, text = written(contacts=("Ann, ann@example.org",))
    assert "- Ann, ann@example.org" in text.split("## Contact")[1]


def test_behaviour_is_told_and_what_fails_is_a_limit():
    content, text = written(behaviour=behaviours())
    assert "| navigation | passed | 90 | median 3.0% (2.0% to 5.0%) | median 0.04 |" in text
    assert "secret-id" not in json.dumps(content)
    content, text = written(behaviour=behaviours(passed=False))
    assert "It fails a behaviour test: A menu moves the score." in content["limits"]
    content, text = written(behaviour=None)
    assert "Its behaviour was not tested." in content["limits"]


def test_cost_is_an_estimate_with_its_assumptions():
    _, text = written()
    section = text.split("## Cost of training")[1].split("##")[0]
    hours = WATTS_PER_CORE * OVERHEAD / 1_000
    for expected in ("3,600 s", "1,800 s", "a laptop", f"{hours * 1_000:.3g} Wh", "not metered",
                     f"{hours * GRAMS_PER_KWH:.2g} g", "4.26 W", "1.58", "436 g"):  # fmt: skip
        assert expected in section, expected
    _, text = written(footprint=Footprint())
    section = text.split("## Cost of training")[1].split("##")[0]
    assert "not recorded" in section
    assert "Carbon" not in section


def test_twice_the_work_costs_twice_as_much():
    one, two = Footprint(cpu_seconds=500), Footprint(cpu_seconds=1_000)
    assert two.kilowatt_hours == pytest.approx(2 * one.kilowatt_hours)
    assert one.kilowatt_hours == pytest.approx(500 / 3.6e6 * WATTS_PER_CORE * OVERHEAD)


def test_the_picture_is_a_file_beside_the_markdown_and_inside_the_page():
    card = model_card(given())
    (name,) = card.pictures()
    assert card.pictures()[name].startswith(b"\x89PNG")
    assert f"]({name})" in card.to_markdown()
    page = card.to_html()
    assert f'src="{name}"' not in page
    assert 'src="data:image/png;base64,' in page
    none = evaluation().model_copy(update={"reliability": None})
    bare = model_card(given(evaluation=none))
    assert bare.pictures() == {}
    assert "<img" not in bare.to_html()


def test_a_page_shows_no_markup_of_others():
    hostile = "<img src=x onerror=alert(1)> [go](javascript:x) ![p](http://x/y.png) a|b\n# title"
    page = model_card(given(description=hostile, task=hostile, limits=(hostile,))).to_html()
    assert "<img src=x" not in page
    assert "http://x/y.png" not in page.replace("![p](http://x/y.png)", "")
    assert "href" not in page
    assert page.count("<h1>") == 1


def test_a_card_survives_json_and_names_no_document():
    card = model_card(given(behaviour=behaviours()))
    again = ModelCard.model_validate_json(card.model_dump_json())
    assert again == card
    assert again.to_markdown() == card.to_markdown()
    assert "doc17" not in card.model_dump_json()
    assert "secret-id" not in card.model_dump_json()


def test_the_summary_fits_where_the_card_does_not():
    card = model_card(given(behaviour=behaviours()))
    summary = card.summary()
    assert len(summary) < 2_000 < len(card.to_markdown())
    assert "1 of 1 behaviour tests passed" in summary
    assert "large language model" in summary
