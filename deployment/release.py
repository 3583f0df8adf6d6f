"""From a trained model to a registered, judged and perhaps promoted version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from deployment.ledger import Ledger, promote, reasons_of, refuse
from deployment.profiles import PROFILE, keep_profile
from deployment.registry import Alias, Registry, Version, log_run
from tamis import html
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.decision import Decision, Reason
from tamis.evaluation import plots
from tamis.evaluation.behaviour_figures import BehaviourReport
from tamis.evaluation.card import ModelCard
from tamis.evaluation.describe import Known, describe
from tamis.evaluation.figures import Evaluation
from tamis.evaluation.gate import decide
from tamis.fingerprint import code_fingerprint, pipeline_fingerprint
from tamis.models.classifier import Classifier, as_dict, load_classifier
from tamis.models.train import TrainingLog
from tamis.monitoring.profile import ReferenceProfile, profile_of
from tamis.task import Task

CODE = ("**/*.py",)
MOST_TAG = 4_000
"""Characters of a tag; MLflow refuses more than 5,000."""


@dataclass(frozen=True)
class Made:
    """A model and all that a run found out about it."""

    task: Task
    classifier: Classifier
    evaluation: Evaluation
    log: TrainingLog
    documents: Dataset
    split: Assignment
    behaviour: BehaviourReport | None = None
    window: Dataset | None = None


class Registered(BaseModel):
    """What became of a model.

    Attributes:
        task: The task.
        version: Its version in the registry.
        new: False when the very same model was registered before.
        alias: What it is called now: ``champion``, ``challenger`` or nothing.
        passed: Whether the gate let it through.
        reasons: Why.
        digest: sha256 over the model's files.
        pipeline_code: Fingerprint of ``pipelines/`` and ``steps/`` where it was registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    version: str
    new: bool
    alias: Literal["champion", "challenger"] | None
    passed: bool
    reasons: tuple[str, ...]
    digest: str
    pipeline_code: str

    def to_html(self) -> str:
        """One self-contained page."""
        body = html.table(("reason",), [(reason,) for reason in self.reasons])
        lead = f"{self.alias or 'no alias'}; sha256 {self.digest[:16]}…"
        return html.page(f"{self.task} version {self.version}", body, lead)


def judge(
    task: Task,
    evaluation: Evaluation,
    documents: Dataset,
    home: Path,
    behaviour: BehaviourReport | None = None,
) -> Decision:
    """Apply the task's gate, against the champion where there is one, and its behaviour tests."""
    return with_behaviour(task, _judge(task, evaluation, documents, home), behaviour)


def with_behaviour(task: Task, decision: Decision, behaviour: BehaviourReport | None) -> Decision:
    """A decision that also asks for the behaviour tests, where the task requires them."""
    if task.behaviour.gate != "require":
        return decision
    if behaviour is None or not behaviour.tests:
        detail = "The task requires behaviour tests, and none were run."
        reasons = [Reason(check="behaviour", passed=False, detail=detail)]
    else:
        reasons = list(behaviour.decision().reasons)
    return Decision.of([*decision.reasons, *reasons])


def _judge(task: Task, evaluation: Evaluation, documents: Dataset, home: Path) -> Decision:
    registry = Registry()
    champion = registry.with_alias(task.name, "champion")
    if champion is None:
        return decide(task.gate, task.metric, evaluation, None, None, 0)
    model = load_classifier(registry.download(champion, home / "models"))
    position = {name: row for row, name in enumerate(documents.strings("id").tolist())}
    rows = np.array([position[each.id] for each in evaluation.predictions])
    scores = model.score(documents.take(rows).texts()).values
    trained_on = model.info.trained_on
    seen = {*trained_on.train, *trained_on.validation}
    return decide(
        task.gate,
        task.metric,
        evaluation,
        scores,
        f"champion (version {champion.version})",
        sum(each.id in seen for each in evaluation.predictions),
        model.info.threshold,
    )


