import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tamis.config import validate
from tamis.corpus.split import split
from tamis.errors import ConfigError
from tamis.models import reading
from tamis.models.backbone import load_backbone, locate
from tamis.models.classifier import load_classifier
from tamis.models.encoder import Encoder
from tamis.models.preparer import load_preparer
from tamis.models.reading import splits_at_blanks
from tamis.models.settings import PackageBackbone, PathBackbone
from tamis.models.tokens import (
    Tokens,
    tokenize,
)
from tamis.models.train import train
from tamis.task import Task, TextLimits
from tests.tiny import ORDINAL, easy_set, tiny_task

LONG = ("head", "head_tail", "windows_mean", "windows_max")

BITS = (
    *("a", "the", "naïve", "can't", "U.S.A.", "3.14", "word7", "proof", "z" * 90, "x" * 130),
    *(" ", "  ", "\n", "\t", "\r\n", " " * 40, "\n" * 25, "\u00a0", "\u2003", "\u3000", "\u2028"),
    *("\x0b", "\x0c", "\x1c", "\x85", "\x00", "\ufffd", "\u200b", "\ufeff", "\x1b[0m"),
    *(
        "漢字",
        "かな",
        "한국어",
        "ไทย",
        "हिन्दी",
        "🙂",
        "👩‍👩‍👧",
        "e\u0301",
        "\u0301",
        "\u0323\u0301" * 9,
    ),
    *("İ", "ẞ", "ﬁ", "Σας", "…", ".", ",", "-", "[SEP]", "[PAD", "]", "[MASK]", "##ing", "\ud800"),
)
TEXTS = st.lists(st.one_of(st.sampled_from(BITS), st.text(max_size=9)), max_size=60).map("".join)
LIMITS = st.builds(
    lambda characters, tokens: {"max_characters": characters, "max_tokens": tokens},
    st.integers(100, 400),
    st.integers(16, 50),
)


@pytest.fixture(scope="module")
def minilm():
    return AutoTokenizer.from_pretrained(locate(PackageBackbone(kind="package"))[0])


@pytest.fixture(scope="module")
def tiny(tiny_bert):
    return load_backbone(PathBackbone(kind="path", path=str(tiny_bert)))[1]


