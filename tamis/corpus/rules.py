"""Rules on a text, in the spirit of Gopher, C4 and FineWeb: each one's name is a drop reason.

The rules are those of Rae et al. 2021 (arXiv 2112.11446, section A.1.1 and table A1), Raffel et
al. 2020 (arXiv 1910.10683, section 2.2) and Penedo et al. 2024 (arXiv 2406.17557, section 3.6),
as datatrove's filters read them: their decisions on the same documents are the yardstick, and the
thresholds mean the same. The implementation is Tamis's own, in one pass over the characters. It
differs from datatrove's in this:

- Words come from character classes, not from a language's tokenizer; a contraction is one word,
  the parts of a hyphenated word are several. Texts in scripts without blanks have few words.
- Lines end at any Unicode line end for every rule; blank lines are no lines, except in the shares
  of lines with bullets and ellipses.
- C4's rules for lines decide which lines' sentences count, but no line is removed from the text;
  forbidden words are looked for in the whole text.
- Of a very long text only the beginning is judged (``text_statistics.LONGEST``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

from tamis.corpus.settings import (
    C4Settings,
    FineWebSettings,
    GopherQualitySettings,
    GopherRepetitionSettings,
    RulesSettings,
)
from tamis.corpus.text_statistics import TextStatistics

Rule = tuple[str, Callable[[TextStatistics], bool]]

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_STOP_WORD = re.compile(r"\b(?:the|be|to|of|and|that|have|with)\b")
_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")
_LINE_ENDS = (".", "?", "!", '"', "'")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_SENTENCE_END = re.compile(r"(?<=\w\w)[.?!]+[\"'”’)\]]*\s+(?=[^\sa-z])")
_POLICY = re.compile(
    r"javascript|terms of use|(?:privacy|cookie) policy|(?:uses|use of|use) cookies"
)


class TextRules:
    """The rules that are switched on, cheapest first.

    Args:
        settings: Groups and thresholds. A limit that no text can exceed (a share of 1, a least
            count of 0) switches a single rule off.

    Attributes:
        names: Every reason that can be given, in the order in which the rules are tried.
    """

    def __init__(self, settings: RulesSettings) -> None:
        rules: list[Rule] = []
        if settings.c4.enabled:
            rules += _c4_words(settings.c4)
        if settings.fineweb.enabled:
            rules += _fineweb_lines(settings.fineweb)
        if settings.gopher_quality.enabled:
            rules += _gopher_lines(settings.gopher_quality)
        if settings.gopher_repetition.enabled:
            rules += _gopher_repeated_lines(settings.gopher_repetition)
        if settings.c4.enabled:
            rules += _c4_sentences(settings.c4)
        if settings.gopher_quality.enabled:
            rules += _gopher_words(settings.gopher_quality)
        if settings.fineweb.enabled:
            rules += _fineweb_words(settings.fineweb)
        if settings.gopher_repetition.enabled:
            rules += _gopher_ngrams(settings.gopher_repetition)
        self._rules = tuple(rules)
        self.names = tuple(name for name, _ in rules)

    def reason(self, text: str) -> str | None:
        """Name of the first rule that the text breaks, or None."""
        return next(self._broken(text), None)

    def reasons(self, text: str) -> list[str]:
        """Names of all rules that the text breaks, in the order of :attr:`names`."""
        return list(self._broken(text))

    def _broken(self, text: str) -> Iterator[str]:
        statistics = TextStatistics(text)
        return (name for name, broken in self._rules if broken(statistics))


def _share(part: float, whole: int) -> float:
    """A share; nothing of nothing is 0."""
    return part / whole if whole else 0.0


def _c4_words(limits: C4Settings) -> list[Rule]:
    rules: list[Rule] = []
    if limits.drop_curly_bracket:
        rules.append(("c4_curly_bracket", lambda s: "{" in s.text))
    if limits.drop_lorem_ipsum:
        rules.append(("c4_lorem_ipsum", lambda s: _has_lorem_ipsum(s.text)))
    return rules


def _has_lorem_ipsum(text: str) -> bool:
    # Lower case of the whole text is dear; almost no text holds the word at all.
    return ("psum" in text or "PSUM" in text) and "lorem ipsum" in text.lower()


def _c4_sentences(limits: C4Settings) -> list[Rule]:
    return [("c4_too_few_sentences", lambda s: not _has_sentences(s.filled, limits))]


def _has_sentences(lines: list[str], limits: C4Settings) -> bool:
    """Whether the lines that look like prose hold the least number of sentences."""
    found = 0
    for line in lines:
        if found >= limits.min_sentences:
            break
        line = line.strip()
        if line.endswith("]"):
            line = _CITATION.sub("", line)
        if not line.endswith(_LINE_ENDS) or line.endswith("..."):
            continue
        words = line.split()
        if len(words) < limits.min_line_words:
            continue
        if len(line) > limits.max_word_length and max(map(len, words)) > limits.max_word_length:
            continue
        if not _POLICY.search(line.lower()):
            found += 1 + sum(1 for _ in _SENTENCE_END.finditer(line))
    return found >= limits.min_sentences


def _fineweb_lines(limits: FineWebSettings) -> list[Rule]:
    stops = _terminal_punctuation()

    def unpunctuated(s: TextStatistics) -> bool:
        ended = sum(1 for line in s.filled if line[-1] in stops)
        return _share(ended, len(s.filled)) < limits.min_lines_with_punctuation

    def short(s: TextStatistics) -> bool:
        found = sum(1 for line in s.filled if len(line) <= limits.short_line)
        return _share(found, len(s.filled)) > limits.max_short_lines

    def repeated(s: TextStatistics) -> bool:
        characters = len(s.text) - s.text.count("\n")
        return _share(s.repeated_lines[1], characters) > limits.max_duplicate_line_characters

    return [
        ("fineweb_line_punctuation", unpunctuated),
        ("fineweb_short_lines", short),
        ("fineweb_duplicate_lines", repeated),
    ]


@cache
def _terminal_punctuation() -> frozenset[str]:
    """Unicode's property Sentence_Terminal, which FineWeb's list of full stops is."""
    import regex  # type: ignore[import-untyped]

    every = "".join(map(chr, range(0x20000)))
    return frozenset(regex.findall(r"\p{Sentence_Terminal}", every))


def _fineweb_words(limits: FineWebSettings) -> list[Rule]:
    def list_like(s: TextStatistics) -> bool:
        return _share(s.text.count("\n"), s.tokens.count) > limits.max_lines_per_word

    return [("fineweb_list_like", list_like)]


def _gopher_lines(limits: GopherQualitySettings) -> list[Rule]:
    def bullets(s: TextStatistics) -> bool:
        found = sum(1 for line in s.filled if line.lstrip().startswith(_BULLETS))
        return _share(found, len(s.lines)) > limits.max_bullet_lines

    def ellipses(s: TextStatistics) -> bool:
        found = sum(1 for line in s.filled if line.rstrip().endswith(_ELLIPSES))
        return _share(found, len(s.lines)) > limits.max_ellipsis_lines

    return [("gopher_bullet_lines", bullets), ("gopher_ellipsis_lines", ellipses)]


def _gopher_words(limits: GopherQualitySettings) -> list[Rule]:
    def mean(s: TextStatistics) -> float:
        return _share(s.tokens.word_characters, s.tokens.words)

    def symbols(s: TextStatistics) -> bool:
        most = max(s.text.count("#"), sum(map(s.text.count, _ELLIPSES)))
        return _share(most, s.tokens.count) > limits.max_symbol_ratio

    def numbers(s: TextStatistics) -> bool:
        return _share(s.tokens.alphabetic, s.tokens.count) < limits.min_alphabetic_words

    def foreign(s: TextStatistics) -> bool:
        return not _has_stop_words(s.text, min(limits.min_stop_words, len(_STOP_WORDS)))

    return [
        ("gopher_too_few_words", lambda s: s.tokens.words < limits.min_words),
        ("gopher_too_many_words", lambda s: s.tokens.words > limits.max_words),
        ("gopher_short_words", lambda s: mean(s) < limits.min_mean_word_length),
        ("gopher_long_words", lambda s: mean(s) > limits.max_mean_word_length),
        ("gopher_symbols", symbols),
        ("gopher_alphabetic_words", numbers),
        ("gopher_stop_words", foreign),
    ]


def _has_stop_words(text: str, least: int) -> bool:
    found: set[str] = set()
    if least:
        for match in _STOP_WORD.finditer(text):
            found.add(match[0])
            if len(found) >= least:
                break
    return len(found) >= least


def _gopher_repeated_lines(limits: GopherRepetitionSettings) -> list[Rule]:
    def lines(s: TextStatistics) -> bool:
        return _share(s.repeated_lines[0], len(s.filled)) > limits.max_duplicate_lines

    def paragraphs(s: TextStatistics) -> bool:
        share = _share(s.repeated_paragraphs[0], len(s.paragraphs))
        return share > limits.max_duplicate_paragraphs

    def line_characters(s: TextStatistics) -> bool:
        share = _share(s.repeated_lines[1], len(s.text))
        return share > limits.max_duplicate_line_characters

    def paragraph_characters(s: TextStatistics) -> bool:
        share = _share(s.repeated_paragraphs[1], len(s.text))
        return share > limits.max_duplicate_paragraph_characters

    return [
        ("gopher_duplicate_lines", lines),
        ("gopher_duplicate_paragraphs", paragraphs),
        ("gopher_duplicate_line_characters", line_characters),
        ("gopher_duplicate_paragraph_characters", paragraph_characters),
    ]


def _gopher_ngrams(limits: GopherRepetitionSettings) -> list[Rule]:
    def top(n: int, limit: float) -> Rule:
        def broken(s: TextStatistics) -> bool:
            return _share(s.tokens.top_ngram_characters(n), len(s.text)) > limit

        return f"gopher_top_{n}_gram", broken

    shortest = min((n for n, _ in limits.max_duplicate_ngram_characters), default=0)

    def repeated(n: int, limit: float) -> Rule:
        def broken(s: TextStatistics) -> bool:
            if _share(s.tokens.covered_characters(shortest), len(s.text)) <= limit:
                return False
            return _share(s.tokens.repeated_characters(n), len(s.text)) > limit

        return f"gopher_duplicate_{n}_grams", broken

    return [
        *(top(n, limit) for n, limit in limits.max_top_ngram_characters),
        *(repeated(n, limit) for n, limit in limits.max_duplicate_ngram_characters),
    ]
