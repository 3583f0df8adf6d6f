"""The routes of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from deployment.serving.body import read
from deployment.serving.metrics import exposition
from deployment.serving.problems import Problem, as_problem
from deployment.serving.runtime import Runtime, asked_by
from deployment.serving.schemas import (
    ErrorResponse,
    FeedbackRequest,
    FeedbackResponse,
    LimitsOut,
    ModelName,
    ModelOut,
    PredictRequest,
    PredictResponse,
    ScoreRequest,
    ScoreResponse,
    errors,
)
from deployment.serving.stream import LinesResponse, score_stream

PAGE = Path(__file__).parent / "page"
_REF = "#/components/schemas/{model}"
_BODIES: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
    (model, "validation")
    for model in (ScoreRequest, FeedbackRequest, PredictRequest, ErrorResponse)
]
_EVERY_POST = (400, 401, 408, 413, 415, 422, 429, 503)


def create_app(runtime: Callable[[], Runtime]) -> FastAPI:
    """The application.

    Args:
        runtime: The service at work.
    """
    app = FastAPI(
        title="Tamis",
        version="1",
        summary="Scores documents and says which are worth keeping.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(Exception, _refused)
    _asked(app, runtime)
    _shown(app, runtime)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    """The answer to a request that a route cannot answer."""
    problem = as_problem(error)
    request.state.problem = problem.code
    body = problem.body(request.state.request_id)
    return Response(body, problem.status, problem.headers, media_type="application/json")


def _asked(app: FastAPI, runtime: Callable[[], Runtime]) -> None:
    """Routes that need a key."""

    @app.post("/score", summary="Score documents", response_model=ScoreResponse,
              responses=errors(*_EVERY_POST), openapi_extra=_takes(ScoreRequest))  # fmt: skip
    async def score(request: Request) -> Response:
        """Scores and decisions, in the order of the documents; on request with reasons."""
        one = runtime()
        body = await read(request, one.settings.limits, ScoreRequest)
        found = await one.score(body.documents, asked_by(request), explain=body.explain)
        return _json(
            ScoreResponse(
                request_id=request.state.request_id,
                model=_name(one),
                threshold=one.served.threshold,
                documents=found,
            )
        )

    ndjson: dict[str, Any] = {"application/x-ndjson": {"schema": {"type": "string"}}}

    @app.post(
        "/score_stream",
        summary="Score documents line by line",
        responses={
            200: {"content": ndjson, "description": "A result a line, in order."},
            **errors(401, 415, 429, 503),
        },
        openapi_extra={"requestBody": {"content": ndjson, "required": True}} | _SECURED,
    )
    async def stream(request: Request) -> Response:
        """A document a line in, a result or `{"line", "error"}` a line out; any number of them."""
        return LinesResponse(score_stream(request, runtime()))

    @app.post("/feedback", summary="Label served documents", status_code=202,
              response_model=FeedbackResponse, responses=errors(*_EVERY_POST),
              openapi_extra=_takes(FeedbackRequest))  # fmt: skip
    async def feedback(request: Request) -> Response:
        """What documents that were served should have been given; it may come days later."""
        one = runtime()
        body = await read(request, one.settings.limits, FeedbackRequest)
        accepted = await one.take_feedback(body.labels, request.state.key)
        return _json(FeedbackResponse(accepted=accepted), 202)

    @app.post("/predict", summary="Score documents, in Vertex AI's form",
              response_model=PredictResponse, responses=errors(*_EVERY_POST),
              openapi_extra=_takes(PredictRequest))  # fmt: skip
    async def predict(request: Request) -> Response:
        """As `/score`, for an endpoint of Vertex AI."""
        one = runtime()
        body = await read(request, one.settings.limits, PredictRequest)
        found = await one.score(body.instances, asked_by(request))
        return _json(PredictResponse(predictions=found))


def _shown(app: FastAPI, runtime: Callable[[], Runtime]) -> None:
    """Routes that anybody may ask."""

    @app.get("/model", summary="What is served", response_model=ModelOut)
    async def model() -> Response:
        """The model, its threshold and scale, and what one request may ask for."""
        one = runtime()
        served, limits = one.served, one.settings.limits
        low, high = served.scale
        return _json(
            ModelOut(
                **_name(one).model_dump(),
                backend=served.backend,
                threshold=served.threshold,
                scale=(low, high),
                auth=one.settings.auth == "keys",
                limits=LimitsOut(
                    bytes=limits.body_bytes,
                    documents=limits.documents,
                    characters=limits.characters,
                    explained=limits.explained,
                ),
            )
        )

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        figures, kind = await asyncio.to_thread(exposition)
        return Response(figures, media_type=kind)

    @app.get("/docs.json", include_in_schema=False)
    async def schema() -> dict[str, Any]:
        return describe(app)

    for path, file, kind in (
        ("/", "index.html", "text/html"),
        ("/page.js", "page.js", "text/javascript"),
        ("/page.css", "page.css", "text/css"),
    ):
        app.add_api_route(
            path, _file(PAGE / file, kind), include_in_schema=False, response_class=Response
        )


def _file(path: Path, kind: str) -> Callable[[], Any]:
    async def send() -> FileResponse:
        return FileResponse(path, media_type=kind)

    return send


def _name(runtime: Runtime) -> ModelName:
    served = runtime.served
    return ModelName(task=served.task, version=served.version, digest=served.digest)


def _json(body: BaseModel, status: int = 200) -> Response:
    return Response(body.model_dump_json(exclude_none=True), status, media_type="application/json")


_SECURED: dict[str, Any] = {"security": [{"key": []}]}


def _takes(model: type[BaseModel]) -> dict[str, Any]:
    """A route's body, which it reads itself, for OpenAPI."""
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {"requestBody": {"content": content, "required": True}} | _SECURED


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the routes that BentoML adds."""
    if app.openapi_schema:
        return app.openapi_schema
    found = get_openapi(
        title=app.title, version=app.version, summary=app.summary, routes=app.routes
    )
    _, bodies = models_json_schema(_BODIES, ref_template=_REF)
    parts = found.setdefault("components", {})
    parts["schemas"] = bodies["$defs"] | parts.get("schemas", {})
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    not_ready = get_openapi(
        title="", version="", routes=[r for r in app.routes if getattr(r, "path", "") == "/score"]
    )["paths"]["/score"]["post"]["responses"]["503"]
    for path, summary, more in (
        ("/livez", "Whether the process is alive", {}),
        ("/readyz", "Whether the model is loaded and passed its self-test", {"503": not_ready}),
        ("/metrics", "Figures for Prometheus", {}),
    ):
        good = {"200": {"description": "Yes.", "content": text}}
        found["paths"][path] = {"get": {"summary": summary, "responses": good | more}}
    app.openapi_schema = found
    return found
