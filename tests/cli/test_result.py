import json
import os

import pytest
from pydantic import ValidationError

from cli.result import DecisionOut, IntervalOut, Result, check_writable, schema, write
from tamis.errors import UsageError

KEYS = {
    "verb", "task", "stack", "status", "run_id", "model_version", "alias", "metrics", "baselines",
    "gains", "cross_validation", "counts", "decision", "drift", "outputs", "seconds",
}  # fmt: skip


def test_the_schema_has_its_keys_and_no_others():
    found = schema()
    assert set(found["properties"]) >= KEYS
    assert found["required"] == ["verb", "stack"]
    assert found["additionalProperties"] is False
    assert set(found["properties"]["status"]["enum"]) == {"done", "refused", "planned"}
    assert set(found["$defs"]["IntervalOut"]["properties"]) == {"value", "low", "high", "n"}
    assert set(found["$defs"]["DecisionOut"]["properties"]) == {"passed", "reasons"}
    json.dumps(found)


def test_every_key_is_written_whatever_happened(tmp_path):
    path = tmp_path / "result.json"
    write(Result(verb="status", stack="local"), path)
    assert set(json.loads(path.read_text())) == set(schema()["properties"])
    assert path.read_text().endswith("}\n")


def test_a_result_survives_its_file(tmp_path):
    path = tmp_path / "result.json"
    result = Result(
        verb="train",
        task="toy",
        stack="local",
        status="refused",
        metrics={"f1": IntervalOut(value=0.5, low=0.4, high=0.6, n=90)},
        decision=DecisionOut(passed=False, reasons=("failed: flöör",)),
        outputs={"report": "/tmp/é.html"},
    )
    write(result, path)
    assert Result.model_validate_json(path.read_text(encoding="utf-8")) == result


def test_unknown_keys_and_states_are_refused():
    with pytest.raises(ValidationError):
        Result(verb="train", stack="local", surprise=1)
    with pytest.raises(ValidationError):
        Result(verb="train", stack="local", status="perhaps")


def test_nothing_asked_for_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable(None)
    write(Result(verb="status", stack="local"), None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_be_written_keeps_its_content(tmp_path):
    path = tmp_path / "result.json"
    check_writable(path)
    path.write_text("earlier")
    check_writable(path)
    assert path.read_text() == "earlier"


@pytest.mark.parametrize("place", ["none/result.json", ".", "file/result.json", "x" * 300])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"^--result: given .*; allowed: a file that can"
    ) as caught:
        check_writable(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_leave_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        check_writable(tmp_path / "result.json")
