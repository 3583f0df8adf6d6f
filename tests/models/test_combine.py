"""Vectors of sequences become vectors of texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.models.tokens import Tokens, batches, combine, counter


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("join", ["mean", "max"])
def test_vectors_of_a_text_are_joined(join):
    vectors = unit(np.random.default_rng(0).normal(size=(6, 4)))
    document = np.array([0, 1, 1, 1, 2, 2])
    found = combine(vectors, Tokens([[1]] * 6, 0, document=document, join=join))
    assert found.shape == (3, 4)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], vectors[0])
    for text, rows in ((1, [1, 2, 3]), (2, [4, 5])):
        expected = getattr(vectors[rows], join)(axis=0)
        np.testing.assert_allclose(found[text], expected / np.linalg.norm(expected), rtol=1e-5)


def test_joining_what_is_opposite_or_nothing_gives_numbers():
    tokens = Tokens([[1]] * 2, 0, document=np.array([0, 0]))
    assert combine(unit([[1, 0], [-1, 0]]), tokens).tolist() == [[0, 0]]
    assert combine(np.zeros((0, 4), dtype=np.float32), Tokens([], 0)).shape == (0, 4)


@given(st.lists(st.integers(1, 5), max_size=20), st.integers(1, 60))
@settings(deadline=None)
def test_a_text_is_done_with_its_last_sequence(counts, budget):
    document = np.repeat(np.arange(len(counts)), counts)
    tokens = Tokens([[1] * (1 + at % 7) for at in range(len(document))], 0, document=document)
    count, seen = counter(tokens), np.zeros(0, dtype=int)
    for rows in batches(tokens.lengths, budget):
        seen = np.append(seen, rows)
        expected = sum(set(np.flatnonzero(document == d)) <= set(seen) for d in range(len(counts)))
        assert count(rows) == expected
