"""Preparation of texts before a model reads them: steps that a task declares, by name.

Every step looks at one text alone and learns nothing, so that nothing can pass from the documents
of one side of a split to another's; what is learnt from texts (vocabularies, weights of terms) is
learnt by the models, from their training side.

urls, users   ``https://...`` and ``www...`` become ``url``, ``@name`` becomes ``user``
hashtags      ``#MoreThanThis`` becomes ``more than this``
emoji         pictures and emoticons become their names
elongation    four and more of the same letter become three: ``soooooo`` is ``sooo``
normalise     Unicode NFKC, case folded, marks and blanks of one form
stem          Snowball stems of English words (Porter 2001, "Snowball")
lemmatise     dictionary forms of English words
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

PreparationStep = Literal[
    "urls", "users", "hashtags", "emoji", "elongation", "normalise", "stem", "lemmatise"
]

_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']{1,2000}", re.IGNORECASE)
_USER = re.compile(r"(?<![\w@.])@\w{1,50}")
_HASHTAG = re.compile(r"(?<![\w#&])#(\w{1,200})")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+|\d+")
_PARTS = re.compile(r"[^\W\d_]+|\d+")
_LONG = re.compile(r"([^\W\d_])\1{3,}")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_STACK = re.compile(r"(?:[^\w\s]|[\uff9e\uff9f]){31,}")
_MOST_STACKED = 30
"""Marks on one letter, as in the stream-safe format of UAX 15, section 13: to bring longer rows
of them into order takes the square of their number."""
_BLANKS = re.compile(r"[^\S\n]+")
_MARKS = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
_PICTURES = re.compile(r"[0-9#*\u2139]?[^\w\s\x00-\x7f]{1,64}|\u2139")
"""Where emoji can be; in rows of joined ones longer than this the search for their end would take
the square of their number."""
_EMOTICONS = {
    "smiling": (":)", ":-)", "(:", "=)", ":]"),
    "laughing": (":D", ":-D", "=D", "xD", "XD"),
    "winking": (";)", ";-)"),
    "frowning": (":(", ":-(", "):", "=(", ":["),
    "crying": (":'(", ":'-("),
    "teasing": (":P", ":-P", ":p", ":-p"),
    "doubting": (":/", ":-/", ":\\", ":-\\"),
    "loving": ("<3",),
    "heartbroken": ("</3",),
}
_FACES = {face: name for name, faces in _EMOTICONS.items() for face in faces}
_FACE = re.compile(
    r"(?<!\S)(?:"
    + "|".join(re.escape(face) for face in sorted(_FACES, key=len, reverse=True))
    + r")(?=\s|$|[.,!?])"
)
_REMEMBERED = 100_000
"""Words whose stem or lemma is kept in memory."""
_LONGEST = 64
"""Letters of a word that is looked up; a longer one is no word of English and stays as it is."""


def prepare(texts: Sequence[str], steps: Iterable[PreparationStep]) -> Sequence[str]:
    """The texts after all steps, in order; the same object where there is no step.

    Args:
        texts: Any texts (n).
        steps: Their names.
    """
    for step in steps:
        apply = _STEPS[step]
        texts = [apply(text) for text in texts]
    return texts


def _hashtags(text: str) -> str:
    return _HASHTAG.sub(lambda tag: " ".join(_parts(tag[1])).lower() or tag[1], text)


def _parts(tag: str) -> list[str]:
    # Which letters are capitals, a pattern knows of ASCII alone.
    return (_HUMPS if tag.isascii() else _PARTS).findall(tag)


def _emoji(text: str) -> str:
    import emoji

    def name(found: re.Match[str]) -> str:
        return emoji.replace_emoji(found[0], lambda _, facts: f" {_name(facts)} ")

    named = _PICTURES.sub(name, text)
    return _FACE.sub(lambda face: _FACES[face[0]], named)


def _name(facts: dict[str, Any]) -> str:
    return str(facts.get("en", "")).strip(":").replace("_", " ")


def _normalise(text: str) -> str:
    folded = unicodedata.normalize("NFKC", _STACK.sub(_unstack, text)).translate(_MARKS).casefold()
    return "\n".join(_BLANKS.sub(" ", line).strip() for line in folded.split("\n"))


def _unstack(found: re.Match[str]) -> str:
    kept, stacked = [], 0
    for character in found[0]:
        marks = unicodedata.combining(character) or character in "\uff9e\uff9f"
        stacked = stacked + 1 if marks else 0
        if stacked <= _MOST_STACKED:
            kept.append(character)
    return "".join(kept)


def _stem(text: str) -> str:
    return _WORD.sub(lambda word: _looked_up(_stem_of, word[0].lower()), text)


@lru_cache(maxsize=_REMEMBERED)
def _stem_of(word: str) -> str:
    return str(_stemmer().stem(word))


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from nltk.stem.snowball import SnowballStemmer

    return SnowballStemmer("english")


def _lemmatise(text: str) -> str:
    return _WORD.sub(lambda word: _looked_up(_lemma_of, word[0]), text)


def _looked_up(look: Callable[[str], str], word: str) -> str:
    return look(word) if len(word) <= _LONGEST else word.lower()


@lru_cache(maxsize=_REMEMBERED)
def _lemma_of(word: str) -> str:
    import simplemma

    return str(simplemma.lemmatize(word, lang="en")).lower()


_STEPS: dict[PreparationStep, Callable[[str], str]] = {
    "urls": lambda text: _URL.sub("url", text),
    "users": lambda text: _USER.sub("user", text),
    "hashtags": _hashtags,
    "emoji": _emoji,
    "elongation": lambda text: _LONG.sub(r"\1\1\1", text),
    "normalise": _normalise,
    "stem": _stem,
    "lemmatise": _lemmatise,
}
