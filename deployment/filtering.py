"""From a request to filter to the engine's plan: model from the registry, shards from the input."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict

from deployment.backend import backend_for
from deployment.paths import require_urls
from deployment.registry import Registry
from deployment.session import Session
from tamis.config import Items, Strict
from tamis.corpus.lease import STALE_SECONDS
from tamis.corpus.manifest import is_output, read_run
from tamis.corpus.output import require_same
from tamis.corpus.pool import EMBEDDED, pool_shards
from tamis.corpus.readers import Shard, list_shards
from tamis.corpus.store import open_store
from tamis.corpus.writers import OutputFormat
from tamis.engine.base import Engine, available_cores
from tamis.engine.local import LocalEngine
from tamis.errors import DataError, ResumeRefused, UsageError
from tamis.fingerprint import pipeline_fingerprint
from tamis.machine import machine
from tamis.models.classifier import digest, read_info
from tamis.scoring.backends.choose import BackendChoice
from tamis.scoring.backends.folder import export
from tamis.scoring.cascade import Cascade, CascadeInfo, describe, load_cascade
from tamis.scoring.filter_report import FilterReport
from tamis.scoring.filter_run import run_filter, run_fingerprint, shards_fingerprint
from tamis.scoring.load import LoadScorer
from tamis.scoring.plan import SiftPlan
from tamis.scoring.settings import BackendName
from tamis.task import Task


class FilterRequest(Strict):
    """What to filter, with which model, and where the result goes.

    Attributes:
        inputs: Paths, globs or URLs; ``packages`` is the embedded pool.
        output: Folder or URL; ``{date}`` in it becomes the day of the run (UTC).
        version: Version of the model in the registry, or ``champion``.
        threshold: Score from which a document is kept; None takes the model's own.
        format: Of the rows written.
        engine: ``local`` (processes of this machine) or ``ray``.
        workers: Processes, or shards at a time on Ray; 0 takes all cores of the machine that
            filters, or what Ray has.
        ray_address: A Ray cluster; None starts Ray on this machine.
        encoder_cpus: Processors of each model that Ray's tasks share, where there is no GPU.
        fresh: Start over instead of resuming.
        max_quarantined: Largest share of rows that may be quarantined, 0-1.
        encoder_only: Use no cascade.
        wait_seconds: How long to wait for another run that holds the output.
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
    encoder_only: bool = False
    wait_seconds: float = 0.0

    @property
    def processes(self) -> int:
        """Workers on the machine that this runs on."""
        return self.workers or available_cores()


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
        str(pool_shards(home / "corpora", request.processes)) if name == EMBEDDED else name
        for name in request.inputs
    ]
    return list_shards(paths)


def model_plan(task: Task, request: FilterRequest, home: Path) -> SiftPlan:
    """The engine's plan with the model as it was registered, in fp32, for every document.

    Raises:
        UsageError: The registry has no such version.
    """
    registry = Registry()
    version = registry.get(task.name, request.version)
    folder = registry.download(version, home / "models")
    info = read_info(folder)
    return SiftPlan(
        model_dir=str(folder),
        output=request.output.replace("{date}", f"{datetime.now(UTC):%Y-%m-%d}"),
        threshold=info.threshold if request.threshold is None else request.threshold,
        scale=info.target.scale,
        model_version=f"{task.name}/{version.version}",
        filter=task.filter,
        columns=task.corpus,
        format=request.format,
        wait_seconds=request.wait_seconds,
    )


class Scoring(BaseModel):
    """How a filter will score.

    Attributes:
        backend: That runs the encoder, and why.
        cascade: sha256 of the cascade; None where the encoder sees every document.
        sentence: In words.
        pipeline_code: Fingerprint of ``pipelines/`` and ``steps/`` where the filter ran.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendChoice
    cascade: str | None
    sentence: str
    pipeline_code: str

    def to_html(self) -> str:
        """The backend's page."""
        return self.backend.to_html()


def plan_of(task: Task, request: FilterRequest, home: Path) -> tuple[SiftPlan, Scoring]:
    """The engine's plan for a request, and how it scores.

    The cascade that belongs to the model is used where there is one with a certified band, for
    the threshold asked for; with it comes the backend that it was calibrated with.

    Raises:
        UsageError: The registry has no such version.
        ModelError: The model, its cascade or its backend cannot be loaded.
    """
    plan = model_plan(task, request, home)
    cascade, sentence = _cascade(task, request, plan, home)
    if cascade is not None:
        plan = replace(plan, threshold=cascade.info.threshold, cascade=cascade)
        choice = _beside(cascade.info, task.scoring.backend)
        margin = cascade.info.margin if choice.backend == cascade.info.backend else 0.0
    else:
        choice = backend_for(plan, shards_of(request, home), task.scoring, home, task.seed)
        margin = choice.margin
    folder = export(Path(plan.model_dir), choice.backend, home / "exports")
    loader = LoadScorer(plan.threshold, margin)
    told = f"{sentence}; encoder: {choice.backend}. {choice.reason}"
    used = None if cascade is None else cascade.fingerprint
    scoring = Scoring(
        backend=choice, cascade=used, sentence=told, pipeline_code=pipeline_fingerprint()
    )
    return replace(plan, model_dir=str(folder), load=loader), scoring


