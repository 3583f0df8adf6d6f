"""python run.py explain: why a model scores a text as it does, and what moves its scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.options import ModelVersion, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from deployment.session import Session
    from tamis.corpus.dataset import Dataset
    from tamis.explanation.report import ModelExplanation
    from tamis.explanation.words import Explanation
    from tamis.task import Task

console = Console(highlight=False)

_TOP = 12
_MOST_BYTES = 16_000_000
_UP = ("", "on #dff0e7", "on #b5dcc8", "on #7fc3a2", "bold on #4fa981")
_DOWN = ("", "on #fae6da", "on #f2c5a8", "on #e89f70", "bold on #df8045")


def explain(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    text: Annotated[str | None, typer.Option("--text", help="The text.")] = None,
    document: Annotated[
        str | None, typer.Option("--id", help="Id of one of the task's labelled documents.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A file with the text, in UTF-8.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--global", help="What moves the model's scores, over a sample.")
    ] = False,
    sample: Annotated[
        int, typer.Option("--sample", min=10, max=10_000, help="With --global: documents.")
    ] = 100,
    version: ModelVersion = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page here; explain.html by default.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    result: ResultFile = None,
) -> None:
    """Explain a score word by word, or with --global what moves a model's scores."""
    from cli.plan import prepare
    from cli.result import Clock, Result, write

    clock = Clock()
    _check(text, document, file, everything)
    page = html or Path("explain.html")
    _check_page(page)
    given = text if text is not None else _read(file) if file is not None else None
    loaded = prepare(task, stack, settings, result)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment.registry import Registry
        from tamis.models.classifier import load_classifier

        registry = Registry()
        chosen = registry.get(loaded.name, version) if version else registry.champion(loaded.name)
        classifier = load_classifier(registry.download(chosen, session.home / "models"))
        name = f"{loaded.name} version {chosen.version}"
        if everything:
            from tamis.explanation.overview import explain_model

            known = _documents(loaded, classifier.info.trained_on.fingerprint)
            with console.status("explaining documents") as status:
                report = explain_model(
                    classifier,
                    known,
                    sample,
                    loaded.seed,
                    lambda done, of: status.update(f"explaining documents: {done} of {of}"),
                )
            _keep(report, loaded.name, session)
            show_overview(report, console)
            markup, counts = report.to_html(), {"explained": report.documents}
        else:
            from tamis.explanation.explain import explain_text
            from tamis.explanation.page import text_page

            if given is None:
                known = _documents(loaded, classifier.info.trained_on.fingerprint)
                given = _text_of(known, document or "")
            found = explain_text(classifier, given)
            show(found, console, classifier.info.threshold)
            lead = f"document {document}" if document else f"{len(given):,} characters"
            markup = text_page(found, f"Why this score: {name}", lead)
            counts = {"words": len(found.words)}
    _write_page(page, markup)
    console.print(Text.assemble("\n  look at it: ", str(page)), soft_wrap=True)
    write(
        Result(
            verb="explain",
            task=loaded.name,
            stack=stack,
            model_version=chosen.version,
            counts=counts,
            outputs={"html": str(page)},
            seconds=clock.seconds(),
        ),
        result,
    )


def _check(text: str | None, document: str | None, file: Path | None, everything: bool) -> None:
    """Refuse none and several of what can be explained.

    Raises:
        UsageError: Not exactly one was given.
    """
    from tamis.errors import UsageError

    given = sum((text is not None, document is not None, file is not None, everything))
    if given != 1:
        raise UsageError(
            f"explain: given {given} things to explain; allowed: exactly one of --text, --id, "
            "--file and --global"
        )


def _read(file: Path) -> str:
    """The text of a file; what is no UTF-8 in it is replaced.

    Raises:
        UsageError: It cannot be read, or is too large.
    """
    from tamis.errors import UsageError

    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--file: {file} cannot be read ({error.strerror})") from None
    if len(content) > _MOST_BYTES:
        raise UsageError(f"--file: {file} is larger than the {_MOST_BYTES:,} bytes allowed")
    return content.decode("utf-8", "replace")


def _documents(task: Task, fingerprint: str) -> Dataset:
    """The documents that the model was made from, if ZenML still has them; else the sources'."""
    from zenml.client import Client

    from tamis.corpus.dataset import Dataset
    from tamis.corpus.sources import ingest

    for name in ("documents", "all_documents"):
        found = Client().list_artifact_versions(artifact=name, sort_by="desc:created", size=20)
        for version in found.items:
            kept = version.run_metadata.get("fingerprint")
            if kept == fingerprint:
                loaded = version.load()
                if isinstance(loaded, Dataset):
                    return loaded
    return ingest(task)


