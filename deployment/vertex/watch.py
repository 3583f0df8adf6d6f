"""See a job through: tell what its steps do, and why it failed if it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from deployment.vertex.jobs import Jobs, JobState, TaskState
from tamis.errors import EngineError

Tell = Callable[[str, str, float], None]
"""Called with a step, what it did (``started``, ``done``, ``failed``, ``cancelled``, ``lost``),
and its seconds."""
_ENDS = {"SUCCEEDED": "done", "FAILED": "failed", "CANCELLED": "cancelled"}
_FIRST_POLL, _LAST_POLL = 1.0, 10.0
_MOST_UNANSWERED = 60


class StepFailed(EngineError):
    """A run on other machines failed.

    Attributes:
        step: The step that did, or an empty string where it was none of them.
        run: Name of the run.
        lost: Whether its machine was taken away, rather than the step failing.
    """

    def __init__(self, message: str, step: str, run: str, lost: bool) -> None:
        super().__init__(message)
        self.step, self.run, self.lost = step, run, lost


def watch(jobs: Jobs, job_id: str, tell: Tell) -> JobState:
    """Poll a job until it ends; ever less often.

    Raises:
        EngineError: Vertex AI answers no more.
    """
    told: dict[str, str] = {}
    poll = _FIRST_POLL
    unanswered = 0
    while True:
        job = jobs.ask(job_id)
        unanswered = 0 if job is not None else unanswered + 1
        if job is None:
            if unanswered > _MOST_UNANSWERED:
                raise EngineError(
                    f"Vertex AI has not answered about job {job_id} for {unanswered} times; the "
                    "job goes on there, and `python run.py runs` shows it"
                )
            time.sleep(_LAST_POLL)
            continue
        for task in job.tasks:
            _tell_change(task, told, tell)
        if job.finished:
            return job
        time.sleep(poll)
        poll = min(_LAST_POLL, poll * 1.1)


def _tell_change(task: TaskState, told: dict[str, str], tell: Tell) -> None:
    before = told.get(task.step)
    if before == task.state or task.state == "PENDING":
        return
    told[task.step] = task.state
    if before is None and (task.state == "RUNNING" or task.state in _ENDS):
        tell(task.step, "started", 0.0)
    if task.state in _ENDS:
        tell(task.step, _ENDS[task.state], 3600 * task.hours(datetime.now(UTC)))


def look_at(run: Any, job: JobState) -> StepFailed:
    """Why a job ended without success.

    A step that fails says so to ZenML before its process ends. One that Vertex calls failed and
    that ZenML still thinks is running was ended from outside: its machine was taken away.

    Args:
        run: ZenML's record of the run.
        job: Vertex's.
    """
    failed = [task for task in job.tasks if task.state == "FAILED"]
    where = f"see {job.url}"
    if job.state == "CANCELLED":
        return StepFailed(f"run {run.name} was stopped; {where}", "", run.name, False)
    for task in failed:
        known = run.steps.get(task.step)
        if known is not None and known.status.value == "failed":
            told = _exception(known) or _first_line(task.error)
            message = (
                f"step {task.step} failed: {told}; all of its log: "
                f"`python run.py logs {run.name} --step {task.step}` (with this --stack)"
            )
            return StepFailed(message, task.step, run.name, False)
    for task in failed:
        lost = task.step in run.steps
        what = "lost its machine" if lost else "could not be started"
        told = _first_line(task.error) or "Vertex AI gives no reason"
        return StepFailed(f"step {task.step} {what}: {told}; {where}", task.step, run.name, lost)
    told = _first_line(job.error) or "Vertex AI gives no reason"
    return StepFailed(f"run {run.name} failed: {told}; {where}", "", run.name, False)


def _exception(step: Any) -> str:
    info = step.exception_info
    if info is None:
        return ""
    if info.message:
        kind = str(info.source or "").rsplit(".", 1)[-1]
        told = _first_line(info.message)
        return f"{kind}: {told}" if kind else told
    lines = [line for line in info.traceback.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def close(run: Any, job: JobState, reason: str) -> None:
    """Have ZenML's record say how a run ended whose last word never came."""
    from zenml.enums import ExecutionStatus
    from zenml.exceptions import IllegalOperationError
    from zenml.orchestrators import publish_utils

    stopped = job.state == "CANCELLED"
    end_step = (
        publish_utils.publish_stopped_step_run if stopped else publish_utils.publish_failed_step_run
    )
    status = ExecutionStatus.STOPPED if stopped else ExecutionStatus.FAILED
    # The server may end the run with its last step, and another terminal may watch it, too.
    for step in run.steps.values():
        if not step.status.is_finished:
            with suppress(IllegalOperationError):
                end_step(step.id)
    with suppress(IllegalOperationError):
        publish_utils.publish_pipeline_run_status_update(run.id, status, status_reason=reason)