def _beside(info: CascadeInfo, asked: str) -> BackendChoice:
    """The backend of a cascade's encoder: the one that it was calibrated with, or the task's."""
    reason = "The cascade's band was calibrated with it."
    backend = info.backend
    if asked not in ("auto", info.backend):
        backend = cast("BackendName", asked)
        reason = f"The task names it; the cascade's band was calibrated with {info.backend}."
    return BackendChoice(backend=backend, reason=reason, source=info.encoder, machine=machine())


def _cascade(
    task: Task, request: FilterRequest, plan: SiftPlan, home: Path
) -> tuple[Cascade | None, str]:
    """The cascade to use, or why there is none."""
    if request.encoder_only:
        return None, "encoder alone, as asked for"
    registry = Registry()
    version = registry.get(task.name, request.version)
    folder = registry.download_attached(version, "cascade", home / "models")
    if folder is None:
        return None, "encoder alone: no cascade was distilled for this model"
    cascade = load_cascade(folder, digest(plan.model_dir), task.scoring.cascade.audit)
    info = cascade.info
    if info.band.sends_everything:
        return None, "encoder alone: no band that spares it anything could be certified"
    if request.threshold is not None and abs(request.threshold - info.threshold) > 1e-6:
        return None, (
            f"encoder alone: the cascade was calibrated for the threshold {info.threshold:.4g}, "
            f"not {request.threshold:.4g}"
        )
    told = f"cascade: {describe(info)}"
    if info.corpus != shards_fingerprint(shards_of(request, home)):
        told += "; it was calibrated on another corpus, so mind the audit"
    return cascade, told


def check_inputs(task: Task, request: FilterRequest, session: Session) -> list[Shard]:
    """Find out before the run whether its inputs are there, for the machine that reads them.

    Raises:
        UsageError: An input matches nothing, or other machines cannot see it.
    """
    if session.remote:
        require_urls("--input", [name for name in request.inputs if name != EMBEDDED])
        require_urls("filter.decontamination.files", task.filter.decontamination.files)
        if EMBEDDED in request.inputs:  # laid out where it is read
            return []
    return shards_of(request, session.home)


def resumed(request: FilterRequest) -> FilterRequest:
    """The request when it is made again because a machine was taken away.

    What that had committed is kept, and its lock may take a while to lapse.
    """
    return request.model_copy(update={"fresh": False, "wait_seconds": 1.5 * STALE_SECONDS})


def check(task: Task, request: FilterRequest, session: Session) -> None:
    """Find out before the run whether it can start.

    Raises:
        UsageError: An input matches nothing, or other machines cannot see it.
        ResumeRefused: The output was begun under other settings, model or input.
    """
    shards = check_inputs(task, request, session)
    if session.remote:  # whose machines choose a backend of their own: they compare the rest
        require_urls("--output", [request.output])
        return
    home = session.home
    if not request.fresh and is_output(request.output):
        plan, scoring = plan_of(task, request, home)
        fingerprint = run_fingerprint(plan, shards, _parts(task, request, scoring))
        try:
            require_same(request.output, fingerprint)
        except ResumeRefused as error:
            begun = read_run(open_store(request.output)).fingerprint
            if scoring.cascade is None or "cascade" in begun:
                raise
            hint = "it was begun without a cascade, as --encoder-only does"
            raise ResumeRefused(f"{error}; {hint}") from None


def _parts(task: Task, request: FilterRequest, scoring: Scoring) -> dict[str, str]:
    # By content: a version number starts again at 1 in another registry.
    version = Registry().get(task.name, request.version)
    choice = scoring.backend
    return {
        "task": task.fingerprint(),
        "model files": version.tags["digest"],
        "backend": choice.backend + (f", margin {choice.margin!r}" if choice.margin else ""),
    }


def sift_corpus(task: Task, request: FilterRequest, home: Path) -> tuple[FilterReport, Scoring]:
    """Sift what the request names.

    Raises:
        ResumeRefused: The output was begun under other settings, model or input.
        EngineError: A shard failed for good.
    """
    plan, scoring = plan_of(task, request, home)
    report = run_filter(
        plan,
        shards_of(request, home),
        _parts(task, request, scoring),
        engine=engine_of(request),
        fresh=request.fresh,
    )
    return report, scoring


def engine_of(request: FilterRequest) -> Engine:
    """The engine that a request asks for; nothing is started yet."""
    if request.engine == "local":
        return LocalEngine(request.processes)
    from tamis.engine.ray import RayEngine

    # A cluster's size is its own; Ray on this machine is told the machine's.
    workers = request.workers if request.ray_address else request.processes
    return RayEngine(request.ray_address, workers=workers, encoder_cpus=request.encoder_cpus)


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
