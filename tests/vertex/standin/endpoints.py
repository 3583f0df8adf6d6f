"""The endpoint and prediction services; predictions come from registered serving processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from fastapi import APIRouter, Request

from tests.vertex.standin.errors import ApiError, missing, refused_state
from tests.vertex.standin.models import find_version
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

_FIELDS = ("display_name", "create_time", "update_time", "endpoint")
_UPDATED = ("display_name", "description", "labels", "traffic_split")
_RESOURCES = ("dedicatedResources", "automaticResources", "sharedResources")


def _check_split(split: Mapping[str, int], known: set[str]) -> None:
    if unknown := sorted(set(split) - known):
        raise ApiError(400, f"trafficSplit names models that are not deployed: {unknown}")
    if split and (sum(split.values()) != 100 or min(split.values()) < 0):
        raise ApiError(400, f"trafficSplit must sum to 100, not {sum(split.values())}.")


def _deployed(endpoint: Resource) -> dict[str, Resource]:
    return {model["id"]: model for model in endpoint.get("deployedModels", [])}


def _deploy(state: State, endpoint: Resource, body: Resource, version: str) -> Resource:
    request = as_message("DeployModelRequest", body, version)
    deployed = request.get("deployedModel", {})
    if not any(kind in deployed for kind in _RESOURCES):
        raise ApiError(400, f"deployedModel needs one of {', '.join(_RESOURCES)}.")
    model = find_version(state, deployed.get("model", ""))
    identifier = deployed.get("id") or new_number()
    if identifier in _deployed(endpoint):
        raise ApiError(409, f"DeployedModel {identifier} already exists.")
    split = {
        identifier if key == "0" else key: share
        for key, share in request.get("trafficSplit", {}).items()
    }
    _check_split(split, {identifier, *_deployed(endpoint)})
    deployed |= {
        "id": identifier,
        "model": f"{model['name']}@{model['versionId']}",
        "modelVersionId": model["versionId"],
        "displayName": deployed.get("displayName") or model["displayName"],
        "createTime": now(),
    }
    endpoint.setdefault("deployedModels", []).append(deployed)
    if split:
        endpoint["trafficSplit"] = split
    endpoint["updateTime"] = now()
    return {"deployedModel": deployed}


def _undeploy(endpoint: Resource, body: Resource, version: str) -> None:
    request = as_message("UndeployModelRequest", body, version)
    identifier = request.get("deployedModelId", "")
    left = _deployed(endpoint)
    if identifier not in left:
        raise missing(f"{endpoint['name']}/deployedModels/{identifier}")
    del left[identifier]
    split = request.get("trafficSplit") or endpoint.get("trafficSplit", {})
    if not left:
        split = {}
    elif split.get(identifier):
        raise refused_state(
            f"DeployedModel {identifier} still has {split[identifier]}% of the traffic: "
            "move it to others first."
        )
    split = {key: share for key, share in split.items() if key != identifier}
    _check_split(split, set(left))
    endpoint |= {"deployedModels": list(left.values()), "trafficSplit": split, "updateTime": now()}


def _serving_of(state: State, deployed: Resource) -> str:
    name = deployed["model"].partition("@")[0]
    project = f"projects/{state.settings.project}/"
    names = [deployed["model"], name]
    names += [n.replace(f"projects/{state.settings.number}/", project) for n in names]
    for wanted in (*names, deployed["displayName"], find_version(state, name)["displayName"]):
        if wanted in state.serving:
            return state.serving[wanted]
    raise ApiError(503, f"No serving process is registered for {deployed['model']}.")


async def _predict(state: State, endpoint: Resource, body: Resource, client: Any) -> Resource:
    split = {key: share for key, share in endpoint.get("trafficSplit", {}).items() if share}
    if not split:
        raise refused_state(f"Endpoint {endpoint['name']} has no deployed model with traffic.")
    chosen = state.random.choices(list(split), weights=list(split.values()))[0]
    deployed = _deployed(endpoint)[chosen]
    model = find_version(state, deployed["model"])
    url = _serving_of(state, deployed)
    route = model.get("containerSpec", {}).get("predictRoute", "")
    if not route:
        name = endpoint["name"].rsplit("/", 1)[1]
        route = f"/v1/endpoints/{name}/deployedModels/{chosen}:predict"
    try:
        answer = await client.post(url + route, json=body)
        content = answer.json() if answer.status_code < 400 else {}
    except (httpx.HTTPError, ValueError) as error:
        raise ApiError(503, f"The serving process failed: {type(error).__name__}.") from error
    if answer.status_code >= 400:
        raise ApiError(answer.status_code, f"The serving process: {answer.text[:1_000]}")
    if not isinstance(content, dict) or "predictions" not in content:
        raise ApiError(500, "The serving process answered without predictions.")
    return {
        "predictions": content["predictions"],
        **({"metadata": content["metadata"]} if "metadata" in content else {}),
        "deployedModelId": chosen,
        "model": model["name"],
        "modelVersionId": model["versionId"],
        "modelDisplayName": model["displayName"],
    }


def router(state: State) -> APIRouter:
    """Routes below a location."""
    routes = APIRouter()

    @routes.post("/endpoints")
    async def create(version: str, request: Request) -> Any:
        endpoint = as_message("Endpoint", await read_json(request), version)
        if not endpoint.get("displayName"):
            raise ApiError(400, "displayName is required.")
        check_labels(endpoint.get("labels", {}))
        identifier = request.query_params.get("endpointId") or new_number()
        if identifier in state.endpoints:
            raise ApiError(409, f"Endpoint {state.endpoints.name(identifier)} already exists.")
        moment = now()
        name = state.endpoints.name(identifier)
        endpoint |= {"name": name, "createTime": moment, "updateTime": moment}
        endpoint["etag"] = new_number()
        state.endpoints[identifier] = endpoint
        return state.operation(version, "Endpoint", endpoint, parent=endpoint["name"])

    @routes.get("/endpoints")
    async def listed(request: Request) -> Any:
        return page("endpoints", state.endpoints.values(), request.query_params, _FIELDS)

    @routes.get("/endpoints/{identifier}")
    async def get(identifier: str) -> Any:
        return state.endpoints.found(identifier)

    @routes.patch("/endpoints/{identifier}")
    async def update(version: str, identifier: str, request: Request) -> Any:
        endpoint = state.endpoints.found(identifier)
        change = as_message("Endpoint", await read_json(request), version)
        mask = request.query_params.get("updateMask", "")
        if "traffic" in mask:
            _check_split(change.get("trafficSplit", {}), set(_deployed(endpoint)))
        patch(endpoint, change, mask, _UPDATED)
        return endpoint

    @routes.delete("/endpoints/{identifier}")
    async def delete(version: str, identifier: str) -> Any:
        endpoint = state.endpoints.found(identifier)
        if endpoint.get("deployedModels"):
            raise refused_state(f"Endpoint {endpoint['name']} has deployed models.")
        del state.endpoints[identifier]
        return state.operation(version, "", parent=endpoint["name"])

    @routes.post("/endpoints/{identifier}:deployModel")
    async def deploy(version: str, identifier: str, request: Request) -> Any:
        endpoint = state.endpoints.found(identifier)
        answer = _deploy(state, endpoint, await read_json(request), version)
        return state.operation(version, "DeployModelResponse", answer, parent=endpoint["name"])

    @routes.post("/endpoints/{identifier}:undeployModel")
    async def undeploy(version: str, identifier: str, request: Request) -> Any:
        endpoint = state.endpoints.found(identifier)
        _undeploy(endpoint, await read_json(request), version)
        return state.operation(version, "UndeployModelResponse", parent=endpoint["name"])

    @routes.post("/endpoints/{identifier}:predict")
    async def predict(identifier: str, request: Request) -> Any:
        endpoint = state.endpoints.found(identifier)
        body = await read_json(request)
        if not isinstance(body.get("instances"), list):
            raise ApiError(400, "instances is required.")
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            return await _predict(state, endpoint, body, client)

    return routes
