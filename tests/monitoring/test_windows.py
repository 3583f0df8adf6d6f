import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from tamis.errors import OutputBusy, UsageError
from tamis.monitoring import compaction, segments
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.request_log import Preparation, RequestLog
from tamis.monitoring.windows import Reader, compact, read_window
from tests.monitoring.log_tools import NOON, fill, logger, record
from tests.program import PROJECT

SETTINGS = RequestLogSettings(keep="text")
EVER = (NOON - timedelta(days=2), NOON + timedelta(days=2))


def segment(folder, records, at=NOON, number=1, more=b""):
    """A closed segment that was begun at a moment."""
    line = Preparation(SETTINGS)
    (folder / "segments").mkdir(parents=True, exist_ok=True)
    path = folder / "segments" / f"{at:%Y%m%dT%H%M%S}-77-{number:08x}.jsonl"
    path.write_bytes(b"".join(map(line, records)) + more)
    return path


def ids(folder, start=EVER[0], end=EVER[1], **given):
    return read_window(folder, start, end, columns=["id"], **given).table["id"].to_pylist()


def at(minutes, number, **given):
    return record(number, at=NOON + timedelta(minutes=minutes), **given)


def test_segments_become_windows_by_the_hour_and_are_gone(tmp_path):
    segment(tmp_path, [at(59, 1), at(61, 2), at(62, 3)])
    done = compact(tmp_path, SETTINGS)
    assert (done.segments, done.records, done.quarantined) == (1, 3, 0)
    assert done.windows == ("2026-03-14T12.parquet", "2026-03-14T13.parquet")
    assert segments.names(tmp_path / "segments") == []
    assert ids(tmp_path) == ["doc-1", "doc-2", "doc-3"]
    later = compact(tmp_path, SETTINGS)
    assert (later.segments, later.windows) == (0, ())


def test_a_window_holds_what_was_logged_value_for_value(tmp_path):
    vector = np.linspace(-1, 1, 5, dtype=np.float32)
    settings = {"keep": "embedding", "window": "day"}
    fill(
        tmp_path, [record(1, embedding=vector, key="a"), record(2, score=float("nan"))], **settings
    )
    day = datetime.now(UTC)
    table = read_window(tmp_path, day - timedelta(hours=1), day + timedelta(hours=1)).table
    first, second = table.to_pylist()
    assert np.allclose(first["embedding"], vector, atol=1e-3)
    assert (first["key"], first["language"], first["text"], first["score"]) == (
        "a",
        "en",
        None,
        2.5,
    )
    assert first["at"].tzinfo is not None and abs(first["at"] - day) < timedelta(minutes=1)
    assert (second["score"], second["embedding"]) == (None, None)
    assert {len(path.stem) for path in (tmp_path / "windows").iterdir()} == {len("2026-03-14")}


def test_late_segments_are_added_to_the_window_that_is_there(tmp_path):
    for number in range(5):
        segment(tmp_path, [at(number, number)], number=number)
        compact(tmp_path, SETTINGS)
    assert ids(tmp_path) == [f"doc-{number}" for number in range(5)]
    window = pq.ParquetFile(tmp_path / "windows" / "2026-03-14T12.parquet")
    # Small groups are joined when a window is written anew.
    assert window.num_row_groups <= 2


@pytest.mark.parametrize("failing", range(1, 8))
def test_a_compaction_that_breaks_anywhere_is_done_again_exactly(tmp_path, monkeypatch, failing):
    segment(tmp_path, [at(10, 0)], number=9)
    compact(tmp_path, SETTINGS)
    segment(tmp_path, [at(58, 1), at(61, 2)], more=b"{torn")
    segment(tmp_path, [at(59, 3), at(122, 4)], number=2)
    steps, whole = [0], {name: getattr(os, name) for name in ("fsync", "unlink")}

    def breaking(name):
        def call(*given, **more):
            steps[0] += 1
            if steps[0] == failing:
                raise KeyboardInterrupt
            return whole[name](*given, **more)

        return call

    with monkeypatch.context() as patched:
        for name in whole:
            patched.setattr(os, name, breaking(name))
        with pytest.raises(KeyboardInterrupt):
            compact(tmp_path, SETTINGS)
    segment(tmp_path, [at(60, 5)], number=3)
    assert ids(tmp_path) == ["doc-0", "doc-1", "doc-3", "doc-5", "doc-2", "doc-4"]
    with Reader(tmp_path) as reader:
        assert reader.quarantined() == 1


