"""What no client should send: a 4xx each, or a closed connection, and the service goes on."""

import contextlib
import json
import re
import socket
import time

import pytest

from deployment.serving.process import environment
from tests.deployment.serving.hostile_requests import (
    AUTH,
    BODIES,
    BODY,
    CHUNKED,
    COMPRESSED,
    GOOD,
    JSON,
    KEYS,
    KINDS,
    LABELS,
    LINES,
    MANGLED,
    METHODS,
    PATHS,
    chunks,
    closes,
    exchange,
    head,
    statuses,
    whole,
)
from tests.deployment.serving.small_service import KEY, LIMITS, save_served, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    limits = LIMITS | {"body_bytes": BODY}
    with serving(folder, save_served(folder / "model"), limits=limits) as one:
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


def test_labels_that_are_none(service):
    for name, label in LABELS.items():
        body = b'{"labels": [{"id": "a", "label": ' + label + b"}]}"
        found = statuses(exchange(service, whole(body, "/feedback")))
        assert found in ([400], [422]), name
    many = b'{"labels":[' + b",".join([b'{"id":"a","label":1}'] * 10_001) + b"]}"
    assert statuses(exchange(service, whole(many, "/feedback"))) == [422]


def test_other_types_and_compressed_bodies(service):
    for body, encoding in COMPRESSED:
        assert statuses(exchange(service, whole(body, "/score", encoding))) == [415]
    for kind in KINDS:
        assert statuses(exchange(service, whole(kind=kind))) == [415], kind


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


def test_what_is_no_http_is_refused_once(service):
    found = {name: statuses(exchange(service, data)) for name, data in MANGLED.items()}
    assert found == {name: [400] for name in MANGLED}


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
