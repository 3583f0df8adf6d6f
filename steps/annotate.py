"""Steps of annotation: choose documents, ask the judge about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step

from deployment import annotating
from deployment.annotating import AnnotationRequest
from materializers.report import ReportMaterializer
from steps.progress import embedding
from tamis.annotation.report import AnnotationReport
from tamis.annotation.selection import ChosenDocuments
from tamis.task import Task


# The documents themselves lie in the output, which goes on where it was.
@step(enable_cache=False, output_materializers=ReportMaterializer)
def choose_documents(
    task: Task, request: AnnotationRequest, home: str
) -> Annotated[ChosenDocuments, "chosen_documents"]:
    """The documents whose labels are worth most, none that has one."""
    with embedding("reading candidates") as progress:
        return annotating.choose_documents(task, request, Path(home), progress)


@step(enable_cache=False, output_materializers=ReportMaterializer)
def annotate(
    task: Task, request: AnnotationRequest, chosen: ChosenDocuments
) -> Annotated[AnnotationReport, "annotation_report"]:
    """The judge's score of each, or why there is none."""
    with embedding("asking the judge") as progress:
        return annotating.ask(task, request, progress)
