"""What no client should send: a 4xx each, or a closed connection, and the service goes on."""

import contextlib
import gzip
import json
import random
import re
import socket
import time

import pytest

from deployment.serving.process import environment
from tests.deployment.serving.small_service import KEY, LIMITS, save_served, serving

BODY = 256 * 1024
GOOD = json.dumps({"documents": [{"text": "proof theorem"}]}).encode()
AUTH = f"Authorization: Bearer {KEY}".encode()
JSON = b"Content-Type: application/json"
LINES = b"Content-Type: application/x-ndjson"
CHUNKED = b"Transfer-Encoding: chunked"
INSIDE = re.compile(rb"Traceback|File \"|site-packages|pydantic|\.py\b")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with serving(
        folder, save_served(folder / "model"), limits=LIMITS | {"body_bytes": BODY}
    ) as one:
        yield one


@pytest.fixture(autouse=True)
def _goes_on(service):
    """Whatever was sent, the service stays ready and answers as before, from the same process."""
    before = answers(service)
    yield
    assert service.ask("/readyz").status == 200
    assert answers(service) == before
    log = (service.folder / "service.log").read_text("utf-8")
    assert "Traceback" not in log and log.count("Service tamis initialized") == 1


def answers(service):
    found = service.ask("/score", GOOD, X_Request_ID="always-the-same")
    return found.status, found.body


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


def test_bodies_that_are_wrong(service):
    found = {name: statuses(exchange(service, whole(body))) for name, (body, _) in BODIES.items()}
    assert found == {name: [status] for name, (_, status) in BODIES.items()}


def test_ten_thousand_empty_lines_are_scored(service):
    kind = "application/x-ndjson"
    answer = service.ask("/score_stream", b'{"text":""}\n' * 10_000, Content_Type=kind)
    found = [json.loads(line) for line in answer.body.splitlines()]
    assert len(found) == 10_000 and len({one["score"] for one in found}) == 1


def test_odd_texts_are_scored_all_the_same(service):
    texts = [
        "",
        " \n\t",
        "\x00",
        "a\u0301" * 900,
        "\u202e\u2066\ufeff",
        "😀" * 1_000,
        "\\ud800",
        "x" * 2_000,
    ]
    for explain in (False, True):
        for start in range(0, len(texts), 4):
            body = {"documents": [{"text": text} for text in texts[start : start + 4]]}
            answer = service.ask("/score", body | {"explain": explain})
            assert answer.status == 200 and len(answer.json["documents"]) == 4


def test_of_duplicate_keys_the_last_counts(service):
    body = b'{"documents":[{"text":"sale"}],"documents":[{"text":"sale","text":"proof"}]}'
    found, same = service.ask("/score", body).json, service.ask("/score", GOOD).json
    assert len(found["documents"]) == 1
    assert found["documents"][0]["score"] > same["threshold"]


LABELS = {
    "NaN": b"NaN", "infinity": b"-Infinity", "1e999": b"1e999", "a large number": b"9" * 5_000,
    "null": b"null", "true": b"true", "a list": b"[1]", "a long text": b'"' + b"x" * 1_001 + b'"',
    "a lone surrogate": b'"\\ud800"',
}  # fmt: skip


def test_labels_that_are_none(service):
    for name, label in LABELS.items():
        body = b'{"labels": [{"id": "a", "label": ' + label + b"}]}"
        found = statuses(exchange(service, whole(body, "/feedback")))
        assert found in ([400], [422]), name
    many = b'{"labels":[' + b",".join([b'{"id":"a","label":1}'] * 10_001) + b"]}"
    assert statuses(exchange(service, whole(many, "/feedback"))) == [422]


COMPRESSED = [
    (gzip.compress(bytes(10_000_000)), b"Content-Encoding: gzip"),
    (GOOD, b"Content-Encoding: br, identity"),
    (GOOD, b"Content-Encoding: \xff"),
]
KINDS = [
    None, b"Content-Type: ", b"Content-Type: application/jsonx", b"Content-Type: text/json\x80",
    b"Content-Type: multipart/form-data; boundary=a", LINES,
]  # fmt: skip


def test_other_types_and_compressed_bodies(service):
    for body, encoding in COMPRESSED:
        assert statuses(exchange(service, whole(body, "/score", encoding))) == [415]
    for kind in KINDS:
        assert statuses(exchange(service, whole(kind=kind))) == [415], kind


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


def test_keys_that_are_wrong(service):
    found = {name: statuses(exchange(service, whole(key=key))) for name, (key, _) in KEYS.items()}
    assert found == {name: [status] for name, (_, status) in KEYS.items()}
    assert KEY not in (service.folder / "service.log").read_text("utf-8")


def test_request_ids_that_are_wrong_are_not_taken_over(service):
    for given in (b"../../etc/passwd", b"x" * 65, b"short", b"", b"\xff" * 10, b"a b c d e f"):
        answer = exchange(service, whole(GOOD, "/score", b"X-Request-ID: " + given))
        assert statuses(answer) == [200]
        (told,) = re.findall(rb"^x-request-id: (.*)\r$", answer, re.MULTILINE)
        assert re.fullmatch(rb"[0-9a-f]{32}", told)
    for given in (b"abcdefgh\rSet-Cookie: a", b"abcdefgh\x00", b"abcdefgh\n injected"):
        answer = exchange(service, whole(GOOD, "/score", b"X-Request-ID: " + given))
        assert statuses(answer) == [400] and b"injected" not in answer


