import random

import numpy as np
import pytest

from tamis.corpus.dedup import CHARACTERS, SHINGLE, connected, near_duplicate_clusters

WORDS = [f"w{i}" for i in range(2_000)]


def text(seed, words=200):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def clusters(texts, **settings):
    """Members of each cluster with more than one text."""
    found = near_duplicate_clusters(texts, **settings)
    assert len(found) == len(texts)
    groups = {}
    for row, code in enumerate(found.tolist()):
        groups.setdefault(code, []).append(row)
    return sorted(group for group in groups.values() if len(group) > 1)


def test_near_duplicates_stand_together_and_others_apart():
    texts = [text(seed) for seed in range(30)]
    texts[7] = texts[3] + " and a few words more"
    texts[21] = texts[15].upper().replace(" ", ",\n")
    words = texts[9].split()
    words[100] = "changed"
    texts[28] = " ".join(words)
    assert clusters(texts) == [[3, 7], [9, 28], [15, 21]]


def test_texts_that_share_less_stay_apart():
    half = text(1).split()[:100]
    texts = [" ".join(half + text(seed).split()[:100]) for seed in (2, 3, 4)]
    assert clusters(texts) == []
    assert clusters([text(1), *texts], threshold=0.2) != []


def test_the_same_words_in_another_order_are_another_text():
    words = text(5).split()
    turned = words[:]
    random.Random(0).shuffle(turned)
    assert clusters([" ".join(words), " ".join(turned)]) == []


def test_clusters_do_not_depend_on_the_order():
    texts = [text(seed) for seed in range(12)]
    texts += [f"{one} tail {i}" for i, one in enumerate(texts[:5])]
    order = random.Random(3).sample(range(len(texts)), len(texts))
    turned = clusters([texts[row] for row in order])
    back = sorted(sorted(order[row] for row in group) for group in turned)
    assert back == clusters(texts) == [[i, 12 + i] for i in range(5)]


def test_empty_and_short_texts():
    texts = ["", "", "a b", "A, b!", "a b c", "???", "???", "!!!", "a b c d e f"]
    assert clusters(texts) == [[0, 1], [2, 3], [5, 6]]
    assert near_duplicate_clusters([]).tolist() == []
    assert clusters([""]) == []


def test_lone_surrogates_do_not_stop_it():
    assert clusters(["\ud800 b c d e f g", text(1)]) == []


def test_of_long_texts_the_beginning_counts():
    head = " ".join(WORDS)[: CHARACTERS // 2] + " " + text(1, 5_000)
    assert len(head) > CHARACTERS
    assert clusters([head[:CHARACTERS] + text(2), head[:CHARACTERS] + text(3)]) == [[0, 1]]


def test_runs_of_five_words_count():
    words = [f"w{i}" for i in range(SHINGLE)]
    texts = [" ".join(words), ", ".join(words).upper(), " ".join(words[:-1]), " ".join(words[1:])]
    assert SHINGLE == 5
    assert clusters(texts, threshold=0.1) == [[0, 1]]
    assert clusters([f"{texts[0]} a", f"a {texts[0]}"], threshold=0.1) == [[0, 1]]


@pytest.mark.parametrize(
    ("pairs", "count"),
    [([], 5), ([(0, 1), (1, 2)], 3), ([(2, 0), (1, 2)], 3), ([(3, 3)], 5), ([(0, 4), (1, 3)], 3)],
)
def test_components_chain(pairs, count):
    found = connected(5, pairs)
    assert len(np.unique(found)) == count
    for one, other in pairs:
        assert found[one] == found[other]
