"""The step that tries a trained model's behaviour."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from materializers.report import ReportMaterializer
from steps.caching import EVALUATION
from steps.progress import embedding
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.evaluation.behaviour import of_test_side
from tamis.evaluation.behaviour_figures import BehaviourReport
from tamis.models.classifier import Classifier
from tamis.task import Task


@step(cache_policy=EVALUATION, output_materializers=ReportMaterializer)
def behave(
    task: Task, classifier: Classifier, documents: Dataset, split: Assignment
) -> Annotated[BehaviourReport, "behaviour"]:
    """Behaviour tests on documents that the model has not seen, where the task asks for them."""
    with embedding("trying the model's behaviour") as progress:
        return of_test_side(task, classifier, documents, split, progress)
