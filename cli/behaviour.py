"""python run.py behaviour: behaviour tests of a registered version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ModelVersion, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from cli.result import IntervalOut
    from tamis.evaluation.behaviour_figures import BehaviourReport
    from tamis.evaluation.behaviour_settings import BehaviourSettings


def behaviour(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    version: ModelVersion = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report's page to this file, too.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Try how a model behaves when texts are changed; what fails ends with exit code 3."""
    from cli.plan import console, prepare, show_plan
    from cli.result import Clock, DecisionOut, Result, write
    from deployment.ledger import reasons_of

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    check_page(html)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment import release
        from deployment.registry import CHAMPION, Registry
        from steps.progress import embedding
        from tamis.corpus.sources import ingest
        from tamis.evaluation.behaviour import behave, draw
        from tamis.models.classifier import load_classifier

        registry = Registry()
        chosen = registry.get(loaded.name, version or CHAMPION)
        if dry_run:
            show_plan(f"behaviour of {loaded.name} {chosen.version}", _plan(loaded.behaviour))
            write(Result(verb="behaviour", task=loaded.name, stack=stack, status="planned"), result)
            return
        classifier = load_classifier(registry.download(chosen, session.home / "models"))
        ids = classifier.info.trained_on.test
        documents = draw(ingest(loaded), ids, loaded.behaviour.sample, loaded.seed)
        with embedding("trying the model's behaviour") as progress:
            report = behave(classifier, loaded.behaviour, documents, loaded.seed, progress)
        release.keep_behaviour(registry, chosen, report)
    show_behaviour(report)
    outputs = {}
    if html is not None:
        html.write_text(report.to_html(), encoding="utf-8")
        outputs["html"] = str(html)
        console.print(f"\n  look at it: {html}", markup=False, soft_wrap=True)
    outcome = Result(
        verb="behaviour",
        task=loaded.name,
        stack=stack,
        status="done" if report.passed else "refused",
        model_version=chosen.version,
        alias=next((name for name in chosen.aliases if name in ("champion", "challenger")), None),
        metrics=_metrics(report),
        counts={"documents": report.documents, "tests": len(report.tests)},
        decision=DecisionOut(passed=report.passed, reasons=reasons_of(report.decision())),
        outputs=outputs,
        seconds=clock.seconds(),
    )
    write(outcome, result)
    if not report.passed:
        raise typer.Exit(3)


def check_page(page: Path | None) -> None:
    """Find out before the work whether the page can be written after it.

    Raises:
        UsageError: The folder does not exist, or the page is a folder.
    """
    from tamis.errors import UsageError

    if page is not None and (page.is_dir() or not page.absolute().parent.is_dir()):
        raise UsageError(f"--html: given {str(page)!r}; allowed: a file that can be written")


def show_behaviour(report: BehaviourReport) -> None:
    """Every test with its figures, on the terminal."""
    from cli.plan import console

    console.print(f"\n[bold]{report.task}[/] {report.sentence()}")
    for test in report.tests:
        console.print("  [green]✓[/] " if test.passed else "  [red]✗[/] ", end="")
        console.print(f"{test.name}: {test.detail}", markup=False, soft_wrap=True)


def _plan(settings: BehaviourSettings) -> list[tuple[str, object]]:
    return [
        ("documents", f"at most {settings.sample} of the test side"),
        ("invariance", ", ".join(settings.invariance) or "none"),
        ("direction", ", ".join(settings.direction) or "none"),
        ("noise", ", ".join(f"{n.kind} {n.share:.0%}" for n in settings.noise) or "none"),
        ("texts", len(settings.texts)),
        ("gate", f"{settings.gate} (in training)"),
    ]


def _metrics(report: BehaviourReport) -> dict[str, IntervalOut]:
    from cli.figures import out

    return {
        f"{test.kind} {test.name}: {name}": out(found)
        for test in report.tests
        for name, found in test.figures.items()
    }
