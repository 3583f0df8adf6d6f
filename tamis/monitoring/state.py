"""What is known of a watched model, in one small file that metrics are made of.

HOME/monitoring/TASK/state.json   MonitorState, replaced as a whole
HOME/monitoring/TASK/state.lock   held by whoever changes it
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from tamis.config import Strict
from tamis.errors import DataError
from tamis.monitoring.segments import write_atomically

FILE = "state.json"
FOLDER = "monitoring"
LARGEST = 256 * 1024
"""Bytes of a state; a larger file is none."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Statistic(Strict):
    """One test's statistic, and from where it rings; None where it decides nothing."""

    value: float
    threshold: float | None = None


class Performance(Strict):
    """One figure on labels that came, beside the one at registration.

    Attributes:
        value: On the newest window with labels.
        reference: At registration.
        alarm: Whether it is worse by more than the task allows, with its whole interval.
    """

    value: float
    reference: float | None = None
    alarm: bool = False


class MonitorState(Strict):
    """What the newest runs found out about a task's model.

    Attributes:
        task: The task.
        version: Of the model that was watched; None before the first run.
        last_run: When a window was last looked at.
        window_hours: How much of the log a window is: a run is due as often.
        drift_p: The calibrated p-value of the newest window.
        drift_alarm: Whether it rang.
        statistics: By test.
        performance: By metric.
        trained: When the model was trained.
        retrains: How many by what came of them.
        retrain_budget_remaining: What the policy still allows, in its unit.
        cascade_recall: Share of what the classifier keeps that the cascade kept: the upper end of
            the interval of the last audit.
        cascade_recall_promised: The least that the task asks for.
    """

    format: int = Field(default=1, ge=1, le=1)
    task: Name
    version: Name | None = None
    last_run: AwareDatetime | None = None
    window_hours: Positive = 24.0
    drift_p: Share | None = None
    drift_alarm: bool = False
    statistics: dict[Name, Statistic] = Field(default={}, max_length=32)
    performance: dict[Name, Performance] = Field(default={}, max_length=32)
    trained: AwareDatetime | None = None
    retrains: dict[Name, Annotated[int, Field(ge=0)]] = Field(default={}, max_length=16)
    retrain_budget_remaining: float | None = None
    cascade_recall: Share | None = None
    cascade_recall_promised: Share | None = None


def state_file(home: Path, task: str) -> Path:
    """Where a task's state lies."""
    return home / FOLDER / task / FILE


def read_state(path: Path) -> MonitorState:
    """A state from its file.

    Raises:
        FileNotFoundError: There is none.
        DataError: It is damaged, of another format or of another task than its folder.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError
        state = MonitorState.model_validate_json(content)
    except FileNotFoundError:
        raise
    except (OSError, ValueError):
        raise DataError(f"{path}: damaged, or of another format") from None
    if state.task != path.parent.name:
        raise DataError(f"{path}: it is of the task {state.task}")
    return state


def change_state(
    home: Path, task: str, change: Callable[[MonitorState], MonitorState]
) -> MonitorState:
    """Replace a task's state by what a function makes of it; one process at a time.

    A damaged file is kept beside as ``state.json.damaged``, and a new state begun.

    Args:
        home: Folder of the stack's local files.
        task: Whose state.
        change: From the state to the next, such as ``lambda s: s.model_copy(update={...})``.

    Raises:
        OSError: It cannot be written.
        ValidationError: What the function made is no state.
    """
    path = state_file(home, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock")):
        try:
            before = read_state(path)
        except FileNotFoundError:
            before = MonitorState(task=task)
        except DataError:
            path.replace(path.with_name(f"{FILE}.damaged"))
            before = MonitorState(task=task)
        after = MonitorState.model_validate(dict(change(before)))
        write_atomically(path, after.model_dump_json(indent=1).encode())
    return after


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
