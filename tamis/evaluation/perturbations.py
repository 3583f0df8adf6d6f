"""Changes to a text that a good model does not mind, or that it must mind.

After Ribeiro, Wu, Guestrin & Singh 2020, "Beyond Accuracy: Behavioral Testing of NLP Models with
CheckList" (ACL), section 2. A change depends on the seed, its own name and the text alone, so
that neither the order nor the number of the documents matters.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np

from tamis.evaluation.behaviour_settings import DirectionName, InvarianceName, Noise

MOST_CHARACTERS = 20_000
"""Of a text; what follows is cut before and after a change alike."""

Random = np.random.Generator
Pair = Callable[[str, Random], tuple[str, str]]
Change = Callable[[str, Random], str]

_MENUS = (
    "Home | About us | Products | News | Contact | Sign in",
    "Start » Topics » Archive » Search » Help » Log in",
    "Menu Home Categories Latest posts Forum Shop My account",
    "Skip to content · Overview · Pricing · Blog · Careers · English",
)
_FOOTERS = (
    "Share this page: Facebook Twitter LinkedIn Email | Print",
    "Privacy policy · Terms of use · Imprint · All rights reserved",
    "Subscribe to our newsletter. Follow us. Back to top",
)
_NOTICES = (
    "We use cookies to improve your experience on this site. Accept all | Manage settings",
    "This website stores cookies on your device. By continuing you agree to our cookie policy. OK",
    "Your privacy matters to us. We and our partners use cookies. Accept Reject More options",
)
_NAMES = ("alex_m", "jo1990", "the_real_kim", "sam", "morning_reader")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_OUTLINE_WORDS = 4
_HEADING = 80

_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: row[max(0, place - 1) : place] + row[place + 1 : place + 2]
    for row in _KEYS
    for place, key in enumerate(row)
}
_MISREAD = {
    "a": "o", "b": "h", "c": "e", "d": "cl", "e": "c", "f": "t", "g": "q", "h": "b", "i": "l",
    "j": "i", "k": "lc", "l": "1", "m": "rn", "n": "ri", "o": "0", "q": "g", "r": "n", "s": "5",
    "t": "f", "u": "ii", "v": "y", "w": "vv", "y": "v", "z": "2", "B": "8", "D": "O", "E": "F",
    "G": "6", "I": "l", "O": "0", "Q": "O", "S": "5", "Z": "2", "0": "O", "1": "l", "5": "S",
    ",": ".", ".": ",", " ": "",
}  # fmt: skip
"""What scanned characters are taken for."""


def generator(seed: int, name: str, text: str) -> Random:
    """The source of chance for one change of one text."""
    parts = (zlib.crc32(part.encode("utf-8", "surrogatepass")) for part in (name, text))
    return np.random.default_rng([seed, *parts])


def invariance(name: InvarianceName, text: str, seed: int) -> tuple[str, str]:
    """Two forms of a text that ought to score alike.

    ``casing`` compares the text with a menu and a footer as they are written with the same in
    capitals; the others compare the text itself with the changed one.
    """
    text = text[:MOST_CHARACTERS]
    return _INVARIANCES[name](text, generator(seed, name, text))


def direction(name: DirectionName, text: str, seed: int) -> str:
    """The text without its explanation: the words or the subject are there, the sense is not."""
    text = text[:MOST_CHARACTERS]
    return _DIRECTIONS[name](text, generator(seed, name, text))


def noisy(noise: Noise, text: str, seed: int) -> str:
    """The text with a share of its characters mistyped or misread."""
    text = text[:MOST_CHARACTERS]
    random = generator(seed, f"{noise.kind} {noise.share}", text)
    letters = list(text)
    for place in np.flatnonzero(random.random(len(letters)) < noise.share):
        letters[place] = _NOISES[noise.kind](letters[place], random)
    return "".join(letters)


def _whitespace(text: str, random: Random) -> tuple[str, str]:
    """Some spaces doubled or made tabs, some line ends doubled or written as on Windows."""
    spaces, ends = ("  ", " \t", "   "), ("\n\n", "\r\n", " \n")

    def other(found: re.Match[str]) -> str:
        if random.random() >= 0.15:
            return found[0]
        return str(random.choice(ends if "\n" in found[0] else spaces))

    changed = re.sub(r"[ \n]", other, text)
    return text, f"\n  {changed} \n\n"


def _casing(text: str, random: Random) -> tuple[str, str]:
    menu, footer = str(random.choice(_MENUS)), str(random.choice(_FOOTERS))
    return f"{menu}\n{text}\n{footer}", f"{menu.upper()}\n{text}\n{footer.upper()}"


def _navigation(text: str, random: Random) -> tuple[str, str]:
    return text, f"{random.choice(_MENUS)}\n{text}\n{random.choice(_FOOTERS)}"


def _cookies(text: str, random: Random) -> tuple[str, str]:
    return text, f"{random.choice(_NOTICES)}\n{text}"


def _link(text: str, random: Random) -> tuple[str, str]:
    letters = "".join(random.choice(list("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"), 10))
    return text, f"{text} https://t.co/{letters}"


def _mention(text: str, random: Random) -> tuple[str, str]:
    return text, f"@{random.choice(_NAMES)} {text}"


def _shuffled(text: str, random: Random) -> str:
    words = text.split()
    return " ".join(words[place] for place in random.permutation(len(words)))


def _sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text.strip()) if part.strip()]


def _outline(text: str, random: Random) -> str:
    """The first words of each sentence, one line each, as headings are."""
    return "\n".join(" ".join(part.split()[:_OUTLINE_WORDS]) for part in _sentences(text))


def _first_sentence(text: str, random: Random) -> str:
    return next(iter(_sentences(text)), "")


def _menu(text: str, random: Random) -> str:
    """A page of which only its title and what is around it is left."""
    title = next(iter(text.strip().splitlines()), "")[:_HEADING]
    menu, footer = random.choice(_MENUS), random.choice(_FOOTERS)
    return f"{menu}\n{title}\n{random.choice(_NOTICES)}\n{footer}"


def _typo(letter: str, random: Random) -> str:
    """A letter left out, doubled, or the key beside it; what is no letter stays."""
    near = _NEIGHBOURS.get(letter.lower())
    if near is None:
        return letter
    other = str(random.choice(list(near)))
    return ("", letter * 2, other.upper() if letter.isupper() else other)[random.integers(3)]


def _misread(letter: str, random: Random) -> str:
    return _MISREAD.get(letter, letter)


_INVARIANCES: dict[InvarianceName, Pair] = {
    "whitespace": _whitespace,
    "casing": _casing,
    "navigation": _navigation,
    "cookies": _cookies,
    "link": _link,
    "mention": _mention,
}
_DIRECTIONS: dict[DirectionName, Change] = {
    "shuffled": _shuffled,
    "outline": _outline,
    "first_sentence": _first_sentence,
    "menu": _menu,
}
_NOISES: dict[str, Change] = {"typos": _typo, "ocr": _misread}
