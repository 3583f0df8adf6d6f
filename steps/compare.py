"""Steps of a comparison: folds, one step a variant, the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step

from deployment.registry import log_comparison
from materializers.report import ReportMaterializer
from steps.caching import COMPARISON
from tamis.comparison.folds import Folds, make_folds
from tamis.comparison.rank import rank
from tamis.comparison.report import Comparison
from tamis.comparison.settings import Variant
from tamis.comparison.trial import TRIAL_SOURCES, VariantTrial, Workplace
from tamis.comparison.trial import try_variant as try_on_folds
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.fingerprint import code_fingerprint
from tamis.task import Task

REPORT = ReportMaterializer


@step(cache_policy=COMPARISON, output_materializers=REPORT)
def fold(task: Task, documents: Dataset, split: Assignment) -> Annotated[Folds, "folds"]:
    """Folds over the training and validation documents, the same for every variant."""
    return make_folds(task, documents, split, task.compare.folds)


@step(cache_policy=COMPARISON, output_materializers=REPORT)
def try_variant(
    task: Task, variant: Variant, documents: Dataset, folds: Folds, home: str
) -> Annotated[VariantTrial, "trial"]:
    """Train and judge one variant on every fold."""
    code = code_fingerprint(TRIAL_SOURCES)
    workplace = Workplace(Path(home) / "comparison", code)
    return try_on_folds(task, variant, documents, folds, workplace)


@step(enable_cache=False, output_materializers=REPORT, experiment_tracker=True)
def rank_variants(
    task: Task, documents: Dataset, folds: Folds, trials: list[VariantTrial]
) -> Annotated[Comparison, "comparison"]:
    """The table, the picture, and which one to deploy; each variant a nested MLflow run."""
    found = rank(task, documents, folds, trials)
    log_comparison(found)
    return found
