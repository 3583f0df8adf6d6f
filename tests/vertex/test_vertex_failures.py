"""What goes wrong on Vertex AI: a step that raises, a run that is stopped, a lost machine."""

import json
import os
import re
import signal

import psutil
import pytest

from tests.program import SMALL_TASK, small_task
from tests.vertex.cluster import id_of

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]

BROKEN = """\
name: broken
target: {kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 2}
sources: [{kind: files, path: "gs://tamis-test/labels.csv", columns: {text: text, label: score}}]
gate: {floor: 0.1, beat: [median]}
"""


@pytest.fixture(scope="module")
def ready(cluster, up):
    return cluster


def test_a_step_that_raises_ends_the_run(ready):
    ready.put("labels.csv", "text,score\n" + "\n".join(f"text {n},no number" for n in range(30)))
    task = small_task(ready.folder / "broken", BROKEN)
    jobs = len(ready.jobs())
    failed = ready.run("train", "--task", task)
    assert failed.code == 1
    said = failed.err.strip().splitlines()[-1]
    assert said.startswith("error: step ingest failed: DataError: broken: no usable document")
    assert "Traceback" not in failed.err
    assert re.search(r"ingest \| .*no usable document", failed.out)
    job = ready.jobs()[0]
    assert len(ready.jobs()) == jobs + 1  # a step that raises is not tried again
    assert job["state"] == "PIPELINE_STATE_FAILED"
    tasks = ready.inside(job)["tasks"]
    assert tasks["ingest"]["state"] == "FAILED" and tasks["ingest"]["exit_code"] == 1
    assert not any(tasks[name]["attempts"] for name in tasks if name != "ingest")
    shown = ready.run("logs", job["labels"]["run"])
    assert shown.code == 0 and "no usable document" in shown.out
    listed = ready.run("runs")
    assert re.search(rf"{job['labels']['run']} .*failed", listed.out)


def test_a_run_is_stopped_on_both_sides(ready):
    task = small_task(ready.folder / "stopped", SMALL_TASK.replace("small", "stopped"))
    known = {id_of(job) for job in ready.jobs()}
    with ready.started("train", "--task", task) as process:
        job = ready.until(lambda: next((j for j in ready.jobs() if id_of(j) not in known), None))
        name = job["labels"]["run"]
        step = ready.until(lambda: running(ready, job))
        stopped = ready.run("stop", name)
        assert stopped.code == 0, stopped.err
        assert "is cancelled" in stopped.out
        assert process.wait(timeout=60) == 1
    assert f"run {name} was stopped" in process.output()
    assert ready.jobs()[0]["state"] == "PIPELINE_STATE_CANCELLED"
    assert not psutil.pid_exists(step["pid"])
    status = ready.zenml(f"print(json.dumps(Client().get_pipeline_run('{name}').status))")
    assert status == "stopped"
    again = ready.run("stop", name)
    assert again.code == 2 and "allowed: a run that goes on" in again.err


def running(cluster, job):
    tasks = cluster.inside(job)["tasks"].values()
    return next((task for task in tasks if task["state"] == "RUNNING" and task["pid"]), None)


