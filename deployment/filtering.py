"""From a request to filter to the engine's plan: model from the registry, shards from the input."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from deployment.registry import Registry
from tamis.config import Items, Strict
from tamis.corpus.output import require_same
from tamis.corpus.pool import EMBEDDED, pool_shards
from tamis.corpus.readers import Shard, list_shards
from tamis.corpus.writers import OutputFormat
from tamis.engine.base import Engine
from tamis.engine.local import LocalEngine
from tamis.errors import DataError, UsageError
from tamis.models.classifier import read_info
from tamis.scoring.filter_report import FilterReport
from tamis.scoring.filter_run import run_filter, run_fingerprint
from tamis.scoring.plan import SiftPlan
from tamis.task import Task


class FilterRequest(Strict):
    """What to filter, with which model, and where the result goes.

    Attributes:
        inputs: Paths, globs or URLs; ``packages`` is the embedded pool.
        output: Folder or URL.
        version: Version of the model in the registry.
        threshold: Score from which a document is kept; None takes the model's own.
        format: Of the rows written.
        engine: ``local`` (processes of this machine) or ``ray``.
        workers: Processes, or shards at a time on Ray; 0 takes what Ray has.
        ray_address: A Ray cluster; None starts Ray on this machine.
        encoder_cpus: Processors of each model that Ray's tasks share, where there is no GPU.
        fresh: Start over instead of resuming.
        max_quarantined: Largest share of rows that may be quarantined, 0-1.
    """

    inputs: Items[str]
    output: str
    version: str
    threshold: float | None = None
    format: OutputFormat = "parquet"
    engine: Literal["local", "ray"] = "local"
    workers: int = 1
    ray_address: str | None = None
    encoder_cpus: int = 1
    fresh: bool = False
    max_quarantined: float = 1.0


def shards_of(request: FilterRequest, home: Path) -> list[Shard]:
    """The shards of a request's inputs; the embedded pool is laid out on disk first.

    Raises:
        UsageError: An input matches nothing, its format is unknown, or a cluster cannot see it.
    """
    if request.ray_address is not None and EMBEDDED in request.inputs:
        raise UsageError(
            f"--input: given {EMBEDDED!r}, which lies on this machine; allowed with "
            "--ray-address: paths and URLs that all nodes can read"
        )
    paths = [
        str(pool_shards(home / "corpora", max(1, request.workers))) if name == EMBEDDED else name
        for name in request.inputs
    ]
    return list_shards(paths)


def plan_of(task: Task, request: FilterRequest, home: Path) -> SiftPlan:
    """The engine's plan for a request; the model is downloaded if it is not here yet.

    Raises:
        UsageError: The registry has no such version.
    """
    registry = Registry()
    folder = registry.download(registry.get(task.name, request.version), home / "models")
    info = read_info(folder)
    return SiftPlan(
        model_dir=str(folder),
        output=request.output,
        threshold=info.threshold if request.threshold is None else request.threshold,
        scale=info.target.scale,
        model_version=f"{task.name}/{request.version}",
        filter=task.filter,
        columns=task.corpus,
        format=request.format,
    )


def check(task: Task, request: FilterRequest, home: Path) -> None:
    """Find out before the run whether it can start.

    Raises:
        UsageError: An input matches nothing.
        ResumeRefused: The output was begun under other settings, model or input.
    """
    shards = shards_of(request, home)
    if not request.fresh:
        fingerprint = run_fingerprint(plan_of(task, request, home), shards, _parts(task, request))
        require_same(request.output, fingerprint)


def _parts(task: Task, request: FilterRequest) -> dict[str, str]:
    # By content: a version number starts again at 1 in another registry.
    version = Registry().get(task.name, request.version)
    return {"task": task.fingerprint(), "model files": version.tags["digest"]}


def sift_corpus(task: Task, request: FilterRequest, home: Path) -> FilterReport:
    """Sift what the request names.

    Raises:
        ResumeRefused: The output was begun under other settings, model or input.
        EngineError: A shard failed for good.
    """
    return run_filter(
        plan_of(task, request, home),
        shards_of(request, home),
        _parts(task, request),
        engine=engine_of(request),
        fresh=request.fresh,
    )


def engine_of(request: FilterRequest) -> Engine:
    """The engine that a request asks for; nothing is started yet."""
    if request.engine == "local":
        return LocalEngine(request.workers)
    from tamis.engine.ray import RayEngine

    return RayEngine(
        request.ray_address, workers=request.workers, encoder_cpus=request.encoder_cpus
    )


def require_clean(report: FilterReport, max_quarantined: float) -> None:
    """Accept a finished run by its share of quarantined rows.

    Raises:
        DataError: It is above what is allowed; the output is complete all the same.
    """
    if report.quarantined_share > max_quarantined:
        raise DataError(
            f"{report.counts.quarantined:,} of {report.counts.read:,} rows "
            f"({report.quarantined_share:.2%}) were quarantined, more than the "
            f"{max_quarantined:.2%} of --max-quarantined; the output is complete, and "
            f"{report.output}/report.html shows the reasons"
        )
