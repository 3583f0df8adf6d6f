"""Steps of monitoring: look at a window, remember what was seen; calibrate the alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import step
from zenml.types import HTMLString

from deployment import watching
from deployment.watching import Watched, WatchRequest
from materializers.report import ReportMaterializer
from steps.progress import embedding
from tamis.monitoring.calibration import Calibration
from tamis.monitoring.report import MonitorReport
from tamis.task import Task

REPORT = ReportMaterializer


@step(enable_cache=False, output_materializers={"monitor_report": REPORT})
def watch(
    task: Task, request: WatchRequest, home: str
) -> tuple[Annotated[MonitorReport, "monitor_report"], Annotated[HTMLString, "evidently_report"]]:
    """Whether a window still resembles the model's reference, and how the model does on it."""
    with embedding("reading the window") as progress:
        report, page = watching.watch(task, request, Path(home), progress)
    return report, HTMLString(page)


@step(enable_cache=False, output_materializers=REPORT)
def remember(
    task: Task, request: WatchRequest, report: MonitorReport
) -> Annotated[Watched, "watched"]:
    """Write the window into the record that later alarms look back at."""
    return watching.remember(task, request, report)


@step(enable_cache=False, output_materializers=REPORT)
def calibrate_alarm(
    task: Task, version: str, window: int, home: str
) -> Annotated[Calibration, "alarm_calibration"]:
    """Thresholds that keep the budget of false alarms, kept with the model."""
    return watching.calibrate_alarm(task, version, window, Path(home))
