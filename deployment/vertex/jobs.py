"""Pipeline jobs of Vertex AI: their states, their tasks, and an end to them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deployment.vertex import google
from deployment.vertex.settings import STEPS, VertexStack
from tamis.errors import EngineError, UsageError

_STEP_OF = {step.replace("_", "-"): step for step in STEPS}
"""KFP writes names of steps with dashes."""


@dataclass(frozen=True)
class TaskState:
    """One step of a job, as Vertex sees it.

    Attributes:
        step: Name of the step.
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED``, ``CANCELLED``, ...
        started: When, UTC; None before.
        ended: When, UTC; None before.
        error: What Vertex says went wrong.
    """

    step: str
    state: str
    started: datetime | None
    ended: datetime | None
    error: str

    def hours(self, until: datetime) -> float:
        """Machine-hours so far."""
        if self.started is None:
            return 0.0
        return max(0.0, ((self.ended or until) - self.started).total_seconds() / 3600)


@dataclass(frozen=True)
class JobState:
    """A job at one moment.

    Attributes:
        id: Its id.
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED``, ``CANCELLING``, ``CANCELLED``.
        tasks: Its steps.
        error: What Vertex says went wrong.
        labels: Of the job.
        url: Its page in the console.
    """

    id: str
    state: str
    tasks: tuple[TaskState, ...]
    error: str
    labels: dict[str, str]
    url: str

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("SUCCEEDED", "FAILED", "CANCELLED")


class Jobs:
    """Pipeline jobs of a stack's project and region."""

    def __init__(self, stack: VertexStack) -> None:
        self._vertex = google.begin(stack)
        self._stack = stack

    def get(self, job_id: str) -> JobState:
        """A job as it is now.

        Raises:
            UsageError: There is no such job.
        """
        return self._state(self._find(job_id))

    def ask(self, job_id: str) -> JobState | None:
        """A job as it is now; None where Vertex AI cannot be reached at this moment.

        Raises:
            UsageError: There is no such job.
        """
        import requests
        from google.api_core.exceptions import RetryError, ServerError, TooManyRequests
        from google.auth.exceptions import TransportError

        try:
            return self.get(job_id)
        except (
            ServerError,
            TooManyRequests,
            RetryError,
            TransportError,
            requests.RequestException,
        ):
            return None

    def cancel(self, job_id: str) -> None:
        """Ask Vertex AI to end a job, unless it has; its tasks get a moment to finish.

        Raises:
            UsageError: There is no such job.
        """
        from google.api_core.exceptions import BadRequest

        job = self._find(job_id)
        try:
            job.cancel()
        except BadRequest:
            if not self.get(job_id).finished:
                raise

    def wait_for_end(self, job_id: str, seconds: float, poll: float = 1.0) -> JobState:
        """Wait until nothing more happens.

        Raises:
            EngineError: It did not end in time.
        """
        until = time.monotonic() + seconds
        while not (state := self.get(job_id)).finished:
            if time.monotonic() > until:
                raise EngineError(f"job {job_id} is still {state.state.lower()}; see {state.url}")
            time.sleep(poll)
        return state

    def _find(self, job_id: str) -> Any:
        from google.api_core.exceptions import NotFound

        try:
            return self._vertex.PipelineJob.get(resource_name=job_id)
        except NotFound:
            raise UsageError(
                f"Vertex AI: given job {job_id!r}; allowed: a job of project "
                f"{self._stack.project} in {self._stack.region}"
            ) from None

    def _state(self, job: Any) -> JobState:
        resource = job.gca_resource
        return JobState(
            id=resource.name.rsplit("/", 1)[-1],
            state=_plain(resource.state),
            tasks=tuple(
                _task(detail)
                for detail in resource.job_detail.task_details
                if detail.task_name in _STEP_OF  # there is one for the pipeline itself, too
            ),
            error=resource.error.message,
            labels=dict(resource.labels),
            url=job._dashboard_uri(),
        )


def _task(detail: Any) -> TaskState:
    return TaskState(
        step=_STEP_OF[detail.task_name],
        state=_plain(detail.state),
        started=_moment(detail.start_time),
        ended=_moment(detail.end_time),
        error=detail.error.message,
    )


def _plain(state: Any) -> str:
    return str(state.name).removeprefix("PIPELINE_STATE_")


def _moment(value: Any) -> datetime | None:
    if value is None or value.timestamp() <= 0:
        return None
    return datetime.fromtimestamp(value.timestamp(), UTC)
