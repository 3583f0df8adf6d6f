"""Steps on labelled documents: ingest, validate, split."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from deployment.data_versions import load_artifact
from materializers.dataset import DatasetMaterializer
from materializers.report import ReportMaterializer
from steps.caching import CORPUS
from tamis.corpus import sources
from tamis.corpus.dataset import Dataset
from tamis.corpus.periods import join_periods, of_windows
from tamis.corpus.split import Assignment
from tamis.corpus.split import split as split_documents
from tamis.corpus.split import split_keeping as split_beside
from tamis.corpus.validate import ValidationReport
from tamis.corpus.validate import validate as validate_documents
from tamis.models.classifier import TrainedOn
from tamis.task import Task


@step(cache_policy=CORPUS, output_materializers=DatasetMaterializer)
def ingest(task: Task, stamp: str, version: str = "") -> Annotated[Dataset, "documents"]:
    """Read the task's sources, or a version of old; ``stamp`` changes when the sources do."""
    return load_artifact(version) if version else sources.ingest(task)


@step(cache_policy=CORPUS, output_materializers=DatasetMaterializer)
def ingest_window(task: Task, stamp: str) -> Annotated[Dataset, "window"]:
    """Read the window of new documents that the task names."""
    return sources.ingest_window(task)


@step(cache_policy=CORPUS, output_materializers=ReportMaterializer)
def validate(task: Task, documents: Dataset) -> Annotated[ValidationReport, "validation"]:
    """Check the documents; ``require`` in the next step stops the run if a check failed."""
    return validate_documents(documents, task)


@step(cache_policy=CORPUS, output_materializers=ReportMaterializer)
def split(
    task: Task, documents: Dataset, validation: ValidationReport
) -> Annotated[Assignment, "split"]:
    """Train, validation and test sides of documents that passed validation."""
    validation.require()
    return split_documents(documents, task.target, task.split, task.seed)


@step(cache_policy=CORPUS, output_materializers=DatasetMaterializer)
def join(
    documents: Dataset, window: Dataset, earlier: Dataset
) -> Annotated[Dataset, "all_documents"]:
    """Old documents, those of earlier windows and new ones together."""
    return join_periods(documents, window, earlier)


@step(cache_policy=CORPUS, output_materializers=ReportMaterializer)
def split_keeping(
    task: Task,
    documents: Dataset,
    validation: ValidationReport,
    champion: TrainedOn,
    old: Dataset,
    window: Dataset,
) -> Annotated[Assignment, "split"]:
    """A split in which what was a test document stays one."""
    validation.require()
    come = of_windows(old, window, champion.window)
    known, share = champion.known(), task.retrain.new_test
    return split_beside(documents, task.split, task.seed, known, come, share)
