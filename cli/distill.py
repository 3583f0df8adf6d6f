"""python run.py distill: a student that spares the encoder most of a corpus, with a promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.filter import check_engine, check_threshold
from cli.options import (
    DryRun,
    EncoderCpus,
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
)
from cli.select import percent_of, tokens

if TYPE_CHECKING:
    from deployment.distilling import DistillRequest, Keep
    from tamis.task import Task


def distill(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="The corpus to be filtered, as for filter. Repeatable."),
    ] = None,
    version: ModelVersion = None,
    documents: Annotated[
        int | None,
        typer.Option("--documents", min=500, help="Rows for the encoder to score; 20,000."),
    ] = None,
    threshold: Threshold = None,
    top_percent: Annotated[
        float | None, typer.Option("--top-percent", help="Keep this share of the corpus.")
    ] = None,
    token_budget: Annotated[
        str | None,
        typer.Option("--token-budget", help="Keep the best of the corpus up to so many: 500M."),
    ] = None,
    engine: Engine = EngineName.local,
    workers: Workers = 0,
    ray_address: RayAddress = None,
    encoder_cpus: EncoderCpus = 1,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Have the encoder teach a fast student on a corpus, and certify when it may decide."""
    from cli.plan import prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    if documents is not None:
        settings = [*settings, f"scoring.cascade.documents={documents}"]
    loaded = prepare(task, stack, settings, result)
    check_threshold(threshold, loaded.target.scale)
    keep = _keep(threshold, top_percent, token_budget)
    check_engine(engine, ray_address)
    from deployment.session import open_session

    with open_session(stack) as session:
        from cli import execute, figures
        from deployment import distilling, filtering
        from deployment.registry import Registry

        registry = Registry()
        chosen = registry.get(loaded.name, version) if version else registry.champion(loaded.name)
        request = distilling.DistillRequest(
            corpus=filtering.FilterRequest(
                inputs=tuple(inputs or ["packages"]),
                output="",
                version=chosen.version,
                engine=engine.value,
                workers=workers,
                ray_address=ray_address,
                encoder_cpus=encoder_cpus,
            ),
            keep=keep,
            samples=f"{session.shared}/taught",
        )
        filtering.check_inputs(loaded, request.corpus, session)
        if dry_run:
            show_plan(f"distill {loaded.name} on {stack}", _plan(loaded, request))
            write(Result(verb="distill", task=loaded.name, stack=stack, status="planned"), result)
            return
        from pipelines.distillation import distillation

        ran = execute.run(session, distillation, task=loaded, request=request, home=session.scratch)
        report = ran.load("distill", "distill_report")
        attached = ran.load("attach", "attached")
        page = session.home / "output" / loaded.name / f"cascade-{attached.digest[:12]}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(report.to_html(), encoding="utf-8")
        figures.show_cascade(report)
        outcome = Result(
            verb="distill",
            task=loaded.name,
            stack=stack,
            run_id=str(ran.run.id),
            cost=ran.cost,
            model_version=chosen.version,
            threshold=report.threshold,
            metrics=figures.of_cascade(report),
            counts=report.documents,
            outputs={"report": str(page)},
            seconds=clock.seconds(),
        )
    figures.console.print("  look at it: ", end="")
    figures.console.print(outcome.outputs["report"], markup=False, soft_wrap=True)
    write(outcome, result)


def _keep(threshold: float | None, top_percent: float | None, token_budget: str | None) -> Keep:
    from deployment.distilling import Keep
    from tamis.errors import UsageError

    given = [value for value in (threshold, top_percent, token_budget) if value is not None]
    if len(given) > 1:
        raise UsageError(
            f"distill: given {len(given)} criteria; allowed: one of --threshold, --top-percent "
            "and --token-budget, or none for the model's own threshold"
        )
    if threshold is not None:
        return Keep(kind="threshold", value=threshold)
    if top_percent is not None:
        return Keep(kind="top_share", value=percent_of(top_percent))
    if token_budget is not None:
        return Keep(kind="token_budget", value=float(tokens(token_budget)))
    return Keep()


def _plan(task: Task, request: DistillRequest) -> list[tuple[str, object]]:
    chosen = task.scoring.cascade
    promise = chosen.promise
    return [
        ("pipeline", "score_sample, choose_backend, distill, attach"),
        ("input", ", ".join(request.corpus.inputs)),
        ("model", f"version {request.corpus.version}"),
        ("documents", f"{chosen.documents:,}, scored once by the encoder in fp32"),
        ("promise", f"recall {promise.recall:g}, precision {promise.precision:g}, "
         f"confidence {promise.confidence:g}"),
        ("keep", request.keep.kind if request.keep.kind == "model"
         else f"{request.keep.kind} {request.keep.value:g}"),
        ("backend", task.scoring.backend),
    ]  # fmt: skip