@pytest.fixture(scope="module", params=["minilm", "tiny"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def without_shortening(tokenizer, texts, limits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "splits_at_blanks", lambda _: False)
        return tokenize(tokenizer, texts, limits)


class TestShortening:
    @given(st.lists(TEXTS, min_size=1, max_size=4), LIMITS)
    @settings(max_examples=400, deadline=None)
    def test_never_changes_tokens_nor_counts(self, tokenizer, texts, limits):
        limits = TextLimits(**limits)
        found = tokenize(tokenizer, texts, limits)
        assert found.same(without_shortening(tokenizer, texts, limits))
        cut = [t[: limits.max_characters].replace("\ud800", "?") for t in texts]
        plain = tokenizer(cut, truncation=True, max_length=limits.max_tokens)
        assert found.ids == plain["input_ids"]

    @given(TEXTS, st.integers(1, 120))
    @settings(max_examples=400, deadline=None)
    def test_cuts_only_where_tokens_are_those_of_the_whole(self, tokenizer, text, characters):
        text = text.replace("\ud800", "?")
        whole = tokenizer(text)["input_ids"][1:-1]
        start = tokenizer(reading._before_blank(text, characters))["input_ids"][1:-1]
        assert start == whole[: len(start)]
        end = tokenizer(reading._from_blank(text, characters))["input_ids"][1:-1]
        assert end == whole[len(whole) - len(end) :]

    def test_counts_characters_as_if_nothing_were_shortened(self, minilm):
        limits = TextLimits(max_characters=200, max_tokens=16)
        # The beginning that is tokenized fills the sequence, and then there are only blanks.
        text = "a " * 14 + " " * 60 + "lemma " * 30
        assert tokenize(minilm, [text], limits).whole[0] == round(14 * len(text) / 27)

    @given(TEXTS, st.integers(100, 300), st.integers(16, 40), st.sampled_from(LONG[1:]))
    @settings(max_examples=200, deadline=None)
    def test_nor_those_of_ends_and_windows(self, minilm, text, characters, most, long):
        limits = TextLimits(max_characters=characters, max_tokens=most, long=long)
        found, plain = tokenize(minilm, [text], limits), None
        plain = without_shortening(minilm, [text], limits)
        assert found.ids == plain.ids
        assert len(found.ids) <= 4
        assert max(found.lengths) <= most

    @pytest.mark.parametrize("long", ["head", "head_tail"])
    def test_reads_no_more_than_it_needs(self, minilm, monkeypatch, long):
        limits = TextLimits(max_characters=1_800, max_tokens=64, long=long)
        texts = ["A proof is an argument that convinces. " * 90]
        given, call = [], reading._call

        def spy(tokenizer, texts, **how):
            given.append([len(text) for text in texts])
            return call(tokenizer, texts, **how)

        monkeypatch.setattr(reading, "_call", spy)
        tokens = tokenize(minilm, texts, limits)
        assert tokens.lengths.tolist() == [64]
        assert len(given) == 1
        most = 5 * 64 if long == "head" else 5 * 31
        assert 0.9 * most < given[0][0] <= most

    def test_reads_on_where_the_beginning_did_not_fill_it(self, minilm):
        limits = TextLimits(max_characters=1_000, max_tokens=16)
        sparse = "a" + " " * 150 + "proof " * 30
        tokens = tokenize(minilm, [sparse], limits)
        assert tokens.lengths.tolist() == [16]

    def test_only_tokenizers_that_split_at_blanks_are_trusted(self, minilm, tiny):
        assert splits_at_blanks(minilm)
        assert splits_at_blanks(tiny)
        assert not splits_at_blanks(object())

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: t.backend_tokenizer.__setattr__("pre_tokenizer", pre_tokenizers.Metaspace()),
            lambda t: t.backend_tokenizer.__setattr__("normalizer", normalizers.NFKC()),
            lambda t: t.backend_tokenizer.__setattr__("model", models.BPE()),
            lambda t: t.__setattr__("truncation_side", "left"),
            lambda t: t.add_tokens([AddedToken("two words", normalized=False)]),
            lambda t: t.add_tokens([AddedToken("word", normalized=True)]),
            lambda t: t.add_tokens([AddedToken("eater", normalized=False, rstrip=True)]),
        ],
    )
    def test_a_change_of_any_part_ends_the_trust(self, tiny_bert, change):
        _, tokenizer = load_backbone(PathBackbone(kind="path", path=str(tiny_bert)))
        change(tokenizer)
        assert not splits_at_blanks(tokenizer)

    def test_a_tokenizer_that_looks_over_blanks_is_left_alone(self):
        # One token for the whole text, unless it is cut.
        backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a b " * 40: 1}, unk_token="[UNK]"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
        limits = TextLimits(max_characters=200, max_tokens=16)
        assert tokenize(tokenizer, ["a b " * 40], limits).ids == [[1]]


def test_a_lone_surrogate_is_a_question_mark(minilm):
    for long in LONG:
        limits = TextLimits(max_characters=100, max_tokens=16, long=long)
        odd, plain = (
            tokenize(minilm, [f"proof {mark} lemma. " * 40, "a"], limits)
            for mark in ("\udfff", "?")
        )
        assert odd.same(plain)


WORDS = [f"word{n}" for n in range(150)]


class TestHeadAndTail:
    LIMITS = TextLimits(max_characters=400, max_tokens=20, long="head_tail")

    def words(self, tokenizer, texts, limits=LIMITS):
        tokens = tokenize(tokenizer, texts, limits)
        assert not len(tokens.document)
        return [tokenizer.convert_ids_to_tokens(ids) for ids in tokens.ids]

    def test_the_ends_make_one_sequence(self, tiny):
        (found,) = self.words(tiny, [" ".join(WORDS)])
        assert found == ["[CLS]", *WORDS[:9], *WORDS[-9:], "[SEP]"]

    def test_an_odd_token_goes_to_the_beginning(self, tiny):
        limits = self.LIMITS.model_copy(update={"max_tokens": 21})
        (found,) = self.words(tiny, [" ".join(WORDS)], limits)
        assert found == ["[CLS]", *WORDS[:10], *WORDS[-9:], "[SEP]"]

    @pytest.mark.parametrize("count", [17, 18, 19, 40])
    def test_nothing_is_lost_about_the_limit(self, tiny, count):
        (found,) = self.words(tiny, [" ".join(WORDS[:count])])
        inside = WORDS[:count] if count <= 18 else [*WORDS[:9], *WORDS[count - 9 : count]]
        assert found == ["[CLS]", *inside, "[SEP]"]

    def test_a_text_that_fits_is_as_with_head(self, tiny):
        texts = ["", "proof", " ".join(WORDS[:18]), "naïve 漢字 \x00 [SEP]"]
        head = self.LIMITS.model_copy(update={"long": "head"})
        assert tokenize(tiny, texts, self.LIMITS).same(tokenize(tiny, texts, head))

    def test_it_is_cut_by_characters_at_both_ends(self, tiny):
        limits = TextLimits(max_characters=100, max_tokens=50, long="head_tail")
        text = "proof " * 5 + " " * 900 + "lemma " * 9
        (found,) = self.words(tiny, [text.strip()], limits)
        # 50 characters of the end: "emma" and eight words.
        assert found[1:6] == ["proof"] * 5
        assert found[-9:-1] == ["lemma"] * 8
        assert "word0" not in found

    def test_whole_texts_are_counted_or_extrapolated(self, tiny):
        texts = [" ".join(WORDS[:40]), "", " ".join(["proof"] * 600)]
        whole = tokenize(tiny, texts, self.LIMITS).whole.tolist()
        assert whole[:2] == [40, 1]
        # A word that was cut makes more tokens than it has.
        assert whole[2] == pytest.approx(600, rel=0.06)