def _text_of(documents: Dataset, name: str) -> str:
    """The text of a labelled document.

    Raises:
        UsageError: There is none of that id.
    """
    import difflib

    from tamis.errors import UsageError

    ids = documents.strings("id").tolist()
    if name not in ids:
        close = difflib.get_close_matches(name, ids, n=1, cutoff=0.3)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(f"--id: given {name!r}; allowed: the id of a labelled document{hint}")
    return str(documents.texts()[ids.index(name)])


def _keep(report: ModelExplanation, task: str, session: Session) -> None:
    """Keep the report as an artifact, which the dashboard shows."""
    from zenml import save_artifact

    from materializers.report import ReportMaterializer

    save_artifact(report, f"explanation_{task}", materializer=ReportMaterializer)


def _check_page(page: Path) -> None:
    """Find out before the work whether the page can be written after it.

    Raises:
        UsageError: It cannot.
    """
    import os

    from tamis.errors import UsageError

    if page.is_dir() or not os.access(page.absolute().parent, os.W_OK):
        raise UsageError(f"--html: given {str(page)!r}; allowed: a file that can be written")


def _write_page(page: Path, markup: str) -> None:
    from tamis.errors import UsageError

    try:
        page.write_text(markup, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--html: {page} cannot be written ({error.strerror})") from None


def show(found: Explanation, to: Console, threshold: float) -> None:
    """A text on a terminal: coloured where it can be, with a table that needs no colour."""
    from tamis.explanation.page import level
    from tamis.scoring.inspection.plain import one_line, visible

    verdict = "kept" if found.calibrated >= threshold else "dropped"
    to.print(
        f"\n[bold]{found.calibrated:.3f}[/]: {verdict} at the threshold {threshold:.3f} "
        f"[dim](before calibration {found.score:.3f} {found.unit}, of a text that says nothing "
        f"{found.baseline:.3f})[/]",
        soft_wrap=True,
    )
    largest = max((abs(word.weight) for word in found.words), default=0.0)
    shown, at = Text(), 0
    for word in found.words:
        shown.append(visible(found.text[at : word.start]))
        strength = level(word.weight, largest)
        style = (_UP if word.weight > 0 else _DOWN)[strength]
        shown.append(visible(word.text), f"black {style}" if strength else "")
        at = word.end
    shown.append(visible(found.text[at:]))
    to.print(shown)
    legend = Text("  lowers ", "dim")
    for style in (*_DOWN[:0:-1], *_UP[1:]):
        legend.append("  ", style)
    legend.append(" raises the score", "dim")
    to.print(legend)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("  word", "weight", "at character"):
        table.add_column(heading, justify="left" if heading == "  word" else "right")
    for word in found.top(_TOP):
        table.add_row(Text(f"  {one_line(word.text, 40)}"), f"{word.weight:+.4f}", f"{word.start}")
    to.print(table)
    to.print(
        f"  [dim]{found.method}, {found.detail}; completeness gap {found.completeness_gap:+.4f} "
        f"{found.unit}[/]",
        soft_wrap=True,
    )


def show_overview(report: ModelExplanation, to: Console) -> None:
    """What moves a model's scores, on a terminal."""
    from tamis.scoring.inspection.plain import one_line

    to.print(
        f"\n[bold]What moves the score[/]: {report.method} of {report.documents} documents, drawn "
        f"from {report.drawn_from}",
        soft_wrap=True,
    )
    for name, words in (("raise", report.raising), ("lower", report.lowering)):
        told = ", ".join(f"{one_line(e.word, 30)} {e.weight.value:+.3f}" for e in words[:_TOP])
        to.print(Text(f"  words that {name} it: {told or 'none is sure'}"), soft_wrap=True)
    ends = [*report.sources[:3], *report.sources[3:][-3:]]
    told = ", ".join(f"{one_line(e.source, 40)} {e.score.value:.2f}" for e in ends)
    to.print(Text(f"  sources, highest and lowest: {told}"), soft_wrap=True)
    if report.surrogate is not None:
        best = report.surrogate.importances[:5]
        told = ", ".join(f"{each.feature} {each.loss:.3f}" for each in best)
        to.print(Text(f"  plain features: {told}"), soft_wrap=True)
        to.print(Text(f"  {report.surrogate.sentence()}", "dim"), soft_wrap=True)
    if report.deletion is not None:
        for reason in report.deletion.decision.reasons:
            mark = ("  ✓ ", "green") if reason.passed else ("  ✗ ", "red")
            to.print(Text.assemble(mark, reason.detail), soft_wrap=True)