def test_records_and_drops_of_a_segment_count_once_though_it_could_not_be_removed(
    tmp_path, monkeypatch
):
    drops = b'{"kind":"dropped","at":"2026-03-14T12:05:00Z","count":4}\n'
    segment(tmp_path, [at(1, 1)], more=drops)
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        compact(tmp_path, SETTINGS)
    assert len(segments.names(tmp_path / "segments")) == 1
    compact(tmp_path, SETTINGS)
    found = read_window(tmp_path, *EVER)
    assert (found.table.num_rows, found.dropped) == (1, 4)
    assert read_window(tmp_path, NOON, NOON + timedelta(minutes=5)).dropped == 0


def test_what_a_living_process_writes_is_read_but_not_moved(tmp_path):
    settings = RequestLogSettings(flush_seconds=0.01)
    log = RequestLog(tmp_path, settings, "toy/1")
    log.put(record(1))
    deadline = time.monotonic() + 20
    while not log.written and time.monotonic() < deadline:
        time.sleep(0.005)
    now = datetime.now(UTC)
    span = now - timedelta(hours=1), now + timedelta(hours=1)
    assert ids(tmp_path, *span) == ["doc-1"]
    assert compact(tmp_path, settings).segments == 0
    log.put(record(2))
    log.close()
    assert compact(tmp_path, settings).segments == 1
    assert ids(tmp_path, *span) == ["doc-1", "doc-2"]


def test_a_span_is_exact_and_shadows_are_asked_for(tmp_path):
    segment(tmp_path, [at(n, n, shadow=n == 3) for n in range(6)])
    start, end = NOON + timedelta(minutes=1), NOON + timedelta(minutes=5)
    assert ids(tmp_path, start, end) == ["doc-1", "doc-2", "doc-4"]
    assert ids(tmp_path, start, end, shadow=True) == ["doc-1", "doc-2", "doc-3", "doc-4"]
    assert read_window(tmp_path, end, end + timedelta(days=1)).table.num_rows == 1


