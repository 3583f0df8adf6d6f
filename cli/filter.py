"""python run.py filter: the filtering pipeline."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from deployment.filtering import FilterRequest


class Format(StrEnum):
    """Formats of kept and dropped documents."""

    parquet = "parquet"
    jsonl = "jsonl.zst"


def filter_(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="Path, glob or URL of shards; 'packages' is the embedded pool."
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder or URL; a run resumes there.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Model version; the champion by default.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Keep from this score; the model's own.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Of the files.")] = Format.parquet,
    workers: Annotated[
        int, typer.Option("--workers", "-j", min=0, help="Processes; 0: one for every core.")
    ] = 0,
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
    _check_threshold(threshold, loaded.target.scale)
    from deployment.stacks import open_session

    with open_session(stack) as session:
        from cli import execute, figures
        from deployment import filtering
        from deployment.registry import Registry

        registry = Registry()
        chosen = registry.get(loaded.name, version) if version else registry.champion(loaded.name)
        request = filtering.FilterRequest(
            inputs=tuple(inputs or ["packages"]),
            output=output or str(session.home / "output" / loaded.name / chosen.version),
            version=chosen.version,
            threshold=threshold,
            format=format_.value,
            workers=workers or _cores(),
            fresh=fresh,
        )
        filtering.check(loaded, request, session.home)
        if dry_run:
            show_plan(f"filter with {loaded.name} on {stack}", _plan(request))
            write(Result(verb="filter", task=loaded.name, stack=stack, status="planned"), result)
            return
        from pipelines.filtering import filtering as pipeline

        run = execute.run(pipeline, task=loaded, request=request, home=str(session.home))
        report = execute.load(run, "sift", "filter_report")
        figures.show_filter(report)
        outcome = Result(
            verb="filter",
            task=loaded.name,
            stack=stack,
            run_id=str(run.id),
            model_version=chosen.version,
            counts=figures.of_filter(report),
            outputs={"output": request.output, "report": f"{request.output}/report.html"},
            seconds=clock.seconds(),
        )
    figures.console.print("  look at it: ", end="")
    figures.console.print(outcome.outputs["report"], markup=False, soft_wrap=True)
    write(outcome, result)


def _check_threshold(threshold: float | None, scale: tuple[float, float]) -> None:
    from tamis.errors import UsageError

    low, high = scale
    if threshold is not None and not low < threshold <= high:
        raise UsageError(
            f"--threshold: given {threshold:g}; allowed: above {low:g} and at most {high:g}"
        )


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plan(request: FilterRequest) -> list[tuple[str, object]]:
    return [
        ("pipeline", "sift, manifest"),
        ("input", ", ".join(request.inputs)),
        ("output", request.output),
        ("model", f"version {request.version}"),
        ("threshold", request.threshold if request.threshold is not None else "the model's own"),
        ("workers", request.workers),
    ]
