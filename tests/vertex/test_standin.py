"""The jobs and schedules of the stand-in, asked for by the real google-cloud-aiplatform client."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.vertex.standin.trial import (
    AGAIN,
    DEAF,
    FAIL,
    HANG,
    PARENT,
    PROJECT,
    WRITE,
    StandIn,
    alive,
    chain,
    compiled,
    container,
    logged_in,
    states,
    until,
)


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    found = StandIn(tmp_path_factory.mktemp("standin"))
    yield found
    found.end()


@pytest.fixture(scope="module")
def aiplatform(standin, tmp_path_factory):
    with logged_in(standin, tmp_path_factory.mktemp("account")) as client:
        yield client


@pytest.fixture
def submit(aiplatform, tmp_path):
    def submitted(build, job_id, **more):
        job = aiplatform.PipelineJob(
            display_name="demo",
            template_path=compiled(tmp_path / f"{job_id}.json", build),
            job_id=job_id,
            pipeline_root="gs://demo/root",
            enable_caching=False,
            **more,
        )
        job.submit(service_account="runner@demo", network="projects/1/global/networks/demo")
        return job

    return submitted


def test_a_pipeline_runs_its_tasks_in_order(standin, submit, aiplatform):
    job = submit(chain(prepare=WRITE, train=WRITE), "runs-well", labels={"team": "demo"})
    inside = standin.ended("runs-well")
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED"
    assert states(job) == dict.fromkeys(("runs-well", "prepare", "train"), "SUCCEEDED")
    shown = job.gca_resource
    assert shown.name == f"{PARENT}/pipelineJobs/runs-well"
    assert (shown.labels, shown.service_account) == ({"team": "demo"}, "runner@demo")
    assert shown.network.endswith("networks/demo")
    assert job.pipeline_spec["pipelineInfo"]["name"] == "demo"
    tasks = {task.task_name: task for task in job.task_details}
    assert tasks["prepare"].end_time <= tasks["train"].start_time
    assert tasks["train"].executor_detail.container_detail.main_job.startswith(PARENT)
    train = inside["tasks"]["train"]
    assert (train["exit_code"], train["image"]) == (0, "demo/steps:1")
    assert train["env"]["API_TOKEN"] == "***"
    assert len(train["attempts"]) == 1
    folder = standin.folder / "jobs" / "runs-well" / "train" / "1"
    assert Path(train["log"]) == folder / "log.txt"
    assert "said ['runs-well']" in Path(train["log"]).read_text()
    arguments, environment, cwd = json.loads((folder / "seen.json").read_text())
    assert arguments == ["runs-well"]
    assert cwd == environment["STANDIN_WORKDIR"] == str(folder)
    given = environment["TASK"], environment["GIVEN"]
    assert given == ("train of train", "by the stand-in")
    assert environment["SHARED"] == "specification"
    assert environment["API_TOKEN"] == "hush-hush"
    clean = {"PATH", "HOME", "LANG", "TMPDIR", "STANDIN_WORKDIR", "LC_CTYPE"}
    assert set(environment) - {"TASK", "GIVEN", "SHARED", "API_TOKEN"} <= clean
    again = aiplatform.PipelineJob.get("runs-well")
    assert again.gca_resource == job.gca_resource


def test_a_failed_task_fails_the_job_and_starts_nothing_after_it(standin, submit):
    job = submit(chain(prepare=WRITE, train=FAIL, score=WRITE), "fails")
    inside = standin.ended("fails")
    assert states(job)["prepare"] == "SUCCEEDED"
    assert states(job)["train"] == "FAILED"
    assert states(job)["score"] == "NOT_TRIGGERED"
    assert inside["tasks"]["train"]["exit_code"] == 3
    assert inside["tasks"]["score"]["attempts"] == []
    assert "no luck" in Path(inside["tasks"]["train"]["log"]).read_text()
    assert "The failed tasks are: [train]." in job.gca_resource.error.message
    error = next(task.error for task in job.task_details if task.task_name == "train")
    assert "exited with a non-zero status of 3" in error.message
    with pytest.raises(RuntimeError, match=r"failed tasks are: \[train\]"):
        job.wait()


def test_a_cancelled_job_ends_what_runs_and_starts_nothing_more(standin, submit):
    job = submit(chain(train=HANG, score=WRITE), "stopped")
    running = until(lambda: standin.task("stopped", "train")["pid"])
    job.cancel()
    standin.ended("stopped")
    assert job.state.name == "PIPELINE_STATE_CANCELLED"
    assert states(job) == {"stopped": "CANCELLED", "train": "CANCELLED", "score": "NOT_TRIGGERED"}
    assert standin.task("stopped", "train")["exit_code"] == 128 + signal.SIGTERM
    assert not alive(running)
    answer = standin.http.post(f"{standin.api}/pipelineJobs/stopped:cancel")
    assert answer.json()["error"]["status"] == "FAILED_PRECONDITION"


def test_a_killed_task_is_a_preempted_one(standin, submit):
    job = submit(chain(train=DEAF), "preempted")
    log = until(lambda: standin.task("preempted", "train")["log"])
    child = int(until(lambda: Path(log).read_text().strip()))
    assert standin.http.post("/standin/jobs/preempted/tasks/train/kill").status_code == 200
    assert standin.ended("preempted")["tasks"]["train"]["exit_code"] == 137
    assert states(job)["train"] == "FAILED"
    error = next(task.error for task in job.task_details if task.task_name == "train")
    assert "non-zero status of 137." in error.message
    until(lambda: not alive(child))
    again = standin.http.post("/standin/jobs/preempted/tasks/train/kill")
    assert again.json()["error"]["status"] == "FAILED_PRECONDITION"


def test_a_task_that_ignores_sigterm_is_killed_with_its_children(standin, submit):
    job = submit(chain(train=DEAF), "deaf")
    log = until(lambda: standin.task("deaf", "train")["log"])
    child = int(until(lambda: Path(log).read_text().strip()))
    job.cancel()
    assert job.state.name == "PIPELINE_STATE_CANCELLING"
    assert standin.ended("deaf")["tasks"]["train"]["exit_code"] == 137
    assert states(job)["train"] == "CANCELLED"
    until(lambda: not alive(child))


def test_a_task_with_retries_is_tried_again_in_a_new_folder(standin, submit):
    def build():
        container("train", AGAIN)().set_retry(num_retries=2)

    submit(build, "tried-again")
    train = standin.ended("tried-again")["tasks"]["train"]
    assert train["state"] == "SUCCEEDED"
    assert [attempt["exit_code"] for attempt in train["attempts"]] == [1, 0]
    assert [Path(attempt["log"]).parent.name for attempt in train["attempts"]] == ["1", "2"]


def test_no_more_tasks_run_at_once_than_allowed(standin, submit):
    def build():
        for name in ("one", "two", "three"):
            container(name, HANG)()

    job = submit(build, "side-by-side")

    def tasks():
        return list(standin.inside("side-by-side")["tasks"].values())

    until(lambda: sum(task["pid"] is not None for task in tasks()) == 2)
    assert sorted(task["state"] for task in tasks()) == ["PENDING", "RUNNING", "RUNNING"]
    job.cancel()
    found = [task["state"] for task in standin.ended("side-by-side")["tasks"].values()]
    assert found == ["CANCELLED"] * 3


def test_a_wrapped_task_is_a_custom_job(standin, submit, aiplatform):
    from google_cloud_pipeline_components.v1.custom_job import utils

    def build():
        value = 'a "quoted" value of {{$.pipeline_job_name}}'
        wrapped = utils.create_custom_training_job_from_component(
            container("train", WRITE, ["--job", "{{$.pipeline_job_name}}"]),
            display_name="train-on-gpu",
            machine_type="g2-standard-8",
            accelerator_type="NVIDIA_L4",
            accelerator_count=1,
            boot_disk_size_gb=200,
            strategy="SPOT",
            timeout="7200s",
            service_account="runner@demo",
            labels={"team": "demo"},
            env=[{"name": "VALUE", "value": value}, {"name": "EMPTY", "value": ""}],
        )
        wrapped()

    job = submit(build, "wrapped")
    train = standin.ended("wrapped")["tasks"]["train"]
    assert train["state"] == "SUCCEEDED"
    seen = json.loads((Path(train["log"]).parent / "seen.json").read_text())
    assert seen[0] == ["--job", "wrapped"]
    assert seen[1]["VALUE"] == 'a "quoted" value of wrapped'
    assert seen[1]["EMPTY"] == ""
    main = job.task_details[1].executor_detail.container_detail.main_job
    assert main == train["custom_job"]
    custom = aiplatform.CustomJob.get(main)
    assert custom.state.name == "JOB_STATE_SUCCEEDED"
    assert custom.display_name == "train-on-gpu"
    assert custom.labels == {"team": "demo"}
    spec = custom.gca_resource.job_spec
    pool = spec.worker_pool_specs[0]
    assert pool.machine_spec.machine_type == "g2-standard-8"
    assert pool.machine_spec.accelerator_type.name == "NVIDIA_L4"
    assert pool.machine_spec.accelerator_count == 1
    assert pool.replica_count == 1
    assert pool.disk_spec.boot_disk_size_gb == 200
    assert spec.scheduling.strategy.name == "SPOT"
    assert spec.scheduling.timeout.seconds == 7200
    assert spec.service_account == "runner@demo"
    assert train["resources"]["machineSpec"]["acceleratorType"] == "NVIDIA_L4"


def test_custom_jobs_by_themselves(standin, aiplatform):
    def start(code):
        pool = {
            "machine_spec": {"machine_type": "e2-standard-4"},
            "replica_count": 1,
            "container_spec": {
                "image_uri": "demo/steps:1",
                "command": ["python", "-c", code],
                "env": [{"name": "VALUE", "value": "1"}],
            },
        }
        job = aiplatform.CustomJob("alone", [pool], staging_bucket="gs://demo")
        job.submit(scheduling_strategy=aiplatform.gapic.Scheduling.Strategy.SPOT)
        return job, job.resource_name.rsplit("/", 1)[1]

    job, identifier = start(WRITE)
    standin.ended(identifier)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert standin.resource(f"customJobs/{identifier}")["jobSpec"]["scheduling"] == {
        "strategy": "SPOT"
    }
    job, identifier = start(FAIL)
    standin.ended(identifier)
    assert job.state.name == "JOB_STATE_FAILED"
    assert "non-zero status of 3" in job.error.message
    job, identifier = start(HANG)
    until(lambda: standin.task(identifier, "workerpool0-0")["pid"])
    job.cancel()
    standin.ended(identifier)
    assert job.state.name == "JOB_STATE_CANCELLED"
    found = aiplatform.CustomJob.list(filter='display_name="alone" AND state="JOB_STATE_FAILED"')
    assert len(found) == 1


def test_jobs_are_listed_refused_and_deleted(standin, submit, aiplatform):
    from google.api_core import exceptions

    labels = {"run": "listed"}
    for name in ("listed-one", "listed-two"):
        submit(chain(train=WRITE), name, labels=labels)
        standin.ended(name)
    ours = 'labels.run="listed"'
    found = aiplatform.PipelineJob.list(filter=ours, order_by="create_time desc")
    assert [job.name for job in found] == ["listed-two", "listed-one"]
    for passing in ('state="PIPELINE_STATE_SUCCEEDED"', 'pipeline_name="demo"', "labels.run:*"):
        assert len(aiplatform.PipelineJob.list(filter=f"{ours} AND {passing}")) == 2
    for stopping in ('state!="PIPELINE_STATE_SUCCEEDED"', 'display_name="other"'):
        assert aiplatform.PipelineJob.list(filter=f"{ours} AND {stopping}") == []
    full = aiplatform.PipelineJob.list(filter=ours, enable_simple_view=False)
    assert len(full[0].task_details) == 2
    first = standin.http.get(f"{standin.api}/pipelineJobs", params={"pageSize": 1, "filter": ours})
    after = {"pageSize": 1, "filter": ours, "pageToken": first.json()["nextPageToken"]}
    second = standin.http.get(f"{standin.api}/pipelineJobs", params=after).json()
    assert second["pipelineJobs"][0]["name"].endswith("listed-one")
    assert "nextPageToken" not in second
    with pytest.raises(exceptions.BadRequest, match="nonsense"):
        aiplatform.PipelineJob.list(filter="nonsense=1")
    with pytest.raises(exceptions.Conflict):
        submit(chain(train=WRITE), "listed-one")
    with pytest.raises(exceptions.BadRequest, match="label"):
        submit(chain(train=WRITE), "bad-label", labels={"team": "Not Allowed"})
    body = standin.resource("pipelineJobs/listed-one")
    kept = {key: body[key] for key in ("pipelineSpec", "runtimeConfig")}
    where = f"{standin.api}/pipelineJobs"
    answer = standin.http.post(where, params={"pipelineJobId": "Not_Allowed"}, json=kept)
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    answer = standin.http.post(where, json=kept | {"unheardOf": 1})
    assert (answer.status_code, "unheardOf" in answer.text) == (400, True)
    found[0].delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.PipelineJob.get("listed-two")
    assert standin.http.get(where.replace(PROJECT, "other")).status_code == 404
    assert standin.http.get(where, headers={"Authorization": ""}).status_code == 401
    beta = standin.http.get(f"/v1beta1/{PARENT}/pipelineJobs/listed-one")
    assert beta.json() == body


def test_ended_by_a_signal_it_ends_all_its_processes(tmp_path):
    own = StandIn(tmp_path)
    pool = {
        "containerSpec": {"imageUri": "demo", "command": ["python", "-c", DEAF]},
        "replicaCount": 1,
    }
    body = {"displayName": "deaf", "jobSpec": {"workerPoolSpecs": [pool]}}
    job = own.http.post(f"{own.api}/customJobs", json=body).json()["name"].rsplit("/", 1)[1]
    log = until(lambda: own.task(job, "workerpool0-0")["log"])
    child = int(until(lambda: Path(log).read_text().strip()))
    pid = own.task(job, "workerpool0-0")["pid"]
    begun = time.monotonic()
    own.end()
    assert time.monotonic() - begun < 4, "it waited for tasks that ignore SIGTERM"
    assert not alive(pid)
    until(lambda: not alive(child), 5)


def test_a_schedule_is_ticked_paused_resumed_and_deleted(standin, aiplatform, tmp_path):
    from google.api_core import exceptions

    job = aiplatform.PipelineJob(
        display_name="demo",
        template_path=compiled(tmp_path / "scheduled.json", chain(train=WRITE), "scheduled"),
        pipeline_root="gs://demo/root",
        labels={"team": "demo"},
    )
    schedule = job.create_schedule(
        cron="TZ=Europe/Paris 0 3 * * 1",
        display_name="weekly",
        service_account="runner@demo",
        max_run_count=2,
    )
    assert schedule.state.name == "ACTIVE"
    following = schedule.gca_resource.next_run_time
    assert (following.weekday(), following.minute) == (0, 0)
    assert following.hour in (1, 2)
    identifier = schedule.name
    tick = f"/standin/schedules/{identifier}/tick"
    first = standin.http.post(tick).json()["job"].rsplit("/", 1)[1]
    assert first.startswith("scheduled-")
    standin.ended(first)
    again = aiplatform.PipelineJobSchedule.get(identifier)
    assert again.gca_resource.started_run_count == 1
    assert first in again.gca_resource.last_scheduled_run_response.run_response
    assert [found.name for found in again.list_jobs()] == [first]
    run = aiplatform.PipelineJob.get(first)
    assert run.state.name == "PIPELINE_STATE_SUCCEEDED"
    assert run.gca_resource.schedule_name == schedule.resource_name
    assert run.gca_resource.service_account == "runner@demo"
    assert run.gca_resource.labels == {"team": "demo"}

    schedule.pause()
    assert schedule.state.name == "PAUSED"
    assert standin.http.post(tick).status_code == 409
    schedule.resume(catch_up=False)
    schedule.update(cron="0 4 * * *")
    assert aiplatform.PipelineJobSchedule.get(identifier).gca_resource.next_run_time.hour == 4
    found = aiplatform.PipelineJobSchedule.list(filter='display_name="weekly"')
    assert [schedule.name for schedule in found] == [identifier]
    assert aiplatform.PipelineJobSchedule.list(filter='display_name="other"') == []
    shown = standin.http.get("/standin/schedules")
    assert identifier in shown.text
    assert "hush-hush" not in shown.text

    second = standin.http.post(tick).json()["job"].rsplit("/", 1)[1]
    assert second != first
    assert schedule.state.name == "COMPLETED"
    assert standin.http.post(tick).status_code == 409
    schedule.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.PipelineJobSchedule.get(identifier)
    standin.ended(second)
    with pytest.raises(exceptions.BadRequest, match="cron"):
        job.create_schedule(cron="every day", display_name="wrong")


def test_a_schedule_does_not_start_more_runs_than_may_run(standin, aiplatform, tmp_path):
    job = aiplatform.PipelineJob(
        display_name="demo",
        template_path=compiled(tmp_path / "scheduled.json", chain(train=HANG), "busy"),
        pipeline_root="gs://demo/root",
    )
    schedule = job.create_schedule(cron="* * * * *", display_name="busy")
    tick = f"/standin/schedules/{schedule.name}/tick"
    name = standin.http.post(tick).json()["job"]
    assert "still going on" in standin.http.post(tick).json()["skipped"]
    aiplatform.PipelineJob.get(name).cancel()
    standin.ended(name.rsplit("/", 1)[1])
    schedule.delete()


def test_nothing_submitted_is_written_down_but_requests_are(standin, submit):
    submit(chain(train=WRITE), "written")
    standin.ended("written")
    paths = [r["path"] for r in standin.http.get("/standin/requests").json()["requests"]]
    begin = f"{standin.api}/pipelineJobs?pipelineJobId=written"
    assert any(path.startswith(begin) for path in paths)
    assert "/healthz" not in paths
    kept = [path for path in standin.folder.rglob("*") if path.is_file()]
    written = [path.name for path in kept if "hush-hush" in path.read_text(errors="replace")]
    # Only what the tests' own commands wrote of their environment.
    assert set(written) == {"seen.json"}
    assert standin.output.read_text() == ""
