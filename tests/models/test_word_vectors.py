import json
import subprocess
import sys

import numpy as np
import pytest

from tamis.errors import ModelError
from tamis.models import word_vectors
from tamis.models.word_vectors import (
    PAD,
    UNKNOWN,
    Vocabulary,
    first_vectors,
    learn_vocabulary,
    words_of,
)
from tests.tiny import easy_texts


def test_words_are_words_and_marks_in_lower_case():
    assert words_of("Don't  STOP, ok_1! 🙂\ud800", 99) == [
        *("don", "'", "t", "stop", ",", "ok_1", "!", "🙂", "\ud800")
    ]
    assert words_of("a b c", 2) == ["a", "b"]
    assert words_of("", 5) == []


def test_the_vocabulary_is_of_words_that_enough_documents_hold():
    documents = [["b", "b", "b"], ["a", "b"], ["a", "c"], ["a", "d"], ["d"]]
    assert learn_vocabulary(documents, 2, 100).words == ("a", "b", "d")
    assert learn_vocabulary(documents, 2, 2).words == ("a", "b")
    assert learn_vocabulary(documents, 9, 100).words == ("a",)
    assert learn_vocabulary([], 2, 100).words == ()
    known = learn_vocabulary(documents, 2, 100)
    assert known.ids(["b", "zzz", "a"]) == [3, UNKNOWN, 2]
    assert known.ids([]) == [UNKNOWN]
    assert len(known) == 5


def test_glove_gives_the_vectors_of_known_words():
    words = Vocabulary(("king", "queen", "qqzzxx", "\ud800", "cabbage"))
    vectors = first_vectors("glove", words, [], 300, 0)
    assert vectors.shape == (7, 50)
    king, queen, unknown, half, cabbage = vectors[2:]
    assert king[:2] == pytest.approx([0.50451, 0.68607], abs=1e-5)
    close = king @ queen / np.linalg.norm(king) / np.linalg.norm(queen)
    assert close > 0.7 > king @ cabbage / np.linalg.norm(king) / np.linalg.norm(cabbage)
    assert not vectors[PAD].any()
    for random in (unknown, half, vectors[UNKNOWN]):
        assert 0 < np.abs(random).max() < 0.6


def test_other_glove_files_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(word_vectors._GLOVE_FILES, "glove_6B_50d_emb.npy", "0" * 64)
    with pytest.raises(ModelError, match="glove_6B_50d_emb.npy .* pinned is 000000000000"):
        first_vectors("glove", Vocabulary(("king",)), [], 50, 0)
    monkeypatch.setattr(word_vectors, "_GLOVE", "no-such-package")
    with pytest.raises(ModelError, match="'no-such-package' is not installed"):
        first_vectors("glove", Vocabulary(("king",)), [], 50, 0)


_LEARN = """
import hashlib, json, sys
from tamis.models.word_vectors import first_vectors, learn_vocabulary
documents = json.loads(sys.stdin.read())
known = learn_vocabulary(documents, 2, 100)
for kind in ("word2vec", "fasttext"):
    vectors = first_vectors(kind, known, documents, 16, 7)
    print(kind, known.words[:3], hashlib.sha256(vectors.tobytes()).hexdigest())
"""


def test_learnt_vectors_are_the_same_in_another_process(monkeypatch):
    documents = [text.split() for text in easy_texts(np.linspace(0, 1, 80))]
    outputs = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found = subprocess.run(
            [sys.executable, "-c", _LEARN],
            input=json.dumps(documents),
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(found.stdout)
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 2


@pytest.mark.parametrize("kind", ["word2vec", "fasttext"])
def test_words_of_like_company_get_like_vectors(kind):
    rng = np.random.default_rng(0)
    topics = [["proof", "lemma", "axiom", "integral"], ["sale", "cheap", "offer", "coupon"]]
    documents = [list(rng.choice(topics[i % 2], 12)) for i in range(400)]
    known = learn_vocabulary(documents, 1, 100)
    vectors = first_vectors(kind, known, documents, 16, 0)
    assert vectors.shape == (10, 16)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    proof, lemma, sale = (unit[known.ids([word])[0]] for word in ("proof", "lemma", "sale"))
    assert proof @ lemma > proof @ sale + 0.1
    assert not vectors[PAD].any()


def test_vectors_are_learnt_from_nothing_without_a_crash():
    known = Vocabulary(("proof",))
    assert first_vectors("word2vec", known, [[], []], 16, 0).shape == (3, 16)
