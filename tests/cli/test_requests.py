"""The verbs on the log of requests."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.requests import moment
from tamis.errors import ConfigError, DataError, UsageError
from tamis.monitoring.feedback import FeedbackLog, Label
from tamis.monitoring.log_settings import RequestLogSettings
from tests.monitoring.log_tools import fill, record

NOW = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TAMIS_SERVE_LOG", str(tmp_path / "log"))

    def call(*arguments):
        given = ["requests", *map(str, arguments), "--result", str(tmp_path / "r.json")]
        done = CliRunner().invoke(app, given)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output, json.loads((tmp_path / "r.json").read_text())

    return call


@pytest.fixture
def log(tmp_path):
    records = [record(number, f"Text number {number} of them.") for number in range(5)]
    fill(tmp_path / "log", records, keep="masked")
    feedback = FeedbackLog(tmp_path / "log", RequestLogSettings())
    at = datetime.now(UTC)
    feedback.append([Label("doc-1", 3, at), Label("doc-1", 4, at), Label("[red]x", 1, at)])
    feedback.close()
    return tmp_path / "log"


def test_a_window_is_written_and_the_way_on_is_told(invoke, log, tmp_path):
    told, result = invoke("window", "--from", "1h", "--output", tmp_path / "w.jsonl")
    assert "5 documents, 1 labelled" in told
    assert f"retrain --window {tmp_path / 'w.jsonl'}" in told
    assert result["counts"]["documents"] == 5 and result["counts"]["unknown"] == 1
    assert len((tmp_path / "w.jsonl").read_text().splitlines()) == 5


def test_what_the_log_holds_is_shown(invoke, log):
    told, result = invoke("status")
    expected = {"records": 5, "labels": 3, "labelled": 1, "replaced": 1, "unknown": 1}
    assert expected.items() <= result["counts"].items()
    assert result["counts"]["dropped"] == result["counts"]["quarantined"] == 0
    assert "text: masked, for 30 days" in told


def test_an_empty_log_is_shown(invoke, tmp_path):
    (tmp_path / "log").mkdir()
    assert invoke("status")[1]["counts"]["records"] == 0


def test_segments_are_compacted_purged_and_forgotten(invoke, log):
    assert invoke("compact")[1]["counts"]["records"] == 5
    assert invoke("forget", "doc-1", "doc-2")[1]["counts"] == {"records": 2, "labels": 2}
    assert invoke("purge")[1]["counts"]["files"] == 0
    assert invoke("status")[1]["counts"]["records"] == 3
    assert invoke("purge", "--max-bytes", 1 << 20)[1]["counts"]["files"] == 0
    with pytest.raises(ConfigError, match="retention_days"):
        invoke("purge", "--days", 0)


def test_texts_that_were_not_kept_cannot_be_had(invoke, tmp_path):
    fill(tmp_path / "log", [record()])
    with pytest.raises(DataError, match="none with a text .*'none'"):
        invoke("window", "--output", tmp_path / "w.jsonl")
    assert not (tmp_path / "w.jsonl").exists()
    assert invoke("window", "--all", "-o", tmp_path / "w.jsonl")[1]["counts"]["documents"] == 1


def test_a_log_that_is_not_there_is_named(invoke):
    for verb in (["status"], ["purge"], ["compact"], ["window", "-o", "x.jsonl"], ["forget", "x"]):
        with pytest.raises(UsageError, match="a folder that there is"):
            invoke(*verb)


def test_times_are_read_as_people_write_them():
    assert moment("--from", "now", NOW) == NOW
    assert moment("--from", "90m", NOW) == NOW - timedelta(minutes=90)
    assert moment("--from", "1.5d", NOW) == NOW - timedelta(hours=36)
    assert moment("--from", "2026-01-31", NOW) == datetime(2026, 1, 31, tzinfo=UTC)
    assert moment("--from", "2026-01-31T18:30+02:00", NOW).hour == 16


@pytest.mark.parametrize("given", ["", "yesterday", "5x", "h", "1e9d", "-3d", "9" * 30 + "d"])
def test_what_is_no_time_is_refused(given):
    with pytest.raises(UsageError, match="--from"):
        moment("--from", given, NOW)


def test_a_span_has_to_begin_before_it_ends(invoke, log, tmp_path):
    with pytest.raises(UsageError, match="before --to"):
        invoke("window", "--from", "1h", "--to", "2h", "-o", tmp_path / "w.jsonl")