def register(made: Made, decision: Decision, ledger: str) -> Registered:
    """Register a model and give it the alias that the gate's decision allows.

    The first model to pass becomes champion, since nothing serves yet; a later one becomes
    challenger, to be promoted by hand or by retraining. What fails is kept without an alias.
    """
    registry = Registry()
    version, new = _register(registry, made, decision)
    champion = registry.with_alias(made.task.name, "champion")
    alias: Alias | None = None
    if not new and version.tags.get("gate") == "passed" and decision.passed:
        alias = _alias_of(version)
    elif decision.passed and champion is None:
        reasons = (*reasons_of(decision), "the first version to pass")
        promote(registry, Ledger(ledger, made.task.name), made.task.name, version.version,
                reasons, "train")  # fmt: skip
        alias = "champion"
    elif decision.passed:
        registry.set_alias(made.task.name, "challenger", version.version)
        alias = "challenger"
    return _registered(made.task, version, new, alias, decision)


def settle(made: Made, decision: Decision, ledger: str, against: str) -> Registered:
    """Register a challenger that retraining made, whatever the comparison says of it.

    One that passed becomes champion at once or, where ``retrain.release`` names a strategy, gets
    the alias ``challenger``: the release promotes it. One that was refused is kept without an
    alias, its reasons in the ledger and in the tag ``refused``.

    Args:
        made: The challenger and all that is known of it.
        decision: Of the comparison.
        ledger: URL of the promotion ledger.
        against: Version of the champion that it was compared with.
    """
    name, registry = made.task.name, Registry()
    champion = registry.with_alias(name, "champion")
    decision = with_behaviour(made.task, _still(decision, champion, against), made.behaviour)
    version, new = _register(registry, made, decision)
    book, reasons = Ledger(ledger, name), reasons_of(decision)
    alias: Alias | None = None
    if champion is not None and champion.version == version.version:
        same = Reason(check="same", passed=True, detail="The challenger is the champion itself.")
        return _registered(made.task, version, new, "champion", Decision.of([same]))
    if decision.passed and version.tags.get("refused"):
        registry.tag(version, {"refused": ""})
    if decision.passed and made.task.retrain.release == "none":
        promote(registry, book, name, version.version, reasons, "retrain")
        alias = "champion"
    elif decision.passed:
        registry.set_alias(name, "challenger", version.version)
        alias = "challenger"
    else:
        failed = [reason.detail for reason in decision.reasons if not reason.passed]
        registry.tag(version, {"gate": "refused", "refused": " ".join(failed)[:MOST_TAG]})
        # A run that is repeated refuses the same version again: once is enough.
        if not any((e.version, e.reasons) == (version.version, reasons) for e in book.entries()):
            refuse(registry, book, name, version.version, reasons, "retrain")
    return _registered(made.task, version, new, alias, decision)


def _still(decision: Decision, champion: Version | None, against: str) -> Decision:
    """A decision that fails where the champion is no longer the one it was about.

    A challenger that became champion itself, in a run that was cut short, is not meant.
    """
    if champion is None or champion.version == against or not decision.passed:
        return decision
    detail = (
        f"It was compared with version {against}; meanwhile version {champion.version} became "
        "champion."
    )
    return Decision.of([*decision.reasons, Reason(check="champion", passed=False, detail=detail)])


def _alias_of(version: Version) -> Alias | None:
    names: tuple[Alias, ...] = ("champion", "challenger")
    return next((name for name in names if name in version.aliases), None)


def _registered(
    task: Task, version: Version, new: bool, alias: Alias | None, decision: Decision
) -> Registered:
    return Registered(
        task=task.name,
        version=version.version,
        new=new,
        alias=alias,
        passed=decision.passed,
        reasons=reasons_of(decision),
        digest=version.tags["digest"],
        pipeline_code=pipeline_fingerprint(),
    )


