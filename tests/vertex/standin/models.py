"""The model service: the registry with its versions and aliases."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request

from tests.vertex.standin.errors import ApiError, missing, refused_state
from tests.vertex.standin.resources import (
    Resource,
    as_message,
    check_labels,
    new_number,
    now,
    page,
    patch,
    read_json,
)
from tests.vertex.standin.state import State

_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_MODEL_ID = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}")
_FIELDS = ("display_name", "create_time", "update_time", "model", "version_id")
_UPDATED = ("display_name", "description", "version_description", "labels", "metadata")


def find_version(state: State, name: str) -> Resource:
    """One version of a model.

    Args:
        state: Of the stand-in.
        name: The model's identifier or full name, with ``@`` and a version or an alias; the
            default version without.

    Raises:
        ApiError: There is none.
    """
    identifier, _, version = name.rsplit("/", 1)[-1].partition("@")
    versions: dict[str, Resource] = state.models.found(identifier)["versions"]
    wanted = version or "default"
    for number, found in versions.items():
        if wanted == number or wanted in found.get("versionAliases", []):
            return found
    raise missing(f"{state.models.name(identifier)}@{wanted}")


def _set_aliases(state: State, model: Resource, changes: list[str]) -> None:
    """Give aliases to a version, or take those away that begin with a dash."""
    identifier = model["name"].rsplit("/", 1)[1]
    for change in changes:
        alias = change.removeprefix("-")
        if not _ALIAS.fullmatch(alias):
            raise ApiError(400, f"Invalid version alias {alias!r}.")
    versions = state.models[identifier]["versions"].values()
    for change in changes:
        alias = change.removeprefix("-")
        if change == "-default":
            raise refused_state("The alias default can be moved, but not removed.")
        for version in versions if not change.startswith("-") else [model]:
            if alias in version.get("versionAliases", []):
                version["versionAliases"].remove(alias)
        if not change.startswith("-"):
            model.setdefault("versionAliases", []).append(alias)


def _deployed(state: State, name: str, version: str | None = None) -> bool:
    return any(
        deployed["model"].partition("@")[0] == name
        and version in (None, deployed["modelVersionId"])
        for endpoint in state.endpoints.values()
        for deployed in endpoint.get("deployedModels", [])
    )


def _upload(state: State, body: Resource, version: str) -> Resource:
    model = as_message("Model", body.get("model", {}), version)
    parent = body.get("parentModel") or body.get("parent_model") or ""
    identifier = body.get("modelId") or body.get("model_id") or ""
    if not model.get("displayName"):
        raise ApiError(400, "model.displayName is required.")
    check_labels(model.get("labels", {}))
    if "containerSpec" in model and not model["containerSpec"].get("imageUri"):
        raise ApiError(400, "model.containerSpec.imageUri is required.")
    if parent:
        identifier = parent.rsplit("/", 1)[1].partition("@")[0]
        state.models.found(identifier)
    elif identifier and (not _MODEL_ID.fullmatch(identifier) or identifier in state.models):
        status = 409 if identifier in state.models else 400
        raise ApiError(status, f"Model id {identifier!r} is taken or not allowed.")
    identifier = identifier or new_number()
    aliases = model.pop("versionAliases", [])
    if not all(_ALIAS.fullmatch(alias) for alias in aliases):
        raise ApiError(400, f"Invalid version alias among {aliases}.")
    entry = state.models.setdefault(identifier, {"versions": {}, "last": 0})
    entry["last"] += 1
    moment = now()
    model |= {
        "name": state.models.name(identifier),
        "versionId": str(entry["last"]),
        "versionCreateTime": moment,
        "versionUpdateTime": moment,
        "createTime": moment,
        "updateTime": moment,
        "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
        "etag": new_number(),
    }
    if first := next(iter(entry["versions"].values()), None):
        model["createTime"] = first["createTime"]
    entry["versions"][model["versionId"]] = model
    if entry["last"] == 1 and "default" not in aliases:
        aliases = [*aliases, "default"]
    _set_aliases(state, model, aliases)
    return model


def router(state: State) -> APIRouter:
    """Routes below a location."""
    routes = APIRouter()

    @routes.post("/models:upload")
    async def upload(version: str, request: Request) -> Any:
        model = _upload(state, await read_json(request), version)
        answer = {"model": model["name"], "modelVersionId": model["versionId"]}
        return state.operation(version, "UploadModelResponse", answer, parent=model["name"])

    @routes.get("/models")
    async def listed(request: Request) -> Any:
        found = [find_version(state, identifier) for identifier in state.models]
        return page("models", found, request.query_params, _FIELDS)

    @routes.get("/models/{name}:listVersions")
    async def versions(name: str, request: Request) -> Any:
        entry = state.models.found(name.partition("@")[0])
        return page("models", entry["versions"].values(), request.query_params, _FIELDS)

    @routes.post("/models/{name}:mergeVersionAliases")
    async def merge(name: str, request: Request) -> Any:
        body = await read_json(request)
        model = find_version(state, name)
        _set_aliases(state, model, body.get("versionAliases") or body.get("version_aliases") or [])
        model["versionUpdateTime"] = now()
        return model

    @routes.delete("/models/{name}:deleteVersion")
    async def delete_version(version: str, name: str) -> Any:
        model = find_version(state, name)
        found = state.models[name.partition("@")[0]]["versions"]
        if len(found) == 1 or "default" in model.get("versionAliases", []):
            raise refused_state("The last and the default version cannot be deleted.")
        if _deployed(state, model["name"], model["versionId"]):
            raise refused_state(f"Version {model['versionId']} is deployed.")
        del found[model["versionId"]]
        return state.operation(version, "", parent=model["name"])

    @routes.get("/models/{name}")
    async def get(name: str) -> Any:
        return find_version(state, name)

    @routes.patch("/models/{name}")
    async def update(version: str, name: str, request: Request) -> Any:
        model = find_version(state, name)
        change = as_message("Model", await read_json(request), version)
        patch(model, change, request.query_params.get("updateMask", ""), _UPDATED)
        return model

    @routes.delete("/models/{name}")
    async def delete(version: str, name: str) -> Any:
        model = find_version(state, name)
        if _deployed(state, model["name"]):
            raise refused_state(f"Model {model['name']} is deployed.")
        del state.models[name]
        return state.operation(version, "", parent=model["name"])

    return routes
