"""The text of a web page, by resiliparse or trafilatura.

Pages are written by strangers, and HTML lets a few kilobytes ask for gigabytes or hours. What is
measured of the parsers sets the bounds: both are quadratic in the attributes of one tag (20,000
take lexbor 1 s and libxml2 3 s), resiliparse's search for the main content in the depth of the tree
(10,000 levels take 2 s, 100,000 minutes), and an HTML5 parser opens every unclosed formatting
element again in each paragraph (1,000 of both make a million nodes of 17 KB).
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING

from tamis.corpus.settings import HtmlSettings

if TYPE_CHECKING:
    from resiliparse.parse.html import HTMLTree

MAX_DEPTH = 512
"""Levels of elements; Blink, too, builds no deeper tree."""
MAX_TAGS = 50_000
"""Openings of tags (signs ``<``) in a page."""
MAX_ATTRIBUTES = 20_000
"""Attributes of one tag, or as much work in several."""
_MANY_ATTRIBUTES = 1_000
_REOPENED = 500_000

_FORMATTING = re.compile(
    r"(</?)(?:b|big|code|em|font|i|s|small|strike|strong|tt|u)(?=[\s/>])", re.IGNORECASE | re.ASCII
)
# A tag with many attributes, as the HTML standard cuts them. Any sign that could begin a tag is
# looked at: what is inside comments and scripts cannot be told without parsing.
_CROWDED = re.compile(
    r"</?[a-z](?:[^\s/<>]|<(?!/?[a-z]))*+(?=[\s/])"
    r"(?:[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?+)?+)"
    rf"{{{_MANY_ATTRIBUTES},}}+",
    re.IGNORECASE | re.ASCII,
)
_SEPARATOR = re.compile(r"[\s/]+|[\"'](?=[^\s/])", re.ASCII)


class HtmlError(Exception):
    """A page of which no text can be had.

    Attributes:
        reason: ``html_too_deep`` or ``html_failed``, as a quarantined row has it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def extract(html: str, settings: HtmlSettings) -> str:
    """The text of a page; empty when there is none in it.

    Args:
        html: The page.
        settings: Which extractor, and whether it leaves navigation and the like out.

    Raises:
        HtmlError: The page is nested or crowded beyond what parsers bear, or the extractor failed.
    """
    html = _guarded(html)
    try:
        tree = _parse(html)
        # A tag opens three elements at most: a cell brings its row and its table's body.
        if 3 * html.count("<") + 3 > MAX_DEPTH and _is_deep(tree):
            raise HtmlError("html_too_deep", f"elements nested over {MAX_DEPTH} levels")
        if settings.extractor == "trafilatura":
            return _trafilatura(html)
        from resiliparse.extract.html2text import extract_plain_text

        return extract_plain_text(tree, main_content=settings.main_content)
    except (HtmlError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of resiliparse is no Exception
        raise HtmlError("html_failed", f"{type(error).__name__}: {error}"[:500]) from error


def _guarded(html: str) -> str:
    """The page, if a parser may see it, with no formatting that it could multiply."""
    tags = html.count("<")
    if tags > MAX_TAGS:
        raise HtmlError("html_too_deep", f"{tags:,} tags")
    if len(html) > 2 * MAX_ATTRIBUTES:
        crowds = (len(_SEPARATOR.findall(match[0])) for match in _CROWDED.finditer(html))
        if sum(crowd**2 for crowd in crowds) > MAX_ATTRIBUTES**2:
            raise HtmlError("html_too_deep", f"a tag with over {MAX_ATTRIBUTES:,} attributes")
    if tags * tags > 4 * _REOPENED:
        opened = tags - html.count("</")
        formatting = sum(1 for match in _FORMATTING.finditer(html) if match[1] == "<")
        if formatting * opened > _REOPENED:
            # In plain text they leave no trace, and a span is not opened again.
            html = _FORMATTING.sub(r"\1span", html)
    return html


def _parse(html: str) -> HTMLTree:
    from resiliparse.parse.html import HTMLTree

    return HTMLTree.parse(html)


def _is_deep(tree: HTMLTree) -> bool:
    document = tree.document
    return document is not None and document.query_selector(_deep_selector()) is not None


@cache
def _deep_selector() -> str:
    return ">".join(["*"] * (MAX_DEPTH + 1))


def _trafilatura(html: str) -> str:
    import trafilatura

    # It logs each page in which it finds nothing; here that is counted by reason.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL + 1)
    return trafilatura.extract(html) or ""
