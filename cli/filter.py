"""python run.py filter: the filtering pipeline."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DryRun,
    EncoderCpus,
    EncoderOnly,
    Engine,
    EngineName,
    ModelVersion,
    RayAddress,
    ResultFile,
    Settings,
    StackName,
    TaskName,
    Threshold,
    Workers,
    share,
)

if TYPE_CHECKING:
    from pathlib import Path

    from deployment.filtering import FilterRequest
    from tamis.scoring.filter_report import FilterReport
    from tamis.task import Task


class Format(StrEnum):
    """Formats of the rows."""

    parquet = "parquet"
    jsonl = "jsonl.zst"
    delta = "delta"


def filter_(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="Path, glob or URL of shards, or @FILE with one a line; 'packages' is the "
            "embedded pool. Repeatable.",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder or URL; a run resumes there.")
    ] = None,
    version: ModelVersion = None,
    threshold: Threshold = None,
    format_: Annotated[Format, typer.Option("--format", help="Of the rows.")] = Format.parquet,
    engine: Engine = EngineName.local,
    workers: Workers = 0,
    ray_address: RayAddress = None,
    encoder_cpus: EncoderCpus = 1,
    max_quarantined: Annotated[
        str,
        typer.Option("--max-quarantined", help="Fail, once finished, above this share: 1%, 0.01."),
    ] = "100%",
    encoder_only: EncoderOnly = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over: remove what an earlier run wrote there.")
    ] = False,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Sift a corpus: keep what scores high enough, and say why the rest was dropped."""
    from cli.plan import prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    check_threshold(threshold, loaded.target.scale)
    quarantined = share("--max-quarantined", max_quarantined)
    check_engine(engine, ray_address)
    from deployment.session import open_session

    with open_session(stack) as session:
        from cli import execute, figures
        from deployment import filtering
        from deployment.registry import Registry

        registry = Registry()
        chosen = registry.get(loaded.name, version) if version else registry.champion(loaded.name)
        request = filtering.FilterRequest(
            inputs=tuple(inputs or ["packages"]),
            output=output or f"{session.outputs}/{loaded.name}/{chosen.version}",
            version=chosen.version,
            threshold=threshold,
            format=format_.value,
            engine=engine.value,
            workers=workers,
            ray_address=ray_address,
            encoder_cpus=encoder_cpus,
            fresh=fresh,
            max_quarantined=quarantined,
            encoder_only=encoder_only,
        )
        filtering.check(loaded, request, session)
        if dry_run:
            show_plan(f"filter with {loaded.name} on {stack}", _plan(loaded, request))
            write(Result(verb="filter", task=loaded.name, stack=stack, status="planned"), result)
            return
        from pipelines.filtering import filtering as pipeline

        again = {"request": filtering.resumed(request)}
        ran = execute.run(
            session, pipeline, task=loaded, again=again, request=request, home=session.scratch
        )
        report = ran.load("sift", "filter_report")
        scoring = ran.load("sift", "scoring")
        figures.show_filter(report)
        leave_recall(session.home, loaded.name, report)
        figures.console.print(f"  {scoring.sentence}", soft_wrap=True)
        outcome = Result(
            verb="filter",
            task=loaded.name,
            stack=stack,
            run_id=str(ran.run.id),
            pipeline_code=scoring.pipeline_code,
            cost=ran.cost,
            model_version=chosen.version,
            threshold=report.threshold,
            counts=figures.of_filter(report),
            outputs={"output": request.output, "report": f"{request.output}/report.html"},
            seconds=clock.seconds(),
        )
    figures.console.print("  look at it: ", end="")
    figures.console.print(outcome.outputs["report"], markup=False, soft_wrap=True)
    write(outcome, result)


def leave_recall(home: Path, task: str, report: FilterReport) -> None:
    """Leave for Prometheus what the audit of a cascade found, if there was one.

    The upper end of the interval: an alert rings when recall is surely below the promise.
    """
    from tamis.monitoring.state import change_state

    found = report.audit
    if found is None or found.recall is None:
        return
    recall = {
        "cascade_recall": found.recall_at_most,
        "cascade_recall_promised": found.promise.recall,
    }
    change_state(home, task, lambda state: state.model_copy(update=recall))


def check_threshold(threshold: float | None, scale: tuple[float, float]) -> None:
    """Refuse a threshold that keeps all or nothing.

    Raises:
        UsageError: It is not on the scale.
    """
    from tamis.errors import UsageError

    low, high = scale
    if threshold is not None and not low < threshold <= high:
        raise UsageError(
            f"--threshold: given {threshold:g}; allowed: above {low:g} and at most {high:g}"
        )


def check_engine(engine: EngineName, ray_address: str | None) -> None:
    """Refuse the address of a cluster that is not asked to do anything.

    Raises:
        UsageError: The engine is another one.
    """
    from tamis.errors import UsageError

    if ray_address is not None and engine is not EngineName.ray:
        raise UsageError(f"--ray-address: given {ray_address!r}; allowed: only with --engine ray")


def _plan(task: Task, request: FilterRequest) -> list[tuple[str, object]]:
    return [
        ("pipeline", "sift, manifest"),
        ("input", ", ".join(request.inputs)),
        ("output", request.output),
        ("model", f"version {request.version}"),
        ("threshold", request.threshold if request.threshold is not None else "the model's own"),
        ("format", request.format),
        ("engine", f"{request.engine}, {request.workers or 'all'} workers"),
        ("stages", ", ".join(stages_of(task))),
    ]


def stages_of(task: Task) -> list[str]:
    """Names of the stages that are switched on, in order."""
    chosen = task.filter
    switches = {
        f"exact duplicates in the {chosen.exact.scope}": chosen.exact.enabled,
        "language": chosen.language.enabled,
        "score": True,
        "rules": chosen.rules.enabled,
        "decontamination": bool(chosen.decontamination.files),
        f"personal data ({chosen.pii.action})": chosen.pii.action != "none",
        "near-duplicates": chosen.near_duplicates.enabled,
    }
    return [name for name, on in switches.items() if on]
