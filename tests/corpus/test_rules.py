"""Each rule on a text just inside and just outside its threshold, and against datatrove's."""

import random
from functools import cache

import pytest

from tamis.corpus.rules import TextRules
from tamis.corpus.settings import (
    C4Settings,
    FineWebSettings,
    GopherQualitySettings,
    GopherRepetitionSettings,
    RulesSettings,
)
from tamis.corpus.text_statistics import LONGEST, TextStatistics, Tokens

OFF = {
    "gopher_quality": GopherQualitySettings(enabled=False),
    "gopher_repetition": GopherRepetitionSettings(enabled=False),
    "c4": C4Settings(enabled=False),
    "fineweb": FineWebSettings(enabled=False),
}
SENTENCE = "The cat of the house sat on a mat.\n"


def rules(**groups):
    return TextRules(RulesSettings(**groups))


def only(name, **settings):
    group = type(OFF[name])(**settings)
    return rules(**(OFF | {name: group}))


def unique(count, size=4):
    """Different words of one size."""
    return [f"{chr(97 + i % 26)}{i:0{size - 1}d}" for i in range(count)]


def lines(count, text="line {} is here"):
    return [text.format(i) for i in range(count)]


def between(gram, times, length):
    """A text of a length that holds a run of words so many times, and else no word twice."""
    words = unique(times + 1, 6)
    text = "".join(f"{word} {gram} " for word in words[:times]) + words[-1]
    assert len(text) <= length
    return text + "x" * (length - len(text))


def repeated_ngram(n, times, limit):
    length = round(times * 4 * n / limit)
    gram = " ".join(f"{c}{c.upper()}{c}{c}" for c in "pqrstuvwyz"[:n])
    return between(gram, times + 1, length), between(gram, times + 1, length - 1)


def top_ngram(n, times, limit):
    gram = " ".join(["aa", "bb", "cc", "dd"][:n])
    length = round(times * len(gram) / limit)
    return between(gram, times, length), between(gram, times, length - 1)


def shares(part, other, counts, separator="\n"):
    """Texts with so many parts of one kind and of the other."""
    return tuple(separator.join([*part(a), *other(b)]) for a, b in counts)