BAD = {
    "torn": (b'{"kind":"served","id":"x', "torn"),
    "zeros": (b"\0" * 4_096, "torn"),
    "garbage": (b"\xff\xfe{]\n", "invalid_record"),
    "another kind": (b'{"kind":"other"}\n', "invalid_record"),
    "wrong types": (b'{"kind":"served","id":1}\n', "invalid_record"),
    "deep": (b"[" * 100_000 + b"\n", "invalid_record"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_line_that_is_no_record_is_quarantined_counted_and_costs_no_other(tmp_path, bad):
    raw, reason = BAD[bad]
    segment(tmp_path, [at(1, 1)], more=raw)
    done = compact(tmp_path, SETTINGS)
    assert (done.records, done.quarantined) == (1, 1)
    (noted,) = (tmp_path / "quarantine").iterdir()
    found = json.loads(noted.read_bytes())
    assert found["count"] == 1
    assert found["lines"][0]["line"] == 2 and found["lines"][0]["reason"].startswith(reason)
    window = read_window(tmp_path, *EVER)
    assert (window.table.num_rows, window.quarantined) == (1, 1)


def test_a_line_without_end_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_LONGEST_LINE", 1_000)
    path = segment(tmp_path, [], more=b"x" * 10_000 + b"\n")
    with path.open("ab") as file:
        file.write(Preparation(SETTINGS)(at(2, 2)))
    found = list(segments.lines(path))
    assert [getattr(item, "reason", "line") for item in found] == ["too_long", "line"]
    assert found[1][0] == 2


def test_a_record_of_another_year_opens_no_window(tmp_path):
    segment(tmp_path, [at(1, 1), at(60 * 24 * 400, 2)])
    done = compact(tmp_path, SETTINGS)
    assert (done.records, done.quarantined) == (1, 1)
    assert done.windows == ("2026-03-14T12.parquet",)


def test_a_damaged_window_is_set_aside_and_stops_nothing(tmp_path):
    segment(tmp_path, [at(1, 1)])
    compact(tmp_path, SETTINGS)
    window = tmp_path / "windows" / "2026-03-14T12.parquet"
    window.write_bytes(window.read_bytes()[:-9])
    assert ids(tmp_path) == []
    segment(tmp_path, [at(2, 2)], number=2)
    assert compact(tmp_path, SETTINGS).damaged == 1
    assert ids(tmp_path) == ["doc-2"]
    assert [path.suffix for path in (tmp_path / "quarantine").iterdir()] == [".damaged"]


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    segment(tmp_path, [at(1, 1)])
    (tmp_path / "segments" / "notes.txt").write_text("mine")
    (tmp_path / "windows").mkdir()
    (tmp_path / "windows" / "2026-99-99.parquet").write_text("mine")
    assert ids(tmp_path) == ["doc-1"]
    assert (tmp_path / "segments" / "notes.txt").exists()


def test_only_one_maintains_a_log_and_a_folder_that_is_not_there_is_named(tmp_path):
    with segments.maintaining(tmp_path), pytest.raises(OutputBusy, match="another process"):
        compact(tmp_path, SETTINGS, wait_seconds=0)
    with pytest.raises(UsageError, match="nowhere"):
        read_window(tmp_path / "nowhere", *EVER)


def test_more_records_than_fit_are_refused_not_cut(tmp_path):
    segment(tmp_path, [at(n, n) for n in range(5)])
    with pytest.raises(UsageError, match="more than 4 records"):
        read_window(tmp_path, *EVER, max_records=4)


def test_settings_of_the_service_are_found_and_nonsense_is_not_believed(tmp_path):
    fill(tmp_path, [record()], retention_days=3.0)
    assert Reader(tmp_path).settings.retention_days == 3.0
    (tmp_path / "log.json").write_text('{"settings": {"keep": "all"}}')
    assert Reader(tmp_path).settings == RequestLogSettings()


def _seconds_of(path):
    """From the first answer that a process told of to the last."""
    times = (
        [line.split()[1] for line in path.read_text().splitlines()[:-1]] if path.exists() else []
    )
    return float(times[-1]) - float(times[0]) if times else 0.0


def test_kill_minus_nine_under_load_loses_at_most_the_last_second(tmp_path):
    folder, losses = tmp_path / "log", []
    for round_ in range(3):
        told = [tmp_path / f"told-{round_}-{worker}" for worker in range(2)]
        workers = [subprocess.Popen(logger(folder, path, 300), cwd=PROJECT) for path in told]
        try:
            deadline = time.monotonic() + 60
            while not all(_seconds_of(p) > 1.4 for p in told):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGKILL)
            for worker in workers:
                worker.wait(20)
        now = datetime.now(UTC)
        held = set(ids(folder, now - timedelta(hours=1), now + timedelta(hours=1)))
        for path in told:
            answers = [line.split() for line in path.read_text().splitlines()]
            last = float(answers[-1][1])
            lost = [float(moment) for name, moment in answers if name not in held]
            losses.append(last - min(lost) if lost else 0.0)
    assert max(losses) <= 1.0
    now = datetime.now(UTC)
    found = read_window(folder, now - timedelta(hours=1), now + timedelta(hours=1))
    assert found.dropped == 0
    everything = found.table["id"].to_pylist()
    assert len(everything) == len(set(everything))
    assert "jane@" not in "".join(found.table["text"].to_pylist())


def test_compaction_is_killed_for_real_and_nothing_is_lost(tmp_path):
    for number in range(12):
        segment(tmp_path, [at(n, f"{number}-{n}") for n in range(200)], number=number)
    program = (
        "import sys; from pathlib import Path; from tamis.monitoring.windows import compact; "
        "from tamis.monitoring.log_settings import RequestLogSettings; print('go', flush=True); "
        "compact(Path(sys.argv[1]), RequestLogSettings())"
    )
    for pause in (0.0, 0.03):
        worker = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE
        )
        worker.stdout.readline()
        time.sleep(pause)
        worker.kill()
        worker.wait(20)
        worker.stdout.close()
    found = ids(tmp_path)
    assert len(found) == len(set(found)) == 2_400


def test_a_day_of_work_is_taken_in_hour_by_hour(tmp_path, monkeypatch):
    for hour in range(6):
        moment = NOON + timedelta(hours=hour)
        segment(tmp_path, [record(hour, at=moment)], at=moment)
    opened = []
    whole = compaction._Part

    def counted(*given):
        opened.append(len(list((tmp_path / "windows").glob(".tmp-*"))))
        return whole(*given)

    monkeypatch.setattr(compaction, "_Part", counted)
    assert len(compact(tmp_path, SETTINGS).windows) == 6
    assert max(opened) <= 2
