import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from deployment.vertex import jobs as polling
from deployment.vertex import watch as watching
from deployment.vertex.jobs import Jobs, JobState, TaskState
from deployment.vertex.watch import StepFailed, look_at, watch
from tamis.errors import EngineError, UsageError

BEGAN = datetime(2025, 5, 1, 12, tzinfo=UTC)
URL = "https://console/job-1"


def task(step, state, seconds=None, error=""):
    started = None if state == "PENDING" else BEGAN
    ended = BEGAN + timedelta(seconds=seconds) if seconds is not None else None
    return TaskState(step, state, started, ended, error)


def job(state, *tasks, error=""):
    return JobState("job-1", state, tasks, error, {}, URL)


@pytest.fixture
def see(monkeypatch):
    """Watch a job that goes through these states: what was told, how long was waited."""
    waits = []
    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=waits.append))

    def seen(*states):
        told, left = [], list(states)
        jobs = SimpleNamespace(ask=lambda job_id: left.pop(0))
        ended = watch(jobs, "job-1", lambda *what: told.append(what))
        assert ended is states[-1] and not left
        return told, waits

    return seen


def test_each_change_is_told_once(see):
    told, waits = see(
        job("PENDING"),
        job("RUNNING", task("ingest", "PENDING"), task("train", "PENDING")),
        job("RUNNING", task("ingest", "RUNNING"), task("train", "PENDING")),
        job("RUNNING", task("ingest", "RUNNING"), task("train", "PENDING")),
        job("RUNNING", task("ingest", "SUCCEEDED", 61.5), task("train", "PENDING")),
        job("RUNNING", task("ingest", "SUCCEEDED", 61.5), task("train", "RUNNING")),
        job("SUCCEEDED", task("ingest", "SUCCEEDED", 61.5), task("train", "SUCCEEDED", 7200)),
    )
    assert told == [
        ("ingest", "started", 0.0),
        ("ingest", "done", pytest.approx(61.5)),
        ("train", "started", 0.0),
        ("train", "done", pytest.approx(7200)),
    ]
    assert len(waits) == 6


def test_vertex_may_be_silent_for_a_while_but_not_for_good(see):
    done = job("SUCCEEDED", task("gate", "SUCCEEDED", 3))
    told, waits = see(job("RUNNING"), *[None] * 60, job("RUNNING"), *[None] * 60, done)
    assert [what for _, what, _ in told] == ["started", "done"] and len(waits) == 122
    with pytest.raises(EngineError, match="has not answered about job job-1 for 61 times"):
        see(job("RUNNING"), *[None] * 61, done)


def test_a_step_that_begins_and_ends_between_two_looks_is_told_whole(see):
    told, _ = see(job("RUNNING"), job("SUCCEEDED", task("gate", "SUCCEEDED", 3)))
    assert told == [("gate", "started", 0.0), ("gate", "done", pytest.approx(3))]


def test_what_did_not_end_well_is_told_too(see):
    told, _ = see(
        job("RUNNING", task("ingest", "RUNNING"), task("join", "RUNNING")),
        job("RUNNING", task("ingest", "FAILED", 5), task("join", "CANCEL_PENDING")),
        job("FAILED", task("ingest", "FAILED", 5), task("join", "CANCELLED", 8),
            task("train", "NOT_TRIGGERED"), task("split", "SKIPPED")),
    )  # fmt: skip
    assert told == [
        ("ingest", "started", 0.0),
        ("join", "started", 0.0),
        ("ingest", "failed", pytest.approx(5)),
        ("join", "cancelled", pytest.approx(8)),
    ]


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED"])
def test_a_job_that_has_ended_is_not_waited_for(see, state):
    assert see(job(state)) == ([], [])


def test_it_looks_ever_less_often_but_not_seldom(see):
    states = [job("CANCELLING")] * 60
    _, waits = see(*states, job("CANCELLED"))
    assert waits[0] == 1.0 and waits == sorted(waits)
    assert waits[1] > 1.0 and waits[-1] == 10.0


def run_with(**steps):
    """ZenML's record of a run: by step, a status or a status and an exception."""
    records = {}
    for name, given in steps.items():
        status, info = given if isinstance(given, tuple) else (given, None)
        records[name] = SimpleNamespace(status=SimpleNamespace(value=status), exception_info=info)
    return SimpleNamespace(name="training-7", steps=records)


