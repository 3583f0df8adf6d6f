"""Steps of distillation: score a sample, choose the backend, make the cascade, keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step

from deployment import distilling
from deployment.distilling import Attached, DistillRequest, TaughtSample
from materializers.cascade import CascadeMaterializer
from materializers.report import ReportMaterializer
from tamis.scoring.backends.choose import BackendChoice
from tamis.scoring.cascade import Cascade
from tamis.scoring.distill_report import DistillReport
from tamis.task import Task

REPORT = ReportMaterializer


# What is scored is kept in the output of the step, which goes on where it was.
@step(enable_cache=False, output_materializers=REPORT)
def score_sample(
    task: Task, request: DistillRequest, home: str
) -> Annotated[TaughtSample, "taught_sample"]:
    """The fp32 encoder's scores of a random sample of the corpus."""
    return distilling.score_sample(task, request, Path(home))


@step(enable_cache=False, output_materializers=REPORT)
def choose_backend(
    task: Task, request: DistillRequest, sample: TaughtSample, home: str
) -> Annotated[BackendChoice, "backend_choice"]:
    """The fastest backend whose decisions pass the gate, on this machine."""
    return distilling.choose_backend(task, request, sample, Path(home))


@step(
    enable_cache=False,
    output_materializers={"cascade": CascadeMaterializer, "distill_report": REPORT},
)
def distill(
    task: Task, request: DistillRequest, sample: TaughtSample, backend: BackendChoice, home: str
) -> tuple[Annotated[Cascade, "cascade"], Annotated[DistillReport, "distill_report"]]:
    """A student with a certified band, and what it does to held-out documents."""
    cascade, report = distilling.make(task, request, sample, backend, Path(home))
    return cascade, report  # ZenML wants to see a tuple here


@step(enable_cache=False, output_materializers=REPORT)
def attach(
    task: Task, request: DistillRequest, cascade: Cascade, report: DistillReport
) -> Annotated[Attached, "attached"]:
    """Keep the cascade with the model that it belongs to."""
    return distilling.attach(task, request, cascade, report)
