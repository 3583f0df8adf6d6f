"""Steps of retraining: drift, comparison of the two periods, promotion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step

from deployment import release
from deployment.earlier_windows import earlier_documents
from deployment.registry import Registry
from deployment.watching import drift_of_window
from materializers.classifier import ClassifierMaterializer
from materializers.dataset import DatasetMaterializer
from materializers.report import ReportMaterializer
from steps.caching import EVALUATION
from steps.progress import embedding
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.decision import Decision
from tamis.evaluation.behaviour_figures import BehaviourReport
from tamis.evaluation.card import ModelCard
from tamis.evaluation.figures import Evaluation
from tamis.evaluation.gate import PeriodComparison
from tamis.evaluation.rivals import Rivals, compare_rivals
from tamis.models.classifier import Classifier, TrainedOn, load_classifier
from tamis.models.train import TrainingLog
from tamis.monitoring.drift import DriftReport
from tamis.task import Task

REPORT = ReportMaterializer


@step(
    enable_cache=False,
    output_materializers={
        "champion": ClassifierMaterializer,
        "champion_documents": REPORT,
        "earlier_windows": DatasetMaterializer,
    },
)
def load_champion(
    task: Task, version: str, home: str
) -> tuple[
    Annotated[Classifier, "champion"],
    Annotated[TrainedOn, "champion_documents"],
    Annotated[Dataset, "earlier_windows"],
    Annotated[str, "champion_version"],
]:
    """The champion, which documents it was trained and tested on, those of earlier windows."""
    registry = Registry()
    found = registry.get(task.name, version)
    champion = load_classifier(registry.download(found, Path(home) / "models"))
    trained_on = champion.info.trained_on
    return champion, trained_on, earlier_documents(found, trained_on), found.version


@step(enable_cache=False, output_materializers=REPORT)
def measure_drift(
    task: Task, champion_version: str, window: Dataset, home: str
) -> Annotated[DriftReport, "drift"]:
    """Whether the window still resembles the champion's reference."""
    with embedding("reading the window") as progress:
        return drift_of_window(task, champion_version, window, Path(home), progress)


@step(
    cache_policy=EVALUATION,
    output_materializers={"comparison_decision": REPORT, "comparison": REPORT},
)
def compare(
    task: Task,
    challenger: Classifier,
    champion: Classifier,
    documents: Dataset,
    split: Assignment,
    window: Dataset,
) -> tuple[Annotated[Decision, "comparison_decision"], Annotated[PeriodComparison, "comparison"]]:
    """Challenger beside champion on the same test documents of both periods."""
    rivals = Rivals(task, challenger, champion, documents, split, window)
    decision, comparison = compare_rivals(rivals)
    return decision, comparison  # ZenML wants to see a tuple here


@step(
    enable_cache=False,
    output_materializers={"registered": REPORT, "model_card": REPORT},
    experiment_tracker=True,
)
def promote_or_refuse(
    task: Task,
    challenger: Classifier,
    evaluation: Evaluation,
    log: TrainingLog,
    documents: Dataset,
    split: Assignment,
    decision: Decision,
    ledger: str,
    champion_version: str,
    window: Dataset,
    behaviour: BehaviourReport | None = None,
) -> tuple[Annotated[release.Registered, "registered"], Annotated[ModelCard, "model_card"]]:
    """Register the challenger; if the comparison says so, promote it or leave it to a release."""
    made = release.Made(task, challenger, evaluation, log, documents, split, behaviour, window)
    registered = release.settle(made, decision, ledger, champion_version)
    return registered, release.card(made, registered)
