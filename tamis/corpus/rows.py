"""What the readers of all formats share: limits, and how a row becomes a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tamis.corpus.document import Document, Quarantined, content_hash, normalise
from tamis.corpus.streams import HEAD, MAX_RATIO
from tamis.task import Columns

Row = Document | Quarantined


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on what is held in memory.

    Attributes:
        max_line_bytes: Longest line, CSV record, text file, page or text; a longer one is
            quarantined.
        batch_rows: Most rows of a Parquet file decoded at a time.
        max_ratio: Bytes that a compressed stream, or a column of Parquet, may become for each of
            its own, once that is over 64 MiB.
    """

    max_line_bytes: int = 20_000_000
    batch_rows: int = 1_024
    max_ratio: int = MAX_RATIO


class Rows:
    """Turns what a format's reader found into documents, counting rows from 0.

    Args:
        shard: Name of the shard.
        columns: Which column holds what, where a format has columns.
        limits: Bounds on memory.

    Attributes:
        next: Number of the next row.
        text: Name of the column of the text.
    """

    def __init__(self, shard: str, columns: Columns, limits: ReadLimits) -> None:
        self.shard, self.limits, self.next = shard, limits, 0
        self.text = columns.text
        self.id = columns.id or "id"
        self.source = columns.source or "source"
        # A column may serve twice; whoever trains looks for these two in the metadata.
        self.shared = {columns.label, columns.group}

    def broken(self, place: str, reason: str, detail: str, raw: bytes = b"") -> Quarantined:
        """A row that could not be read; its place is its number where nothing else is given."""
        place = place or f"row {self.next}"
        self.next += 1
        return Quarantined(self.shard, self.next - 1, place, reason, detail, raw[:HEAD])

    def unreadable(self, place: str, reason: str, detail: str) -> Quarantined:
        """The whole shard, where not a row could be told apart."""
        return Quarantined(self.shard, -1, place, reason, detail)

    def row(self, place: str, fields: dict[str, Any], raw: bytes) -> Row:
        """A document from named values, or the reason why it is none."""
        if fields.get(self.text) is None:
            return self.broken(place, "missing_text", f"no value in {self.text!r}", raw)
        text = fields.pop(self.text)
        if not isinstance(text, str):
            kind = type(text).__name__
            return self.broken(place, "text_not_string", f"{self.text!r} holds a {kind}", raw)
        given = self._take(fields, self.id)
        source = self._take(fields, self.source) or ""
        return self.document(place, text, given, source, fields, raw)

    def document(
        self,
        place: str,
        text: str,
        given: str | None,
        source: str,
        metadata: dict[str, Any],
        raw: bytes = b"",
    ) -> Row:
        """A document of a text, or the reason why it is none; NUL characters are left out.

        Args:
            place: Where it was found, for a person; empty for its number.
            text: The text.
            given: The corpus's own id, if it has one.
            source: Where the text comes from.
            metadata: What else is known.
            raw: The bytes as they were found, for the quarantine.
        """
        text = text.replace("\x00", "")
        if not text or text.isspace():
            return self.broken(place, "empty_text", "there is no text in it", raw)
        if len(text) > self.limits.max_line_bytes:
            return self.broken(place, "too_long", f"{len(text):,} characters", raw)
        identity = given or content_hash(normalise(text))
        self.next += 1
        return Document(
            identity, text, source, self.shard, self.next - 1, metadata, id_given=bool(given)
        )

    def _take(self, fields: dict[str, Any], key: str) -> str | None:
        value = fields.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            if key not in self.shared:
                del fields[key]
            return str(value)
        if value is None and key not in self.shared:
            fields.pop(key, None)
        return None
