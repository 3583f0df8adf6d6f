"""WARC and WET files: responses and conversions are documents, other records are passed over.

Records are found here and not by a library: those that were tried end without a word in a
truncated record or in what stands between two, and hold a record of any length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from tamis.corpus.extraction import HtmlError, extract
from tamis.corpus.page import PageError, decoded_body, page_text, parse_headers, parse_response
from tamis.corpus.rows import Row, Rows
from tamis.corpus.settings import HtmlSettings
from tamis.corpus.streams import HEAD, BrokenStream

_HTML = ("text/html", "application/xhtml+xml")
_TEXT = "text/plain"
_READ = ("response", "resource", "conversion", "continuation")

_HEADER_BYTES = 1 << 16
_MAGIC = b"WARC/"
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_ENDS = re.compile(rb"[\r\n]+")
_LENGTH = re.compile(r"\d{1,15}", re.ASCII)
_RECORD = re.compile(rb"\nWARC/[01]\.\d{1,3}\r?\n")
_RECORD_BYTES = 16
_MAX_RESCUED = 1_000
_URN = re.compile(r"<?(?:urn:uuid:)?(.*?)>?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Record:
    """Headers of a record, and its block if it was wanted and not too long."""

    headers: dict[str, str]
    length: int
    block: bytes | None

    @property
    def kind(self) -> str:
        return self.headers.get("warc-type", "").lower()


class _Damaged(Exception):
    """A record that cannot be read; ``raw`` is how it begins."""

    def __init__(self, detail: str, raw: bytes) -> None:
        super().__init__(detail)
        self.raw = raw[:HEAD]


def read_warc(data: Iterator[bytes], rows: Rows, html: HtmlSettings) -> Iterator[Row]:
    """Documents of the records of a WARC or WET file.

    A ``response`` with status 2xx and HTML or plain text, and a ``conversion`` (of WET) in UTF-8,
    is a document: its id is the record's, its source the host of the page; ``url``, ``date``,
    ``content_type`` and, where known, ``charset`` and ``language`` are its metadata. A
    ``resource`` is read like a response without HTTP. Other responses are quarantined as
    ``not_a_page``; ``warcinfo``, ``request``, ``metadata`` and ``revisit`` are no rows. After a
    damaged record, reading goes on with the next that can be found.

    Args:
        data: The file, decompressed.
        rows: Makes documents.
        html: How pages become text.

    Raises:
        OSError: The storage failed.
    """
    tape = _Tape(data)
    number = 0
    while True:
        number += 1
        place = f"record {number}"
        try:
            record = _next(tape, rows.limits.max_line_bytes)
        except _Damaged as error:
            if tape.broken is None:
                yield rows.broken(place, "corrupt_warc", str(error), error.raw)
                tape.to_record()
                continue
            yield rows.broken(place, tape.broken.reason, str(tape.broken), error.raw)
            return
        if record is not None and record.kind in _READ:
            yield _row(place, record, rows, html)
        elif record is None:
            if tape.broken is not None:
                yield rows.broken(place, tape.broken.reason, str(tape.broken))
            return


class _Tape:
    """The bytes of a file, read from the front.

    Attributes:
        broken: Why the bytes ended before the file did.
    """

    def __init__(self, data: Iterator[bytes]) -> None:
        self.data = data
        self.held = bytearray()
        self.rescued = 0
        self.broken: BrokenStream | None = None

    def fill(self) -> bool:
        """Hold more bytes; false at the end."""
        try:
            self.held += next(self.data)
        except StopIteration:
            return False
        except BrokenStream as error:
            self.broken, self.data = error, iter(())
            return False
        return True

    def skip_blank(self) -> bool:
        """Pass over line ends; false at the end."""
        while True:
            if blank := _LINE_ENDS.match(self.held):
                del self.held[: blank.end()]
            if self.held:
                return True
            if not self.fill():
                return False

    def begins_record(self) -> bool:
        """Whether a record begins here."""
        while len(self.held) < len(_MAGIC) and self.fill():
            pass
        return self.held.startswith(_MAGIC)

    def header(self) -> bytes:
        """The lines up to a blank one.

        Raises:
            _Damaged: There is none within 64 KiB.
        """
        start = 0
        while (end := _BLANK_LINE.search(self.held, start, _HEADER_BYTES)) is None:
            start = max(0, min(len(self.held), _HEADER_BYTES) - 3)
            if start > _HEADER_BYTES - 4 or not self.fill():
                raw = bytes(self.held[:HEAD])
                del self.held[: len(_MAGIC)]
                raise _Damaged("the header of a record does not end", raw)
        lines = bytes(self.held[: end.start()])
        del self.held[: end.end()]
        return lines

    def take(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        while len(self.held) < size and self.fill():
            pass
        block = bytes(self.held[:size])
        del self.held[:size]
        return block

    def skip(self, size: int) -> int:
        """Pass over bytes without holding them; how many there were."""
        left = size
        while left:
            there = min(left, len(self.held))
            del self.held[:there]
            left -= there
            if left and not self.fill():
                break
        return size - left

    def to_record(self) -> None:
        """Pass over what comes before the next record."""
        while True:
            if found := _RECORD.search(self.held):
                del self.held[: found.start() + 1]
                return
            del self.held[:-_RECORD_BYTES]
            if not self.fill():
                self.held.clear()
                return

    def rescue(self, block: bytes | None) -> None:
        """Put back the records that a block with a wrong length has swallowed."""
        # Each costs a copy: a file made of nothing else shall not take hours.
        if block and self.rescued < _MAX_RESCUED and (found := _RECORD.search(block)):
            self.rescued += 1
            self.held[:0] = block[found.start() :]


def _next(tape: _Tape, limit: int) -> _Record | None:
    """The next record; None at the end."""
    if not tape.skip_blank():
        return None
    if not tape.begins_record():
        raise _Damaged("bytes that begin no record", bytes(tape.held[:HEAD]))
    lines = tape.header()
    headers = parse_headers(lines.partition(b"\n")[2])
    if not _LENGTH.fullmatch(headers.get("content-length", "")):
        raise _Damaged("a record without a length", lines)
    length = int(headers["content-length"])
    record = _Record(headers, length, None)
    if record.kind in _READ and length <= limit:
        block = tape.take(length)
        there = len(block)
        record = _Record(headers, length, block)
    else:
        there = tape.skip(length)
    if there < length:
        tape.rescue(record.block)
        raise _Damaged(f"a record ends after {there:,} of {length:,} bytes", lines)
    if tape.skip_blank() and not tape.begins_record():
        tape.rescue(record.block)
        raise _Damaged("no record follows where the length of one says so", lines)
    return record


def _row(place: str, record: _Record, rows: Rows, html: HtmlSettings) -> Row:
    if record.block is None:
        return rows.broken(place, "too_long", f"a record of {record.length:,} bytes")
    raw = record.block[:HEAD]
    try:
        text, details = _text(record, record.block, html, rows.limits.max_line_bytes)
    except (PageError, HtmlError) as error:
        return rows.broken(place, error.reason, str(error), raw)
    url = record.headers.get("warc-target-uri", "").strip("<>")
    metadata = {"url": url, "date": record.headers.get("warc-date", ""), **details}
    if language := record.headers.get("warc-identified-content-language"):
        metadata["language"] = language
    return rows.document(place, text, _id(record), _host(url), metadata, raw)


def _text(
    record: _Record, block: bytes, html: HtmlSettings, limit: int
) -> tuple[str, dict[str, str]]:
    """The text of a record, and what is known of it."""
    if record.kind == "continuation":
        raise PageError("not_a_page", "a later segment of a record")
    said = record.headers.get("content-type", "").partition(";")[0].strip().lower()
    if record.kind == "conversion":
        if said != _TEXT:
            raise PageError("not_a_page", f"a conversion to {said[:80] or 'an unknown type'}")
        try:
            return block.decode("utf-8-sig"), {"content_type": said}
        except UnicodeDecodeError as error:
            raise PageError("invalid_utf8", str(error)) from None
    charset = ""
    if record.kind == "response":
        response = parse_response(block)
        if not 200 <= response.status < 300:
            raise PageError("not_a_page", f"status {response.status}")
        said, charset = response.content_type, response.charset
        said = said or record.headers.get("warc-identified-payload-type", "").lower()
        _check_type(said)
        block = decoded_body(response, limit, "warc-truncated" in record.headers)
    _check_type(said)
    details = {"content_type": said, "charset": charset.lower()}
    text = page_text(block, charset)
    return (text if said == _TEXT else extract(text, html)), details


def _check_type(said: str) -> None:
    if said not in (*_HTML, _TEXT):
        raise PageError("not_a_page", f"content type {said[:80] or 'unknown'}")


def _id(record: _Record) -> str:
    found = _URN.fullmatch(record.headers.get("warc-record-id", ""))
    return found[1] if found else ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
