"""Sift a corpus."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from deployment.filtering import FilterRequest
from steps.filter import manifest, sift
from tamis.task import Task


@pipeline(name="tamis_filtering", execution_mode=ExecutionMode.FAIL_FAST, enable_cache=False)
def filtering(task: Task, request: FilterRequest, home: str) -> None:
    """Sift a corpus with a registered model.

    Args:
        task: The task.
        request: Input, output, model version, threshold.
        home: Folder for downloaded models.
    """
    report, _ = sift(task, request, home)
    manifest(request, report)
