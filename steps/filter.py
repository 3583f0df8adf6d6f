"""Steps of filtering: sift the corpus, show what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step

from deployment.filtering import FilterRequest, Scoring, require_clean, sift_corpus
from materializers.report import ReportMaterializer
from tamis.corpus.manifest import Manifest, read_manifest
from tamis.scoring.filter_report import FilterReport
from tamis.task import Task


@step(
    enable_cache=False,
    output_materializers={"filter_report": ReportMaterializer, "scoring": ReportMaterializer},
)
def sift(
    task: Task, request: FilterRequest, home: str
) -> tuple[Annotated[FilterReport, "filter_report"], Annotated[Scoring, "scoring"]]:
    """Score every document of the corpus; commit shard by shard; report."""
    report, scoring = sift_corpus(task, request, Path(home))
    return report, scoring  # ZenML wants to see a tuple here


@step(enable_cache=False, output_materializers=ReportMaterializer)
def manifest(request: FilterRequest, report: FilterReport) -> Annotated[Manifest, "manifest"]:
    """The list of committed shards with counts and hashes: the output as an artifact."""
    require_clean(report, request.max_quarantined)
    return read_manifest(report.output)
