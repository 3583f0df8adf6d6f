import base64
import json
import os
import threading
import time
from datetime import datetime

import numpy as np
import pytest

from tamis.config import validate
from tamis.errors import ConfigError, UsageError
from tamis.monitoring import request_log, segments
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.request_log import RequestLog
from tests.monitoring.log_tools import TEXT, fill, record

PRIVATE = "Ask jane.doe@example.org or call +49 30 901820 about it. "


def logged(folder):
    """Lines of all segments."""
    found = []
    for name in segments.names(folder / "segments"):
        found += [
            json.loads(line) for line in (folder / "segments" / name).read_text().splitlines()
        ]
    return found


def until(true, seconds=20.0):
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def stuck(monkeypatch):
    """A writer that is held back until the event is set."""
    go = threading.Event()
    whole = RequestLog._flush

    def waits(self):
        go.wait(20)
        whole(self)

    monkeypatch.setattr(RequestLog, "_flush", waits)
    yield go
    go.set()


def test_a_record_is_there_with_all_that_is_known_of_it(tmp_path):
    log = fill(tmp_path, [record(7, shadow=True, key="team-a", index=3)], keep="text")
    (line,) = logged(tmp_path)
    assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
    assert line == {
        "kind": "served", "id": "doc-7", "request_id": "request-7", "index": 3,
        "model_version": "toy/1", "score": 2.5, "decision": "keep", "characters": len(TEXT),
        "tokens": 9, "language": "en", "text": TEXT, "embedding": None, "shadow": True,
        "key": "team-a",
    }  # fmt: skip
    assert (log.written, log.dropped, log.pending) == (1, 0, 0)


def test_by_default_no_text_is_kept_and_nothing_made_of_one(tmp_path):
    fill(tmp_path, [record(0, PRIVATE, embedding=np.ones(4))])
    (line,) = logged(tmp_path)
    assert line["text"] is None and line["embedding"] is None
    assert line["characters"] == len(PRIVATE) and line["language"] == "en"
    every = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"jane" not in every


@pytest.mark.parametrize("keep", ["text", "masked", "embedding"])
def test_what_is_kept_is_what_the_settings_say(tmp_path, keep):
    vector = np.linspace(-1, 1, 6, dtype=np.float32)
    fill(tmp_path, [record(0, PRIVATE, embedding=vector)], keep=keep)
    (line,) = logged(tmp_path)
    masked = "Ask <EMAIL> or call <PHONE> about it. "
    assert line["text"] == {"text": PRIVATE, "masked": masked, "embedding": None}[keep]
    if keep == "embedding":
        found = np.frombuffer(base64.b64decode(line["embedding"]), dtype="<f2")
        assert np.allclose(found, vector, atol=1e-3)
    else:
        assert line["embedding"] is None


@pytest.mark.parametrize("vector", [[], [float("nan")], [1e9], np.zeros(9_000)], ids=str)
def test_a_vector_that_is_none_is_left_out(tmp_path, vector):
    log = fill(tmp_path, [record(embedding=vector)], keep="embedding")
    assert logged(tmp_path)[0]["embedding"] is None
    assert log.written == 1


def test_personal_data_at_the_cut_are_not_halved_and_missed(tmp_path):
    for place in range(180, 205):
        text = "a" * place + " jane.doe@example.org " + "b" * 2_000
        fill(tmp_path / str(place), [record(0, text)], keep="masked", text_characters=200)
        (line,) = logged(tmp_path / str(place))
        assert len(line["text"]) <= 200
        assert "jan" not in line["text"] and "@" not in line["text"]


def test_masking_that_shortens_a_text_draws_nothing_unmasked_in(tmp_path):
    text = "jane.doe.with.a.long.name@example.org " * 100
    for cut in range(400, 440):
        prepared = request_log.Preparation(RequestLogSettings(keep="masked", text_characters=cut))
        found = json.loads(prepared(record(0, text[: cut + request_log._SLACK])))["text"]
        assert set(found.replace("<EMAIL>", "").replace(" ", "")) <= set("<EMAIL>")


def test_masking_that_cannot_be_done_refuses_to_start(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "phonenumbers", None)
    with pytest.raises(UsageError, match="log.keep: given 'masked'"):
        RequestLog(tmp_path, RequestLogSettings(keep="masked"), "toy/1")


def test_what_does_not_fit_is_dropped_counted_and_told_in_the_log(tmp_path, stuck):
    log = RequestLog(tmp_path, RequestLogSettings(queue_records=5, flush_seconds=0.01), "toy/1")
    taken = [log.put(record(number)) for number in range(8)]
    assert taken == [True] * 5 + [False] * 3
    assert (log.dropped, log.pending, log.written) == (3, 5, 0)
    stuck.set()
    log.close()
    lines = logged(tmp_path)
    assert [line["count"] for line in lines if line["kind"] == "dropped"] == [3]
    assert [line["id"] for line in lines if line["kind"] == "served"] == [
        f"doc-{number}" for number in range(5)
    ]


def test_the_queue_is_bounded_in_characters_but_takes_one_long_text(tmp_path, stuck):
    settings = RequestLogSettings(
        keep="text", queue_characters=10_000, text_characters=50_000, flush_seconds=0.01
    )
    log = RequestLog(tmp_path, settings, "toy/1")
    assert log.put(record(0, "x" * 40_000))
    assert not log.put(record(1, "y"))
    stuck.set()
    until(lambda: log.pending == 0 and log.written == 1)
    assert log.put(record(2, "y" * 6_000))
    log.close()
    assert len(logged(tmp_path)[0]["text"]) == 40_000