class TestWindows:
    LIMITS = TextLimits(max_characters=400, max_tokens=20, long="windows_mean", windows=5)

    def words(self, tokenizer, text, limits=LIMITS):
        tokens = tokenize(tokenizer, [text], limits)
        assert tokens.document.tolist() == [0] * len(tokens.ids)
        return [tokenizer.convert_ids_to_tokens(ids)[1:-1] for ids in tokens.ids]

    def test_windows_are_spread_over_the_whole_text(self, tiny):
        found = self.words(tiny, " ".join(WORDS))
        assert len(found) == 5
        assert found[0] == WORDS[:18]
        assert all(len(window) > 11 for window in found)
        starts = [WORDS.index(window[0]) for window in found]
        assert np.ptp(np.diff(starts)) <= 8
        assert WORDS.index(found[-1][-1]) > 145
        for window in found:
            start = WORDS.index(window[0])
            assert window == WORDS[start : start + len(window)]

    def test_no_more_windows_than_the_text_needs(self, tiny):
        assert len(self.words(tiny, " ".join(WORDS[:18]))) == 1
        assert len(self.words(tiny, " ".join(WORDS[:18]) + " " * 900)) == 1
        for blanks in (0, 5_000):
            found = self.words(tiny, " ".join(WORDS[:30]) + "\n" * blanks)
            assert len(found) == 2
            assert set().union(*found) == set(WORDS[:30])
        assert len(self.words(tiny, " ".join(WORDS[:50]))) == 3

    def test_a_text_that_fits_is_as_with_head(self, tiny):
        texts = ["", " ", "proof", " ".join(WORDS[:18]), "naïve 漢字 \x00 [SEP]"]
        found = tokenize(tiny, texts, self.LIMITS)
        head = tokenize(tiny, texts, TextLimits(max_characters=400, max_tokens=20))
        assert found.ids == head.ids
        assert found.whole.tolist() == head.whole.tolist()
        assert found.document.tolist() == [0, 1, 2, 3, 4]

    def test_characters_bound_each_window(self, tiny):
        limits = TextLimits(max_characters=100, max_tokens=50, long="windows_max", windows=3)
        tokens = tokenize(tiny, [" ".join(WORDS), "z" * 5_000], limits)
        assert tokens.document.tolist() == [0, 0, 0, 1, 1, 1]
        assert tokens.lengths[:3].max() <= 2 + 17
        assert tokens.join == "max"

    def test_windows_without_words_are_left_out(self, tiny):
        found = self.words(tiny, " ".join(WORDS[:60]) + "\x00" * 3_000 + " ".join(WORDS[:18]))
        assert [] not in found
        assert 1 < len(found) < 5
        assert self.words(tiny, "\x00" * 5_000) == [[]]

    def test_whole_texts_are_extrapolated_from_all_windows(self, tiny):
        text = "z" * 500 + " " + "proof " * 400
        whole = tokenize(tiny, [text, "proof"], self.LIMITS).whole
        # One word of 500 letters is one unknown token, which the first window alone would count.
        assert whole[1] == 1
        assert whole[0] > 150

    def test_sequences_and_texts_are_told_apart(self, tiny):
        tokens = tokenize(tiny, ["proof", " ".join(WORDS), "lemma axiom"], self.LIMITS)
        assert tokens.document.tolist() == [0, 1, 1, 1, 1, 1, 2]
        assert tokens.documents == 3
        assert len(tokens.lengths) == 7
        assert tokens.read.tolist() == [3, tokens.lengths[1:6].sum(), 4]
        assert len(tokens.whole) == 3
        again = pickle.loads(pickle.dumps(tokens))
        assert again.same(tokens)
        assert not tokens.same(Tokens(tokens.ids, tokens.pad, tokens.whole))
        assert not tokens.same(
            Tokens(tokens.ids, tokens.pad, tokens.whole, tokens.document, join="max")
        )


