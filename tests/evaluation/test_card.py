import json

import numpy as np
import pytest

from tamis.evaluation.card import (
    CardInput,
    DataFacts,
    LabelFacts,
    ModelFacts,
    SplitSizes,
    model_card,
)
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
            family="encoder", backbone="all-MiniLM-L6-v2", backbone_sha256="53aa", layer=4,
            pooling="mean", head="kernel", max_tokens=192, max_characters=1800,
        ),
        "evaluation": evaluation(),
        "code_version": "0.1.0",
        "seed": 5,
    }  # fmt: skip
    return CardInput(**(fields | changes))


@pytest.fixture(scope="module")
def card():
    return model_card(given())


def test_json_is_plain_and_holds_no_documents(card):
    content, _ = card
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert "predictions" not in content["evaluation"]
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
    assert "It was not measured." in model_card(given(evaluation=old))[1]


def test_labels_of_a_language_model_are_called_so(card):
    _, text = card
    assert "made by a large language model, not by people" in text
    assert "not truth" in text
    _, people = model_card(given(made_by="people"))
    assert "language model" not in people


def test_what_the_figures_do_not_show_becomes_a_limit():
    guess = evaluation(scores=np.random.default_rng(0).uniform(0, 5, 120))
    content, _ = model_card(given(evaluation=guess, limits=()))
    unbeaten = [limit for limit in content["limits"] if "not shown to be better" in limit]
    assert len(unbeaten) == 1
    assert "tfidf" in unbeaten[0]
    content, _ = model_card(given(evaluation=evaluation(noise=0.1)))
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
    _, text = model_card(given(description=hostile, task=hostile, name=hostile))
    assert "<img" not in text
    assert "[go](" not in text
    assert "\n# title" not in text


def test_other_targets_and_missing_facts():
    bare = evaluation(second_labels=None, baseline_scores={}, baseline_thresholds={}, n=20)
    _, text = model_card(given(made_by="unknown", target=BINARY, evaluation=bare))
    assert "the probability of yes rather than no" in text
    assert "No document was labelled twice" in text
    assert "Who made the labels is not known" in text