def test_heads_that_do_not_end(service):
    many = b"\r\n".join(b"X-%d: a" % n for n in range(200_000))
    for one in (b"X-Large: " + b"a" * 3_000_000, many, b"X" * 3_000_000 + b": a"):
        assert statuses(exchange(service, whole(GOOD, "/score", one)))[:1] in ([431], [400], [])
    answer = exchange(service, b"GET /" + b"a" * 70_000)
    assert statuses(answer) in ([431], [400], [])
    assert statuses(exchange(service, whole(GOOD, "/score", b"X-Fair: " + b"a" * 30_000))) == [200]


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


def test_what_is_no_http_is_refused_once(service):
    found = {name: statuses(exchange(service, data)) for name, data in MANGLED.items()}
    assert found == {name: [400] for name in MANGLED}


METHODS = ("GET", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "HEAD", "CONNECT", "PROPFIND")
PATHS = (
    "/%2e%2e/etc/passwd", "/../../etc/passwd", "//score", "/score/", "/score%00", "/%ff%fe", "/%zz",
    "/%", "/SCORE", "/page.js/..;/x", "/schema.json", "/docs", "/docs.json/", "/readyz/",
    "/score;x=1", "/" + "a" * 30_000, "/static/../page.js",
)  # fmt: skip


def test_methods_paths_and_hosts(service):
    for method in METHODS:
        assert statuses(exchange(service, whole(method=method))) == [405], method
    for path in ("/", "/model", "/livez", "/readyz", "/metrics", "/docs.json", "/page.js"):
        assert statuses(exchange(service, whole(path=path))) == [405], path
    for path in PATHS:
        for method in ("GET", "POST"):
            found = statuses(exchange(service, whole(path=path, method=method)))
            assert found in ([404], [400]), (path, method)
    for host in (b"", b"Host:", b"Host: evil.example/../x", b"Host: a\r\nHost: b"):
        asked = whole().replace(b"Host: tamis", host or b"X-No: host")
        answer = exchange(service, asked)
        assert statuses(answer) in ([200], [400]) and b"evil" not in answer
    upgrade = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
               b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]  # fmt: skip
    assert statuses(exchange(service, head("/score", *upgrade, method="GET"))) == [403]


def test_requests_one_after_another_without_waiting(service):
    old = whole(version="HTTP/1.0").replace(b"close", b"keep-alive")
    assert statuses(exchange(service, old * 3)) == [200]
    kept = whole().replace(b"close", b"keep-alive")
    assert statuses(exchange(service, kept * 20 + whole())) == [200] * 21
    # After a refusal nothing more of the connection is taken for a request.
    refused = whole(key=None).replace(b"close", b"keep-alive")
    assert statuses(exchange(service, refused + whole())) == [401]
    lying = (
        head("/score", JSON, b"Content-Length: 0") + b"POST /feedback HTTP/1.1\r\n\r\n" + whole()
    )
    assert statuses(exchange(service, lying)) == [401]


def test_bodies_that_are_announced_larger_than_allowed(service):
    for length in (BODY + 1, 10**12, 2**63 - 1):
        asked = head("/score", AUTH, JSON, b"Content-Length: %d" % length)
        assert statuses(exchange(service, asked)) == [413]
        asked = head("/score", JSON, b"Content-Length: %d" % length)
        assert statuses(exchange(service, asked)) == [401]


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


def test_a_body_in_chunks_is_read_no_further_than_allowed(service):
    for given, status in ((AUTH, b"413"), (b"X-No: key", b"401")):
        before, part = service.memory(), chunks(bytes(BODY + 1), end=b"")
        with service.connect(timeout=5) as connection:
            connection.sendall(head("/score", given, JSON, CHUNKED) + part)
            assert connection.recv(12) == b"HTTP/1.1 " + status
            assert closes(connection, part)
        assert service.memory() < before + 30e6


def test_slow_bodies_are_given_up(service):
    began = time.monotonic()
    length = b"Content-Length: %d" % len(GOOD)
    for asked in (head("/score", AUTH, JSON, length) + GOOD[:-1],
                  head("/score", AUTH, JSON, CHUNKED) + chunks(GOOD, end=b"")):  # fmt: skip
        assert statuses(exchange(service, asked)) == [408]
    lines = head("/score_stream", AUTH, LINES, CHUNKED) + chunks(b'{"text": "a"}\n{"te', end=b"")
    answer = exchange(service, lines)
    assert statuses(answer) == [200]
    assert b'"decision"' in answer and b"slow_body" in answer
    assert time.monotonic() - began < 20


