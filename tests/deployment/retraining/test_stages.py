"""The real stages where no pipeline runs: releases, runs that are taken up, who is told."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from deployment import registry as registry_module
from deployment import runs
from deployment.ledger import Ledger
from deployment.retraining.request import Challenger, Work
from deployment.retraining.stages import PipelineStages
from tamis.decision import Decision, Reason
from tamis.errors import UsageError
from tests.deployment.releasing.stand import FakeVersion, FileRegistry
from tests.deployment.retraining.fakes import request
from tests.tiny import tiny_task

BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
MADE = Challenger(version="2", passed=True, alias="challenger", reasons=("passed: gain",))
WORK = Work(run="000001", at=BEGUN, begun=BEGUN, request=request())


@pytest.fixture
def stages(tmp_path, monkeypatch):
    registry = FileRegistry(tmp_path / "aliases.json")
    registry.set_alias("toy", "champion", "1")
    monkeypatch.setattr(registry_module, "Registry", lambda: registry)
    session = SimpleNamespace(
        ledger=str(tmp_path / "ledger"), shared=str(tmp_path), home=tmp_path, remote=False
    )
    task = tiny_task(tmp_path / "none")
    policy = task.retrain.model_copy(update={"release": "canary"})
    made = PipelineStages(
        session, task.model_copy(update={"retrain": policy}), lambda work: None, lambda *_: None
    )
    made.registry, made.book = registry, Ledger(session.ledger, "toy")
    return made


def serving(stages, monkeypatch, unfinished=None, end="promoted"):
    """A stand-in for what serves, which tells what it was asked for."""
    asked = []
    champion = "2" if end == "promoted" else "1"
    decision = Decision.of([Reason(check="errors", passed=end == "promoted", detail="0 of 20.")])

    def ends(how):
        asked.append(how)
        return SimpleNamespace(champion=champion, decision=decision)

    controller = SimpleNamespace(release=ends, resume=lambda: ends("resume"))
    spec = None if unfinished is None else SimpleNamespace(version=unfinished, kind="release")
    journals = SimpleNamespace(unfinished=lambda: spec and SimpleNamespace(spec=spec))
    made = SimpleNamespace(
        controller=controller, journals=journals, spec=lambda version: version.version
    )
    monkeypatch.setattr(stages, "_serving", lambda registry: made)
    return asked


def test_where_nothing_serves_it_is_promoted_at_once(stages):
    released = stages.release(WORK, MADE)
    assert (released.end, released.champion) == ("promoted", "2")
    assert stages.registry.aliases["champion"] == "2"
    (entry,) = stages.book.entries()
    assert (entry.action, entry.by, entry.previous) == ("promoted", "monitor", "1")
    assert "nothing serves, so there was no release" in entry.reasons
    assert stages.release(WORK, MADE).end == "promoted"
    assert len(stages.book.entries()) == 1, "once"


@pytest.mark.parametrize("end", ["promoted", "rolled back"])
def test_where_something_serves_it_is_released(stages, monkeypatch, end):
    asked = serving(stages, monkeypatch, end=end)
    released = stages.release(WORK, MADE)
    assert (released.end, asked) == (end, ["2"])
    assert "0 of 20." in released.reasons[0]
    assert stages.book.entries() == [], "the release writes the ledger"


def test_a_release_that_was_cut_off_goes_on(stages, monkeypatch):
    asked = serving(stages, monkeypatch, unfinished="2")
    assert stages.release(WORK, MADE).end == "promoted"
    assert asked == ["resume"]


def test_a_release_of_another_version_is_not_touched(stages, monkeypatch):
    asked = serving(stages, monkeypatch, unfinished="7")
    with pytest.raises(UsageError, match="version 7 was cut off"):
        stages.release(WORK, MADE)
    assert asked == []


def test_what_a_release_has_said_is_not_asked_again(stages, monkeypatch):
    asked = serving(stages, monkeypatch)
    stages.book.append("refused", "2", "1", "1", ("failed: errors",), "canary", "000001")
    released = stages.release(WORK, MADE)
    assert (released.end, released.champion, asked) == ("rolled back", "1", [])


def test_a_refusal_of_long_ago_is_no_answer(stages, monkeypatch):
    asked = serving(stages, monkeypatch)
    stages.book.append("refused", "2", "1", "1", ("failed: errors",), "canary", "000001")
    late = Work(**{**vars(WORK), "begun": datetime.now(UTC) + timedelta(minutes=1)})
    assert stages.release(late, MADE).end == "promoted"
    assert asked == ["2"]


def test_a_promotion_that_was_cut_off_is_finished(stages):
    stages.registry.set_alias("toy", "challenger", "2")
    stages.book.append("promoted", "2", "1", "2", (), "monitor")
    assert stages.release(WORK, MADE).end == "promoted"
    assert stages.registry.aliases == {"champion": "2"}
    assert len(stages.book.entries()) == 1


def run(status="completed", minutes=1, window="w", pipeline="p", id="r", task="toy"):
    return SimpleNamespace(
        id=id, status=SimpleNamespace(value=status), created=BEGUN + timedelta(minutes=minutes),
        pipeline=SimpleNamespace(name=pipeline),
        config=SimpleNamespace(parameters={"window_stamp": window, "task": {"name": task}}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "r"), ({"status": "failed"}, None), ({"status": "running"}, None),
     ({"minutes": -10}, None), ({"window": "other"}, None), ({"pipeline": "q"}, None),
     ({"task": "another"}, None)],
)  # fmt: skip
def test_a_pipeline_that_ended_well_is_not_run_again(stages, monkeypatch, given, found):
    monkeypatch.setattr(runs, "recent", lambda session, number: [run(**given)])
    monkeypatch.setattr(runs, "find", lambda name: FakeVersion(name))
    ran = stages._earlier("p", "w", BEGUN)
    assert (None if ran is None else ran.run.version) == found


def test_nobody_is_told_where_the_task_names_nobody(stages):
    from deployment.alerting.message import Message

    assert stages.tell(Message("title", "toy", "ok")) == ()
