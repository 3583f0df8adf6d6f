"""Journal, cost, double readings and output of a round; a round that is killed goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pyarrow.parquet as pq
import pytest
import yaml

from tamis.annotation.journal import Journal, Reading
from tamis.annotation.purse import CapReached, Purse
from tamis.annotation.selection import read_selection, write_selection
from tamis.corpus.sources import ingest
from tamis.corpus.store import open_store
from tamis.errors import DataError, OutputBusy
from tamis.target import BinaryTarget
from tamis.task import FilesSource, Task
from tests.annotation import rounds
from tests.annotation.judge_server import serving
from tests.annotation.rounds import RUBRIC, ask, numbered, rows, selection
from tests.program import PROJECT

CENTS = {"input": 10_000.0, "output": 10_000.0}
"""A cent a token: 120 tokens, as the server says, are 1.20."""


def reading(number, **more):
    return Reading(sha256=f"{number}", instructions="i", model="m", repeat=0, score=number, **more)


def test_a_round_that_is_killed_asks_only_for_the_rest(tmp_path):
    whole = tmp_path / "whole"
    with serving() as server:
        ask(whole, server.url, selection(numbered(40), double_share=0.3))
        assert len(server.bodies) == 52
    killed = tmp_path / "killed"
    with serving() as server:
        server.gate = (20, threading.Event())
        process = subprocess.Popen(
            [sys.executable, rounds.__file__, str(killed), server.url, "40"],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        ledger = killed / "journal" / "work" / "readings.jsonl"
        try:
            while not (ledger.exists() and ledger.read_bytes().count(b'"sha256"') >= 20):
                assert process.poll() is None
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        server.gate[1].set()
        server.gate = None
        with ledger.open("ab") as file:
            file.write(b'{"readings": [{"sha')  # what a crash may leave
        before = len(server.bodies)
        assert before <= 24
        report = ask(killed, server.url, selection(numbered(40), double_share=0.3))
        assert len(server.bodies) - before == report.sent == 52 - 20
    assert report.cached == 20 and report.documents.labelled == 40
    for name in ("labels.jsonl", "quarantine.jsonl", "source.yaml"):
        assert (killed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()


def test_the_journal_outlives_a_torn_line_and_others_damage(tmp_path):
    with Journal(str(tmp_path / "j")) as journal:
        journal.append([reading(1), reading(2)])
        journal.append([reading(3, reason="Ä\n{")])
    ledger = tmp_path / "j" / "work" / "readings.jsonl"
    lines = ledger.read_bytes()
    ledger.write_bytes(lines + b'{"readings": 7}\nnonsense\n[1]\n' + lines[:30])
    with Journal(str(tmp_path / "j")) as journal:
        assert sorted(r.score for r in journal.readings.values()) == [1, 2, 3]
        assert journal.unreadable == 3
        journal.append([reading(4)])
        with pytest.raises(OutputBusy):
            Journal(str(tmp_path / "j"))
    with Journal(str(tmp_path / "j")) as journal:
        assert sorted(r.score for r in journal.readings.values()) == [1, 2, 3, 4]
        assert journal.readings["3", "i", "m", 0].reason == "Ä\n{"


def test_the_journal_lies_in_an_object_store_too(tmp_path, monkeypatch):
    monkeypatch.setattr("tamis.annotation.journal._LINGER_SECONDS", 0.001)
    with serving() as server:
        chosen = selection(numbered(9))
        for sent in (9, 0):
            with Journal("memory://judged/journal") as journal:
                output = open_store("memory://judged/out")
                limits = rounds.settings(server.url)
                report = rounds.annotate(chosen, limits, journal, output, None)
                assert (report.sent, report.documents.labelled) == (sent, 9)
                assert len(output.read("labels.jsonl").splitlines()) == 9


def test_another_rubric_or_model_is_another_question(tmp_path):
    with serving() as server:
        ask(tmp_path, server.url, selection(numbered(3)))
        other = RUBRIC.model_copy(update={"version": "4"})
        assert ask(tmp_path, server.url, selection(numbered(3), rubric=other)).sent == 3
        terms = selection(numbered(3)).terms.model_copy(update={"model": "judge-70b"})
        chosen = selection(numbered(3)).model_copy(update={"terms": terms})
        assert ask(tmp_path, server.url, chosen).sent == 3
        assert ask(tmp_path, server.url, selection(numbered(4))).sent == 1


@pytest.mark.parametrize("usage", [True, False])
def test_a_run_stops_before_it_costs_more_than_it_may(tmp_path, usage):
    chosen = selection(numbered(30))
    with serving(usage=usage) as server:
        report = ask(tmp_path, server.url, chosen, prices=CENTS, cost_cap=30.0)
        assert report.stopped == "the cost cap is reached"
        assert 0 < report.documents.labelled < 30 and report.cost <= 30.0
        assert report.documents.remaining == 30 - report.documents.labelled
        assert len(rows(tmp_path)) == report.documents.labelled
        again = ask(tmp_path, server.url, chosen, prices=CENTS, cost_cap=30.0)
        assert (again.sent, again.cost, again.stopped) == (0, 0, report.stopped)
        report = ask(tmp_path, server.url, chosen, prices=CENTS, cost_cap=5_000.0)
    assert report.documents.labelled == 30 and report.stopped == ""
    if usage:
        assert report.cost_in_all == pytest.approx(36.0)


def test_money_under_way_is_waited_for_not_given_up():
    async def spend():
        purse = Purse(10.0)
        await purse.reserve(8.0)
        waiting = asyncio.create_task(purse.reserve(5.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await purse.settle(8.0, 1.0)
        await waiting
        await purse.settle(5.0, 5.0)
        with pytest.raises(CapReached):
            await purse.reserve(4.5)
        return purse.spent

    assert asyncio.run(spend()) == 6.0


def test_a_share_is_read_twice_under_another_wording(tmp_path):
    with serving(second=lambda text, score: min(5, score + ("number 1" in text))) as server:
        report = ask(tmp_path, server.url, selection(numbered(20), double_share=0.5))
    assert report.sent == 30 and report.second.labelled == 10
    found = [row for row in rows(tmp_path) if row["second_score"] is not None]
    assert len(found) == report.agreement.n == 10
    differing = [row["id"] for row in found if row["score"] != row["second_score"]]
    assert differing and {pair.id for pair in report.agreement.differing} == set(differing)
    assert report.agreement.exact.value == 1 - len(differing) / 10
    assert 0.8 < report.agreement.kappa.value < 1
    wordings = {body["messages"][0]["content"].partition("\n")[0] for body in server.bodies}
    assert len(wordings) == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "quadratic weighted kappa" in page and differing[0] in page


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_the_labels_are_a_source_of_the_task(tmp_path, form):
    texts = [*numbered(12), "a text\r\nwith odd   \n\n\n\nlines and score 5  "]
    with serving() as server:
        ask(tmp_path, server.url, selection(texts, form=form))
    (entry,) = yaml.safe_load((tmp_path / "out" / "source.yaml").read_text())
    assert "judge-7b, a language model, under the rubric clarity 3" in entry["labels_by"]
    entry["path"] = str(tmp_path / "out" / entry["path"])
    source = FilesSource.model_validate(entry)
    task = Task(name="toy", target=rounds.ORDINAL, sources=(source,))
    found = ingest(task)
    assert found.labels.tolist() == [*(i % 6 for i in range(12)), 5]
    assert found.info.labels_by == entry["labels_by"]
    chosen = selection(texts)
    assert found.strings("sha256").tolist() == [item.sha256 for item in chosen.items]
    if form == "parquet":
        table = pq.read_table(tmp_path / "out" / "labels.parquet")
        assert table["rubric_sha256"][0].as_py() == RUBRIC.sha256
        assert table["rubric_version"][0].as_py() == "3"


def test_classes_are_answered_by_name(tmp_path):
    target = BinaryTarget(kind="binary", negative="bad", positive="good")
    says = {"number 1": ('says {"reason": "r", "score": "bad"}', 9),
            "number 2": ('says {"reason": "r", "score": "ugly"}', 9),
            "number 0": ('says {"reason": "r", "score": "good"}', 9)}  # fmt: skip
    with serving(faults=says) as server:
        report = ask(tmp_path, server.url, selection(numbered(3), target=target, form="parquet"))
    assert report.flaws == {"out_of_scale": 1} and report.histogram == {"bad": 1, "good": 1}
    assert pq.read_table(tmp_path / "out" / "labels.parquet")["score"].to_pylist() == [
        "good", "bad",
    ]  # fmt: skip


def test_a_selection_is_read_as_it_was_written(tmp_path):
    store = open_store(str(tmp_path))
    assert read_selection(store) is None
    chosen = selection(["line\u2028separator", "a\nb", *numbered(3)], double_share=0.25)
    write_selection(store, chosen)
    assert read_selection(store) == chosen
    store.write("selection.jsonl", store.read("selection.jsonl")[:-20])
    with pytest.raises(DataError, match="is damaged"):
        read_selection(store)
