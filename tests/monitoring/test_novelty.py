import numpy as np
import pytest

from tamis.monitoring.novelty import EXCERPT, excerpt, find_novelty
from tamis.monitoring.typical_words import typical_words
from tests.monitoring.monitor_tools import TOPICS, profile, row, window, window_of

PROFILE = profile(400)


def test_the_new_topic_is_a_cluster_with_its_words():
    topics = ["school", "sea"] * 120 + ["court"] * 60
    found = find_novelty(window_of(topics), PROFILE, 0)
    assert len(found.clusters) == 1
    cluster = found.clusters[0]
    assert cluster.size >= 50 and cluster.reference_share < 0.03
    assert cluster.share == pytest.approx(0.2, abs=0.05)
    assert set(cluster.words) and set(cluster.words) <= set(TOPICS["court"].split())
    assert 0.1 < found.unlike < 0.22 and found.auc > 0.52
    # Documents 240 to 299 are those that are new.
    assert all(int(each.id[1:]) >= 240 for each in found.documents)
    assert found.documents[0].novelty >= found.documents[-1].novelty > 0.95


def test_two_new_topics_are_two_clusters():
    known = profile(400, topics=("school",))
    found = find_novelty(window_of(["school"] * 200 + ["sea"] * 50 + ["court"] * 50), known, 0)
    told = [set(cluster.words) & set(TOPICS["sea"].split()) for cluster in found.clusters]
    assert len(found.clusters) == 2 and sorted(map(bool, told)) == [False, True]


def test_nothing_is_new_in_a_window_of_the_same():
    found = find_novelty(window_of(["school", "sea"] * 150), PROFILE, 0)
    assert found.clusters == () and found.unlike < 0.05 and 0.4 < found.auc < 0.6
    assert len(found.documents) == 12


def test_without_texts_there_are_no_words_and_no_excerpts():
    kept = window_of(["school", "sea"] * 60 + ["court"] * 60, texts_kept=False)
    found = find_novelty(kept, PROFILE, 0)
    assert found.clusters and found.clusters[0].words == ()
    assert all(each.excerpt is None for each in found.documents)


@pytest.mark.parametrize("size", [0, 1, 19])
def test_few_documents_or_none_are_no_news(size):
    found = find_novelty(window_of(["court"] * size), PROFILE, 0)
    assert (found.measured, found.documents, found.clusters) == (0, (), ())


def test_odd_vectors_do_no_harm():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 16)).astype(np.float32)
    vectors[3] = np.nan
    vectors[4:40] = vectors[5]
    rows = [row(i, f"text {i} of some words", vectors[i]) for i in range(60)]
    assert find_novelty(window(rows), PROFILE, 0).measured == 59
    other = [row(i, f"text {i}", np.ones(3, np.float32)) for i in range(60)]
    assert find_novelty(window(other), PROFILE, 0).measured == 0
    assert find_novelty(window([row(i, f"text {i}") for i in range(60)]), PROFILE, 0).measured == 0


def test_what_came_together_is_judged_by_other_folds():
    # One page cut into many documents: if it were in all folds, it would be known by heart.
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(100, 400)).astype(np.float32)
    known = profile(100)
    object.__setattr__(known.sample, "vectors", rng.normal(size=(100, 400)).astype(np.float32))
    pages = np.repeat(vectors[:20], 5, axis=0) + 0.01 * vectors
    alone = [row(i, f"text {i} of it", pages[i]) for i in range(100)]
    grouped = [row(i, f"text {i} of it", pages[i], group=f"page{i // 5}") for i in range(100)]
    apart = find_novelty(window(alone), known, 0).auc
    assert apart > 0.9 > 0.75 > find_novelty(window(grouped), known, 0).auc


def test_an_excerpt_is_one_short_line():
    text = "<script>alert(1)</script>\u202e\x1b[31m red\n\n" + "word " * 200
    found = excerpt(text)
    assert len(found) == EXCERPT and "\n" not in found and "\x1b" not in found
    assert "\u202e" not in found
    assert excerpt("short  one ") == "short one" and excerpt("") == ""


def test_words_are_typical_when_frequent_here_and_rare_there():
    texts = [f"the tribunal said number{i} the" for i in range(20)]
    reference = {"the": 990, "said": 300, "of": 800, "tribunal": 1}
    assert typical_words(texts, reference, 1_000)[0] == "tribunal"
    assert "the" not in typical_words(texts, reference, 1_000)
    assert typical_words([], reference, 1_000) == () == typical_words(texts, {}, 0)
    assert "2024" not in typical_words(["2024 went by quickly"] * 9, reference, 1_000)
