"""Runs pipeline jobs and custom jobs, and keeps their states as Vertex does."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.vertex.standin.errors import ApiError
from tests.vertex.standin.processes import Attempt
from tests.vertex.standin.resources import Resource, new_number, now
from tests.vertex.standin.specification import (
    Container,
    TaskPlan,
    container_of,
    container_of_custom_job,
    custom_job_of,
    is_custom_job,
)
from tests.vertex.standin.state import Run, State

_OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "NOT_TRIGGERED", "SKIPPED")


def is_over(job: Resource) -> bool:
    """Whether a job has reached its last state."""
    return str(job["state"]).endswith(("_SUCCEEDED", "_FAILED", "_CANCELLED"))


def set_state(resource: Resource, state: str, error: Resource | None = None) -> None:
    """Move a job or a task to a state, with the times that go with it."""
    moment = now()
    resource["state"] = state
    short = state.removeprefix("PIPELINE_STATE_").removeprefix("JOB_STATE_")
    if short == "RUNNING":
        resource.setdefault("startTime", moment)
    if short in _OVER:
        resource["endTime"] = moment
    if "name" in resource:
        resource["updateTime"] = moment
    if error:
        resource["error"] = error


def _exit_error(code: int) -> Resource:
    return {
        "code": 9,
        "message": f"The replica workerpool0-0 exited with a non-zero status of {code}. ",
    }


def placeholders_of(state: State, job: Resource, number: str, task: str) -> dict[str, str]:
    """What the backend puts in for its placeholders in the containers of a task."""
    config = job.get("runtimeConfig", {})
    return {
        "pipeline_job_name": job["name"].rsplit("/", 1)[1],
        "pipeline_job_resource_name": job["name"],
        "pipeline_job_uuid": number,
        "pipeline_task_name": task,
        "pipeline_task_uuid": new_number(),
        "pipeline_job_create_time_utc": job["createTime"],
        "pipeline_job_schedule_time_utc": job["createTime"],
        "pipeline_root": config.get("gcsOutputDirectory", ""),
        "pipeline_service_account": job.get("serviceAccount", ""),
        "pipeline_google_cloud_location": state.settings.location,
        "pipeline_google_cloud_project_id": state.settings.project,
        "pipeline_persistent_resource_id": "",
    }


class PipelineRun:
    """Runs one pipeline job.

    Args:
        state: Of the stand-in.
        job: The resource, which is kept up to date.
        plans: Its tasks.
    """

    def __init__(self, state: State, job: Resource, plans: list[TaskPlan]) -> None:
        self._state = state
        self._job = job
        self._plans = plans
        self._id = job["name"].rsplit("/", 1)[1]
        self._number = new_number()
        self._root: Resource = {"taskId": new_number(), "taskName": self._id, "state": "PENDING"}
        self._root["createTime"] = now()
        self.runs = {plan.name: Run(plan.name) for plan in plans}
        for run in self.runs.values():
            run.detail.update(
                taskId=new_number(),
                parentTaskId=self._root["taskId"],
                taskName=run.name,
                createTime=now(),
                state="PENDING",
            )
        details = [self._root, *(run.detail for run in self.runs.values())]
        job["jobDetail"] = {"taskDetails": details}

    async def work(self) -> None:
        """Run the graph until nothing is left to start."""
        if self._job["state"] == "PIPELINE_STATE_PENDING":
            set_state(self._job, "PIPELINE_STATE_RUNNING")
        set_state(self._root, "RUNNING")
        running: set[asyncio.Task[None]] = set()
        waiting = list(self._plans)
        while True:
            waiting = self._trigger(waiting, running)
            if not running:
                break
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        self._finish()

    def _trigger(self, waiting: list[TaskPlan], running: set[asyncio.Task[None]]) -> list[TaskPlan]:
        """Start what can start, give up what never will; what is left."""
        states = {name: run.detail["state"] for name, run in self.runs.items()}
        policy = self._job.get("runtimeConfig", {}).get("failurePolicy", "")
        halted = self._job["state"] == "PIPELINE_STATE_CANCELLING" or (
            policy == "PIPELINE_FAILURE_POLICY_FAIL_FAST" and "FAILED" in states.values()
        )
        left = []
        for plan in waiting:
            before = {states[name] for name in plan.after}
            if halted or before & {"FAILED", "CANCELLED", "NOT_TRIGGERED"}:
                states[plan.name] = "NOT_TRIGGERED"
                set_state(self.runs[plan.name].detail, "NOT_TRIGGERED")
            elif before <= {"SUCCEEDED"}:
                running.add(asyncio.create_task(self._run_task(plan)))
            else:
                left.append(plan)
        return self._trigger(left, running) if len(left) < len(waiting) else left

    async def _run_task(self, plan: TaskPlan) -> None:
        run = self.runs[plan.name]
        names = placeholders_of(self._state, self._job, self._number, plan.name)
        custom: Resource | None = None
        try:
            if is_custom_job(plan):
                custom = self._add_custom_job(custom_job_of(plan, names), run)
                run.container = container_of_custom_job(custom)
            else:
                run.container = container_of(plan, names)
        except ApiError as error:
            set_state(run.detail, "FAILED", {"code": 3, "message": error.message})
            return
        main = custom["name"] if custom else self._state.customs.name(new_number())
        run.detail["executorDetail"] = {"containerDetail": {"mainJob": main}}
        folder = self._state.settings.folder / "jobs" / self._id / plan.name
        shown = [(run.detail, "")] + ([(custom, "JOB_STATE_")] if custom else [])
        await run_attempts(self._state, run, run.container, folder, shown, plan.retries)

    def _add_custom_job(self, job: Resource, run: Run) -> Resource:
        identifier = new_number()
        job |= {"name": self._state.customs.name(identifier), "createTime": now()}
        set_state(job, "JOB_STATE_PENDING")
        self._state.customs[identifier] = job
        self._state.runs[identifier] = {"workerpool0-0": run}
        run.custom_job = job["name"]
        return job

    def _finish(self) -> None:
        states = {name: run.detail["state"] for name, run in self.runs.items()}
        failed = sorted(name for name, state in states.items() if state in ("FAILED", "CANCELLED"))
        if self._job["state"] == "PIPELINE_STATE_CANCELLING":
            set_state(self._root, "CANCELLED")
            set_state(self._job, "PIPELINE_STATE_CANCELLED")
        elif failed:
            reason = (
                "The DAG failed because some tasks failed. "
                f"The failed tasks are: [{', '.join(failed)}]."
            )
            where = f"project_id = {self._state.settings.project}, job_id = {self._number}"
            message = f"{reason}; Job ({where}) is failed due to the above error."
            set_state(self._root, "FAILED", {"code": 9, "message": reason})
            set_state(self._job, "PIPELINE_STATE_FAILED", {"code": 9, "message": message})
        else:
            set_state(self._root, "SUCCEEDED")
            set_state(self._job, "PIPELINE_STATE_SUCCEEDED")


async def run_attempts(
    state: State,
    run: Run,
    container: Container,
    folder: Path,
    shown: list[tuple[Resource, str]],
    retries: int,
) -> None:
    """Run a container, again where it failed and may be retried.

    Args:
        state: Of the stand-in.
        run: The task.
        container: What it runs.
        folder: Of the task: each attempt has its own below it.
        shown: Resources to keep up to date, with the prefix of their states.
        retries: How often it may be tried again.
    """

    def show(word: str, error: Resource | None = None) -> None:
        for resource, prefix in shown:
            set_state(resource, prefix + word, error)

    if not await state.slots.take(run.stop):
        show("CANCELLED")
        return
    try:
        show("RUNNING")
        for number in range(1, retries + 2):
            attempt = Attempt(number, folder / str(number))
            run.attempts.append(attempt)
            code = await attempt.run(container, state.settings.environment, run.stop)
            if code == 0 or run.stop.is_set():
                break
        if attempt.stopped:
            show("CANCELLED")
        elif code == 0:
            show("SUCCEEDED")
        else:
            show("FAILED", _exit_error(code))
    except Exception as error:
        # A fault of the stand-in must not leave the job running for ever.
        show("FAILED", {"code": 13, "message": f"Internal error: {type(error).__name__}"})
    finally:
        await state.slots.give()


async def run_custom_job(state: State, job: Resource, run: Run, container: Container) -> None:
    """Run a custom job that was submitted by itself."""
    folder = state.settings.folder / "jobs" / job["name"].rsplit("/", 1)[1] / run.name
    run.container = container
    run.detail = job
    await run_attempts(state, run, container, folder, [(job, "JOB_STATE_")], 0)