def raised(message=None, source="builtins.ValueError", traceback=""):
    return SimpleNamespace(message=message, source=source, traceback=traceback)


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (raised("no labels"), "ValueError: no labels"),
        (raised("no labels", "tamis.errors.DataError"), "DataError: no labels"),
        (raised("no labels", None), "no labels"),
        (raised(None, traceback="Traceback\n  line 3\nAssertionError\n\n"), "AssertionError"),
        (raised(None, traceback=""), "exit code 1"),
        (None, "exit code 1"),
    ],
)
def test_a_step_that_failed(info, told):
    run = run_with(ingest="completed", train=("failed", info))
    failed = look_at(
        run,
        job("FAILED", task("ingest", "SUCCEEDED", 3), task("train", "FAILED", 9, "exit code 1"),
            task("evaluate", "NOT_TRIGGERED"), error="task train failed"),
    )  # fmt: skip
    assert (failed.step, failed.run, failed.lost) == ("train", "training-7", False)
    assert str(failed) == (
        f"step train failed: {told}; all of its log: "
        "`python run.py logs training-7 --step train` (with this --stack)"
    )
    assert isinstance(failed, EngineError) and failed.exit_code == 1


@pytest.mark.parametrize("status", ["running", "initializing", "completed"])
def test_a_step_that_zenml_does_not_call_failed_has_lost_its_machine(status):
    failed = look_at(
        run_with(sift=status), job("FAILED", task("sift", "FAILED", 9, "the VM was preempted"))
    )
    assert (failed.step, failed.lost) == ("sift", True)
    assert str(failed) == f"step sift lost its machine: the VM was preempted; see {URL}"


def test_a_step_that_zenml_never_heard_of_could_not_be_started():
    failed = look_at(
        run_with(ingest="completed"),
        job("FAILED", task("train", "FAILED", 0), error="quota exceeded"),
    )
    assert (failed.step, failed.lost) == ("train", False)
    told = "step train could not be started: Vertex AI gives no reason"
    assert str(failed) == f"{told}; see {URL}"


def test_of_several_the_one_that_raised_is_told_before_the_one_that_was_lost():
    failed = look_at(
        run_with(ingest="running", load_champion=("failed", raised("no champion"))),
        job("FAILED", task("ingest", "FAILED", 5), task("load_champion", "FAILED", 6)),
    )
    assert (failed.step, failed.lost) == ("load_champion", False)
    assert "no champion" in str(failed)


def test_a_job_that_was_cancelled_was_stopped_whatever_its_steps_say():
    failed = look_at(
        run_with(train="running", ingest=("failed", raised("late"))),
        job("CANCELLED", task("ingest", "FAILED", 5), task("train", "CANCELLED", 5)),
    )
    assert (failed.step, failed.lost) == ("", False)
    assert str(failed) == f"run training-7 was stopped; see {URL}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("service account not found", "service account not found"),
        ("", "Vertex AI gives no reason"),
    ],
)
def test_a_job_that_failed_before_any_step(error, told):
    failed = look_at(run_with(), job("FAILED", task("ingest", "PENDING"), error=error))
    assert (failed.step, failed.lost) == ("", False)
    assert str(failed) == f"run training-7 failed: {told}; see {URL}"


def test_what_failed_can_be_caught_as_an_error_of_the_engine():
    error = StepFailed("told", "train", "training-7", True)
    assert str(error) == "told"
    assert (error.step, error.run, error.lost) == ("train", "training-7", True)


class Illegal(Exception):
    """What ZenML says of a run that has ended already."""


@pytest.fixture
def published(monkeypatch):
    """What ZenML was told of steps and runs."""
    told = []

    def update(run, status, status_reason):
        if run == "ended":
            raise Illegal
        told.append((run, status, status_reason))

    publish = SimpleNamespace(
        publish_failed_step_run=lambda step: told.append(("failed", step)),
        publish_stopped_step_run=lambda step: told.append(("stopped", step)),
        publish_pipeline_run_status_update=update,
    )
    statuses = SimpleNamespace(FAILED="failed", STOPPED="stopped")
    fakes = {
        "zenml": SimpleNamespace(),
        "zenml.enums": SimpleNamespace(ExecutionStatus=statuses),
        "zenml.exceptions": SimpleNamespace(IllegalOperationError=Illegal),
        "zenml.orchestrators": SimpleNamespace(publish_utils=publish),
    }
    for name, made in fakes.items():
        monkeypatch.setitem(sys.modules, name, made)
    return told


def record(run, **steps):
    ended = ("completed", "cached", "failed")
    return SimpleNamespace(
        id=run,
        steps={
            name: SimpleNamespace(id=name, status=SimpleNamespace(is_finished=status in ended))
            for name, status in steps.items()
        },
    )


@pytest.mark.parametrize(("state", "status"), [("FAILED", "failed"), ("CANCELLED", "stopped")])
def test_zenml_is_told_of_what_had_no_last_word(published, state, status):
    run = record("run", ingest="completed", train="running", gate="cached", split="initializing")
    watching.close(run, job(state), "step train lost its machine")
    assert published == [
        (status, "train"), (status, "split"), ("run", status, "step train lost its machine"),
    ]  # fmt: skip


