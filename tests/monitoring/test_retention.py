import os
from datetime import timedelta

import pytest

from tamis.errors import OutputBusy
from tamis.monitoring import segments
from tamis.monitoring.feedback import FeedbackLog, read_labels
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.request_log import RequestLog
from tamis.monitoring.retention import forget, purge
from tamis.monitoring.windows import compact
from tests.monitoring.log_tools import NOON, record
from tests.monitoring.test_feedback import give, label
from tests.monitoring.test_windows import at, ids, segment

WEEK = RequestLogSettings(keep="text", retention_days=7)
DAY = timedelta(days=1)


def age(path, moment):
    os.utime(path, (moment.timestamp(), moment.timestamp()))


def bytes_of(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_what_is_too_old_goes_texts_and_labels_and_quarantine_and_the_rest_stays(tmp_path):
    segment(tmp_path, [at(0, "old")], more=b"torn old")
    segment(tmp_path, [record("new", at=NOON + 3 * DAY)], at=NOON + 3 * DAY)
    compact(tmp_path, WEEK)
    give(tmp_path, label(5, "old", 1))
    for path in [*(tmp_path / "quarantine").iterdir(), *(tmp_path / "feedback").iterdir()]:
        age(path, NOON)
    give(tmp_path, label(9, "new", 2))
    age(max((tmp_path / "feedback").iterdir(), key=os.path.getmtime), NOON + 3 * DAY)
    left = segment(tmp_path, [at(0, "older")], number=5)
    age(left, NOON)
    assert purge(tmp_path, WEEK, NOON + 7 * DAY).files == 3
    assert ids(tmp_path, NOON - DAY, NOON + 9 * DAY) == ["doc-old", "doc-new"]
    assert purge(tmp_path, WEEK, NOON + 8 * DAY).files == 1
    assert ids(tmp_path, NOON - DAY, NOON + 9 * DAY) == ["doc-new"]
    assert [each.id for each in read_labels(tmp_path)] == ["doc-new"]
    assert b"old" not in bytes_of(tmp_path)


def test_what_is_too_much_goes_oldest_first_and_labels_have_a_room_of_their_own(tmp_path):
    for hour in range(4):
        moment = NOON + timedelta(hours=hour)
        body = os.urandom(400_000).hex()
        segment(tmp_path, [record(hour, body, at=moment)], at=moment)
    compact(tmp_path, RequestLogSettings(keep="text"))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "windows").iterdir())]
    tight = WEEK.model_copy(update={"max_bytes": sum(sizes[2:]) + 100, "segment_bytes": 4_096})
    give(tmp_path, *(label(1, number, 1) for number in range(1_000)))
    purge(tmp_path, tight, NOON)
    assert ids(tmp_path) == ["doc-2", "doc-3"]
    assert len(list(read_labels(tmp_path))) == 1_000
    purge(tmp_path, tight.model_copy(update={"feedback_bytes": 1_000}), NOON)
    assert list(read_labels(tmp_path)) == []
    assert ids(tmp_path) == ["doc-2", "doc-3"]


def test_what_a_living_process_writes_to_stays(tmp_path):
    log = segments.SegmentWriter(tmp_path / "segments", 1 << 20, 60)
    log.append(b"x\n")
    labels = FeedbackLog(tmp_path, WEEK)
    labels.append([label(0, 1, 1)])
    tight = WEEK.model_copy(update={"max_bytes": 1, "feedback_bytes": 1})
    assert purge(tmp_path, tight, NOON).files == 0
    log.close()
    labels.close()
    assert purge(tmp_path, tight, NOON).files == 2


def test_the_service_holds_its_log_to_the_size_by_itself(tmp_path):
    settings = RequestLogSettings(
        keep="text", flush_seconds=0.01, segment_bytes=1 << 18, max_bytes=1 << 20,
        text_characters=100_000, pii_regions=(),
    )  # fmt: skip
    log = RequestLog(tmp_path, settings, "toy/1")
    for number in range(40):
        assert log.put(record(number, os.urandom(40_000).hex()))
        while log.pending:
            pass
    log.close()
    assert log.written == 40
    held = sum(path.stat().st_size for path in (tmp_path / "segments").iterdir())
    assert held < (1 << 20) + 2 * (1 << 18) + 100_000


def test_purging_waits_for_nobody_unless_told_to(tmp_path):
    with segments.maintaining(tmp_path), pytest.raises(OutputBusy):
        purge(tmp_path, WEEK, NOON)


def test_a_document_is_forgotten_everywhere_and_no_other(tmp_path):
    segment(tmp_path, [at(0, 1), at(1, 2), at(70, 1)], more=b'{"id":"doc-1","text":"torn')
    compact(tmp_path, WEEK)
    segment(tmp_path, [at(3, 1), at(4, 3)], number=2)
    give(tmp_path, label(5, 1, 1), label(5, 2, 2))
    gone = forget(tmp_path, ["doc-1"], NOON + DAY)
    assert (gone.records, gone.labels) == (3, 1)
    assert ids(tmp_path) == ["doc-2", "doc-3"]
    assert [each.id for each in read_labels(tmp_path)] == ["doc-2"]
    assert b"doc-1" not in bytes_of(tmp_path)
    assert forget(tmp_path, ["doc-1"], NOON + DAY).records == 0


def test_what_is_still_open_is_forgotten_when_it_is_closed_and_later_servings_stay(tmp_path):
    labels = FeedbackLog(tmp_path, WEEK)
    labels.append([label(5, 1, 1)])
    (tmp_path / "segments").mkdir()
    forget(tmp_path, ["doc-1"], NOON + timedelta(hours=1))
    segment(tmp_path, [at(0, 1), at(90, 1, request_id="later")])
    compact(tmp_path, WEEK)
    assert ids(tmp_path) == ["doc-1"]
    assert len(list(read_labels(tmp_path))) == 1
    labels.close()
    purge(tmp_path, WEEK, NOON)
    assert list(read_labels(tmp_path)) == []


def test_a_note_of_what_is_forgotten_is_itself_deleted_in_time(tmp_path):
    segment(tmp_path, [at(0, 2)])
    forget(tmp_path, ["doc-1"], NOON)
    assert b"doc-1" not in bytes_of(tmp_path)
    assert (tmp_path / "forgotten.jsonl").stat().st_size > 10
    purge(tmp_path, WEEK, NOON + 8 * DAY)
    assert (tmp_path / "forgotten.jsonl").stat().st_size == 0