CASES = {
    "gopher_too_few_words": (" ".join(unique(50)), " ".join(unique(49)) + " !"),
    "gopher_too_many_words": (" ".join(["word"] * 100_000), " ".join(["word"] * 100_001)),
    "gopher_short_words": ("abc " * 60, "abc " * 59 + "ab"),
    "gopher_long_words": ("abcdefghij " * 60, "abcdefghij " * 59 + "abcdefghijk"),
    "gopher_symbols": ("word # " * 10 + "word " * 80, "word # " * 11 + "word " * 79),
    "gopher_alphabetic_words": ("word " * 80 + "12 " * 20, "word " * 80 + "12 " * 21),
    "gopher_stop_words": ("with words of " * 20, "The with words " * 20),
    "gopher_bullet_lines": shares(
        lambda n: lines(n, " • item {}"), lines, [(9, 1), (10, 0)]
    ),
    "gopher_ellipsis_lines": shares(lambda n: lines(n, "more {}... "), lines, [(3, 7), (4, 6)]),
    "gopher_duplicate_lines": shares(
        lambda n: ["s"] * (n + 1), lambda n: lines(n - 1), [(3, 7), (4, 6)]
    ),
    "gopher_duplicate_paragraphs": shares(
        lambda n: ["s"] * (n + 1), lambda n: lines(n - 1), [(3, 7), (4, 6)], "\n\n"
    ),
    "gopher_duplicate_line_characters": tuple(
        "\n".join(["r" * 20, "r" * 20, "u" * n]) for n in (58, 57)
    ),
    "gopher_duplicate_paragraph_characters": tuple(
        "\n\n".join(["r" * 20, "r" * 20, "u" * n]) for n in (56, 55)
    ),
    "gopher_top_2_gram": top_ngram(2, 4, 0.2),
    "gopher_top_3_gram": top_ngram(3, 9, 0.18),
    "gopher_top_4_gram": top_ngram(4, 16, 0.16),
    "gopher_duplicate_5_grams": repeated_ngram(5, 3, 0.15),
    "gopher_duplicate_6_grams": repeated_ngram(6, 7, 0.14),
    "gopher_duplicate_7_grams": repeated_ngram(7, 13, 0.13),
    "gopher_duplicate_8_grams": repeated_ngram(8, 3, 0.12),
    "gopher_duplicate_9_grams": repeated_ngram(9, 11, 0.11),
    "gopher_duplicate_10_grams": repeated_ngram(10, 1, 0.10),
    "c4_too_few_sentences": (SENTENCE * 5, SENTENCE * 4 + "The end\n"),
    "c4_lorem_ipsum": ("Lorem and ipsum", "a Lorem IPSUM b"),
    "fineweb_line_punctuation": shares(
        lambda n: lines(n, "ends {}."), lines, [(12, 88), (11, 89)]
    ),
    "fineweb_short_lines": shares(
        lambda n: ["s" * 30] * n, lambda n: ["l" * 31] * n, [(67, 33), (68, 32)]
    ),
    "fineweb_duplicate_lines": tuple("\n".join(["r", "r", "u" * n]) for n in (98, 97)),
    "fineweb_list_like": ("word word word\n" * 3 + "word", "word word\n" * 4 + "word word"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_thresholds(name):
    inside, outside = CASES[name]
    every = rules()
    assert name not in every.reasons(inside)
    assert name in every.reasons(outside)


def test_every_rule_has_a_case():
    assert set(CASES) == set(rules().names)
    assert "c4_curly_bracket" in rules(c4=C4Settings(drop_curly_bracket=True)).names


def test_the_first_reason_is_the_cheapest_and_good_prose_has_none():
    every = rules()
    assert every.reason("") == every.reasons("")[0] == "fineweb_line_punctuation"
    chance = random.Random(0)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in ("ar", "el", "i") for c in ("na", "to", "m")]
    text = "\n".join(
        f"The {' '.join(chance.sample(words, 12))} of that {chance.choice(words)}."
        for _ in range(20)
    )
    assert every.reasons(text) == [] and every.reason(text) is None
    broken = every.reasons(text + "\n" + "- lorem ipsum\n" * 30)
    assert broken[0] == "c4_lorem_ipsum"
    assert broken == [name for name in every.names if name in broken] and len(broken) > 3


def test_groups_and_single_rules_can_be_off():
    assert rules(**OFF).reasons("") == []
    assert only("gopher_quality", min_words=0, min_mean_word_length=0.0,
                min_alphabetic_words=0.0, min_stop_words=0).reasons("") == []  # fmt: skip
    assert only("fineweb", min_lines_with_punctuation=0.0).reasons("") == []
    assert only("gopher_repetition").reasons("") == []
    assert only("gopher_repetition", max_duplicate_ngram_characters=()).reasons("a b " * 9) == [
        "gopher_top_2_gram", "gopher_top_3_gram", "gopher_top_4_gram"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("The cat sat. It slept. It woke up.", True),
        ('He said "no more of this!" And then left. He wrote it down.[1][edit]', True),
        ("The cat sat.\nIt slept on.\nIt woke up.", True),
        ("The cat sat.\nIt slept.\nIt woke up.", False),
        (f"The cat sat. It slept. It woke up {'x' * 999}.", True),
        (f"The cat sat. It slept. It woke up {'x' * 1000}.", False),
        (f"The cat sat. It slept. It woke up {'xy ' * 600}.", True),
        ("The cat sat. It slept. It woke up", False),
        ("The cat sat. It slept. It woke up...", False),
        ("The cat sat, it slept and woke up.", False),
        ("Turn on JavaScript. Do it now. Then go on.", False),
        ("We use cookies here. You know it. Do you not.", False),
        ("Yes. Yes.\nYes. Yes.\nYes. Yes.", False),
    ],
)
def test_sentences_of_prose_lines_count(line, counts):
    found = only("c4", min_sentences=3).reasons(line)
    assert found == ([] if counts else ["c4_too_few_sentences"])


def test_curly_brackets_only_when_asked():
    text = SENTENCE * 5 + "{"
    assert only("c4").reason(text) is None
    assert only("c4", drop_curly_bracket=True).reason(text) == "c4_curly_bracket"


