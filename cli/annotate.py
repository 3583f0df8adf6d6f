"""python run.py annotate: the annotation pipeline, and the way to people and back."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from cli.result import Clock, IntervalOut
    from deployment.annotating import AnnotationRequest
    from tamis.annotation.exchange import Tool
    from tamis.annotation.report import AnnotationReport
    from tamis.task import Task

TOOLS = ("argilla", "label-studio")


class LabelFormat(StrEnum):
    """Formats of the labels."""

    parquet = "parquet"
    jsonl = "jsonl"


def annotate(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="Path, glob or URL of documents; 'packages' is the embedded pool. Repeatable.",
        ),
    ] = None,
    budget: Annotated[int, typer.Option("--budget", "-n", min=1, help="Most documents.")] = 100,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", help="random, uncertain, drifted, disagreeing or mix; the task's."
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Base URL of an OpenAI-compatible API.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="What the endpoint calls the judge.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder or URL; a run resumes there.")
    ] = None,
    format_: Annotated[
        LabelFormat, typer.Option("--format", help="Of the labels.")
    ] = LabelFormat.parquet,
    unlabelled: Annotated[
        bool, typer.Option("--no-labels-yet", help="Do not read the task's own labels first.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--retry-quarantined", help="Ask again where an answer was unusable.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Choose documents anew; answers are kept.")
    ] = False,
    export: Annotated[
        tuple[str, str],
        typer.Option("--export", help="Write --output for review: argilla or label-studio, FILE."),
    ] = ("", ""),
    import_: Annotated[
        tuple[str, str],
        typer.Option("--import", help="Take people's labels into --output: TOOL FILE."),
    ] = ("", ""),
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Have a language model label the documents that are worth it most."""
    from cli.plan import prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    given = {"strategy": strategy, "endpoint": endpoint, "model": model}
    told = [f"annotate.{key}={json.dumps(value)}" for key, value in given.items() if value]
    loaded = prepare(task, stack, [*settings, *told], result)
    if export[0] or import_[0]:
        _exchange(loaded, stack, output, export, import_, result, clock)
        return
    from deployment.session import open_session

    with open_session(stack) as session:
        from cli import execute
        from deployment import annotating

        rubric = annotating.rubric_of(loaded)
        annotating.terms_of(loaded, rubric)
        version, rival = annotating.advisers_of(loaded)
        paths = tuple(inputs or ["packages"])
        name = "" if output else annotating.folder_name(loaded, rubric, paths, version)
        request = annotating.AnnotationRequest(
            inputs=paths,
            output=output or f"{session.outputs}/{loaded.name}/annotations/{name}",
            journal=annotating.journal_of(session, loaded.name),
            budget=budget,
            rubric=rubric,
            version=version,
            rival=rival,
            format=format_.value,
            unlabelled=unlabelled,
            again=again,
            fresh=fresh,
        )
        annotating.check(loaded, request, session)
        if dry_run:
            show_plan(f"annotate for {loaded.name} on {stack}", _plan(loaded, request))
            write(Result(verb="annotate", task=loaded.name, stack=stack, status="planned"), result)
            return
        from pipelines.annotation import annotation

        secret = loaded.annotate.secret
        pipeline = annotation.with_options(secrets=[secret]) if session.remote and secret else None
        ran = execute.run(
            session,
            pipeline or annotation,
            task=loaded,
            again={"request": annotating.resumed(request)},
            request=request,
            home=session.scratch,
        )
        report: AnnotationReport = ran.load("annotate", "annotation_report")
        _show(report)
        outcome = Result(
            verb="annotate",
            task=loaded.name,
            stack=stack,
            run_id=str(ran.run.id),
            cost={**ran.cost, "usd": report.cost},
            model_version=version,
            metrics=_metrics(report),
            counts=_counts(report),
            outputs=_outputs(request.output, request.format),
            seconds=clock.seconds(),
        )
    write(outcome, result)
    annotating.require_answers(report)


