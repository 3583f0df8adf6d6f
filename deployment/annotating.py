"""From a request to annotate to labels: models from the registry, the key from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from deployment.filtering import FilterRequest, shards_of
from deployment.paths import require_urls
from deployment.registry import Registry
from deployment.session import Session
from tamis.annotation.exchange import Imported, Tool, export, read_labels
from tamis.annotation.journal import Journal
from tamis.annotation.output import gather
from tamis.annotation.report import AnnotationReport
from tamis.annotation.reviews import keep
from tamis.annotation.rubric import Rubric, load_rubric
from tamis.annotation.run import annotate, choose, rewrite
from tamis.annotation.selection import (
    ChosenDocuments,
    Selection,
    Terms,
    read_selection,
    write_selection,
)
from tamis.annotation.strategies import Advisers, Progress, ScoreTexts, words_scorer
from tamis.config import Items, Strict
from tamis.corpus.dataset import Dataset
from tamis.corpus.lease import STALE_SECONDS
from tamis.corpus.output import open_output
from tamis.corpus.pool import EMBEDDED
from tamis.corpus.readers import Shard
from tamis.corpus.sources import ingest, stamp
from tamis.corpus.store import open_store
from tamis.errors import ConfigError, EngineError, UsageError
from tamis.fingerprint import sha256_of
from tamis.models.classifier import Classifier, load_classifier
from tamis.scoring.filter_run import shards_fingerprint
from tamis.task import Task

WORDS = "words"
"""The second scorer where the registry has but one model: words without their order."""


class AnnotationRequest(Strict):
    """What to annotate, and where the labels go; the judge is in the task.

    Attributes:
        inputs: Paths, globs or URLs; ``packages`` is the embedded pool.
        output: Folder or URL of labels and report.
        journal: Folder or URL of the task's answers, from all runs.
        budget: Most documents.
        rubric: What each score means.
        version: Champion in the registry; None where no strategy asks a model.
        rival: Another version, or ``words``; None likewise.
        format: Of the labels.
        unlabelled: The task's sources hold no labels yet, so they are not read.
        again: Ask again about documents whose answer was unusable.
        fresh: Choose documents anew; answers are kept.
        wait_seconds: How long to wait for another run that holds output or journal.
    """

    inputs: Items[str]
    output: str
    journal: str
    budget: int
    rubric: Rubric
    version: str | None = None
    rival: str | None = None
    format: Literal["parquet", "jsonl"] = "parquet"
    unlabelled: bool = False
    again: bool = False
    fresh: bool = False
    wait_seconds: float = 0.0


def journal_of(session: Session, task: str) -> str:
    """Where the answers about a task are kept."""
    return f"{session.shared}/annotations/{task}"


def rubric_of(task: Task) -> Rubric:
    """The task's rubric: the one that it names, else the one that is named like it.

    Raises:
        ConfigError: There is none.
    """
    return load_rubric(task.annotate.rubric or task.name)


def advisers_of(task: Task) -> tuple[str | None, str | None]:
    """The versions that the task's strategies ask: champion, and another one or ``words``.

    Raises:
        UsageError: A model is needed, and no champion is registered.
    """
    asked = set(task.annotate.shares()) - {"random"}
    if not asked:
        return None, None
    registry = Registry()
    champion = registry.champion(task.name)
    if "disagreeing" not in asked:
        return champion.version, None
    challenger = registry.with_alias(task.name, "challenger")
    if challenger is not None and challenger.version != champion.version:
        return champion.version, challenger.version
    earlier = [v for v in registry.versions(task.name) if int(v.version) < int(champion.version)]
    return champion.version, earlier[0].version if earlier else WORDS


def folder_name(task: Task, rubric: Rubric, inputs: tuple[str, ...], version: str | None) -> str:
    """A name for the output of a round: the same for the same question, another for another."""
    settings = task.annotate
    facts = (task.target.model_dump_json(), rubric.sha256, settings.model or "", *inputs,
             str(settings.shares()), str(settings.candidates), str(_seed(task)), str(version),
             stamp(task.sources))  # fmt: skip
    return sha256_of(facts)[:12]


def check(task: Task, request: AnnotationRequest, session: Session) -> None:
    """Find out before the run whether it can start.

    Raises:
        ConfigError: The task names no judge.
        UsageError: An input matches nothing, other machines cannot see it, or there is no key.
    """
    terms_of(task, request.rubric).instructions(0)
    if session.remote:
        require_urls("--input", [name for name in request.inputs if name != EMBEDDED])
        require_urls("--output", [request.output])
        if task.annotate.key_variable and not task.annotate.secret:
            raise ConfigError(
                task.name, "annotate.secret", None,
                f"a ZenML secret that holds {task.annotate.key_variable} for the stack's machines, "
                "or annotate.key_variable=null",
            )  # fmt: skip
        return
    key_of(task)
    _shards(request, session.home)


def key_of(task: Task) -> str | None:
    """The API key; an endpoint on this machine may go without.

    Raises:
        UsageError: There is none.
    """
    settings = task.annotate
    if settings.key_variable is None:
        return None
    key = os.environ.get(settings.key_variable, "").strip()
    if not key and not settings.loopback:
        raise UsageError(
            f"annotate: the environment variable {settings.key_variable} is not set; it holds the "
            f"API key of {settings.endpoint} (annotate.key_variable=null where none is wanted)"
        )
    return key or None


def terms_of(task: Task, rubric: Rubric) -> Terms:
    """What the answers hang on.

    Raises:
        ConfigError: The task names no judge.
    """
    settings = task.annotate
    for name, allowed in (
        ("endpoint", "the base URL of an OpenAI-compatible API, in the task file or as --endpoint"),
        ("model", "what the endpoint calls the judge, in the task file or as --model"),
    ):
        if getattr(settings, name) is None:
            raise ConfigError(task.name, f"annotate.{name}", None, allowed)
    return Terms(
        task=task.name,
        target=task.target,
        rubric=rubric,
        model=settings.model or "",
        temperature=settings.temperature,
        max_characters=settings.max_characters,
    )


def choose_documents(
    task: Task, request: AnnotationRequest, home: Path, progress: Progress | None = None
) -> ChosenDocuments:
    """Choose the documents of a round and write them down, or go on with those of a killed run.

    Raises:
        ResumeRefused: The output was begun with another question.
        DataError: There is nothing to annotate.
    """
    settings, shards = task.annotate, _shards(request, home)
    terms = terms_of(task, request.rubric)
    known = None if request.unlabelled else ingest(task)
    labelled = frozenset() if known is None else _labelled(known)
    parts = {
        "task": task.name,
        "judge": terms.model,
        "instructions": terms.instructions(0),
        "corpus": shards_fingerprint(shards),
        "labelled documents": f"{len(labelled)} {sha256_of(sorted(labelled))[:16]}",
        "strategy": str(settings.shares()),
        "candidates": str(settings.candidates),
        "seed": str(_seed(task)),
        "champion": request.version or "none",
        "rival": request.rival or "none",
    }
    given = {"double_share": settings.double_share, "format": request.format}
    with open_output(request.output, parts, request.fresh, "parquet", request.wait_seconds) as out:
        selection = None if request.fresh else read_selection(out.store)
        if selection is None or selection.budget != request.budget:
            advisers = _advisers(task, request, home, known)
            selection = choose(
                terms, settings, shards, task.corpus, labelled, advisers, request.budget,
                _seed(task), progress,
            )  # fmt: skip
        selection = selection.model_copy(update=given)
        write_selection(out.store, selection)
    return selection.summary()


def ask(
    task: Task, request: AnnotationRequest, progress: Progress | None = None
) -> AnnotationReport:
    """Ask the judge about the documents that were chosen.

    Raises:
        OutputBusy: Another run asks about the same task.
        UsageError: There is no key, or nothing was chosen.
    """
    output = open_store(request.output)
    with Journal(request.journal, request.wait_seconds) as journal:
        return annotate(
            _selection(request.output), task.annotate, journal, output, key_of(task), progress,
            request.again,
        )  # fmt: skip


def require_answers(report: AnnotationReport) -> None:
    """Accept a run, unless the endpoint made it stop.

    Raises:
        EngineError: It did; what was answered is kept.
    """
    from tamis.annotation.run import CAP_REACHED

    if report.stopped and report.stopped != CAP_REACHED:
        raise EngineError(
            f"annotate: {report.stopped}; {report.documents.remaining:,} documents remain, and the "
            "same command goes on with them"
        )


def resumed(request: AnnotationRequest) -> AnnotationRequest:
    """The request when it is made again because a machine was taken away."""
    return request.model_copy(update={"fresh": False, "wait_seconds": 1.5 * STALE_SECONDS})


def export_labels(tool: Tool, file: str, output: str, journal: str) -> int:
    """Write a round's documents for people to review; how many there are.

    Raises:
        UsageError: There is no such round, or the file cannot be written.
    """
    selection = _selection(output)
    with Journal(journal) as held:
        return export(tool, file, selection, gather(selection, held))


def import_labels(
    tool: Tool, file: str, output: str, journal: str
) -> tuple[Imported, AnnotationReport]:
    """Take labels by people in and write a round's labels again.

    Raises:
        UsageError: There is no such round or file.
        DataError: The file is no export of the tool.
    """
    selection = _selection(output)
    with Journal(journal) as held:
        labels, told = read_labels(tool, file, selection)
        keep(held.store, labels)
        return told, rewrite(selection, held, open_store(output))


def _selection(output: str) -> Selection:
    found = read_selection(open_store(output))
    if found is None:
        raise UsageError(f"--output: given {output!r}; allowed: an output of annotate")
    return found


def _seed(task: Task) -> int:
    return task.seed if task.annotate.seed is None else task.annotate.seed


def _shards(request: AnnotationRequest, home: Path) -> list[Shard]:
    return shards_of(FilterRequest(inputs=request.inputs, output="", version=""), home)


def _labelled(known: Dataset) -> frozenset[str]:
    have = ~np.isnan(known.labels)
    return frozenset(known.strings("sha256")[have].tolist())


def _advisers(
    task: Task, request: AnnotationRequest, home: Path, known: Dataset | None
) -> Advisers:
    loaded: dict[str, Classifier] = {}

    def model(version: str) -> Classifier:
        if version not in loaded:
            registry = Registry()
            folder = registry.download(registry.get(task.name, version), home / "models")
            loaded[version] = load_classifier(folder)
        return loaded[version]

    def rival() -> ScoreTexts:
        if request.rival is None or request.rival == WORDS:
            if known is None:
                raise UsageError("disagreeing: a second scorer needs labels, or a second version")
            return words_scorer(task.target, known, _seed(task))
        other = model(request.rival)
        return lambda texts: other.score(texts).values

    return Advisers(champion=lambda: model(request.version or "champion"), rival=rival)
