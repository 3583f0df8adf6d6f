"""Options that the verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

TaskName = Annotated[
    str, typer.Option("--task", "-t", help="A task of configs/tasks, or a path to a task file.")
]
StackName = Annotated[str, typer.Option("--stack", "-s", help="Where it runs: local or vertex.")]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Override a key of the task, such as seed=7. Repeatable."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print the plan, do nothing.")
]
ModelVersion = Annotated[
    str | None, typer.Option("--version", help="Model version; the champion by default.")
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="Keep from this score; the model's own.")
]
EncoderOnly = Annotated[
    bool, typer.Option("--encoder-only", help="Use no cascade, though one was distilled.")
]


class EngineName(StrEnum):
    """What runs the work."""

    local = "local"
    ray = "ray"


Engine = Annotated[EngineName, typer.Option("--engine", help="Processes of this machine, or Ray.")]
Workers = Annotated[
    int, typer.Option("--workers", "-j", min=0, help="Shards at a time; 0: one for every core.")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="A Ray cluster; without it Ray starts on this machine."),
]
EncoderCpus = Annotated[
    int, typer.Option("--encoder-cpus", min=1, help="On Ray without GPUs: cores of each model.")
]
ResultFile = Annotated[
    Path | None, typer.Option("--result", help="Write what happened to this file, as JSON.")
]


def share(option: str, given: str) -> float:
    """A share between 0 and 1, written as ``1%`` or ``0.01``.

    Raises:
        UsageError: It is neither, or out of range.
    """
    from tamis.errors import UsageError

    number, percent, rest = given.partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value <= 1:
        raise UsageError(f"{option}: given {given!r}; allowed: a share such as 1% or 0.01")
    return value