def test_a_body_that_drips_is_given_up_too(service):
    with service.connect(timeout=5) as connection:
        connection.sendall(head("/score", AUTH, JSON, b"Content-Length: 1000"))
        connection.setblocking(False)
        began, found = time.monotonic(), b""
        while b"408" not in found and time.monotonic() - began < 15:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                connection.send(b" ")
            with contextlib.suppress(BlockingIOError):
                found += connection.recv(4_096)
            time.sleep(0.02)
        assert b"HTTP/1.1 408" in found


@pytest.mark.parametrize("sent", [b"", b"POST /sc", b"POST /score HTTP/1.1\r\nX-Slow: "])
def test_heads_that_do_not_come_end_the_connection(service, sent):
    began = time.monotonic()
    many = [service.connect(timeout=15) for _ in range(60)]
    with contextlib.ExitStack() as stack:
        for connection in many:
            stack.enter_context(connection)
            connection.sendall(sent)
        assert service.ask("/score", GOOD).status == 200
        for connection in many:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) == b""
    assert time.monotonic() - began < 12


def test_a_head_that_drips_ends_the_connection(service):
    for kept in (b"", whole().replace(b"close", b"keep-alive")):
        with service.connect(timeout=5) as connection:
            connection.sendall(kept + b"GET / HTTP/1.1\r\nX-Slow: ")
            assert closes(connection, b"a", pause=0.02)


def test_what_comes_after_an_answer_is_not_read_forever(service):
    with service.connect(timeout=5) as connection:
        connection.sendall(head("/model", CHUNKED, method="GET"))
        assert b"HTTP/1.1 200" in connection.recv(65_536)
        assert closes(connection, chunks(b"a", end=b""), pause=0.02)


def test_clients_that_vanish(service):
    length = b"Content-Length: %d" % len(GOOD)
    stream = head("/score_stream", AUTH, LINES, CHUNKED)
    for data in (
        b"POST", head("/score", AUTH, JSON, length), head("/score", AUTH, JSON, length) + GOOD[:9],
        whole(), stream + chunks(b'{"text": "a"}\n' * 500, end=b""), stream + b"FF\r\nabc",
        whole(GOOD[:-1] + b', "explain": true}'),
    ):  # fmt: skip
        for _ in range(5):
            with service.connect() as connection:
                connection.sendall(data)
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert statuses(exchange(service, head("/score", AUTH, JSON, length) + b"{", half=True)) == []


def test_a_stream_of_nonsense_is_answered_line_by_line(service):
    bad = [
        b"\xff", b"[" * 5_000, b"null", b'{"text": 1}', b'{"text": "\\ud800"}', b"x" * (BODY + 1),
        b'{"text": "' + b"y" * 2_001 + b'"}', b'{"text": "a", "id": 1}', b"\x00", b"1e999",
    ]  # fmt: skip
    body = b"\n".join([*bad, b"", b" ", b'{"text": "proof"}', *bad])
    answer = service.ask("/score_stream", body, Content_Type="application/x-ndjson")
    found = [json.loads(line) for line in answer.body.splitlines()]
    assert answer.status == 200
    assert [one.get("line") for one in found] == [*range(1, 11), None, *range(12, 22)]
    codes = [one["error"]["code"] for one in found if "error" in one]
    assert codes[:10] == codes[10:]
    assert set(codes) == {"no_json", "unfit", "too_large", "too_long"}


def test_a_line_without_an_end_is_not_kept(service):
    before = service.memory()
    with service.connect() as connection:
        connection.sendall(head("/score_stream", AUTH, LINES, CHUNKED))
        for _ in range(1_200):
            connection.sendall(chunks(b"x" * 65_536, end=b""))
        assert service.memory() < before + 30e6
        connection.sendall(chunks(b'\n{"text": "proof"}'))
        found = b""
        while not found.endswith(b"0\r\n\r\n"):
            part = connection.recv(65_536)
            assert part
            found += part
    assert b'"line": 1' in found and b"too_large" in found and b'"decision":"keep"' in found


def test_memory_does_not_grow(service):
    wrong = [whole(body) for body, _ in BODIES.values()] + list(MANGLED.values())
    wrong += [whole(key=key) for key, _ in KEYS.values()]

    def round_of_all():
        for data in wrong:
            exchange(service, data)
        for n in range(300):
            service.ask(f"/nothing-{n}", X_Request_ID=f"request-{n:08}")

    round_of_all()
    before = service.memory()
    for _ in range(3):
        round_of_all()
    assert service.memory() < before + 10e6
    figures = service.ask("/metrics").body.decode()
    assert "nothing-" not in figures and 'status="500"' not in figures


def test_ranges_of_files(service):
    for given in (
        b"bytes=0-" + b",0-" * 3_000,
        b"bytes=5-1",
        b"banana",
        b"bytes=99999999-",
        b"\xff",
    ):
        asked = head("/page.js", b"Range: " + given, b"Connection: close", method="GET")
        answer = exchange(service, asked)
        assert statuses(answer) in ([200], [206], [400], [416]), given
        assert len(answer) < 100_000


def test_two_services_do_not_share_their_figures(tmp_path):
    homes = {environment(tmp_path)["BENTOML_HOME"] for _ in range(2)}
    assert len(homes) == 2
