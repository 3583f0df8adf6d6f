"""Steps on models: train, evaluate, gate, register."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step

from deployment import release
from materializers.classifier import ClassifierMaterializer
from materializers.report import ReportMaterializer
from steps.caching import EVALUATION, MODELS
from steps.progress import embedding
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.decision import Decision
from tamis.evaluation.assess import assess
from tamis.evaluation.behaviour_figures import BehaviourReport
from tamis.evaluation.card import ModelCard
from tamis.evaluation.figures import Evaluation
from tamis.models.classifier import Classifier
from tamis.models.train import TrainingLog
from tamis.models.train import train as train_classifier
from tamis.task import Task

REPORT = ReportMaterializer


@step(
    cache_policy=MODELS,
    output_materializers={"classifier": ClassifierMaterializer, "training_log": REPORT},
)
def train(
    task: Task, documents: Dataset, split: Assignment, checkpoints: str
) -> tuple[Annotated[Classifier, "classifier"], Annotated[TrainingLog, "training_log"]]:
    """Train the classifier that the task asks for."""
    folder = Path(checkpoints) / f"{task.fingerprint()[:12]}-{split.digest()[:12]}"
    with embedding("reading documents") as progress:
        trained = train_classifier(task, documents, split, folder, progress)
    return trained.classifier, trained.log


@step(cache_policy=EVALUATION, output_materializers=REPORT)
def evaluate(
    task: Task, classifier: Classifier, log: TrainingLog, documents: Dataset, split: Assignment
) -> Annotated[Evaluation, "evaluation"]:
    """Figures on the test documents, beside baselines."""
    with embedding("scoring test documents") as progress:
        return assess(task, classifier, log, documents, split, progress)


@step(enable_cache=False, output_materializers=REPORT)
def gate(
    task: Task,
    evaluation: Evaluation,
    documents: Dataset,
    home: str,
    behaviour: BehaviourReport | None = None,
) -> Annotated[Decision, "gate"]:
    """Whether the model may be promoted, under the task's policy; the champion is asked anew."""
    return release.judge(task, evaluation, documents, Path(home), behaviour)


@step(
    enable_cache=False,
    output_materializers={"registered": REPORT, "model_card": REPORT},
    experiment_tracker=True,
)
def register(
    task: Task,
    classifier: Classifier,
    evaluation: Evaluation,
    log: TrainingLog,
    documents: Dataset,
    split: Assignment,
    decision: Decision,
    ledger: str,
    behaviour: BehaviourReport | None = None,
) -> tuple[Annotated[release.Registered, "registered"], Annotated[ModelCard, "model_card"]]:
    """Register the model with all that is known of it; the gate decides its alias."""
    made = release.Made(task, classifier, evaluation, log, documents, split, behaviour)
    registered = release.register(made, decision, ledger)
    return registered, release.card(made, registered)
