"""Run a pipeline on a session's stack, see it through, look back at runs, end one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployment.paths import require_shared_sources
from deployment.session import Session
from deployment.stacks import LocalStack
from deployment.vertex.cost import Cost, of_job, summed
from deployment.vertex.jobs import Jobs, JobState
from deployment.vertex.options import labels_of, pipeline_options, steps_of
from deployment.vertex.watch import Tell, close, look_at, watch
from tamis.errors import EngineError, UsageError

STOP_SECONDS = 120.0


@dataclass(frozen=True)
class Ran:
    """A run that has ended well.

    Attributes:
        run: ZenML's record of it.
        cost: Hours of machines and their price, on a remote stack.
    """

    run: Any
    cost: Mapping[str, float] = field(default_factory=dict)

    def load(self, step: str, output: str) -> Any:
        """An artifact that it made."""
        return self.run.steps[step].outputs[output][0].load()


def submit(
    session: Session,
    pipeline: Any,
    parameters: Mapping[str, Any],
    again: Mapping[str, Any],
    tell: Tell,
    spent: Callable[[Cost], None],
) -> Ran:
    """Run a pipeline and wait for it; a run that loses a machine is submitted again.

    Steps that were done are not done again: their results are cached, and a filter resumes.

    Args:
        session: Open session on the stack.
        pipeline: The pipeline, as it is written.
        parameters: Of the pipeline; ``task`` is one of them.
        again: Parameters that differ when it is submitted again.
        tell: Called with each step that starts or ends on another machine.
        spent: Called with what each job used that has ended, well or not.

    Raises:
        UsageError: The task's documents are where the stack's machines cannot read them.
        StepFailed: A step failed, on a remote stack.
        EngineError: The run could not be seen through.
        Exception: What a step raised, on a local stack.
    """
    stack, task = session.stack, parameters["task"].name
    if isinstance(stack, LocalStack):
        named = pipeline.with_options(run_name=run_name(pipeline.name), tags=[task])
        return Ran(named(**parameters))
    require_shared_sources(parameters["task"])
    jobs = Jobs(stack)
    costs: list[Cost] = []
    for left in range(stack.retries, -1, -1):
        name = run_name(pipeline.name)
        labels = labels_of(stack, task, pipeline.name, name)
        options = pipeline_options(stack, steps_of(pipeline, parameters), labels)
        run = pipeline.with_options(run_name=name, tags=[task], **options)(**parameters)
        job_id = job_of(run)
        if job_id is None:  # every step was cached
            return Ran(find(str(run.id)))
        job = _see_through(jobs, job_id, name, tell)
        costs.append(of_job(stack, job))
        spent(costs[-1])
        run = find(str(run.id))
        if job.state == "SUCCEEDED":
            return Ran(run, summed(costs))
        failed = look_at(run, job)
        close(run, job, str(failed))
        if not failed.lost or not left:
            raise failed
        tell(failed.step, "lost", 0.0)
        parameters = {**parameters, **again}
    raise AssertionError("unreachable")


def _see_through(jobs: Jobs, job_id: str, name: str, tell: Tell) -> JobState:
    try:
        return watch(jobs, job_id, tell)
    except KeyboardInterrupt:
        raise EngineError(
            f"run {name} goes on without this terminal; `python run.py logs {name}` shows it, "
            f"`python run.py stop {name}` ends it (with this --stack)"
        ) from None


def run_name(pipeline: str) -> str:
    """A name for a run that is no other's, fit for a label."""
    return f"{pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def job_of(run: Any) -> str | None:
    """Id of a run's job on Vertex, if it had one."""
    found = run.run_metadata.get("orchestrator_run_id") or run.orchestrator_run_id
    return str(found) if found else None


def find(name: str) -> Any:
    """A run by name, id, or the beginning of either.

    Raises:
        UsageError: There is none, or several.
    """
    from zenml.client import Client
    from zenml.exceptions import ZenKeyError

    try:
        return Client().get_pipeline_run(name)
    except (KeyError, ZenKeyError, ValueError):
        raise UsageError(
            f"run: given {name!r}; allowed: a run's name or id, as `python run.py runs` lists them"
        ) from None


def recent(session: Session, number: int) -> list[Any]:
    """The last runs on the session's stack, newest first."""
    from zenml.client import Client

    client = Client()
    found = client.list_pipeline_runs(
        stack_id=client.active_stack_model.id, size=number, sort_by="desc:created", hydrate=True
    )
    return list(found.items)


def status_of(session: Session, run: Any) -> str:
    """What a run is doing; of a remote one that ZenML thinks goes on, Vertex AI is asked."""
    status = str(run.status.value)
    job_id = job_of(run)
    if run.status.is_finished or job_id is None or isinstance(session.stack, LocalStack):
        return status
    try:
        return Jobs(session.stack).get(job_id).state.lower()
    except UsageError:
        return f"{status}?"


def stop(session: Session, name: str) -> JobState:
    """End a run: its job on Vertex first, then ZenML's record, which cannot do it by itself.

    Raises:
        UsageError: There is no such run, it has ended, or it runs on this machine.
        EngineError: The job did not end in time.
    """
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators import publish_utils

    if isinstance(session.stack, LocalStack):
        raise UsageError("stop: given a run on this machine; allowed: Ctrl-C where it runs")
    run = find(name)
    job_id = job_of(run)
    if run.status.is_finished or job_id is None:
        raise UsageError(f"stop: given {run.name}, which is {run.status.value}; allowed: a run "
                         "that goes on")  # fmt: skip
    publish_utils.publish_pipeline_run_status_update(
        run.id, ExecutionStatus.STOPPING, status_reason="python run.py stop"
    )
    jobs = Jobs(session.stack)
    jobs.cancel(job_id)
    job = jobs.wait_for_end(job_id, STOP_SECONDS)
    close(find(str(run.id)), job, "python run.py stop")
    return job
