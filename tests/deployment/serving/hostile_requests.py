"""Requests that no client should send, as bytes, and a way to send them."""

import contextlib
import gzip
import json
import random
import re
import socket
import time

from tests.deployment.serving.small_service import KEY

BODY = 256 * 1024
GOOD = json.dumps({"documents": [{"text": "proof theorem"}]}).encode()
AUTH = f"Authorization: Bearer {KEY}".encode()
JSON = b"Content-Type: application/json"
LINES = b"Content-Type: application/x-ndjson"
CHUNKED = b"Transfer-Encoding: chunked"
INSIDE = re.compile(rb"Traceback|File \"|site-packages|pydantic|\.py\b")


def head(path="/score", *headers, method="POST", version="HTTP/1.1"):
    lines = [f"{method} {path} {version}".encode("latin-1"), b"Host: tamis", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def whole(body=GOOD, path="/score", *headers, kind=JSON, key=AUTH, **more):
    given = [one for one in (key, kind) if one]
    length = b"Content-Length: %d" % len(body)
    return head(path, *given, *headers, length, b"Connection: close", **more) + body


def chunks(*parts, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def exchange(service, data, half=False, wait=8):
    """Send bytes; what came back until the service closed the connection."""
    with service.connect(timeout=wait) as connection:
        found = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            if half:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65_536):
                found += part
    return found


def statuses(answer):
    assert not INSIDE.search(answer)
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) \w", answer)]


def document(text):
    return b'{"documents": [{"text": ' + text + b"}]}"


BODIES = {
    "nothing": (b"", 400),
    "blanks": (b" " * 60_000, 400),
    "null": (b"null", 422),
    "a text": (b'"text"', 422),
    "a list": (b"[1, 2]", 422),
    "no documents": (b"{}", 422),
    "documents that are none": (b'{"documents": [1, null, "x"]}', 422),
    "a text that is a number": (document(b"1"), 422),
    "a text that is null": (document(b"null"), 422),
    "a text that is a list": (document(b'["a"]'), 422),
    "an id that is a number": (b'{"documents": [{"text": "a", "id": 1}]}', 422),
    "an id that is empty": (b'{"documents": [{"text": "a", "id": ""}]}', 422),
    "an id that is long": (b'{"documents": [{"text": "a", "id": "' + b"x" * 257 + b'"}]}', 422),
    "explain as a number": (GOOD[:-1] + b', "explain": 1}', 422),
    "explain as a text": (GOOD[:-1] + b', "explain": "true"}', 422),
    "a further key": (GOOD[:-1] + b', "__proto__": {}}', 422),
    "invalid UTF-8": (document(b'"\xff\xfe"'), 400),
    "an overlong form": (document(b'"\xc0\xaf"'), 400),
    "a surrogate in UTF-8": (document(b'"\xed\xa0\x80"'), 400),
    "a lone surrogate": (document(b'"\\ud800"'), 400),
    "a lone surrogate in an id": (b'{"documents": [{"text": "a", "id": "\\udfff"}]}', 400),
    "a bare NUL": (document(b'"a\x00b"'), 400),
    "UTF-16": (GOOD.decode().encode("utf-16"), 400),
    "UTF-32": (GOOD.decode().encode("utf-32"), 400),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, 400),
    "Latin-1": (document('"café"'.encode("latin-1")), 400),
    "deep lists": (b"[" * 60_000, 400),
    "deep objects": (b'{"documents":' * 4_000, 400),
    "a deep text": (document(b"[" * 20_000 + b"]" * 20_000), 400),
    "two bodies": (GOOD + GOOD, 400),
    "half a body": (GOOD[:-9], 400),
    "not JSON": (b"documents=proof", 400),
    "comments": (b"/* */" + GOOD, 400),
    "a large number": (document(b"9" * 60_000), 400),
    "NaN": (document(b"NaN"), 422),
    "1e999": (document(b"1e999"), 422),
    "empty documents": (b'{"documents":[' + b",".join([b'{"text":""}'] * 10_000) + b"]}", 413),
    "a long text": (document(b'"' + b"x" * 2_001 + b'"'), 413),
    "a long text in escapes": (document(b'"' + rb"\u0061" * 2_001 + b'"'), 413),
    "a long body": (b"x" * (BODY + 1), 413),
}  # fmt: skip
LABELS = {
    "NaN": b"NaN", "infinity": b"-Infinity", "1e999": b"1e999", "a large number": b"9" * 5_000,
    "null": b"null", "true": b"true", "a list": b"[1]", "a long text": b'"' + b"x" * 1_001 + b'"',
    "a lone surrogate": b'"\\ud800"',
}  # fmt: skip
COMPRESSED = [
    (gzip.compress(bytes(10_000_000)), b"Content-Encoding: gzip"),
    (GOOD, b"Content-Encoding: br, identity"),
    (GOOD, b"Content-Encoding: \xff"),
]
KINDS = [
    None, b"Content-Type: ", b"Content-Type: application/jsonx", b"Content-Type: text/json\x80",
    b"Content-Type: multipart/form-data; boundary=a", LINES,
]  # fmt: skip
KEYS = {
    "none": (None, 401),
    "an empty one": (b"Authorization:", 401),
    "a wrong one": (b"Authorization: Bearer wrong", 401),
    "a part of one": (AUTH[:-1], 401),
    "more than one": (AUTH + b", Bearer x", 401),
    "another scheme": (b"Authorization: Basic " + KEY.encode(), 401),
    "a long one": (b"Authorization: Bearer " + b"x" * 30_000, 401),
    "bytes": (b"Authorization: Bearer \xff\xfe\x80", 401),
    "a NUL": (b"Authorization: Bearer a\x00b", 400),
    "a second one after it": (AUTH + b"\r\nAuthorization: Bearer x", 401),
    "a second one before it": (b"Authorization: Bearer x\r\n" + AUTH, 401),
}


