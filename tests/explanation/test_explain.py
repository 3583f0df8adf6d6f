from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tamis.explanation import gradients
from tamis.explanation.explain import explain_text
from tamis.explanation.occlusion import MOST_WINDOWS, occlude
from tamis.explanation.raw import raw_scores
from tamis.explanation.words import Explanation, word_places
from tamis.models.backbone import transformer_layers
from tests.tiny import BAD_WORDS, GOOD_WORDS, easy_texts

TEXTS = [
    "proof theorem sale word1 integral, cheap!",
    "Buy the cheap matrix lemma. Click proofs\n\nword2 word3 axiom discount",
    *easy_texts([0.2, 0.9], seed=3),
    "proof " * 200,
    "sale\ud800 naïve 漢字 \x00 \x1b[31m ‮",
]
ENCODERS = ["ordinal", "binary", "kernel", "mlp", "max", "cls", "tail", "prepared"]


def check(found, classifier):
    """What holds of every explanation."""
    assert Explanation.model_validate_json(found.model_dump_json()) == found
    assert [(w.start, w.end) for w in found.words] == word_places(found.text)
    assert all(found.text[w.start : w.end] == w.text for w in found.words)
    total = sum(w.weight for w in found.words) + found.rest
    gap = total - (found.score - found.baseline)
    assert found.completeness_gap == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_gradients_are_complete_and_explain_the_score_that_is_served(fitted, name):
    classifier = fitted(name)
    for text in TEXTS:
        found = explain_text(classifier, text)
        assert found.method == "integrated gradients"
        check(found, classifier)
        assert found.score == pytest.approx(raw_scores(classifier, [text])[0], abs=1e-4)
        assert found.calibrated == pytest.approx(classifier.score([text]).values[0], abs=1e-4)
        wanted = max(gradients.CLOSE * abs(found.score - found.baseline), gradients.LEAST)
        assert abs(found.completeness_gap) <= wanted or "256 steps" in found.detail
    assert found.unit == ("log-odds" if name == "binary" else "points")


def test_good_words_weigh_more_than_bad_ones(fitted):
    for name in ("ordinal", "binary", "linear", "linear binary"):
        weights = {True: [], False: []}
        for text in easy_texts([0.5] * 8, seed=9):
            for word in explain_text(fitted(name), text).words:
                if word.text in GOOD_WORDS + BAD_WORDS:
                    weights[word.text in GOOD_WORDS].append(word.weight)
        assert np.mean(weights[True]) > np.mean(weights[False]), name


def test_only_what_was_read_is_shown(fitted):
    found = explain_text(fitted("ordinal"), "word1 " * 100 + "proof")
    assert len(found.words) == 62 and not found.text.endswith("proof")
    text = "lemma " * 10 + "word1 " * 300 + "proof " * 10
    found = explain_text(fitted("tail"), text)
    assert found.text.startswith("lemma ") and found.text.rstrip().endswith("proof")
    assert "[…]" in found.text and found.text.count("word1") < 5
    # What was left out is shown, but is not a word of the text.
    gap = found.text.index("[…]")
    assert all(w.weight == 0 for w in found.words if gap <= w.start < gap + 3)


def test_the_prepared_text_is_explained(fitted):
    found = explain_text(fitted("prepared"), "PROOF at https://example.com/sale")
    assert found.text == "proof at url"


@pytest.mark.parametrize("name", ["linear", "linear binary"])
def test_a_linear_model_is_explained_exactly(fitted, name):
    classifier = fitted(name)
    for text in [*TEXTS, "İstanbul PROOF ΟΔΟΣ theorems"]:
        found = explain_text(classifier, text)
        assert found.method == "exact contributions"
        check(found, classifier)
        assert abs(found.completeness_gap) < 1e-5
        assert found.score == pytest.approx(raw_scores(classifier, [text])[0], abs=1e-4)
        assert found.calibrated == classifier.score([text]).values[0]


def test_windows_fall_back_to_occlusion(fitted):
    classifier = fitted("windows")
    text = "proof lemma theorem word1. " * 3 + "sale cheap offer. " * 8
    found = explain_text(classifier, text)
    assert found.method == "occlusion"
    check(found, classifier)
    assert found.score == pytest.approx(raw_scores(classifier, [text])[0], abs=1e-6)
    by_word = {word.text: word.weight for word in found.words}
    assert by_word["lemma"] > by_word["sale"]


def test_occlusion_measures_what_leaving_out_does_with_few_texts(fitted, monkeypatch):
    classifier = fitted("ordinal")
    found = occlude(classifier, "proof sale lemma")
    for word, text in zip(found.words, (" sale lemma", "proof  lemma", "proof sale "), strict=True):
        assert word.weight == pytest.approx(
            found.score - raw_scores(classifier, [text])[0], abs=1e-5
        )
    asked = []
    monkeypatch.setattr(
        "tamis.explanation.occlusion.raw_scores",
        lambda c, texts: asked.extend(texts) or np.zeros(len(texts)),
    )
    occlude(classifier, "a b. " * 180)
    assert MOST_WINDOWS < len(asked) <= MOST_WINDOWS + MOST_WINDOWS // 3 + 4


@pytest.mark.parametrize("name", ["ordinal", "binary", "linear", "windows"])
def test_a_text_that_says_nothing_is_explained_by_nothing(fitted, name):
    for text in ("", " \n"):
        found = explain_text(fitted(name), text)
        assert found.words == () and found.completeness_gap == pytest.approx(0, abs=1e-6)
        assert found.calibrated == pytest.approx(fitted(name).score([text]).values[0], abs=1e-5)


def test_explaining_while_others_score_changes_neither(fitted):
    classifier = fitted("ordinal")
    model = classifier.encoder.model
    before = [explain_text(classifier, text) for text in TEXTS[:4]]
    scores = classifier.score(TEXTS[:4]).values
    private = gradients.private_copy(model)
    assert {p.data_ptr() for p in private.parameters()} == {
        p.data_ptr() for p in model.parameters()
    }
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(explain_text, classifier, text) for text in TEXTS[:4] * 3]
        scored = [classifier.score(TEXTS[:4]).values for _ in range(20)]
        after = [future.result() for future in futures]
    for values in scored:
        np.testing.assert_allclose(values, scores, atol=1e-6)
    for found, wanted in zip(after, before * 3, strict=True):
        np.testing.assert_allclose(
            [w.weight for w in found.words], [w.weight for w in wanted.words], atol=1e-5
        )
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(layer._forward_hooks for layer in transformer_layers(model))
