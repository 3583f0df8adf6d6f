import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.explanation.words import Spans, readable, spread, without, word_places


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "A well-known theorem, isn't it?",
            ["A", "well-known", "theorem", ",", "isn't", "it", "?"],
        ),
        ("wow!!! :) x_1 3.14", ["wow", "!!!", ":)", "x_1", "3.14"]),
        ("漢字かな and 한국어", ["漢", "字", "か", "な", "and", "한국어"]),
        (" \n\t", []),
    ],
)
def test_words_and_punctuation_are_found(text, words):
    assert [text[start:end] for start, end in word_places(text)] == words


@given(st.text(max_size=80), st.data())
@settings(max_examples=150, deadline=None)
def test_no_weight_is_lost_or_made(text, data):
    places = word_places(text)
    cut = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), st.floats(-9, 9))
    rows = [(min(a, b), max(a, b), w) for a, b, w in data.draw(st.lists(cut, max_size=12))]
    starts, ends, weights = (np.array(column) for column in zip(*rows, strict=True)) if rows else (
        np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    )  # fmt: skip
    found, rest = spread(len(text), places, Spans(starts, ends, weights))
    assert found.shape == (len(places),)
    assert found.sum() + rest == pytest.approx(weights.sum(), abs=1e-8)


def test_a_span_shares_its_weight_by_characters_and_only_among_words():
    text = "ab  abcd !"
    spans = Spans(np.array([0, 2, 7]), np.array([8, 4, 10]), np.array([6.0, 5.0, 3.0]))
    weights, rest = spread(len(text), word_places(text), spans)
    assert weights.tolist() == pytest.approx([2.0, 4.0 + 1.5, 1.5])
    assert rest == 5.0


def test_lone_surrogates_are_made_readable_in_place():
    assert readable("a\ud800b") == "a?b"
    assert without("one two three", [(0, 3), (8, 13)]) == " two "
