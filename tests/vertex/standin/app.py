"""The application: the services under both versions of the API, and our own routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from tests.vertex.standin import endpoints, inspection, jobs, models, schedules
from tests.vertex.standin.errors import ApiError, missing
from tests.vertex.standin.resources import as_message
from tests.vertex.standin.state import Settings, State

_OURS = ("/healthz", "/standin", "/token")


def create_app(settings: Settings) -> FastAPI:
    """A stand-in that has nothing yet."""
    state = State(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # The first of them takes seconds: before being ready, not in a request.
        as_message("CustomJob", {})
        yield
        await state.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.standin = state

    @app.middleware("http")
    async def record(
        request: Request, follow: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if not request.url.path.startswith(_OURS):
            query = f"?{request.url.query}" if request.url.query else ""
            state.requests.append({"method": request.method, "path": request.url.path + query})
        return await follow(request)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error.answer()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return ApiError(error.status_code, message).answer()

    @app.get("/healthz")
    async def healthz() -> Any:
        return {"status": "ok"}

    @app.post("/token")
    async def token() -> Any:
        return {"access_token": "stand-in", "expires_in": 3600, "token_type": "Bearer"}

    async def located(request: Request, version: str, project: str, location: str) -> None:
        if not request.headers.get("authorization", "").startswith("Bearer "):
            raise ApiError(401, "Request is missing required authentication credential.")
        known = project in (settings.project, settings.number) and location == settings.location
        if version not in ("v1", "v1beta1") or not known:
            raise missing(request.url.path)

    prefix = "/{version}/projects/{project}/locations/{location}"
    api = APIRouter(prefix=prefix, dependencies=[Depends(located)])

    @api.get("/operations/{identifier}")
    @api.get("/{kind}/{resource}/operations/{identifier}")
    async def operation(identifier: str) -> Any:
        if identifier not in state.operations:
            raise missing(f"operations/{identifier}")
        return state.operations[identifier]

    for service in (jobs, schedules, models, endpoints):
        api.include_router(service.router(state))
    app.include_router(api)
    app.include_router(inspection.router(state))
    app.include_router(inspection.registry())
    return app