@pytest.mark.parametrize("long", ["windows_mean", "windows_max"])
def test_an_encoder_gives_one_vector_a_text(encoder, long):
    texts = [" ".join(WORDS), "proof", " ".join(WORDS[:30])]
    limits = TextLimits(max_tokens=20, long=long)
    told = []
    windowed = Encoder(encoder.model, encoder.tokenizer, limits)
    vectors, read = windowed.features(texts, [2], ["mean"], lambda *numbers: told.append(numbers))
    assert vectors[2, "mean"].shape == (3, 32)
    assert told[-1] == (3, 3)
    tokens = tokenize(encoder.tokenizer, texts, limits)
    assert read.tolist() == tokens.read.tolist()
    alone = windowed.encode(Tokens(tokens.ids, tokens.pad), [2], ["mean"])[2, "mean"]
    for text in range(3):
        own = alone[tokens.document == text]
        joined = own.max(axis=0) if long == "windows_max" else own.mean(axis=0)
        expected = joined / np.linalg.norm(joined)
        np.testing.assert_allclose(vectors[2, "mean"][text], expected, atol=1e-5)


@pytest.mark.parametrize("long", LONG[1:])
def test_what_is_trained_is_what_is_served(tiny_bert, tmp_path, long):
    # Only the end of each text tells its label.
    data = easy_set(60)
    texts = [" ".join(WORDS[:60]) + " " + text for text in data.texts()]
    data = type(data)(data.table.set_column(1, "text", [texts]), data.info)
    limits = {"max_tokens": 32, "max_characters": 800, "long": long}
    task = tiny_task(tiny_bert, text=limits)
    assignment = split(data, task.target, task.split, task.seed)
    classifier = train(task, data, assignment, tmp_path / "checkpoints").classifier
    assert classifier.info.text.long == long
    head = classifier.scores_of(classifier.embed(texts)[0])
    scores = classifier.score(texts)
    np.testing.assert_allclose(scores.values, head, atol=1e-9)
    assert len(scores.tokens) == 60
    assert np.corrcoef(scores.values, data.labels)[0, 1] > 0.5
    classifier.save(tmp_path / "model")
    assert load_classifier(tmp_path / "model").score(texts).values.tolist() == (
        scores.values.tolist()
    )
    light = classifier.preparer_loader(tmp_path / "model")
    assert light is load_preparer
    prepared = light(tmp_path / "model").prepare(texts)
    assert prepared.same(classifier.prepare(texts))
    assert classifier.score_tokens(prepared).values.tolist() == scores.values.tolist()


def test_fine_tuning_reads_both_ends(tiny_bert, tmp_path):
    data = easy_set(60)
    text = {"max_tokens": 16, "long": "head_tail"}
    full = {"epochs": 1, "batch_size": 16}
    task = tiny_task(tiny_bert, text=text, model={"train": "full", "full": full})
    assignment = split(data, task.target, task.split, task.seed)
    trained = train(task, data, assignment, tmp_path / "checkpoints")
    assert trained.classifier.prepare(data.texts()).lengths.tolist() == [16] * 60


def sentence(**text):
    given = {"name": "toy", "target": ORDINAL, "sources": [{"kind": "packages"}], "text": text}
    with pytest.raises(ConfigError) as caught:
        validate(Task, given, "toy.yaml")
    return str(caught.value)


def test_limits_that_make_no_sense_are_refused_in_one_sentence():
    assert sentence(windows=8) == (
        "toy.yaml: text.windows: given 8; allowed: no such key with long: head, "
        "only with windows_mean or windows_max"
    )
    assert "head_tail, only" in sentence(long="head_tail", windows=2)
    assert sentence(long="windows_max", windows=64, max_tokens=2048) == (
        "toy.yaml: text.windows * max_tokens: given '64 * 2048'; "
        "allowed: at most 65536 of a document"
    )
    assert "text.long: given 'tail'; allowed: 'head', 'head_tail'" in sentence(long="tail")
    for windows in (1, 65):
        assert f"text.windows: given {windows}; " in sentence(long="windows_mean", windows=windows)


@pytest.mark.parametrize("long", LONG)
def test_limits_survive_json(long):
    limits = TextLimits(long=long)
    assert TextLimits.model_validate_json(limits.model_dump_json()) == limits
    assert TextLimits.model_validate_json('{"max_tokens": 32}') == TextLimits(max_tokens=32)
