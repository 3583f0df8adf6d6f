"""What becomes of a document when the endpoint or the judge misbehaves."""

import asyncio

import pytest

from tamis.annotation.judge import Judge, retry_after
from tamis.annotation.purse import Purse
from tests.annotation.judge_server import KEY, serving
from tests.annotation.rounds import ask, numbered, rows, selection, settings


def whole(report):
    """Whether nothing was lost."""
    return all(
        part.asked == part.labelled + part.quarantined + part.remaining
        for part in (report.documents, report.second)
    )


def test_every_document_gets_the_score_of_the_judge(tmp_path):
    with serving() as server:
        report = ask(tmp_path, server.url, selection(numbered(13)), key=KEY)
    assert (report.documents.labelled, report.stopped, report.sent) == (13, "", 13)
    found = rows(tmp_path)
    assert [row["score"] for row in found] == [i % 6 for i in range(13)]
    assert found[7]["reason"] == "it says text number 7 has score"[:28]
    assert {(row["judge"], row["labelled_by"]) for row in found} == {("judge-7b", "judge-7b")}
    assert report.histogram == {"0": 3, "1": 2, "2": 2, "3": 2, "4": 2, "5": 2}
    assert (report.input_tokens, report.output_tokens) == (1300, 260)
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)


def test_a_request_asks_for_structured_output_at_temperature_0(tmp_path):
    with serving() as server:
        ask(tmp_path, server.url, selection(numbered(1)))
    (body,) = server.bodies
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 300, "judge-7b")
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["score"] == {
        "type": "integer", "enum": [0, 1, 2, 3, 4, 5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("limited 0.01", "429"),
        ("status 500", "500"),
        ("status 503", "503"),
        ("slow", "timeout"),
        ("trickle", "timeout"),
        ("html", "bad_response"),
        ("cut", "connection"),
        ("reset", "connection"),
        ("endless", "too_long"),
        ("packed", "too_long"),
    ],
)
def test_a_failing_endpoint_is_asked_again(tmp_path, fault, kind):
    with serving(faults={"number 2 ": (fault, 2)}) as server:
        report = ask(tmp_path, server.url, selection(numbered(4)), timeout_seconds=0.4)
    assert report.documents.labelled == 4 and report.faults == {kind: 2}
    assert report.sent == 6
    assert rows(tmp_path)[2]["score"] == 2


@pytest.mark.parametrize(
    ("fault", "flaw"),
    [
        ("refusal", "refusal"),
        ("filtered", "refusal"),
        ("truncated", "truncated"),
        ("says", "empty"),
        ("says I would say three", "malformed"),
        ('says {"reason": "cut', "malformed"),
        ('says {"reason": "high", "score": 9}', "out_of_scale"),
        ('says {"reason": "half", "score": 2.5}', "nonsense"),
        ('says {"reason": "yes", "score": true}', "nonsense"),
        ('says {"score": 3}', "nonsense"),
        ('says {"reason": " ", "score": 3}', "nonsense"),
        ('says {"reason":"a","score":1} {"reason":"b","score":2}', "nonsense"),
        ("status 400", "rejected"),
        ("status 413", "rejected"),
    ],
)
def test_an_unusable_answer_is_quarantined_and_not_asked_for_again(tmp_path, fault, flaw):
    chosen = selection(numbered(6), double_share=1.0)
    with serving(faults={"number 3 ": (fault, 99)}) as server:
        report = ask(tmp_path, server.url, chosen, concurrency=1)
        assert report.flaws == {flaw: 1} and whole(report)
        assert (report.documents.labelled, report.documents.quarantined) == (5, 1)
        assert (report.second.asked, report.second.labelled) == (5, 5)
        asked = len(server.bodies)
        report = ask(tmp_path, server.url, chosen)
        assert (len(server.bodies), report.sent, report.flaws) == (asked, 0, {flaw: 1})
        server.faults.clear()
        report = ask(tmp_path, server.url, chosen, again=True)
    assert (report.documents.labelled, report.sent, report.flaws) == (6, 2, {})
    assert len(rows(tmp_path)) == 6 and not rows(tmp_path, "quarantine.jsonl")


def test_the_quarantine_says_why(tmp_path):
    with serving(faults={"number 1 ": ('says {"reason": "x", "score": -1}', 9)}) as server:
        ask(tmp_path, server.url, selection(numbered(3)))
    (row,) = rows(tmp_path, "quarantine.jsonl")
    assert (row["id"], row["reason"], row["text"]) == ("doc1", "out_of_scale", numbered(2)[1])
    assert "-1 is not one of 0 to 5" in row["detail"]
    assert [row["id"] for row in rows(tmp_path)] == ["doc0", "doc2"]