class TestTokens:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Don't stop, well-known U.S. law: 3.5%", "Don't|stop|,|well-known|U.S.|law|:|3.5|%"),
            ("wait... what?? (a/b_c) ----**", "wait|...|what|?|?|(|a/b_c|)|----|*|*"),
            ("naïve cafe\u0301 ५०\u200d_x", "naïve|cafe\u0301|५०|\u200d|_|x"),
            ("a😀😀b\x00c\ud800", "a|😀|😀|b|\x00|c|\ud800"),
            ("", ""),
            (" \n\t\u3000", ""),
        ],
    )
    def test_words_and_symbols(self, text, expected):
        assert "|".join(pieces(text)) == expected

    def test_counts(self):
        tokens = Tokens("In 1999, the A1 was £5.")
        assert (tokens.count, tokens.words, tokens.alphabetic) == (9, 6, 4)
        assert tokens.word_characters == len("In1999theA1was5")

    def test_equal_words_are_equal_wherever_they_stand(self):
        words = ["abc", "bca", "cab", "abc", "ab", "c"]
        hashes = Tokens(" ".join(words)).ngrams(1).tolist()
        assert hashes[0] == hashes[3] and len(set(hashes)) == 5

    def test_only_the_beginning_of_a_long_text(self):
        assert len(TextStatistics("word " * LONGEST).text) == LONGEST


def pieces(text):
    tokens = Tokens(text)
    spans = zip(tokens.starts.tolist(), tokens.sizes.tolist(), strict=True)
    return [text[start : start + size] for start, size in spans]


HOSTILE = {
    "one character": "a" * 20_000_000,
    "line feeds": "\n" * 1_000_000,
    "paragraphs": "a\n\n" * 300_000,
    "surrogates": "\ud800" * 1_000_000,
    "NULs": "\x00" * 1_000_000,
    "emoji": "😀 " * 500_000,
    "right to left": "\u202eשלום עולם" * 100_000,
    "same words": "word " * 200_000,
    "brackets": "[" * 1_000_000 + "]",
    "citations": "aa bb cc [1" * 100_000 + "]",
    "full stops": "aa" + "." * 1_000_000 + " ",
    "combining": "a" + "\u0301" * 1_000_000,
    "bullets": "-\n" * 500_000,
    "periodic": "a b c d e f g h i j k l " * 40_000,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_judged(name):
    every = rules(c4=C4Settings(drop_curly_bracket=True))
    assert every.reasons(HOSTILE[name])


@cache
def embedded():
    """Texts that come with Python, whole, cut and with parts repeated."""
    from pydoc_data.topics import topics

    chance = random.Random(1)
    texts = []
    for name in sorted(topics)[:60]:
        text = topics[name][:6_000]
        parts = text.split("\n\n")
        texts += [text, text.replace("\n   ", " "), "\n\n".join(chance.choices(parts, k=8))]
        start = chance.randrange(len(text))
        texts.append(text + " " + text[start : start + chance.randrange(20, 900)])
    return texts


def datatrove_filters(words):
    from datatrove.pipeline import filters
    from datatrove.utils.word_tokenizers import WordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    class Plain(WordTokenizer):
        def word_tokenize(self, text):
            return words(text)

        def sent_tokenize(self, text):
            return PunktSentenceTokenizer().tokenize(text)

        def span_tokenize(self, text):
            return list(PunktSentenceTokenizer().span_tokenize(text))

    return {
        "gopher_quality": filters.GopherQualityFilter(language=Plain()),
        "gopher_repetition": filters.GopherRepetitionFilter(language=Plain()),
        "c4": filters.C4QualityFilter(language=Plain(), filter_curly_bracket=False),
        "fineweb": filters.FineWebQualityFilter(language=Plain()),
    }


def agreement(group, words):
    """Share of documents with the same decision, and share that datatrove keeps."""
    from datatrove.data import Document

    theirs = datatrove_filters(words)[group]
    kept = [theirs.filter(Document(text=text, id="")) is True for text in embedded()]
    ours = [only(group).reason(text) is None for text in embedded()]
    same = sum(a == b for a, b in zip(kept, ours, strict=True))
    return same / len(kept), sum(kept) / len(kept)


@pytest.mark.parametrize("group", ["gopher_quality", "gopher_repetition", "fineweb"])
def test_the_same_decisions_as_datatrove_on_the_same_words(group):
    same, kept = agreement(group, pieces)
    assert 0.02 < kept < 0.98
    assert same >= 0.99


@pytest.mark.parametrize("group", list(OFF))
def test_nearly_the_same_decisions_as_datatrove_on_its_own_words(group):
    from nltk.tokenize.destructive import NLTKWordTokenizer

    same, _ = agreement(group, NLTKWordTokenizer().tokenize)
    assert same >= 0.95
