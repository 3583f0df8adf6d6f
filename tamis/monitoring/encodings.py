"""Whether a text was read in the wrong encoding somewhere on its way."""

from __future__ import annotations

import re

_CHARACTERS = 20_000
"""Of a longer text the beginning is looked at."""
_EACH = 2_000
"""Characters for each sign of damage, at most: one in a long text is a slip."""

# What the bytes 80 to BF of UTF-8 become when they are read as cp1252 or Latin-1.
_CONTINUED = (
    "[\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
    "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
)
_DAMAGE = re.compile(
    "[\ufffd\u0080-\u0084\u0086-\u009f\ud800-\udfff]"  # U+0085 is a line end of some systems
    f"|[\u00c2\u00c3]{_CONTINUED}"
    f"|\u00e2[\u0080\u20ac]{_CONTINUED}"
    f"|\u00f0[\u009f\u0178]{_CONTINUED}{{2}}"
    f"|(?:[\u00d0\u00d1]{_CONTINUED}){{2}}"
    "|\u00ef\u00bb\u00bf"
)


def is_broken(text: str) -> bool:
    """Whether it has replacement characters, or UTF-8 that was read as cp1252 or Latin-1.

    One such sign for every 2,000 characters of the first 20,000 is enough. Single-byte text that
    was read as another single-byte encoding is not noticed.
    """
    if text.isascii():
        return False
    head = text[:_CHARACTERS]
    return sum(1 for _ in _DAMAGE.finditer(head)) * _EACH >= max(len(head), 1)
