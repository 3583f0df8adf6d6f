"""The targets by their names, for a task and a session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from deployment.releasing.target import Target
from deployment.session import Session
from tamis.errors import ConfigError, UsageError
from tamis.serving.release_settings import ReleaseSettings
from tamis.task import Task

TargetName = Literal["local", "cloud-run", "kubernetes", "vertex"]
_PRIVATE = ("ZENML_", "MLFLOW_")


def make_target(
    name: str, task: Task, session: Session, settings: ReleaseSettings | None = None
) -> Target:
    """A target.

    Args:
        name: One of ``TargetName``.
        task: Whose versions serve there.
        session: On the stack.
        settings: Of a release that goes on; the task's by default.

    Raises:
        UsageError: There is no such target.
        ConfigError: The task file says nothing about it.
        StackError: The stack is not one for it.
    """
    chosen = settings or task.release
    makers: dict[str, Callable[[Task, Session, ReleaseSettings], Target]] = {
        "local": _local, "cloud-run": _cloud_run, "kubernetes": _kubernetes, "vertex": _vertex,
    }  # fmt: skip
    if name not in makers:
        allowed = ", ".join(get_args(TargetName))
        raise UsageError(f"--target: given {name!r}; allowed: {allowed}")
    return makers[name](task, session, chosen)


def _local(task: Task, session: Session, settings: ReleaseSettings) -> Target:
    from deployment.releasing.local import LocalTarget, ServiceLimits
    from deployment.releasing.processes import Program
    from deployment.serving.process import ROOT, command, environment
    from deployment.serving.runtime import processes_of

    serving = session.home / "serving"
    home = serving / "local" / task.name
    log = serving / "requests" / task.name if task.serve.log.enabled else None
    keys = Path(os.environ.get("TAMIS_SERVE_KEYS_FILE") or serving / "keys.json")
    # What the session has set for ZenML and MLflow ends with the session.
    base = {key: value for key, value in os.environ.items() if not key.startswith(_PRIVATE)}

    def program(version: str, folder: Path, port: int) -> Program:
        bento = home / "versions" / version / "bentoml"
        seen = environment(folder, log=log, keys_file=keys, home=bento, base=base)
        return Program(command(port, processes=processes_of(task.serve)), seen, ROOT)

    limits = task.serve.limits
    through = ServiceLimits(limits.body_bytes, limits.seconds, limits.body_seconds)
    return LocalTarget(home, settings, program, through, log, task.name)


def _cloud_run(task: Task, session: Session, settings: ReleaseSettings) -> Target:
    from deployment.releasing.cloud_run import CloudRunTarget

    if settings.cloud_run is None:
        raise ConfigError(
            f"task {task.name}", "release.cloud_run", "nothing",
            "project, region and image, with --target cloud-run",
        )  # fmt: skip
    return CloudRunTarget(task.name, settings, settings.cloud_run)


def _kubernetes(task: Task, session: Session, settings: ReleaseSettings) -> Target:
    from deployment.releasing.kubernetes import KubernetesTarget

    if settings.kubernetes is None:
        raise ConfigError(
            f"task {task.name}", "release.kubernetes", "nothing",
            "image and what differs from the defaults, with --target kubernetes",
        )  # fmt: skip
    return KubernetesTarget(task.name, settings, settings.kubernetes)


def _vertex(task: Task, session: Session, settings: ReleaseSettings) -> Target:
    from deployment.registry import Registry
    from deployment.releasing.vertex import VertexTarget
    from deployment.vertex.endpoints import Endpoints

    return VertexTarget(task.name, session, Registry(), Endpoints(session.vertex))
