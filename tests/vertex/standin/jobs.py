"""The pipeline job and custom job services."""

from __future__ import annotations

import re
import shutil
from typing import Any

from fastapi import APIRouter, Request

from tests.vertex.standin.errors import ApiError, refused_state
from tests.vertex.standin.resources import (
    Resource,
    as_message,
    check_labels,
    new_number,
    now,
    page,
    read_json,
)
from tests.vertex.standin.running import PipelineRun, is_over, run_custom_job, set_state
from tests.vertex.standin.specification import container_of_custom_job, read_pipeline
from tests.vertex.standin.state import Run, State

_JOB_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")
_FIELDS: tuple[str, ...] = (
    "state",
    "display_name",
    "pipeline_name",
    "schedule_name",
    "create_time",
    "update_time",
)
_FIELDS += ("start_time", "end_time", "template_uri", "pipeline_job_user_id")


def create_pipeline_job(state: State, body: Resource, identifier: str) -> Resource:
    """Take a pipeline job and start it.

    Args:
        state: Of the stand-in.
        body: The job as submitted, in the API's own spelling.
        identifier: Its identifier; empty for one made of the pipeline's name and the time.

    Raises:
        ApiError: The job is refused.
    """
    spec = body.get("pipelineSpec")
    if not spec:
        raise ApiError(400, "pipeline_spec or template_uri is required; the stand-in reads specs.")
    name = str(spec.get("pipelineInfo", {}).get("name", "pipeline"))
    if not identifier:
        # Two may start in one second.
        base = f"{name}-{re.sub('[^0-9]', '', now())[:14]}"
        tries = [base, *(f"{base}-{number}" for number in range(2, 1_000))]
        identifier = next(tried for tried in tries if tried not in state.pipelines)
    if not _JOB_ID.fullmatch(identifier):
        raise ApiError(
            400, f"Invalid pipelineJobId {identifier!r}: it must match {_JOB_ID.pattern}."
        )
    if identifier in state.pipelines:
        raise ApiError(409, f"PipelineJob {state.pipelines.name(identifier)} already exists.")
    check_labels(body.get("labels", {}))
    if not body.get("runtimeConfig", {}).get("gcsOutputDirectory", "").startswith("gs://"):
        raise ApiError(400, "runtimeConfig.gcsOutputDirectory is required and starts with gs://.")
    plans = read_pipeline(body)
    moment = now()
    job = body | {
        "name": state.pipelines.name(identifier),
        "displayName": body.get("displayName") or name,
        "createTime": moment,
        "updateTime": moment,
        "state": "PIPELINE_STATE_PENDING",
    }
    shutil.rmtree(state.settings.folder / "jobs" / identifier, ignore_errors=True)
    run = PipelineRun(state, job, plans)
    state.pipelines[identifier] = job
    state.runs[identifier] = run.runs
    state.start(run.work())
    return job


def router(state: State) -> APIRouter:
    """Routes below a location."""
    routes = APIRouter()

    @routes.post("/pipelineJobs")
    async def create(version: str, request: Request) -> Any:
        body = as_message("PipelineJob", await read_json(request), version)
        return create_pipeline_job(state, body, request.query_params.get("pipelineJobId", ""))

    @routes.get("/pipelineJobs")
    async def listed(request: Request) -> Any:
        return page("pipelineJobs", state.pipelines.values(), request.query_params, _FIELDS)

    @routes.get("/pipelineJobs/{identifier}")
    async def get(identifier: str) -> Any:
        return state.pipelines.found(identifier)

    @routes.post("/pipelineJobs/{identifier}:cancel")
    async def cancel(identifier: str) -> Any:
        job = state.pipelines.found(identifier)
        if is_over(job):
            raise refused_state(f"PipelineJob {job['name']} is in a final state: {job['state']}.")
        set_state(job, "PIPELINE_STATE_CANCELLING")
        await state.stop(*state.runs[identifier].values())
        return {}

    @routes.delete("/pipelineJobs/{identifier}")
    async def delete(version: str, identifier: str) -> Any:
        job = state.pipelines.found(identifier)
        if not is_over(job):
            raise refused_state(f"PipelineJob {job['name']} is not in a final state.")
        del state.pipelines[identifier]
        return state.operation(version, "", parent=job["name"])

    @routes.post("/customJobs")
    async def create_custom(version: str, request: Request) -> Any:
        job = as_message("CustomJob", await read_json(request), version)
        if not job.get("displayName"):
            raise ApiError(400, "displayName is required.")
        check_labels(job.get("labels", {}))
        container = container_of_custom_job(job)
        identifier = new_number()
        job |= {"name": state.customs.name(identifier), "createTime": now()}
        set_state(job, "JOB_STATE_PENDING")
        run = Run("workerpool0-0", custom_job=job["name"])
        state.customs[identifier] = job
        state.runs[identifier] = {run.name: run}
        state.start(run_custom_job(state, job, run, container))
        return job

    @routes.get("/customJobs")
    async def list_custom(request: Request) -> Any:
        return page("customJobs", state.customs.values(), request.query_params, _FIELDS)

    @routes.get("/customJobs/{identifier}")
    async def get_custom(identifier: str) -> Any:
        return state.customs.found(identifier)

    @routes.post("/customJobs/{identifier}:cancel")
    async def cancel_custom(identifier: str) -> Any:
        job = state.customs.found(identifier)
        if is_over(job):
            raise refused_state(f"CustomJob {job['name']} is in a final state: {job['state']}.")
        set_state(job, "JOB_STATE_CANCELLING")
        await state.stop(*state.runs[identifier].values())
        return {}

    @routes.delete("/customJobs/{identifier}")
    async def delete_custom(version: str, identifier: str) -> Any:
        job = state.customs.found(identifier)
        if not is_over(job):
            raise refused_state(f"CustomJob {job['name']} is not in a final state.")
        del state.customs[identifier]
        return state.operation(version, "", parent=job["name"])

    return routes
