"""Reads a compiled pipeline: what each task would run, on what, and after which others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.vertex.standin.errors import ApiError
from tests.vertex.standin.resources import Resource, as_message

_INPUT = re.compile(r"(\"?)\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}(\"?)")
_LAUNCHER = "google_cloud_pipeline_components.container.v1.custom_job.launcher"


@dataclass(frozen=True)
class Container:
    """A container to run."""

    image: str
    command: list[str]
    args: list[str]
    env: dict[str, str]
    resources: Resource = field(default_factory=dict)


@dataclass(frozen=True)
class TaskPlan:
    """A task of a pipeline, as compiled.

    Attributes:
        name: Its key in the graph.
        after: Tasks that must have succeeded.
        container: As the executor states it, placeholders unfilled.
        parameters: Values of its inputs.
        retries: How often it is tried again.
    """

    name: str
    after: tuple[str, ...]
    container: Resource
    parameters: dict[str, Any]
    retries: int


def fill(value: Any, placeholders: Mapping[str, str]) -> Any:
    """A value with the placeholders of the running job replaced in all its strings."""
    if isinstance(value, str):
        for name, text in placeholders.items():
            value = value.replace(f"{{{{$.{name}}}}}", text)
        return value
    if isinstance(value, Mapping):
        return {key: fill(item, placeholders) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, placeholders) for item in value]
    return value


def _fill_inputs(text: str, parameters: Mapping[str, Any], *, in_json: bool) -> str:
    """A text with its input parameters put in; where it is JSON, as JSON."""

    def put(found: re.Match[str]) -> str:
        before, name, after = found.groups()
        value = parameters.get(name)
        if not in_json:
            plain = value if isinstance(value, str) else json.dumps(value)
            return before + ("" if value is None else plain) + after
        if before and after:
            return json.dumps("" if value is None else value)
        return before + json.dumps(value) + after

    return _INPUT.sub(put, text)


def _parameters(task: Resource, component: Resource, root: Mapping[str, Any]) -> dict[str, Any]:
    declared = component.get("inputDefinitions", {}).get("parameters", {})
    values = {name: p["defaultValue"] for name, p in declared.items() if "defaultValue" in p}
    for name, given in task.get("inputs", {}).get("parameters", {}).items():
        if "runtimeValue" in given:
            values[name] = given["runtimeValue"].get("constant")
        elif "componentInputParameter" in given:
            values[name] = root.get(given["componentInputParameter"])
        else:
            raise ApiError(501, f"The stand-in cannot pass input {name!r} between tasks.")
    return values


def read_pipeline(pipeline: Resource) -> list[TaskPlan]:
    """The tasks of a pipeline job, in the order of its graph.

    Args:
        pipeline: The job: its ``pipelineSpec`` and ``runtimeConfig`` are read.

    Raises:
        ApiError: The specification is broken, or has what the stand-in cannot run.
    """
    spec = pipeline.get("pipelineSpec", {})
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    components = spec.get("components", {})
    graph = spec.get("root", {}).get("dag", {}).get("tasks", {})
    if not graph:
        raise ApiError(400, "Invalid pipeline specification: it has no tasks.")
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    root = {name: p["defaultValue"] for name, p in declared.items() if "defaultValue" in p}
    root |= pipeline.get("runtimeConfig", {}).get("parameterValues", {})
    plans = []
    for name, task in graph.items():
        for feature in ("parameterIterator", "artifactIterator", "triggerPolicy"):
            if task.get(feature):
                raise ApiError(501, f"The stand-in cannot run task {name!r}: it has {feature}.")
        component = components.get(task.get("componentRef", {}).get("name"), {})
        executor = executors.get(component.get("executorLabel"), {})
        if "container" not in executor:
            raise ApiError(501, f"The stand-in cannot run task {name!r}: it has no container.")
        after = tuple(task.get("dependentTasks", []))
        if not set(after) <= set(graph):
            raise ApiError(400, f"Task {name!r} depends on tasks that are not in the graph.")
        plans.append(
            TaskPlan(
                name=name,
                after=after,
                container=executor["container"],
                parameters=_parameters(task, component, root),
                retries=int(task.get("retryPolicy", {}).get("maxRetryCount", 0)),
            )
        )
    _check_cycles(plans)
    return plans


def _check_cycles(plans: list[TaskPlan]) -> None:
    done: set[str] = set()
    while len(done) < len(plans):
        ready = {p.name for p in plans if p.name not in done and set(p.after) <= done}
        if not ready:
            raise ApiError(400, "Invalid pipeline specification: its tasks form a cycle.")
        done |= ready


def environment(entries: list[Mapping[str, str]]) -> dict[str, str]:
    """Environment variables from a container's list of them."""
    return {entry["name"]: entry.get("value", "") for entry in entries}


def container_of(plan: TaskPlan, placeholders: Mapping[str, str]) -> Container:
    """What a plain container task runs."""
    stated = fill(plan.container, placeholders)

    def inputs(texts: list[str]) -> list[str]:
        return [_fill_inputs(text, plan.parameters, in_json=False) for text in texts]

    return Container(
        image=stated.get("image", ""),
        command=inputs(stated.get("command", [])),
        args=inputs(stated.get("args", [])),
        env=environment(stated.get("env", [])),
        resources=stated.get("resources", {}),
    )


def is_custom_job(plan: TaskPlan) -> bool:
    """Whether a task would start a custom job from its payload."""
    return _LAUNCHER in plan.container.get("command", [])


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, "", {}, [])}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def custom_job_of(plan: TaskPlan, placeholders: Mapping[str, str]) -> Resource:
    """The custom job that a wrapped task would start.

    Raises:
        ApiError: The payload is no custom job.
    """
    args = list(plan.container.get("args", []))
    try:
        payload = args[args.index("--payload") + 1]
        job = json.loads(_fill_inputs(payload, plan.parameters, in_json=True))
    except (ValueError, IndexError) as error:
        raise ApiError(400, f"Task {plan.name!r}: its payload is not a custom job.") from error
    return as_message("CustomJob", _without_empty(fill(job, placeholders)))


def container_of_custom_job(job: Resource) -> Container:
    """What the first worker pool of a custom job runs.

    Raises:
        ApiError: It has none that the stand-in can run.
    """
    pools = job.get("jobSpec", {}).get("workerPoolSpecs", [])
    if not pools or "containerSpec" not in pools[0]:
        raise ApiError(400, "jobSpec.workerPoolSpecs[0].containerSpec is required.")
    if len(pools) > 1 or int(pools[0].get("replicaCount", 1)) > 1:
        raise ApiError(501, "The stand-in runs one replica of a custom job only.")
    spec = pools[0]["containerSpec"]
    return Container(
        image=spec.get("imageUri", ""),
        command=spec.get("command", []),
        args=spec.get("args", []),
        env=environment(spec.get("env", [])),
        resources={key: value for key, value in pools[0].items() if key != "containerSpec"},
    )
