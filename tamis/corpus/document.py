"""What a document is on its way through the sieve."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any


def normalise(text: str) -> str:
    """Drop NUL bytes, use Unix line ends, cut trailing blanks and runs of empty lines.

    The content hash of a document is taken over this form.
    """
    text = text.replace("\x00", "").replace("\r\n", "\n")
    # The patterns are dear on text that has nothing to match, which is most of it.
    if " \n" in text or "\t\n" in text:
        text = re.sub(r"[ \t]+\n", "\n", text)
    if "\n\n\n" in text:
        text = re.sub(r"\n{3,}", "\n\n", text)
    return text.strip()


def content_hash(text: str) -> str:
    """sha256 of the text as UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus.

    Attributes:
        id: The corpus's own id, or the content hash where it has none.
        text: The text.
        source: Where it comes from (a genre, a site); empty when unknown.
        shard: Name of the shard it was read from.
        row: Position in that shard, from 0; with ``shard`` it names the document uniquely.
        metadata: The other columns of the corpus, carried along untouched.
        id_given: Whether the id is the corpus's own.
    """

    id: str
    text: str
    source: str
    shard: str
    row: int
    metadata: dict[str, Any] = field(default_factory=dict)
    id_given: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that could not be read as a document.

    Attributes:
        shard: Name of the shard.
        row: Position in the shard, from 0; -1 when the whole shard is meant.
        place: Where to look, for a person: ``line 12``, ``row group 3``.
        reason: Short machine-readable reason, such as ``invalid_json``.
        detail: One sentence on what was wrong.
        raw: The bytes as they were found, cut to a few kilobytes.
    """

    shard: str
    row: int
    place: str
    reason: str
    detail: str
    raw: bytes = b""
