"""One run from end to end, what is done once, and what happens when it fails."""

import os

import pytest

from deployment.retraining.controller import ATTEMPTS, resume, take
from deployment.retraining.journal import Retrains, RunUnderWay
from deployment.retraining.ledger import history_of, outcomes_of
from tamis.errors import EngineError
from tests.deployment.retraining.fakes import (
    ANNOTATE,
    NOW,
    FakeStages,
    books_at,
    facts,
    hours,
    killed,
    policy,
    request,
)

POLICY = policy(annotate=ANNOTATE)


@pytest.fixture
def books(tmp_path):
    return Retrains(str(tmp_path / "ledger"), "toy")


@pytest.fixture
def stages(tmp_path):
    return FakeStages(tmp_path / "traces")


def run(books, stages, asked=None, limits=POLICY, at=NOW):
    return take(asked or request(), stages, books, limits, lambda: at)


def actions(books):
    return [entry.action for entry in books.ledger.entries()]


def test_a_window_that_drifted_ends_in_a_new_champion(books, stages):
    outcome = run(books, stages)
    assert (outcome.end, outcome.run, outcome.challenger.version) == ("promoted", "000001", "2")
    assert stages.calls() == ["monitor", "annotate", "retrain", "release"]
    entries = {entry.action: entry for entry in books.ledger.entries()}
    assert entries["decided"].passed and entries["decided"].documents == 20
    assert "language model" in entries["annotated"].reasons[0]
    assert (entries["ended"].end, entries["ended"].fingerprint) == ("promoted", "f1")
    assert stages.traces("messages") == [
        "toy: the data have drifted", "toy: a new champion was trained and promoted"
    ]  # fmt: skip
    assert books.unfinished() is None
    assert outcomes_of(books.ledger.entries()) == {"promoted": 1}


def test_a_quiet_window_is_decided_on_and_nobody_is_told(books, tmp_path):
    found = facts(rings=False, severity="ok", figures={"p": 0.4})
    stages = FakeStages(tmp_path / "traces", found)
    outcome = run(books, stages)
    assert outcome.end == "quiet"
    assert stages.calls() == ["monitor"]
    assert stages.traces("messages") == []
    assert actions(books) == ["decided", "ended"]
    (decided, _) = books.ledger.entries()
    assert decided.figures == {"p": 0.4}
    assert any("Nothing calls for it" in reason for reason in decided.reasons)
    assert history_of(books.ledger.entries()) == []


@pytest.mark.parametrize(
    ("how", "end", "calls"),
    [({"passed": False}, "refused", 3), ({"end": "rolled back"}, "rolled back", 4)],
)
def test_a_challenger_that_is_no_better_leaves_the_champion(books, tmp_path, how, end, calls):
    stages = FakeStages(tmp_path / "traces", **how)
    outcome = run(books, stages)
    assert (outcome.end, len(stages.calls())) == (end, calls)
    assert outcomes_of(books.ledger.entries()) == {end.replace(" ", "_"): 1}
    assert "the champion stays" in stages.traces("messages")[-1]


def test_a_request_that_comes_twice_is_taken_once(books, stages):
    asked = request("alertmanager", id="k1")
    run(books, stages, asked)
    outcome = run(books, stages, asked, at=hours(1000))
    assert (outcome.end, stages.calls().count("monitor")) == ("ignored", 1)
    ignored = books.ledger.entries()[-1]
    assert ignored.action == "ignored"
    assert "duplicate: run 000001" in ignored.reasons[0]


def test_the_same_window_is_retrained_on_once(books, stages):
    run(books, stages)
    outcome = run(books, stages, at=hours(1000))
    assert outcome.end == "quiet"
    assert "retrained on once" in " ".join(outcome.reasons)
    assert len(stages.traces("versions")) == 1


def test_limits_hold_over_runs(books, tmp_path):
    for number in range(3):
        stages = FakeStages(tmp_path / "traces", facts(fingerprint=f"f{number}"))
        run(books, stages, limits=policy(annotate=ANNOTATE, min_hours_between=10),
            at=hours(11 * number))  # fmt: skip
    decided = [e for e in books.ledger.entries() if e.action == "decided"]
    assert [(e.passed, e.documents) for e in decided] == [(True, 20), (True, 20), (True, 10)]


def test_a_stage_that_fails_is_tried_again_and_then_given_up(books, tmp_path):
    stages = FakeStages(tmp_path / "traces", fails="annotate")
    for _ in range(ATTEMPTS - 1):
        with pytest.raises(EngineError):
            run(books, stages, request(id="k"))
    outcome = run(books, stages, request(id="k"))
    assert outcome.end == "failed"
    assert "3 times" in outcome.reasons[0] and "the judge is away" in outcome.reasons[0]
    assert stages.calls() == ["monitor"] + ["annotate"] * ATTEMPTS
    assert books.unfinished() is None
    assert outcomes_of(books.ledger.entries()) == {"failed": 1}
    assert stages.traces("messages")[-1] == "toy: run 000001 was given up"


def test_an_error_of_others_is_noted_by_its_kind_only(books, stages):
    stages.monitor = lambda work: {}["secret"]
    with pytest.raises(KeyError):
        run(books, stages)
    assert [e.data for e in books.latest().events if e.step == "error"] == [
        {"step": "monitor", "message": "KeyError"}
    ]


def test_who_cannot_be_told_stops_nothing(books, stages):
    def tell(message):
        raise OSError("https://hooks.example/secret")

    stages.tell = tell
    assert run(books, stages).end == "promoted"
    told = [e for e in books.ledger.entries() if e.action == "told"]
    assert [(e.passed, e.reasons) for e in told] == [(False, ("nobody: OSError",))] * 2


