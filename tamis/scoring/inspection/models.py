"""What there is to see of an output."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tamis.corpus.manifest import Counts
from tamis.scoring.summary import Example

Part = Literal["kept", "dropped", "duplicates", "quarantine"]
PARTS: tuple[Part, ...] = ("kept", "dropped", "duplicates", "quarantine")

NEAR: dict[Part, str] = {
    "kept": "near the threshold, kept",
    "dropped": "near the threshold, dropped",
}
"""Names of the groups of documents nearest to the threshold."""

EXCERPT = 300
"""Characters of a document that is shown beside another one."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Stays(_Frozen):
    """The document that a duplicate repeats: its place, what became of it, how it begins."""

    shard: str
    row: int
    score: float | None
    reason: str
    text: str


class Shown(_Frozen):
    """A document to look at; its texts are as they came, and not to be trusted.

    Attributes:
        position: Of its shard in the run.
        shard: Name of the shard.
        row: Row of the shard.
        id: The corpus's.
        source: Where it is from.
        text: The beginning.
        characters: Of the whole text; None where only its beginning is known.
        score: None where it was decided about before scoring.
        reason: Why it is where it is.
        language: ISO 639 code, where somebody looked.
        tokens: By the model's tokenizer.
        pii_found: Personal data in it.
        metadata: A JSON object.
        duplicate_of: ``POSITION#ROW`` of the document that stays in its place.
        similarity: To that document, 0-1.
        stays: That document, where it was found.
    """

    position: int
    shard: str
    row: int
    id: str
    source: str
    text: str
    characters: int | None = None
    score: float | None = None
    reason: str = ""
    language: str | None = None
    tokens: int | None = None
    pii_found: int | None = None
    metadata: str = ""
    duplicate_of: str | None = None
    similarity: float | None = None
    stays: Stays | None = None


class Broken(_Frozen):
    """A row that could not be read: where, why, and its first bytes as text or hexadecimal."""

    shard: str
    row: int
    place: str
    reason: str
    detail: str
    raw: str


class Group(_Frozen):
    """Documents that went the same way for the same reason.

    Attributes:
        name: ``kept``, a name of ``NEAR``, or the reason.
        part: Of the output.
        total: How many there are in all; for those near the threshold, how many on that side.
        documents: Some of them.
        broken: Some of them, of a group of quarantined rows.
    """

    name: str
    part: Part
    total: int
    documents: tuple[Shown, ...] = ()
    broken: tuple[Broken, ...] = ()

    @property
    def shown(self) -> int:
        """How many are here."""
        return len(self.documents) + len(self.broken)

    @property
    def near(self) -> bool:
        """Whether these are the documents nearest to the threshold."""
        return self.name == NEAR.get(self.part)


class Inspection(_Frozen):
    """What there is to see of an output.

    Attributes:
        output: Folder or URL.
        model: Version of the model that scored; empty if unknown.
        finished: Whether its run has ended.
        shards: Committed shards.
        expected: Shards of the run's input; None if unknown.
        counts: Rows of the committed shards.
        threshold: Kept is what scores at least this; None where nothing was scored.
        low: Lower end of the scale.
        high: Upper end.
        histogram: Scored documents by score, in equal bins of the scale.
        groups: In the order to show them.
        looked_at: Rows of which something was read.
        problems: Files that could not be read, and why.
    """

    output: str
    model: str
    finished: bool
    shards: int
    expected: int | None
    counts: Counts
    threshold: float | None
    low: float
    high: float
    histogram: tuple[int, ...]
    groups: tuple[Group, ...]
    looked_at: int
    problems: dict[str, str] = {}

    @property
    def shown(self) -> int:
        """How many documents and rows are here."""
        return sum(group.shown for group in self.groups)

    @property
    def state(self) -> str:
        """How far its run is, in words."""
        number = f"{self.shards:,} shard{'' if self.shards == 1 else 's'}"
        if self.finished:
            return number
        if self.expected is not None:
            number = f"{self.shards:,} of {self.expected:,} shards"
        return f"unfinished: {number} committed so far"


def shown_of(position: int, row: Mapping[str, Any]) -> Shown:
    """A document of a row; a field of another type than the schema's is left out."""
    score = _value(row, "score", float, int)
    return Shown(
        position=position,
        shard=_value(row, "shard", str) or "",
        row=_value(row, "row", int) or 0,
        id=_value(row, "id", str) or "",
        source=_value(row, "source", str) or "",
        text=_value(row, "text", str) or "",
        characters=_value(row, "characters", int),
        score=None if score is None else float(score),
        reason=_value(row, "reason", str) or "",
        language=_value(row, "language", str),
        tokens=_value(row, "tokens", int),
        pii_found=_value(row, "pii_found", int),
        metadata=_value(row, "metadata", str) or "",
        duplicate_of=_value(row, "duplicate_of", str),
        similarity=_value(row, "similarity", float),
    )


def from_example(position: int, example: Example) -> Shown:
    """A document of which only the example in the shard's account is at hand."""
    return Shown(position=position, **example.model_dump(exclude={"kept"}))


def broken_of(row: Mapping[str, Any]) -> Broken:
    """A row of the quarantine."""
    return Broken(
        shard=_value(row, "shard", str) or "",
        row=_value(row, "row", int) or 0,
        place=_value(row, "place", str) or "",
        reason=_value(row, "reason", str) or "",
        detail=_value(row, "detail", str) or "",
        raw=readable(_value(row, "raw", str) or ""),
    )


def _value(row: Mapping[str, Any], name: str, *kinds: type) -> Any:
    found = row.get(name)
    return found if isinstance(found, kinds) and not isinstance(found, bool) else None


def readable(encoded: str) -> str:
    """Bytes in base64 as text where they are mostly printable, else in hexadecimal."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError:
        return ""
    text = raw.decode("utf-8", "backslashreplace")
    strange = sum(not (c.isprintable() or c.isspace()) for c in text) + text.count("\\x")
    if strange <= len(raw) / 10:
        return text
    return "\n".join(raw[at : at + 16].hex(" ") for at in range(0, min(len(raw), 512), 16))