def test_after_the_end_nothing_is_taken_and_closing_twice_is_well(tmp_path):
    log = fill(tmp_path, [record()])
    log.close()
    assert not log.put(record(1))
    assert log.dropped == 1


def test_a_log_that_is_off_makes_nothing(tmp_path):
    log = RequestLog(tmp_path / "log", RequestLogSettings(enabled=False), "toy/1")
    assert not log.put(record())
    log.close()
    assert not (tmp_path / "log").exists()


def test_records_come_to_the_disk_without_the_end_of_the_process(tmp_path):
    log = RequestLog(tmp_path, RequestLogSettings(flush_seconds=0.01), "toy/1")
    log.put(record())
    until(lambda: log.written == 1)
    assert len(logged(tmp_path)) == 1
    log.close()


def test_a_segment_is_closed_by_size_and_by_age_though_nothing_comes(tmp_path):
    settings = {"segment_bytes": 4_096, "flush_seconds": 0.01}
    log = RequestLog(tmp_path, RequestLogSettings(**settings), "toy/1")
    for number in range(60):
        log.put(record(number))
        until(lambda number=number: log.written == number + 1)
    log.close()
    folder = tmp_path / "segments"
    sizes = [(folder / name).stat().st_size for name in segments.names(folder)]
    assert len(sizes) >= 4
    assert max(sizes) < 4_096 + 1_000
    aged = RequestLog(
        tmp_path / "aged", RequestLogSettings(flush_seconds=0.01, segment_seconds=0.05), "toy/1"
    )
    aged.put(record())
    folder = tmp_path / "aged" / "segments"
    until(lambda: segments.names(folder) and segments.is_closed(folder / segments.names(folder)[0]))
    aged.close()


def test_a_full_disk_costs_records_and_counts_them_but_tears_no_line(tmp_path, monkeypatch):
    log = RequestLog(tmp_path, RequestLogSettings(keep="text", flush_seconds=0.01), "toy/1")
    log.put(record(0))
    until(lambda: log.written == 1)
    whole, failing = os.write, [True]

    def half(file, data):
        if failing and len(data) > 200:
            if failing.pop():
                failing[:] = [False]
                return whole(file, data[:100])
            failing.clear()
            raise OSError(28, "No space left on device")
        return whole(file, data)

    monkeypatch.setattr(segments.os, "write", half)
    log.put(record(1))
    until(lambda: log.dropped == 1)
    log.put(record(2))
    until(lambda: log.written == 2)
    log.close()
    lines = logged(tmp_path)
    # Two segments, begun in the same second.
    assert {line["id"] for line in lines if line["kind"] == "served"} == {"doc-0", "doc-2"}
    assert sum(line["count"] for line in lines if line["kind"] == "dropped") == 1


def test_texts_that_no_encoding_knows_and_odd_values_do_not_stop_the_writer(tmp_path):
    odd = [
        record(0, "lone \ud800 surrogate", id="a\udfff"),
        record(1, score=float("nan")),
        record(2, "\x00\n" * 50),
        record(3, text=None),
        record(4, at="no time", decision=object()),
        record(5),
    ]
    log = fill(tmp_path, odd, keep="masked")
    lines = [line for line in logged(tmp_path) if line["kind"] == "served"]
    assert [line["id"] for line in lines] == ["a?", "doc-1", "doc-2", "doc-3", "doc-5"]
    assert lines[0]["text"] == "lone ? surrogate"
    assert lines[1]["score"] is None
    assert (log.written, log.dropped) == (5, 1)


def test_languages_are_not_told_where_nothing_tells_them(tmp_path, monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'fasttext'", name="fasttext")

    monkeypatch.setattr("tamis.corpus.language._predict", missing)
    log = fill(tmp_path, [record(), record(1)])
    assert [line["language"] for line in logged(tmp_path)] == [None, None]
    assert log.written == 2


def test_threads_lose_and_double_nothing(tmp_path):
    log = RequestLog(tmp_path, RequestLogSettings(queue_records=100_000), "toy/1")

    def many(worker):
        for number in range(500):
            assert log.put(record(f"{worker}-{number}", "short text here"))

    threads = [threading.Thread(target=many, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close(60)
    ids = [line["id"] for line in logged(tmp_path)]
    assert len(ids) == len(set(ids)) == 2_000


def test_putting_costs_microseconds_and_never_waits_for_the_writer(tmp_path, stuck):
    log = RequestLog(tmp_path, RequestLogSettings(queue_records=50_000), "toy/1")
    some = record()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2_000):
            log.put(some)
        times.append((time.perf_counter() - began) / 2_000)
    # About 0.4 us on an idle core; a put that serialised or masked would take hundreds.
    assert min(times) < 10e-6
    stuck.set()
    log.close(30)


def test_files_are_for_the_owner_alone(tmp_path):
    fill(tmp_path / "log", [record()], keep="text")
    folder = tmp_path / "log" / "segments"
    assert folder.stat().st_mode & 0o077 == 0
    assert all((folder / name).stat().st_mode & 0o077 == 0 for name in segments.names(folder))


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        RequestLog(tmp_path / "file", RequestLogSettings(), "toy/1")


@pytest.mark.parametrize(
    ("key", "value"),
    [("keep", "everything"), ("flush_seconds", 0.6), ("queue_records", 0), ("max_bytes", 1 << 20)],
)
def test_settings_that_promise_too_much_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        validate(RequestLogSettings, {key: value}, "serve.log")
