"""An HTTP response as a crawler stored it: its status, its body decoded, its text."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import pyarrow as pa

from tamis.corpus.streams import CHUNK

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/\S{1,8}[ \t]+(\d{3})(?!\d)")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE | re.ASCII)
_META = re.compile(
    rb"<meta\b[^>]{0,500}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE | re.ASCII
)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]*)?\r?\n")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))

_HEADER_BYTES = 1 << 16
_META_BYTES = 4096
_MAX_CODINGS = 3
_MAX_MEMBERS = 100
_BOMB_RATIO = 100
_PLAIN = {"", "identity", "none"}


class PageError(Exception):
    """A response of which no page can be had.

    Attributes:
        reason: As a quarantined row has it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response.

    Attributes:
        status: Its code.
        headers: By lower-case name; of repeated ones the last.
        body: As it was sent: chunked and compressed perhaps.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """Media type without parameters, in lower case; empty when it was not said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """Charset of the Content-Type header; empty when it was not said."""
        found = _CHARSET.search(self.headers.get("content-type", ""))
        return found[1] if found else ""


def parse_headers(lines: bytes) -> dict[str, str]:
    """Header lines, by lower-case name; of repeated ones the last. Other lines are passed over."""
    headers = {}
    for line in lines.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().lower().decode("utf-8", "replace")] = value.strip().decode(
                "utf-8", "replace"
            )
    return headers


def parse_response(block: bytes) -> Response:
    """The response in the block of a WARC record.

    Raises:
        PageError: It does not begin as HTTP responses do.
    """
    status = _STATUS.match(block)
    if status is None:
        raise PageError("corrupt_http", "it does not begin with a status line")
    end = _BLANK_LINE.search(block, 0, _HEADER_BYTES)
    if end is None:
        raise PageError("corrupt_http", "its headers do not end")
    _, _, lines = block[: end.start()].partition(b"\n")
    return Response(int(status[1]), parse_headers(lines), block[end.end() :])


def decoded_body(response: Response, limit: int, truncated: bool = False) -> bytes:
    """The body without chunks and compression (gzip, deflate, brotli, zstd).

    Crawlers often store a body decoded and leave the headers as they were: what is not encoded
    as they say is taken as it is.

    Args:
        response: The response.
        limit: Most bytes that it may become.
        truncated: Whether the crawler cut it; else an early end is damage.

    Raises:
        PageError: It is damaged, becomes longer than the limit, or is a bomb.
    """
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = _dechunked(body, truncated)
    codings = [part.strip().lower() for part in _codings(response)]
    if len(codings) > _MAX_CODINGS:
        raise PageError("corrupt_payload", f"{len(codings)} content codings")
    for coding in reversed(codings):
        body = _decoded(body, coding, limit, truncated)
    return body


def page_text(body: bytes, charset: str) -> str:
    """The characters of a page; bytes that are none become U+FFFD.

    A byte order mark decides, then the charset of the header, then that of a ``<meta>``, then
    what the bytes look like.
    """
    for bom, encoding in _BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(encoding, "replace")
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

    if known := map_encoding_to_html5(charset, False) if charset else None:
        return body.decode(known, "replace")
    if meta := _META.search(body, 0, _META_BYTES):
        # Who can read the tag as ASCII has no UTF-16 before them.
        known = map_encoding_to_html5(meta[1].decode(), False)
        if known and not known.startswith("utf-16"):
            return body.decode(known, "replace")
    text = body.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    # Each character beyond ASCII makes the text shorter than its bytes.
    if 2 * bad <= len(body) - len(text):
        return text
    known = detect_encoding(body)
    return body.decode("cp1252" if known in (None, "utf-8") else known, "replace")


def _codings(response: Response) -> list[str]:
    return [c for c in response.headers.get("content-encoding", "").split(",") if c.strip()]


def _dechunked(body: bytes, truncated: bool) -> bytes:
    if not _CHUNK_SIZE.match(body):
        return body
    found: list[bytes] = []
    at = 0
    while head := _CHUNK_SIZE.match(body, at):
        size = int(head[1], 16)
        if size == 0:
            return b"".join(found)
        piece = body[head.end() : head.end() + size]
        found.append(piece)
        at = head.end() + size
        at += 2 if body.startswith(b"\r\n", at) else 1
    if not truncated:
        raise PageError("corrupt_payload", "its chunks end early or are damaged")
    return b"".join(found)


def _decoded(body: bytes, coding: str, limit: int, truncated: bool) -> bytes:
    if coding in _PLAIN or not body:
        return body
    found = bytearray()
    whole = False
    try:
        if coding in ("gzip", "x-gzip"):
            if not body.startswith(b"\x1f\x8b"):
                return body
            whole = _gunzip(body, found, limit)
        elif coding == "deflate":
            zlib_header = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
            whole, _ = _inflate(body, 15 if zlib_header else -15, found, limit)
        elif coding == "br":
            whole = _unbrotli(body, found, limit)
        elif coding == "zstd":
            if not body.startswith(b"\x28\xb5\x2f\xfd"):
                return body
            whole = _unzstd(body, found, limit)
        elif not _looks_plain(body):
            raise PageError("corrupt_payload", f"content coding {coding[:40]!r} is not known")
        else:
            return body
    except (zlib.error, OSError, pa.ArrowException, _brotli_error()) as error:
        if not found and _looks_plain(body):
            return body
        if not (truncated and found):
            raise PageError("corrupt_payload", f"{coding}: {error}") from error
    if not whole and not truncated:
        raise PageError("corrupt_payload", f"{coding}: it ends early")
    return bytes(found)


def _looks_plain(body: bytes) -> bool:
    return body[:_META_BYTES].lstrip().startswith(b"<")


def _brotli_error() -> type[Exception]:
    import brotli  # type: ignore[import-untyped]

    error: type[Exception] = brotli.error
    return error


def _check(found: bytearray, consumed: int, limit: int) -> None:
    if len(found) > limit:
        reason = "zip_bomb" if len(found) > _BOMB_RATIO * max(1, consumed) else "too_long"
        raise PageError(reason, f"{consumed:,} bytes became over {limit:,}")


def _inflate(body: bytes, wbits: int, found: bytearray, limit: int) -> tuple[bool, bytes]:
    """Append what one stream holds; whether it was whole, and what follows it."""
    stream = zlib.decompressobj(wbits)
    found += stream.decompress(body, limit + 1 - len(found))
    _check(found, len(body) - len(stream.unconsumed_tail), limit)
    return stream.eof, stream.unused_data


def _gunzip(body: bytes, found: bytearray, limit: int) -> bool:
    for _ in range(_MAX_MEMBERS):
        whole, body = _inflate(body, 31, found, limit)
        # Browsers, too, pass over what follows that is no further member.
        if not whole or not body.startswith(b"\x1f\x8b"):
            return whole
    raise PageError("corrupt_payload", f"over {_MAX_MEMBERS} gzip members")


def _unbrotli(body: bytes, found: bytearray, limit: int) -> bool:
    import brotli

    stream = brotli.Decompressor()
    found += stream.process(body, output_buffer_limit=CHUNK)
    while not stream.is_finished() and not stream.can_accept_more_data():
        found += stream.process(b"", output_buffer_limit=CHUNK)
        _check(found, len(body), limit)
    return bool(stream.is_finished())


def _unzstd(body: bytes, found: bytearray, limit: int) -> bool:
    stream = pa.CompressedInputStream(pa.BufferReader(body), "zstd")
    while piece := stream.read(CHUNK):
        found += piece
        _check(found, len(body), limit)
    return True