@pytest.mark.parametrize(
    "said",
    [
        '```json\n{"reason": "fine", "score": 4}\n```',
        '<think>{"score": 1}? no.</think>The rating: {"reason": "fine", "score": 4}. Bye {',
        '{"reason": "fine", "score": "4", "more": {"score": 2}}',
    ],
)
def test_plain_text_around_the_answer_does_no_harm(tmp_path, said):
    with serving(faults={"number": (f"says {said}", 9)}) as server:
        report = ask(tmp_path, server.url, selection(numbered(1)), structured="never")
    assert report.documents.labelled == 1 and "response_format" not in server.bodies[0]
    assert (rows(tmp_path)[0]["score"], rows(tmp_path)[0]["reason"]) == (4, "fine")


def test_a_server_without_structured_output_is_asked_without(tmp_path):
    with serving(structured=False) as server:
        report = ask(tmp_path, server.url, selection(numbered(5)), concurrency=1)
    assert (report.documents.labelled, report.sent) == (5, 6)
    assert sum("response_format" in body for body in server.bodies) == 1


def test_a_document_that_is_refused_does_not_switch_structured_output_off(tmp_path):
    with serving(faults={"number 0 ": ("status 400", 9)}) as server:
        report = ask(tmp_path, server.url, selection(numbered(4)), concurrency=1, attempts=1)
    assert report.documents.labelled == 3
    assert all("response_format" in body for body in server.bodies[2:])
    assert report.documents.remaining == 1  # nothing had been answered, so it proves nothing


def test_what_the_endpoint_fails_on_remains_for_the_next_run(tmp_path):
    chosen = selection(numbered(6))
    with serving(faults={"number 4 ": ("status 500", 3)}) as server:
        report = ask(tmp_path, server.url, chosen)
        assert (report.documents.labelled, report.documents.remaining) == (5, 1) and whole(report)
        assert report.stopped == "" and report.faults == {"500": 3}
        report = ask(tmp_path, server.url, chosen)
    assert (report.documents.labelled, report.sent, report.cached) == (6, 1, 5)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("status 401", "HTTP 401"),
        ("status 404", "HTTP 404"),
        ("status 429 insufficient_quota", "HTTP 429"),
    ],
)
def test_an_endpoint_that_refuses_everything_stops_the_run(tmp_path, fault, told):
    with serving(faults={"number": (fault, 10**6)}) as server:
        report = ask(tmp_path, server.url, selection(numbered(30)), key=KEY, concurrency=2)
    assert told in report.stopped and report.sent <= 2
    assert KEY not in report.model_dump_json() and "***" in report.stopped
    assert report.documents.remaining == 30 and whole(report)


def test_an_endpoint_that_is_down_stops_the_run(tmp_path):
    with serving(faults={"number": ("status 500", 10**6)}) as server:
        report = ask(tmp_path, server.url, selection(numbered(30)), give_up_after=3, concurrency=1)
    assert report.stopped.startswith("the endpoint fails (500") and report.sent == 9
    report = ask(tmp_path, server.url, selection(numbered(30)), give_up_after=3, concurrency=1)
    assert report.stopped.startswith("the endpoint fails (connection") and report.cost == 0
    assert report.documents.remaining == 30


def test_so_many_requests_are_under_way_and_no_more(tmp_path):
    with serving() as server:
        server.gate = (0, server.release)

        def watch():
            while server.under_way < 5 and not server.release.wait(0.005):
                pass
            server.release.wait(0.1)  # a sixth would come now
            server.release.set()

        import threading

        watcher = threading.Thread(target=watch)
        watcher.start()
        report = ask(tmp_path, server.url, selection(numbered(25)), concurrency=5)
        watcher.join()
    assert server.most_under_way == 5 and report.documents.labelled == 25


def test_a_server_that_asks_for_a_pause_gets_it_from_all(tmp_path):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    async def read(server):
        chosen = selection(numbered(1))
        limits = settings(server.url, max_backoff_seconds=40.0)
        judge = Judge(limits, chosen.terms, None, Purse(None), sleep=sleep)
        async with judge:
            return await judge.read(chosen.items[0].sha256, chosen.items[0].text, 0)

    with serving(faults={"number": ("limited 30", 1)}) as server:
        reading = asyncio.run(read(server))
    assert (reading.score, reading.attempts) == (0, 2)
    assert any(29 < pause <= 30.25 for pause in pauses)


def test_a_pause_has_an_upper_bound(tmp_path):
    with serving(faults={"number": ("limited 86400", 1)}) as server:
        report = ask(tmp_path, server.url, selection(numbered(2)))
    assert report.documents.labelled == 2


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        (None, 0, 0), ("", 0, 0), ("1.5", 1.5, 1.5), ("-4", 0, 0), ("nan", 0, 0), ("soon", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("Wed, 21 Oct 2115 07:28:00 GMT", 1e9, 1e10),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(header, low, high):
    assert low <= retry_after(header) <= high