def test_a_trigger_finishes_what_was_cut_off_and_then_its_own(books, tmp_path):
    first = FakeStages(tmp_path / "traces", fails="retrain")
    with pytest.raises(EngineError):
        run(books, first, request(id="a"))
    second = FakeStages(tmp_path / "traces", facts(fingerprint="f2"))
    outcome = run(books, second, request(id="b"))
    assert (outcome.run, outcome.end) == ("000002", "quiet")
    assert "cooling down" in " ".join(outcome.reasons)
    assert second.traces("versions") == [["f1", "2"]], "the window of the first is what it was"


def test_resume_without_anything_to_do(books, stages):
    assert resume(stages, books, POLICY) is None


def test_one_of_two_triggers_goes_on(books, tmp_path, stages):
    """A real process is held inside its stage, while this one asks for the same."""
    entered, leave = os.pipe(), os.pipe()

    def wait():
        os.write(entered[1], b"x")
        os.read(leave[0], 1)

    pid = os.fork()
    if pid == 0:
        take(request(), FakeStages(tmp_path / "traces", wait=wait), books_at(tmp_path), POLICY)
        os._exit(0)
    os.read(entered[0], 1)
    outcome = run(books, stages, request("alertmanager", id="k9"))
    with pytest.raises(RunUnderWay):
        resume(stages, books, POLICY)
    os.write(leave[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert outcome.end == "ignored"
    assert "Run 000001 is under way" in outcome.reasons[0]
    ignored = [e for e in books.ledger.entries() if e.action == "ignored"]
    assert [e.request for e in ignored] == ["k9"]
    assert len(stages.traces("versions")) == 1


def test_in_a_bucket_a_lease_is_the_lock(stages):
    books = Retrains("memory://bucket-of-runs/ledger", "toy")
    with Retrains("memory://bucket-of-runs/ledger", "toy").lock():
        assert run(books, stages).end == "ignored"
    assert run(books, stages).end == "promoted"
    assert not books.fs.exists(f"{books.folder}/lock")


def test_a_lease_that_was_lost_stops_the_run(stages):
    books = Retrains("memory://lost-lease/ledger", "toy")
    stages.wait = lambda: books.fs.rm_file(f"{books.folder}/lock")
    with pytest.raises(EngineError, match="was lost"):
        run(books, stages)
    assert "retrain" not in stages.calls()


def places(tmp_path, stages):
    """Moments that differ: after each write, and before it where a stage was done before it."""
    seen = []
    take(request(), stages, books_at(tmp_path, seen=seen), POLICY)
    return [place for place in seen if place[2] == "after" or place[1] == "done"]


@pytest.mark.parametrize("passed", [True, False])
def test_killed_at_every_moment_there_is_one_retraining(tmp_path, passed):
    seen = places(tmp_path / "seen", FakeStages(_folder(tmp_path / "seen"), passed=passed))
    assert len(seen) > 20
    if not passed:  # what comes before is the same
        seen = seen[seen.index(("retrain", "done", "before")) :]
    for number, place in enumerate(seen):
        home = tmp_path / str(number)
        stages = FakeStages(_folder(home), passed=passed)
        asked = request(id="k")

        def once(home=home, stages=stages, asked=asked, place=place):
            take(asked, stages, books_at(home, place=place), POLICY)

        assert killed(once), place
        books = Retrains(str(home / "ledger"), "toy")
        outcome = take(asked, stages, books, POLICY)
        _consistent(books, stages, passed, place)
        # Killed after the end was told, the very same request is a duplicate.
        done = place in (("closed", "note", "after"),)
        assert outcome.end == ("ignored" if done else "promoted" if passed else "refused"), place


def _folder(home):
    home.mkdir()
    return home / "traces"


def _consistent(books, stages, passed, place):
    entries = [e for e in books.ledger.entries() if e.action not in ("ignored", "told")]
    wanted = ["decided", "annotated", "retrained", *(["released"] if passed else []), "ended"]
    assert [e.action for e in entries] == wanted, place
    assert len({e.run for e in entries}) == 1, place
    assert len(stages.traces("versions")) == 1, place
    assert len(set(stages.traces("windows"))) == 1 or place[0] == "opened", place
    assert books.unfinished() is None, place


def test_killed_twice_resume_goes_on(tmp_path):
    stages = FakeStages(tmp_path / "traces")
    at = ("annotate", "begun", "after"), ("release", "done", "before")
    assert killed(lambda: take(request(), stages, books_at(tmp_path, place=at[0]), POLICY))
    assert killed(lambda: resume(stages, books_at(tmp_path, place=at[1]), POLICY))
    books = Retrains(str(tmp_path / "ledger"), "toy")
    assert resume(stages, books, POLICY).end == "promoted"
    assert stages.calls() == ["monitor", "annotate", "retrain", "release", "release"]
    _consistent(books, stages, True, at)


def test_a_step_that_kills_its_process_each_time_is_given_up(tmp_path):
    stages = FakeStages(tmp_path / "traces")
    place = ("retrain", "begun", "after")
    for _ in range(ATTEMPTS):
        assert killed(lambda: take(request(), stages, books_at(tmp_path, place=place), POLICY))
    outcome = resume(stages, Retrains(str(tmp_path / "ledger"), "toy"), POLICY)
    assert outcome.end == "failed"
    assert "was ended each time" in outcome.reasons[0]
    assert "retrain" not in stages.calls()
