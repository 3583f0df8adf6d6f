"""Logs of a run's steps, from the artifact store that they were written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deployment.runs import find
from tamis.errors import UsageError

_MOST = 1_000_000
"""Entries of one log; the store has no pages."""


def step_names(run: str) -> list[str]:
    """Steps of a run that have begun, in order.

    Raises:
        UsageError: There is no such run.
    """
    steps = find(run).steps
    return sorted(steps, key=lambda name: str(steps[name].start_time or "9"))


def lines(run: str, step: str) -> Iterator[str]:
    """A step's log, line by line, oldest first; nothing where the step was cached.

    Raises:
        UsageError: There is no such run, or it has no such step.
    """
    steps = find(run).steps
    if step not in steps:
        known = ", ".join(steps) or "none has begun"
        raise UsageError(f"--step: given {step!r}; allowed: {known}")
    log = next((each for each in steps[step].log_collection or () if each.source == "step"), None)
    if log is None:
        return
    for entry in _log_store().fetch(log, start="oldest", limit=_MOST).items:
        yield from entry.message.rstrip("\n").splitlines()


def last_lines(run: str, step: str, number: int = 20) -> list[str]:
    """The end of a step's log; empty where it cannot be read."""
    try:
        return list(lines(run, step))[-number:]
    except Exception:  # an error is being told already
        return []


def _log_store() -> Any:
    from zenml.client import Client
    from zenml.log_stores.artifact.artifact_log_store import ArtifactLogStore

    return ArtifactLogStore.from_artifact_store(artifact_store=Client().active_stack.artifact_store)
