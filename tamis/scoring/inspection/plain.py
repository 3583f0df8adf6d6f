"""Untrusted text made fit to be shown in a terminal or on a page."""

from __future__ import annotations

import re

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_STRANGE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}{_INVISIBLE}\ud800-\udfff]")
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]"
_MARKS = re.compile(f"({_MARK}{{4}}){_MARK}+")


def visible(text: str) -> str:
    """A text in which nothing acts on a terminal or on the order of what is around it.

    Control characters, ANSI escapes among them, become their pictures (U+2400); marks that change
    the direction of writing, invisible tags and lone surrogates are spelt out, as in ``‹U+202E›``.
    Line feeds and tabs stay; a carriage return before a line feed goes; of more than four
    combining marks in a row the rest goes.
    """
    plain = _STRANGE.sub(_shown, text.replace("\r\n", "\n"))
    return _MARKS.sub(r"\1", plain)


def one_line(text: str, length: int) -> str:
    """The beginning of a text on one line, with nothing in it that acts; cut to ``length``."""
    # Ten times the length is enough to find so many characters between blanks.
    line = " ".join(visible(text[: 10 * length + 100]).split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"‹U+{code:04X}›"
