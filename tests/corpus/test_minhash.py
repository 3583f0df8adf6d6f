import random
import re

import numpy as np
import pytest
from datasketch import MinHash

from tamis.corpus import minhash
from tamis.corpus.minhash import MinHasher, Signer, similarity, words
from tamis.corpus.packages import read_pool
from tamis.corpus.settings import NearDuplicateSettings

SETTINGS = NearDuplicateSettings()


def text(seed, length=200):
    return " ".join(random.Random(seed).choices([f"w{i}" for i in range(3_000)], k=length))


def edited(original, rate, seed):
    """A text in which some words are replaced by others."""
    chance = random.Random(seed)
    return re.sub(
        r"\w+", lambda m: f"new{chance.random():.9f}" if chance.random() < rate else m[0], original
    )


class TestSignatures:
    def test_the_permutations_are_those_of_datasketch(self):
        hasher = MinHasher(64, 5)
        for length in (1, 5, 6, 511, 516, 517, 2_000):
            sketch = MinHash(64, hashfunc=lambda number: number)
            sketch.update_batch(hasher.hashes(text(0, length)).tolist())
            assert (hasher.minima(text(0, length)) == sketch.hashvalues).all()

    def test_hashes_are_those_of_runs_of_words(self):
        hasher = MinHasher(8, 3)
        found = hasher.hashes("A b, c d! a_1 B c D")
        assert len(found) == 6
        assert found[1] == found[5] == hasher.hashes("b C (d)")[0]
        assert len(set(found.tolist())) == 5
        assert hasher.hashes("c b d")[0] not in found
        assert len(hasher.hashes("a b")) == 1
        assert set(hasher.hashes("a")) | set(hasher.hashes("b")) != set(hasher.hashes("a b"))

    @pytest.mark.parametrize("ngram", [1, 2, 5])
    def test_similarity_is_that_of_the_sets_of_runs(self, ngram):
        signer = Signer(NearDuplicateSettings(ngram=ngram, bands=64, rows=16, threshold=0.95))
        for share in (0.2, 0.5, 0.9):
            texts = [text(1, 500), edited(text(1, 500), 1 - share ** (1 / ngram), ngram)]
            one, other = (
                {tuple(found[i : i + ngram]) for i in range(len(found) - ngram + 1)}
                for found in (one.split() for one in texts)
            )
            codes = signer.sign(texts).codes
            estimate = similarity(codes[:1], codes[1:])[0]
            assert estimate == pytest.approx(len(one & other) / len(one | other), abs=0.05)

    def test_bands_agree_where_all_their_rows_do(self):
        signer = Signer(SETTINGS)
        texts = [text(1, 500), edited(text(1, 500), 0.03, 2)]
        one, other = (signer.hasher.minima(given).reshape(20, 6) for given in texts)
        bands = signer.sign(texts).bands
        agree = (one == other).all(axis=1)
        assert 0 < agree.sum() < 20
        assert ((bands[0] == bands[1]) == agree).all()
        assert len(np.unique(bands[0])) == 20

    def test_bytes_agree_by_chance_once_in_256(self):
        signer = Signer(NearDuplicateSettings(bands=64, rows=16, threshold=0.95))
        codes = signer.sign([text(seed, 300) for seed in range(40)]).codes
        equal = (codes[:20] == codes[20:]).mean()
        assert equal == pytest.approx(1 / 256, abs=0.0015)
        assert np.bincount(codes.ravel(), minlength=256).min() > codes.size / 256 * 0.7
        assert similarity(codes[:20], codes[20:]).max() < 0.02

    def test_a_document_is_signed_the_same_in_any_company(self):
        texts = [text(seed, 100) for seed in range(30)] + ["", "?!", "\ud800 x", "日本語" * 30]
        together = Signer(SETTINGS).sign(texts)
        assert together.bands.dtype == np.uint64
        assert together.bands.shape == (34, 20)
        assert together.codes.shape == (34, 120)
        assert len(np.unique(together.bands[:, 0])) == 34
        for row in (0, 17, 30, 31, 32, 33):
            alone = Signer(SETTINGS).sign([texts[row]])
            assert (alone.bands[0] == together.bands[row]).all()
            assert (alone.codes[0] == together.codes[row]).all()

    def test_forgotten_words_hash_the_same(self, monkeypatch):
        before = MinHasher(16, 5).minima(text(1, 500))
        monkeypatch.setattr(minhash, "_KNOWN_WORDS", 3)
        hasher = MinHasher(16, 5)
        assert (hasher.minima(text(1, 500)) == before).all()
        assert len(hasher.known) <= 3

    def test_of_a_huge_text_the_beginning_counts(self):
        head = text(1, 40_000)[:200_000]
        hasher = MinHasher(16, 5)
        assert (hasher.minima(head + text(2)) == hasher.minima(head + "x" * 10_000_000)).all()
        assert (hasher.minima(head[:-50]) != hasher.minima(text(3))).any()


class TestWords:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("Don\u2019t\u00a0STOP\u2014now, a_b 3.5\u2026", "don t stop now a_b 3 5"),
            ("\u00c9t\u00e9 \u2013 \u00fcber-alles", "\u00e9t\u00e9 \u00fcber alles"),
            ("\u00e9\u2019t \u4e2d\u6587 v2\u3002\u3053", "\u00e9 t \u4e2d \u6587 v2 \u3053"),
            ("a\x00b\x7fc", "a b c"),
        ],
    )
    def test_words(self, given, expected):
        assert words(given) == expected.split()

    def test_words_are_those_of_the_pattern(self):
        documents = [document.text for document in read_pool(("news", "docstring/networkx"))]
        assert any(not one.isascii() for one in documents)
        for one in documents:
            assert words(one, 5_000) == re.findall(r"\w+", one[:5_000].lower())

    def test_text_without_words_is_one_word(self):
        assert words("?!") == ["?!"]
        assert words("") == [""]
        assert words("  \u2014 ") == ["  \u2014 "]