def test_a_run_that_has_ended_already_is_left(published):
    watching.close(record("ended", ingest="completed"), job("FAILED"), "late")
    assert not published


def resource(state="PIPELINE_STATE_RUNNING", tasks=(), error=""):
    from google.cloud.aiplatform_v1.types import PipelineJob, PipelineState

    return PipelineJob(
        name="projects/1/locations/us-central1/pipelineJobs/job-1",
        state=PipelineState[state],
        job_detail={"task_details": list(tasks)},
        labels={"task": "toy"},
        error={"message": error},
    )


@pytest.fixture
def vertex(monkeypatch):
    """A client of Vertex that has one job; ``vertex.found`` says what it looks like next."""
    from google.api_core.exceptions import NotFound

    client = SimpleNamespace(found=[], cancelled=0)

    class PipelineJob:
        @staticmethod
        def get(resource_name):
            if resource_name != "job-1":
                raise NotFound("no such job")
            looks = client.found[0] if len(client.found) == 1 else client.found.pop(0)
            return SimpleNamespace(
                gca_resource=looks, _dashboard_uri=lambda: URL, cancel=lambda: cancel(client)
            )

    def cancel(client):
        client.cancelled += 1

    client.PipelineJob = PipelineJob
    monkeypatch.setattr(polling.google, "begin", lambda stack: client)
    return client


STACK = SimpleNamespace(project="my-project-1", region="us-central1")


def test_a_job_as_vertex_describes_it(vertex):
    tasks = [
        {"task_name": "my-pipeline-20250501", "state": "RUNNING", "start_time": BEGAN},
        {"task_name": "load-champion", "state": "SUCCEEDED", "start_time": BEGAN,
         "end_time": BEGAN + timedelta(minutes=30)},
        {"task_name": "train", "state": "FAILED", "start_time": BEGAN, "end_time": BEGAN,
         "error": {"message": "the VM was preempted"}},
        {"task_name": "evaluate", "state": "PENDING"},
    ]  # fmt: skip
    vertex.found = [resource("PIPELINE_STATE_FAILED", tasks, "task train failed")]
    found = Jobs(STACK).get("job-1")
    assert (found.id, found.state, found.finished) == ("job-1", "FAILED", True)
    assert (found.error, found.labels, found.url) == ("task train failed", {"task": "toy"}, URL)
    champion, train, evaluate = found.tasks
    assert (champion.step, champion.state, champion.error) == ("load_champion", "SUCCEEDED", "")
    assert champion.hours(BEGAN + timedelta(days=1)) == 0.5
    assert (train.step, train.state, train.error) == ("train", "FAILED", "the VM was preempted")
    assert (evaluate.step, evaluate.state) == ("evaluate", "PENDING")
    assert (evaluate.started, evaluate.ended, evaluate.hours(BEGAN)) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("state", "finished"),
    [
        ("QUEUED", False), ("PENDING", False), ("RUNNING", False), ("CANCELLING", False),
        ("PAUSED", False), ("SUCCEEDED", True), ("FAILED", True), ("CANCELLED", True),
    ],
)  # fmt: skip
def test_when_nothing_more_happens(vertex, state, finished):
    vertex.found = [resource(f"PIPELINE_STATE_{state}")]
    found = Jobs(STACK).get("job-1")
    assert (found.state, found.finished) == (state, finished)


def test_a_job_that_is_not_there(vertex):
    with pytest.raises(UsageError) as caught:
        Jobs(STACK).get("job-2")
    told = "Vertex AI: given job 'job-2'; allowed: a job of project my-project-1 in us-central1"
    assert str(caught.value) == told


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves."""

    class Clock:
        now = 0.0

        def __init__(self):
            self.waits = []

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds
            self.waits.append(seconds)

    found = Clock()
    monkeypatch.setattr(polling, "time", found)
    return found


def test_a_cancelled_job_is_waited_for(vertex, clock):
    states = ["RUNNING", "RUNNING", "CANCELLING", "CANCELLED"]
    vertex.found = [resource(f"PIPELINE_STATE_{state}") for state in states]
    jobs = Jobs(STACK)
    jobs.cancel("job-1")
    assert vertex.cancelled == 1
    assert jobs.wait_for_end("job-1", 60).state == "CANCELLED"
    assert clock.waits == [1.0, 1.0]


def test_a_job_that_does_not_end_is_given_up(vertex, clock):
    vertex.found = [resource("PIPELINE_STATE_CANCELLING")]
    with pytest.raises(EngineError, match=f"job job-1 is still cancelling; see {URL}"):
        Jobs(STACK).wait_for_end("job-1", 120)
    assert 120 < clock.now <= 122
