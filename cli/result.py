"""What a verb did, as one JSON document (docs/result.schema.json)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tamis.errors import UsageError


class IntervalOut(BaseModel):
    """A figure with its 95% interval and the number of documents behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    n: int


class DecisionOut(BaseModel):
    """A verdict with its reasons."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    reasons: tuple[str, ...]


class Result(BaseModel):
    """What happened.

    Attributes:
        verb: The command.
        task: Name of the task.
        stack: Name of the stack.
        status: ``done``, ``refused`` (exit code 3) or ``planned`` (--dry-run).
        run_id: ZenML's id of the pipeline run, where there was one.
        model_version: Version of the model that was made or used.
        alias: ``champion`` or ``challenger``, if the version carries one.
        metrics: The model's figures on test documents, by name.
        baselines: The metric of record of each baseline.
        gains: Gain of the model over each baseline in the metric of record, paired.
        cross_validation: The metric of record over all labelled documents, by scorer and slice.
        threshold: From which score documents were kept, where some were.
        counts: Documents and tokens, by what became of them.
        estimate: Documents, kept documents and kept tokens of a filter that has not run.
        cost: CPU-seconds, hours, and the price on the machine that was named, by stage too;
            of a run on Vertex AI the hours of each machine.
        decision: The gate's or the comparison's.
        drift: Figures of the drift tests.
        outputs: Files and folders to look at, by name.
        pipeline_code: Fingerprint of ``pipelines/`` and ``steps/`` as they ran.
        seconds: Wall time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verb: str
    task: str | None = None
    stack: str
    status: Literal["done", "refused", "planned"] = "done"
    run_id: str | None = None
    model_version: str | None = None
    alias: str | None = None
    metrics: dict[str, IntervalOut] = {}
    baselines: dict[str, IntervalOut] = {}
    gains: dict[str, IntervalOut] = {}
    cross_validation: dict[str, IntervalOut] = {}
    threshold: float | None = None
    counts: dict[str, int] = {}
    estimate: dict[str, IntervalOut] = {}
    cost: dict[str, float] = {}
    decision: DecisionOut | None = None
    drift: dict[str, float] = {}
    outputs: dict[str, str] = {}
    pipeline_code: str | None = None
    seconds: float = 0.0


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far, to the tenth."""
        return round(time.perf_counter() - self._start, 1)


def check_writable(path: Path | None) -> None:
    """Find out before the work whether the result can be written after it.

    Raises:
        UsageError: The folder does not exist or is not writable.
    """
    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        given = str(path)
        raise UsageError(f"--result: given {given!r}; allowed: a file that can be written "
                         f"({error.strerror})") from None  # fmt: skip


def write(result: Result, path: Path | None) -> None:
    """Write the document, if a file was asked for."""
    if path is not None:
        path.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


def schema() -> dict[str, Any]:
    """JSON schema of the document."""
    return Result.model_json_schema()