def raw(*lines, body=b""):
    return (
        b"\r\n".join([b"POST /score HTTP/1.1", b"Host: tamis", AUTH, JSON, *lines, b"", b""]) + body
    )


SMUGGLED = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
MANGLED = {
    "two lengths": raw(b"Content-Length: 5", b"Content-Length: 6", body=GOOD),
    "a length and chunks": raw(b"Content-Length: 5", CHUNKED, body=SMUGGLED),
    "chunks and a length": raw(CHUNKED, b"Content-Length: 5", body=SMUGGLED),
    "chunks twice": raw(CHUNKED, b"Transfer-Encoding: identity", body=SMUGGLED),
    "no such coding": raw(b"Transfer-Encoding: xchunked", body=SMUGGLED),
    "a negative length": raw(b"Content-Length: -1", body=GOOD),
    "a signed length": raw(b"Content-Length: +5", body=GOOD),
    "a length of letters": raw(b"Content-Length: five", body=GOOD),
    "an absurd length": raw(b"Content-Length: " + b"9" * 40, body=GOOD),
    "a blank before the colon": raw(b"Content-Length : 5", body=GOOD),
    "a folded header": raw(b"X-A: b", b" c", b"Content-Length: 5", body=GOOD),
    "a bare line feed": whole().replace(b"\r\n", b"\n"),
    "a chunk of no size": raw(CHUNKED, body=b"ZZ\r\nabc\r\n0\r\n\r\n"),
    "a chunk of absurd size": raw(CHUNKED, body=b"FFFFFFFFFFFFFFFFFF\r\nabc"),
    "a chunk of negative size": raw(CHUNKED, body=b"-1\r\nabc\r\n"),
    "a NUL in a header": raw(b"X-A: \x00", body=GOOD),
    "a blank in the path": whole(path="/a b"),
    "bytes in the path": whole(path="/\xff"),
    "no path": whole(path=""),
    "a method of bytes": whole(method="P\x00ST"),
    "another protocol": b"SSH-2.0-client\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "noise": random.Random(7).randbytes(3_000),
}
METHODS = ("GET", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "HEAD", "CONNECT", "PROPFIND")
PATHS = (
    "/%2e%2e/etc/passwd", "/../../etc/passwd", "//score", "/score/", "/score%00", "/%ff%fe", "/%zz",
    "/%", "/SCORE", "/page.js/..;/x", "/schema.json", "/docs", "/docs.json/", "/readyz/",
    "/score;x=1", "/" + "a" * 30_000, "/static/../page.js",
)  # fmt: skip


def closes(connection, data, pause=0.0, seconds=15):
    """Whether the service ends a connection to which this is sent again and again."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            connection.sendall(data)
        except ConnectionError:
            return True
        time.sleep(pause)
    return False