def _exchange(
    task: Task,
    stack: str,
    output: str | None,
    export: tuple[str, str],
    import_: tuple[str, str],
    result: Path | None,
    clock: Clock,
) -> None:
    """Write a round for people, or take their labels in; no pipeline runs and nothing is asked."""
    from cli.plan import console
    from cli.result import Result, write
    from deployment.annotating import export_labels, import_labels, journal_of
    from deployment.session import Session
    from deployment.stacks import load_stack
    from tamis.errors import UsageError

    if output is None:
        raise UsageError("--export, --import: also give --output, the folder of the labels")
    if export[0] and import_[0]:
        raise UsageError("annotate: given --export and --import; allowed: one of them")
    journal = journal_of(Session(stack, load_stack(stack)), task.name)
    outcome: dict[str, Any] = {"verb": "annotate", "task": task.name, "stack": stack}
    if export[0]:
        count = export_labels(_tool("--export", export[0]), export[1], output, journal)
        console.print(f"  {count:,} documents for review: ", end="")
        console.print(export[1], markup=False, soft_wrap=True)
        outcome |= {"counts": {"exported": count}, "outputs": {"file": export[1]}}
    else:
        taken, report = import_labels(_tool("--import", import_[0]), import_[1], output, journal)
        people = ", ".join(taken.people) or "nobody"
        console.print(
            f"  {taken.labels:,} labels of {taken.documents:,} documents, by {people}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        for reason, count in taken.skipped.items():
            console.print(f"  [yellow]![/] {count:,} skipped: {reason}")
        _show(report)
        outcome |= {
            "metrics": _metrics(report),
            "counts": {**_counts(report), "imported": taken.labels},
            "outputs": {"output": output, "report": f"{output}/report.html"},
        }
    write(Result(**outcome, seconds=clock.seconds()), result)


def _tool(option: str, given: str) -> Tool:
    from tamis.errors import UsageError

    if given == "argilla":
        return "argilla"
    if given == "label-studio":
        return "label-studio"
    raise UsageError(f"{option}: given {given!r}; allowed: {', '.join(TOOLS)}, then a file")


def _plan(task: Task, request: AnnotationRequest) -> list[tuple[str, object]]:
    chosen = task.annotate
    cap = "no cap" if chosen.cost_cap is None else f"at most {chosen.cost_cap:g} USD"
    return [
        ("pipeline", "choose_documents, annotate"),
        ("input", ", ".join(request.inputs)),
        ("output", request.output),
        ("judge", f"{chosen.model} at {chosen.endpoint}"),
        ("rubric", f"{request.rubric.name} {request.rubric.version}"),
        ("budget", f"{request.budget:,} documents, {chosen.double_share:.0%} of them twice, {cap}"),
        ("strategy", ", ".join(f"{name} {part:.0%}" for name, part in chosen.shares().items())),
    ]


def _show(report: AnnotationReport) -> None:
    from cli.plan import console

    console.print(f"  {report.sentence()}", markup=False, soft_wrap=True)
    for name, found in (("two readings", report.agreement), ("people", report.with_people)):
        if found is not None:
            kappa = "not defined" if found.kappa is None else str(found.kappa)
            console.print(
                f"  agreement ({name}): kappa {kappa}, same score {found.exact}, "
                f"{found.n:,} documents",
                soft_wrap=True,
            )
    console.print(f"  {report.cost:.4f} USD, {report.sent:,} requests")
    console.print("  look at it: ", end="")
    console.print(f"{report.output}/report.html", markup=False, soft_wrap=True)


def _metrics(report: AnnotationReport) -> dict[str, IntervalOut]:
    from cli.result import IntervalOut

    found: dict[str, IntervalOut] = {}
    for name, agreed in (("", report.agreement), ("people_", report.with_people)):
        if agreed is not None:
            both = {"exact": agreed.exact, "kappa": agreed.kappa}
            found |= {
                f"{name}{key}": IntervalOut(value=of.value, low=of.low, high=of.high, n=of.n)
                for key, of in both.items()
                if of is not None
            }
    return found


def _counts(report: AnnotationReport) -> dict[str, int]:
    counts = {**report.documents.model_dump(), "requests": report.sent, "cached": report.cached}
    second = report.second.model_dump()
    return {
        **counts,
        "reviewed": report.reviewed,
        **{f"second_{name}": count for name, count in second.items()},
    }


def _outputs(output: str, form: str) -> dict[str, str]:
    names = {"labels": f"labels.{form}", "source": "source.yaml", "report": "report.html"}
    return {"output": output, **{key: f"{output}/{name}" for key, name in names.items()}}
