"""python run.py train: the training pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from tamis.task import Task


def train(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Instead of reading the sources, train on a version that `data list` shows.",
        ),
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            "--tune",
            min=1,
            help="Search for hyper-parameters first, until so many trials are done in all.",
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Train a task's classifier, judge it, register it."""
    from cli.plan import prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    from cli.data import artifact_of
    from deployment.session import open_session
    from tamis.corpus.sources import stamp

    if tune:
        from tamis.tuning.search import check_space

        check_space(loaded)
    stamped = stamp(loaded.sources) if data is None else ""
    if dry_run:
        if data is not None:
            with open_session(stack):
                artifact_of(loaded, data)
        show_plan(f"train {loaded.name} on {stack}", _plan(loaded, data, tune))
        write(Result(verb="train", task=loaded.name, stack=stack, status="planned"), result)
        return
    with open_session(
        stack, experiments=("tamis_tuning" if tune else "tamis_training",)
    ) as session:
        version = "" if data is None else artifact_of(loaded, data)
        from cli import execute, figures
        from pipelines.training import training
        from pipelines.tuning import tuning

        searched: dict[str, Any] = {}
        if tune:
            searched = {"trials": tune, "journals": f"{session.shared}/tuning"}
        ran = execute.run(
            session,
            tuning if tune else training,
            task=loaded,
            stamp=stamped,
            home=session.scratch,
            ledger=session.ledger,
            data=version,
            **searched,
        )
        if tune:
            figures.show_tuning(ran.load("tune", "tuning"))
        registered = ran.load("register", "registered")
        evaluation = ran.load("evaluate", "evaluation")
        figures.show_evaluation(evaluation)
        figures.show_registered(registered)
        outcome = Result(
            verb="train",
            task=loaded.name,
            stack=stack,
            status="done" if registered.passed else "refused",
            run_id=str(ran.run.id),
            pipeline_code=registered.pipeline_code,
            cost=ran.cost,
            model_version=registered.version,
            alias=registered.alias,
            seconds=clock.seconds(),
            **figures.of_evaluation(evaluation),
            decision=figures.of_registered(registered),
        )
    write(outcome, result)
    if outcome.status == "refused":
        raise typer.Exit(3)


def _plan(task: Task, data: str | None, trials: int | None) -> list[tuple[str, object]]:
    return [
        (
            "pipeline",
            f"ingest, validate, split, {'tune, ' if trials else ''}train, evaluate, behave, gate, "
            "register",
        ),
        ("data", f"version {data}")
        if data is not None
        else ("sources", ", ".join(source.kind for source in task.sources)),
        ("target", task.target.model_dump_json()),
        ("model", f"{task.model.family}, {task.model.variant}"),
        (
            "text",
            f"{task.text.long}, {task.text.max_characters} characters, "
            f"{task.text.max_tokens} tokens",
        ),
        *([("tune", f"{trials} trials on {task.tune.folds} folds")] if trials else []),
        ("metric", task.metric),
        ("gate", f"floor {task.gate.floor}, better than {', '.join(task.gate.beat)}"),
        ("seed", task.seed),
    ]
