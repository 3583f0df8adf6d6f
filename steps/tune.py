"""The step that searches for hyper-parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step

from deployment.registry import log_tuning
from materializers.report import ReportMaterializer
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.task import Task
from tamis.tuning.journal import Journal
from tamis.tuning.search import Tuning, search_of
from tamis.tuning.search import tune as search_settings

REPORT = ReportMaterializer


@step(
    enable_cache=False,
    output_materializers={"tuned_task": REPORT, "tuning": REPORT},
    experiment_tracker=True,
)
def tune(
    task: Task, documents: Dataset, split: Assignment, trials: int, home: str, journals: str
) -> tuple[Annotated[Task, "tuned_task"], Annotated[Tuning, "tuning"]]:
    """The task with the best settings of a search; each trial a nested MLflow run."""
    scratch = Path(home) / "tuning"
    journal = Journal(search_of(task, documents, split, scratch), journals, scratch)
    journal.fetch()
    found = search_settings(task, documents, split, trials, journal.file, scratch, journal.keep)
    log_tuning(found)
    return found.apply(task), found