def test_a_lost_machine_is_replaced_and_the_filter_resumes(ready, task, trained):
    words = ["energy", "matter", "history", "river", "number", "market", "music", "island"]
    for shard in range(8):
        lines = [
            json.dumps({"id": f"{shard}-{row}", "text": " ".join(words[(shard * row + k) % 8]
                        for k in range(60)) + f" {shard} {row}"})
            for row in range(400)
        ]  # fmt: skip
        ready.put(f"long/part-{shard}.jsonl", "\n".join(lines))
    known = {id_of(job) for job in ready.jobs()}
    arguments = ("filter", "--task", task, "-i", "gs://tamis-test/long/*.jsonl", "-j", "1",
                 "-o", "gs://tamis-test/lost", "--fresh",
                 "--set", "filter.near_duplicates.enabled=false")  # fmt: skip
    with ready.started(*arguments) as process:
        job = ready.until(lambda: next((j for j in ready.jobs() if id_of(j) not in known), None))
        first = ready.until(lambda: ready.bucket.glob("tamis-test/lost/manifest/*.json"))
        before = {name: ready.bucket.cat_file(name) for name in first}
        killed = ready.vertex("POST", f"/standin/jobs/{id_of(job)}/tasks/sift/kill")
        assert killed.status_code == 200
        assert process.wait(timeout=300) == 0, process.output()
    said = process.output()
    assert "sift lost its machine; the run is submitted again" in said
    assert len(before) < 8, "the filter was done before its machine was taken away"
    new = [job for job in ready.jobs() if id_of(job) not in known]
    assert sorted(job["state"] for job in new) == [
        "PIPELINE_STATE_FAILED", "PIPELINE_STATE_SUCCEEDED"
    ]  # fmt: skip
    # What was committed before the loss is what it was, though the first run was --fresh.
    assert all(ready.bucket.cat_file(name) == content for name, content in before.items())
    assert len(ready.bucket.glob("tamis-test/lost/manifest/*.json")) == 8
    assert "in 3,200 = " in said
    labels = {job["state"]: job["labels"]["run"] for job in new}
    code = "print(json.dumps([Client().get_pipeline_run(n).status for n in %r]))"
    lost_and_found = (labels["PIPELINE_STATE_FAILED"], labels["PIPELINE_STATE_SUCCEEDED"])
    assert ready.zenml(code % (lost_and_found,)) == ["failed", "completed"]


def test_a_terminal_that_is_closed_leaves_the_run_alone(ready):
    task = small_task(ready.folder / "left", SMALL_TASK.replace("small", "left"))
    known = {id_of(job) for job in ready.jobs()}
    with ready.started("train", "--task", task) as process:
        job = ready.until(lambda: next((j for j in ready.jobs() if id_of(j) not in known), None))
        ready.until(lambda: "▸" in process.output())
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 1
    name = job["labels"]["run"]
    assert f"run {name} goes on without this terminal" in process.output()
    assert running(ready, job)
    assert ready.run("stop", name).code == 0


def test_a_schedule_is_made_ticks_pauses_and_goes_on_both_sides(ready, task, trained, window):
    create = ("schedule", "create", "monitor", "--task", task, "--cron", "0 3 * * 1", "-i")
    refused = ready.run(*create, window[0])
    assert refused.code == 2 and "which lies on this machine" in refused.err
    made = ready.run(*create, window[1])
    assert made.code == 0, made.err
    listed = ready.run("schedule", "list")
    assert re.search(r"small-monitor +0 3 \* \* 1 +active +active", listed.out), listed.out

    (schedule,) = ready.vertex("GET", "/standin/schedules").json()["schedules"]
    number = schedule["name"].rsplit("/", 1)[-1]
    ticked = ready.vertex("POST", f"/standin/schedules/{number}/tick").json()
    job = ticked["job"].rsplit("/", 1)[-1]
    found = ready.until(
        lambda: next((j for j in ready.jobs() if id_of(j) == job and j.get("endTime")), None)
    )
    assert found["state"] == "PIPELINE_STATE_SUCCEEDED"
    assert found["labels"]["task"] == "small" and found["labels"]["run"] == "small-monitor"
    (line,) = ready.bucket.glob("tamis-test/monitoring/small/windows/*.json")
    seen = json.loads(ready.bucket.cat_file(line))
    assert (seen["version"], seen["documents"], seen["rang"]) == ("1", 179, True)

    assert ready.run("schedule", "pause", "small-monitor").code == 0
    assert re.search(r"small-monitor .* paused +paused", ready.run("schedule", "list").out)
    assert ready.vertex("POST", f"/standin/schedules/{number}/tick").status_code == 409
    assert ready.run("schedule", "resume", "small-monitor").code == 0
    assert re.search(r"small-monitor .* active +active", ready.run("schedule", "list").out)
    assert ready.run("schedule", "delete", "small-monitor").code == 0
    assert "no schedule" in ready.run("schedule", "list").out
