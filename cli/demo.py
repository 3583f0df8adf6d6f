"""python run.py demo: the main job on real text, by the same commands that a person types."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.options import ResultFile

if TYPE_CHECKING:
    from cli.result import Result

RUN = Path(__file__).resolve().parent.parent / "run.py"
TASK = "edu_quality"


def demo(result: ResultFile = None) -> None:
    """Train, filter and retrain on the embedded documents, then sum up."""
    from cli.plan import console
    from cli.result import Clock, Result, check_writable, write

    check_writable(result)
    clock = Clock()
    done: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (verb, title) in enumerate(PARTS.items(), 1):
            console.print(f"\n[bold cyan]{number}/{len(PARTS)} {title}[/]")
            # By version: a second demo finds its output there, and has nothing left to do.
            more = ["--version", str(done["train"].model_version)] if verb == "filter" else []
            done[verb] = _run(verb, Path(folder) / f"{verb}.json", more)
    _summary(done["train"], done["filter"], done["retrain"], clock.seconds())
    write(Result(verb="demo", task=TASK, stack="local", seconds=clock.seconds()), result)


PARTS = {
    "train": "Train a classifier of educational value on about 750 annotated documents",
    "filter": "Filter the 20,600 documents that the installed packages carry",
    "retrain": "New kinds of documents arrive (news, package descriptions): retrain",
}


def _run(verb: str, file: Path, more: list[str]) -> Result:
    """One verb as a process of its own; a refusal by the gate is an outcome, not an error."""
    from cli.plan import console
    from cli.result import Result

    arguments = [verb, "--task", TASK, *more]
    console.print(f"[dim]$ python run.py {' '.join(arguments)}[/]")
    command = [sys.executable, str(RUN), *arguments, "--result", str(file)]
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):
        raise typer.Exit(code)
    return Result.model_validate_json(file.read_text(encoding="utf-8"))


def _summary(train: Result, sifted: Result, retrained: Result, seconds: float) -> None:
    from rich.table import Table

    from cli.plan import console

    table = Table(title="What happened", title_justify="left", box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, text in [
        ("learned", _learned(train)),
        ("kept", _kept(sifted)),
        ("drift", _drift(retrained)),
        ("retrained", _retrained(retrained)),
        ("look at", f"{sifted.outputs['report']}"),
        ("", "make dashboard   (ZenML dashboard and MLflow UI: runs, reports, models)"),
        ("took", f"{seconds / 60:.1f} minutes"),
    ]:
        table.add_row(name, text)
    console.print()
    console.print(table, soft_wrap=True)


def _learned(train: Result) -> str:
    cross = train.cross_validation
    model, n = cross["model"], cross["model"].n
    rest = ", ".join(f"{name} {cross[name].value:.2f}" for name in train.baselines)
    return (
        f"Spearman {model.value:.3f} ({model.low:.3f} to {model.high:.3f}) cross-validated on "
        f"{n} documents; baselines: {rest}"
    )


def _kept(sifted: Result) -> str:
    counts = sifted.counts
    return (
        f"{counts['kept']:,} of {counts['read']:,} documents, "
        f"{counts['characters_kept'] / 1e6:.1f} of {counts['characters_in'] / 1e6:.1f} million "
        f"characters; {counts['quarantined']:,} quarantined"
    )


def _drift(retrained: Result) -> str:
    drift = retrained.drift
    verdict = "found" if drift["drifted"] else "not found"
    return (
        f"{verdict} in a window of {drift['window']:.0f} documents: "
        f"p = {drift['p']:.2g} of all tests, alarm from {drift['level']:.2g}"
    )


def _retrained(retrained: Result) -> str:
    if retrained.decision is None or not retrained.decision.passed:
        return f"version {retrained.model_version} was refused; the champion stays"
    return f"version {retrained.model_version} is {retrained.alias}"