def _register(registry: Registry, made: Made, decision: Decision) -> tuple[Version, bool]:
    """Register the model once, and log its card, task, data and figures to the run."""
    task, evaluation, info = made.task, made.evaluation, made.classifier.info
    code = code_fingerprint(CODE)
    tags = {
        "gate": "passed" if decision.passed else "refused",
        "data_fingerprint": made.documents.info.fingerprint,
        "task_fingerprint": task.fingerprint(),
        "code_version": code,
        "pipeline_code": pipeline_fingerprint(),
        "threshold": f"{info.threshold:.6g}",
        task.metric: f"{evaluation.model.figures[task.metric].value:.4f}",
    }
    if made.behaviour is not None and made.behaviour.tests:
        tags["behaviour"] = _state(made.behaviour)
    with TemporaryDirectory() as name:
        folder = Path(name) / "classifier"
        made.classifier.save(folder)
        summary = describe(task, "", "", _known(made, code)).summary()
        version, new = registry.register(task.name, folder, tags, summary)
    if not new and decision.passed:
        registry.tag(version, {"gate": tags["gate"]})
    if PROFILE not in version.tags:
        keep_profile(registry, version, _profile(made))
    _log(made, _card(made, version), code)
    return version, new


def _profile(made: Made) -> ReferenceProfile:
    window = () if made.window is None else made.window.strings("id").tolist()
    return profile_of(
        made.classifier,
        made.documents,
        made.split,
        made.evaluation,
        made.log,
        made.task.metric,
        window,
    )


def _state(report: BehaviourReport) -> str:
    return "passed" if report.passed else "failed"


def _known(made: Made, code: str) -> Known:
    return Known(
        info=made.classifier.info,
        data=made.documents.info,
        assignment=made.split,
        evaluation=made.evaluation,
        log=made.log,
        behaviour=made.behaviour,
        code_version=code,
    )


def _card(made: Made, version: Version) -> ModelCard:
    known = _known(made, version.tags.get("code_version", "unknown"))
    return describe(made.task, version.version, version.created, known)


def card(made: Made, registered: Registered) -> ModelCard:
    """The model card of what ``register`` or ``settle`` registered."""
    return _card(made, Registry().get(made.task.name, registered.version))


def _log(made: Made, card: ModelCard, code: str) -> None:
    evaluation, behaviour = made.evaluation, made.behaviour
    metrics = {
        f"{name}{suffix}": value
        for name, interval in evaluation.model.figures.items()
        for suffix, value in (
            ("", interval.value), ("_low", interval.low), ("_high", interval.high)
        )
    }  # fmt: skip
    texts = {
        "evaluation.html": evaluation.to_html(),
        "evaluation.json": evaluation.model_dump_json(indent=1),
        "training.html": made.log.to_html(),
        "task.json": made.task.model_dump_json(indent=1),
        "data.json": made.documents.info.model_dump_json(indent=1),
        "MODEL_CARD.md": card.to_markdown(),
        "model_card.html": card.to_html(),
        "model_card.json": json.dumps(card.facts(), indent=1),
    }
    if behaviour is not None and behaviour.tests:
        texts |= behaviour_files(behaviour)
    log_run(
        parameters=as_dict(made.classifier.info) | {"code_version": code},
        metrics=metrics,
        texts=texts,
        pictures=_pictures(evaluation) | card.pictures(),
    )


def behaviour_files(report: BehaviourReport) -> dict[str, str]:
    """The report of behaviour tests as files, by name."""
    return {
        "behaviour.html": report.to_html(),
        "behaviour.json": report.model_dump_json(indent=1),
    }


def keep_behaviour(registry: Registry, version: Version, report: BehaviourReport) -> None:
    """Keep what behaviour tests of a registered version found, beside its other files."""
    content = behaviour_files(report)
    with TemporaryDirectory() as name:
        for file, text in content.items():
            (Path(name) / file).write_text(text, encoding="utf-8")
        fingerprint = hashlib.sha256(content["behaviour.json"].encode()).hexdigest()
        registry.attach(
            version, Path(name), "behaviour_report", fingerprint, {"behaviour": _state(report)}
        )


def _pictures(evaluation: Evaluation) -> dict[str, bytes]:
    labels = np.array([each.label for each in evaluation.predictions])
    scores = np.array([each.score for each in evaluation.predictions])
    metric = evaluation.metric
    scorers = (evaluation.model, *evaluation.baselines)
    figures = {scorer.name: scorer.figures[metric] for scorer in scorers}
    found = {
        "scores.png": plots.score_plot(evaluation.target, labels, scores, evaluation.threshold),
        "baselines.png": plots.comparison_plot(metric, figures),
    }
    if evaluation.confusion is not None:
        found["confusion.png"] = plots.confusion_plot(evaluation.confusion)
    return found
