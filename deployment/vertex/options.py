"""From the stack's file to ZenML's settings of a run: images, machines, labels.

A machine by its type, which can be a spot machine, becomes a custom job; otherwise the step is
a task of the pipeline's own with limits on cores, memory and accelerators. ZenML takes one of
the two for a step, and with custom jobs leaves everything else out without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from deployment.vertex.settings import Machine, VertexStack

ACCELERATOR = "cloud.google.com/gke-accelerator"
_LONGEST = 63


def label(value: str) -> str:
    """Text as the value of a Google Cloud label: lower case, at most 63 characters."""
    return re.sub(r"[^a-z0-9_-]", "-", value.lower())[:_LONGEST]


def labels_of(stack: VertexStack, task: str, pipeline: str, run: str) -> dict[str, str]:
    """Labels by which a bill can be taken apart."""
    ours = {"task": task, "pipeline": pipeline, "run": run}
    return stack.labels | {key: label(value) for key, value in ours.items()}


def steps_of(pipeline: Any, parameters: Mapping[str, Any]) -> list[str]:
    """Names of a pipeline's steps; nothing is run."""
    draft = pipeline.copy()
    draft.prepare(**parameters)
    return list(draft.invocations)


def pipeline_options(
    stack: VertexStack, steps: Iterable[str], labels: dict[str, str]
) -> dict[str, Any]:
    """Options of ``Pipeline.with_options`` for a run on the stack.

    Args:
        stack: The stack.
        steps: Of the pipeline.
        labels: Of every job of the run.
    """
    from zenml.config import DockerSettings
    from zenml.enums import ExecutionMode
    from zenml.integrations.gcp.flavors.vertex_orchestrator_flavor import VertexOrchestratorSettings

    return {
        # Vertex knows no other; a step whose inputs are missing is not started either way.
        "execution_mode": ExecutionMode.CONTINUE_ON_FAILURE,
        "settings": {
            "docker": DockerSettings(parent_image=stack.image, skip_build=True),
            # We wait ourselves, to show the steps and to tell a lost machine from a failure.
            "orchestrator": VertexOrchestratorSettings(labels=labels, synchronous=False),
        },
        "steps": {step: {"settings": step_settings(stack, step, labels)} for step in steps},
    }


def step_settings(stack: VertexStack, step: str, labels: dict[str, str]) -> dict[str, Any]:
    """Settings of one step: its image and its machine."""
    from zenml.config import DockerSettings
    from zenml.config.resource_settings import ResourceSettings
    from zenml.integrations.gcp.flavors.vertex_orchestrator_flavor import VertexOrchestratorSettings

    machine = stack.machine_of(step)
    found: dict[str, Any] = {
        "docker": DockerSettings(parent_image=stack.image_of(step), skip_build=True)
    }
    if machine.machine_type is not None:
        found["orchestrator"] = VertexOrchestratorSettings(
            labels=labels, synchronous=False, custom_job_parameters=_custom_job(machine, labels)
        )
        return found
    found["resources"] = ResourceSettings(
        cpu_count=machine.cpu,
        memory=machine.memory,
        gpu_count=machine.gpu.count if machine.gpu else None,
    )
    if machine.gpu is not None:
        selector = {"node_selectors": {ACCELERATOR: machine.gpu.type}}
        found["orchestrator"] = VertexOrchestratorSettings(
            labels=labels, synchronous=False, pod_settings=selector
        )
    return found


def _custom_job(machine: Machine, labels: dict[str, str]) -> dict[str, Any]:
    more: dict[str, Any] = {"labels": labels}
    if machine.spot:
        more["strategy"] = "SPOT"
    found: dict[str, Any] = {
        "machine_type": machine.machine_type,
        "additional_training_job_args": more,
    }
    if machine.gpu is not None:
        found |= {"accelerator_type": machine.gpu.type, "accelerator_count": machine.gpu.count}
    if machine.boot_disk_gb is not None:
        found["boot_disk_size_gb"] = machine.boot_disk_gb
    return found
