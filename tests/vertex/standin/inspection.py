"""What Vertex does not have: tests look inside, and break things."""

from __future__ import annotations

import signal
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from tests.vertex.standin.errors import ApiError, missing, refused_state
from tests.vertex.standin.resources import Resource, read_json
from tests.vertex.standin.schedules import start_scheduled
from tests.vertex.standin.state import State


def _without_spec(schedule: Resource) -> Resource:
    """A schedule without its specification, which holds secrets."""
    request = schedule["createPipelineJobRequest"]
    job = {key: value for key, value in request["pipelineJob"].items() if key != "pipelineSpec"}
    return schedule | {"createPipelineJobRequest": request | {"pipelineJob": job}}


def registry() -> APIRouter:
    """An image registry that holds the tags that begin with 1, as far as asking for them goes."""
    routes = APIRouter(prefix="/v2")

    @routes.head("/{path:path}/manifests/{reference}")
    async def manifest(path: str, reference: str) -> Response:
        return Response(status_code=200 if reference.startswith("1") else 404)

    return routes


def router(state: State) -> APIRouter:
    """Routes below ``/standin``."""
    routes = APIRouter(prefix="/standin")

    @routes.get("/requests")
    async def requests() -> Any:
        return {"requests": state.requests}

    @routes.get("/jobs")
    async def jobs() -> Any:
        return {"jobs": sorted(state.runs)}

    @routes.get("/jobs/{job}")
    async def job(job: str) -> Any:
        if job not in state.runs:
            raise missing(f"jobs/{job}")
        resource = state.pipelines.get(job) or state.customs.get(job) or {}
        return {
            "name": resource.get("name"),
            "state": resource.get("state"),
            "labels": resource.get("labels", {}),
            "tasks": {name: run.shown() for name, run in state.runs[job].items()},
        }

    @routes.post("/jobs/{job}/tasks/{task}/kill")
    async def kill(job: str, task: str) -> Any:
        run = state.run(job, task)
        running = [attempt for attempt in run.attempts if attempt.running]
        if not running:
            raise refused_state(f"Task {task} of job {job} is not running.")
        running[-1].signal(signal.SIGKILL)
        return {"pid": running[-1].pid}

    @routes.get("/schedules")
    async def schedules() -> Any:
        return {"schedules": [_without_spec(found) for found in state.schedules.values()]}

    @routes.post("/schedules/{identifier}/tick")
    async def tick(identifier: str) -> Any:
        return start_scheduled(state, state.schedules.found(identifier))

    @routes.post("/serving")
    async def serving(request: Request) -> Any:
        body = await read_json(request)
        model, url = str(body.get("model", "")), str(body.get("url", ""))
        if not model or urlsplit(url).hostname != "127.0.0.1":
            raise ApiError(400, "model and url (http://127.0.0.1:PORT) are required.")
        state.serving[model] = url.rstrip("/")
        return {"serving": state.serving}

    return routes
