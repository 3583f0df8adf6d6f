import threading
from datetime import timedelta

import pytest

from tamis.monitoring import feedback
from tamis.monitoring.feedback import FeedbackLog, Label, join, with_labels
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.windows import Reader
from tests.monitoring.log_tools import NOON
from tests.monitoring.test_windows import at, segment

SETTINGS = RequestLogSettings(keep="text")


def label(minutes, number, value, key=None):
    return Label(id=f"doc-{number}", label=value, at=NOON + timedelta(minutes=minutes), key=key)


def give(folder, *labels):
    log = FeedbackLog(folder, SETTINGS)
    taken = log.append(labels)
    log.close()
    return taken


def joined(folder, start=None):
    with Reader(folder, SETTINGS) as reader:
        return join(reader, start)


def test_labels_find_their_requests_however_late_they_come(tmp_path):
    segment(tmp_path, [at(0, 1), at(1, 2), at(2, 3)])
    give(tmp_path, label(1, 1, 4.0), label(60 * 24 * 20, 2, "keep"))
    found = joined(tmp_path)
    assert {place: given.label.label for place, given in found.of.items()} == {
        ("request-1", 0): 4.0,
        ("request-2", 0): "keep",
    }
    assert (found.labels, found.unknown, found.repeated) == (2, 0, 0)


def test_the_last_of_several_counts_whatever_the_order_and_the_others_stay(tmp_path):
    segment(tmp_path, [at(0, 1)])
    give(tmp_path, label(30, 1, 3), label(10, 1, 1))
    give(tmp_path, label(20, 1, 2))
    (given,) = joined(tmp_path).of.values()
    assert given.label.label == 3
    assert [earlier.label for earlier in given.earlier] == [1, 2]


def test_a_label_is_on_the_last_serving_before_it(tmp_path):
    servings = [at(0, 1), at(60, 1, request_id="again"), at(120, 1, request_id="third")]
    segment(tmp_path, servings, number=1)
    give(tmp_path, label(30, 1, 1), label(90, 1, 2))
    found = {place[0]: given.label.label for place, given in joined(tmp_path).of.items()}
    assert found == {"request-1": 1, "again": 2}


def test_an_unknown_id_is_counted_and_a_label_before_the_answer_too(tmp_path):
    segment(tmp_path, [at(10, 1)])
    give(tmp_path, label(11, 99, 1), label(0, 1, 2), label(10 - 0.05, 1, 3))
    found = joined(tmp_path)
    assert (found.labels, found.unknown) == (3, 1)
    # Clocks of two machines may be some seconds apart.
    assert [given.label.label for given in found.of.values()] == [3]


def test_a_key_labels_its_own_documents_only(tmp_path):
    segment(tmp_path, [at(0, 1, key="a"), at(1, 1, key="b", request_id="of-b"), at(2, 2)])
    give(tmp_path, label(5, 1, 1, key="a"), label(6, 2, 7, key="anyone"), label(7, 1, 9, key="c"))
    found = {place[0]: given.label.label for place, given in joined(tmp_path).of.items()}
    assert found == {"request-1": 1, "request-2": 7}


def test_rows_get_their_labels_as_text(tmp_path):
    segment(tmp_path, [at(0, 1), at(1, 2), at(2, 3)])
    give(tmp_path, label(5, 1, 3.0), label(5, 2, 2.5), label(6, 2, 1))
    with Reader(tmp_path, SETTINGS) as reader:
        found = join(reader)
        (batch,) = reader.batches()
    rows = with_labels(batch, found).to_pylist()
    assert [(row["label"], row["labels"]) for row in rows] == [("3", 1), ("1", 2), (None, 0)]
    assert rows[1]["label_at"] == NOON + timedelta(minutes=6)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), True, None, [1], "", "x" * 2_000, 10**30], ids=repr
)
def test_what_is_no_label_is_not_taken(tmp_path, value):
    segment(tmp_path, [at(0, 1)])
    assert give(tmp_path, label(1, 1, value), label(2, 1, 4)) == 1
    found = joined(tmp_path)
    assert (found.labels, found.unreadable) == (1, 0)


def test_a_label_is_on_the_disk_when_it_was_taken(tmp_path, monkeypatch):
    synced = []
    whole = feedback.SegmentWriter.sync
    monkeypatch.setattr(
        feedback.SegmentWriter, "sync", lambda self: (synced.append(self.size), whole(self))
    )
    log = FeedbackLog(tmp_path, SETTINGS)
    assert log.append([label(0, 1, 1)]) == 1
    assert synced and synced[0] > 0
    segment(tmp_path, [at(0, 1)])
    assert joined(tmp_path).labels == 1
    log.close()


def test_torn_and_foreign_lines_cost_no_label(tmp_path):
    segment(tmp_path, [at(0, 1)])
    give(tmp_path, label(1, 1, 4))
    (path,) = (tmp_path / "feedback").iterdir()
    path.write_bytes(b'{"id":3}\n\xff\n' + path.read_bytes() + b'{"id":"doc')
    found = joined(tmp_path)
    assert (found.labels, found.unreadable, len(found.of)) == (1, 3, 1)


def test_threads_give_labels_at_a_time(tmp_path):
    log = FeedbackLog(tmp_path, SETTINGS)

    def many(worker):
        for number in range(20):
            log.append([label(number, f"{worker}-{number}", 1)])

    threads = [threading.Thread(target=many, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len({each.id for each in feedback.read_labels(tmp_path)}) == 80


def test_a_flood_of_labels_for_one_document_is_bounded(tmp_path):
    segment(tmp_path, [at(0, 1, request_id=f"r{n}", index=n) for n in range(300)])
    give(tmp_path, *(label(n / 100, 1, n) for n in range(1_000)))
    found = joined(tmp_path)
    (given,) = found.of.values()
    assert (given.label.label, len(given.earlier), found.labels) == (999, 99, 1_000)
