"""python run.py retrain: the retraining pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from tamis.task import Task


def retrain(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    window: Annotated[
        list[str] | None,
        typer.Option(
            "--window",
            "-w",
            help="Files of new documents, or of `requests window`; by default the task's.",
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Take new documents in: measure drift, train a challenger, promote it if it is better."""
    from cli.plan import prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    loaded = with_window(prepare(task, stack, settings, result), window)
    from tamis.corpus.sources import stamp

    source = loaded.retrain.window
    stamps = (stamp(loaded.sources), stamp((source,) if source else ()))
    from deployment.session import open_session

    with open_session(stack, experiments=("tamis_retraining",)) as session:
        from cli import execute, figures
        from deployment.registry import Registry

        champion = Registry().champion(loaded.name)
        if dry_run:
            show_plan(
                f"retrain {loaded.name} on {stack}",
                [
                    ("pipeline", "drift, challenger, comparison, promotion"),
                    ("champion", f"version {champion.version}"),
                    ("window", source.model_dump_json() if source else "none"),
                    ("margin", f"{loaded.retrain.old_margin} of {loaded.metric}"),
                    ("release", loaded.retrain.release),
                ],
            )
            write(Result(verb="retrain", task=loaded.name, stack=stack, status="planned"), result)
            return
        from pipelines.retraining import retraining

        ran = execute.run(
            session,
            retraining,
            task=loaded,
            stamp=stamps[0],
            window_stamp=stamps[1],
            champion_version=champion.version,
            home=session.scratch,
            ledger=session.ledger,
        )
        drift = ran.load("measure_drift", "drift")
        registered = ran.load("promote_or_refuse", "registered")
        evaluation = ran.load("evaluate", "evaluation")
        figures.show_drift(drift)
        figures.show_evaluation(evaluation)
        figures.show_registered(registered)
        if registered.alias == "challenger":
            strategy = loaded.retrain.release
            figures.console.print(
                f"  next: python run.py release --task {task} --strategy {strategy}"
            )
        outcome = Result(
            verb="retrain",
            task=loaded.name,
            stack=stack,
            status="done" if registered.passed else "refused",
            run_id=str(ran.run.id),
            pipeline_code=registered.pipeline_code,
            cost=ran.cost,
            model_version=registered.version,
            alias=registered.alias,
            drift=figures.of_drift(drift),
            decision=figures.of_registered(registered),
            seconds=clock.seconds(),
            **figures.of_evaluation(evaluation),
        )
    write(outcome, result)
    if outcome.status == "refused":
        raise typer.Exit(3)


def with_window(task: Task, paths: list[str] | None) -> Task:
    """The task with the window that the command names.

    Raises:
        UsageError: Neither the command nor the task names one.
    """
    from tamis.errors import UsageError
    from tamis.task import FilesSource

    if paths:
        from tamis.monitoring.export import window_source

        served = window_source(paths)
        files = [source for source in task.sources if isinstance(source, FilesSource)]
        like = files[0] if files else FilesSource(kind="files", path="")
        window = served or like.model_copy(update={"path": tuple(paths)})
        retrain = task.retrain.model_copy(update={"window": window})
        return task.model_copy(update={"retrain": retrain})
    if task.retrain.window is None:
        raise UsageError(
            f"retrain: {task.name} names no window; give --window FILE, "
            "or set retrain.window in the task file"
        )
    return task
