"""Have a language model label documents."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from deployment.annotating import AnnotationRequest
from steps.annotate import annotate, choose_documents
from tamis.task import Task


@pipeline(name="tamis_annotation", execution_mode=ExecutionMode.FAIL_FAST, enable_cache=False)
def annotation(task: Task, request: AnnotationRequest, home: str) -> None:
    """Choose documents of a corpus and ask a judge about them.

    Args:
        task: The task, with its judge.
        request: Input, output, budget, rubric.
        home: Folder for downloaded models.
    """
    chosen = choose_documents(task, request, home)
    annotate(task, request, chosen)
