"""Watch a model: look at a window of what it is given; set the alarm that looks."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from deployment.watching import WatchRequest
from steps.monitor import calibrate_alarm, remember, watch
from tamis.task import Task


@pipeline(name="tamis_monitoring", execution_mode=ExecutionMode.FAIL_FAST, enable_cache=False)
def monitoring(task: Task, request: WatchRequest, home: str) -> None:
    """Compare a window with a registered model's reference.

    Args:
        task: The task.
        request: Which window, which model.
        home: Folder for downloaded models.
    """
    report, _ = watch(task, request, home)
    remember(task, request, report)


@pipeline(name="tamis_calibration", execution_mode=ExecutionMode.FAIL_FAST, enable_cache=False)
def calibration(task: Task, version: str, window: int, home: str) -> None:
    """Set the alarm of a registered model.

    Args:
        task: The task; its ``monitor`` section states the budget of false alarms.
        version: Of the model.
        window: Documents of a window.
        home: Folder for downloaded models.
    """
    calibrate_alarm(task, version, window, home)
