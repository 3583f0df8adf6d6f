"""Make a cascade: a student that spares the encoder most documents, with a promise."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from deployment.distilling import DistillRequest
from steps.distill import attach, choose_backend, distill, score_sample
from tamis.task import Task


@pipeline(name="tamis_distillation", execution_mode=ExecutionMode.FAIL_FAST, enable_cache=False)
def distillation(task: Task, request: DistillRequest, home: str) -> None:
    """Distill a registered model on a corpus.

    Args:
        task: The task.
        request: Corpus, model version, what shall be kept.
        home: Folder for downloaded models and scored samples.
    """
    sample = score_sample(task, request, home)
    backend = choose_backend(task, request, sample, home)
    cascade, report = distill(task, request, sample, backend, home)
    attach(task, request, cascade, report)
