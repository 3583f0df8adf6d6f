"""From a request to look at a window to a report, and the record of all windows looked at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
from pydantic import BaseModel, ConfigDict

from deployment.paths import require_urls
from deployment.profiles import calibration_of, keep_calibration, keep_profile, profile_of_version
from deployment.registry import CHAMPION, Registry
from tamis.config import Items, Strict
from tamis.corpus.manifest import is_output
from tamis.corpus.readers import list_shards
from tamis.errors import UsageError
from tamis.models.classifier import load_classifier
from tamis.models.encoder import Progress
from tamis.monitoring.alarm import Past
from tamis.monitoring.calibration import Calibration
from tamis.monitoring.health import Health
from tamis.monitoring.settings import Severity
from tamis.task import Task

if TYPE_CHECKING:
    from tamis.corpus.dataset import Dataset
    from tamis.models.classifier import Classifier
    from tamis.monitoring.drift import DriftReport
    from tamis.monitoring.monitored import MonitorWindow
    from tamis.monitoring.report import MonitorReport


SCHEDULED = "scheduled"


class WatchRequest(Strict):
    """Which window to look at, with which model.

    Attributes:
        window: Files, outputs of ``filter`` or URLs; empty: the request log.
        log: Folder of the request log.
        start: From when, of the log, ISO 8601.
        end: Until when, exclusive.
        at: When it was asked for, ISO 8601; ``scheduled``: when it runs.
        history: URL of the record of windows.
        version: Of the model in the registry, or ``champion``.
        health: How the service did, if one was asked.
    """

    window: Items[str] = ()
    log: str | None = None
    start: str | None = None
    end: str | None = None
    at: str
    history: str
    version: str = CHAMPION
    health: Health | None = None

    @property
    def moment(self) -> datetime:
        """When it was asked for, UTC."""
        if self.at == SCHEDULED:
            return datetime.now(UTC)
        return datetime.fromisoformat(self.at).astimezone(UTC)


class Watched(BaseModel):
    """A window that was looked at: a line of the record.

    Attributes:
        number: Position, from 1.
        at: When it was asked for, ISO 8601.
        version: The model.
        fingerprint: Of the window's content.
        start: Of the window, where it has one.
        end: Likewise.
        documents: In it.
        p: Of drift, all tests together.
        drifted: Whether it differs, or its labels say that the model got worse.
        judged: Whether it had documents enough for a verdict.
        rang: Whether the alarm rang.
        severity: Of the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    at: datetime
    version: str
    fingerprint: str
    start: datetime | None
    end: datetime | None
    documents: int
    p: float | None
    drifted: bool
    judged: bool
    rang: bool
    severity: Severity


class Record:
    """The windows of one task that were looked at, one JSON object a file, under a folder or URL.

    A window that is looked at again takes the place of its earlier line.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._folder = fsspec.core.url_to_fs(url)

    def lines(self) -> list[Watched]:
        """All lines, oldest first; of a window the last look."""
        self._fs.invalidate_cache()
        files = sorted(self._fs.glob(f"{self._folder}/*.json"))
        read = [Watched.model_validate_json(self._fs.cat_file(file)) for file in files]
        last = {(each.version, each.fingerprint): each for each in read}
        return sorted(last.values(), key=lambda each: (each.at, each.number))

    def past(self, version: str, fingerprint: str = "") -> list[Past]:
        """What was seen of a model, oldest first, without one window."""
        return [
            Past(end=each.end or each.at, drifted=each.drifted, rang=each.rang, judged=each.judged)
            for each in self.lines()
            if each.version == version and each.fingerprint != fingerprint
        ]

    def add(self, at: datetime, report: MonitorReport, judged: bool) -> Watched:
        """Write one more line; of the same window at the same time only once."""
        known, version = self.lines(), report.version
        for each in known:
            if (each.version, each.fingerprint, each.at) == (version, report.fingerprint, at):
                return each
        line = Watched(
            number=max((each.number for each in known), default=0) + 1,
            at=at,
            version=version,
            fingerprint=report.fingerprint,
            start=report.start,
            end=report.end,
            documents=report.documents,
            p=report.drift.p if report.drift is not None else None,
            drifted=report.drifted or report.performance.alarming,
            judged=judged,
            rang=report.ringing.rings,
            severity=report.severity,
        )
        self._fs.makedirs(self._folder, exist_ok=True)
        final = f"{self._folder}/{line.number:06d}.json"
        self._fs.pipe_file(f"{final}.partial", line.model_dump_json(indent=1).encode())
        self._fs.mv(f"{final}.partial", final)
        return line


def record_of(shared: str, task: str) -> str:
    """Where the record of a task's windows is kept, below a session's shared folder."""
    return f"{shared}/monitoring/{task}/windows"


def check(window: Sequence[str], log: str | None, *, remote: bool) -> None:
    """Find out before anything is begun whether a window is where it is going to be read.

    Args:
        window: Files, outputs of ``filter`` or URLs.
        log: Folder of the request log, on this machine.
        remote: Whether files are read on other machines.

    Raises:
        UsageError: It is not.
    """
    if log is not None and not Path(log).is_dir():
        raise UsageError(
            f"monitor: there is no request log at {log}; name one with --log FOLDER, or "
            "documents with --window FILE"
        )
    if remote:
        require_urls("--window", window)
    if files := [path for path in window if not is_output(path)]:
        list_shards(files)


def watch(
    task: Task, request: WatchRequest, home: Path, progress: Progress | None = None
) -> tuple[MonitorReport, str]:
    """Look at a window.

    Args:
        task: The task.
        request: Which window, which model.
        home: Folder for downloads.
        progress: Told how many documents were embedded.

    Returns:
        The report, and Evidently's page, empty where the task wants none.

    Raises:
        UsageError: There is no such window or model.
    """
    from tamis.monitoring.monitor import monitor_window

    registry = Registry()
    version = registry.get(task.name, request.version)
    model = load_classifier(registry.download(version, home / "models"))
    profile = profile_of_version(registry, version, home, task.metric)
    window = _window(task, request, version.version, model, progress)
    report = monitor_window(
        task,
        profile,
        window,
        calibration_of(registry, version, home),
        Record(request.history).past(version.version, window.fingerprint),
        request.health,
        request.moment,
        version.version,
    )
    page = ""
    if task.monitor.evidently and len(window):
        from tamis.monitoring.evidently_report import evidently_html

        page = evidently_html(profile, window)
    return report, page


def _window(
    task: Task,
    request: WatchRequest,
    version: str,
    model: Classifier,
    progress: Progress | None,
) -> MonitorWindow:
    if request.window:
        from tamis.monitoring.monitored_files import window_of_files

        return window_of_files(request.window, task, version, model, progress=progress)
    from tamis.monitoring.monitored_log import window_of_log

    if request.log is None or request.start is None or request.end is None:
        raise UsageError("monitor: given no window; allowed: --window FILE or --log FOLDER")
    start, end = (datetime.fromisoformat(at) for at in (request.start, request.end))
    return window_of_log(Path(request.log), start, end, task, version, model, progress)


def accept(task: Task, request: WatchRequest, home: Path, progress: Progress | None = None) -> int:
    """Make a window what later ones of the same model are compared with.

    Returns:
        Its documents.

    Raises:
        DataError: The window is too small, or its texts were not kept.
    """
    from tamis.monitoring.profile import accepting

    registry = Registry()
    version = registry.get(task.name, request.version)
    model = load_classifier(registry.download(version, home / "models"))
    profile = profile_of_version(registry, version, home, task.metric)
    window = _window(task, request, version.version, model, progress)
    keep_profile(registry, version, accepting(profile, window.sample, window.texts))
    return len(window)


def drift_of_window(
    task: Task, version: str, window: Dataset, home: Path, progress: Progress | None = None
) -> DriftReport:
    """How documents that were read already differ from a registered model's reference."""
    from tamis.monitoring.drift import drift_between
    from tamis.monitoring.monitored_files import window_of_dataset

    registry = Registry()
    chosen = registry.get(task.name, version)
    model = load_classifier(registry.download(chosen, home / "models"))
    profile = profile_of_version(registry, chosen, home, task.metric)
    found = window_of_dataset(window, task, chosen.version, model, progress)
    known = calibration_of(registry, chosen, home)
    return drift_between(profile.current(), found.sample, task.monitor, task.seed, known)


def remember(task: Task, request: WatchRequest, report: MonitorReport) -> Watched:
    """Write a look into the record."""
    at = request.moment
    judged = report.documents >= task.monitor.min_documents
    return Record(request.history).add(at, report, judged)


def freeze(log: Path, start: datetime, end: datetime, folder: Path) -> tuple[str, ...]:
    """A file of what was served in a span of time, with texts and labels, for retraining.

    Returns:
        Its path; nothing where the log keeps no text, or nothing was served.
    """
    from tamis.monitoring.export import export
    from tamis.monitoring.windows import Reader

    folder.mkdir(parents=True, exist_ok=True)
    name = f"{start:%Y%m%dT%H%M%S}-{end:%Y%m%dT%H%M%S}.parquet"
    with Reader(log) as reader:
        done = export(reader, start, end, folder / name)
    if done.documents:
        return (str(folder / name),)
    (folder / name).unlink(missing_ok=True)
    return ()


def share(files: Sequence[str], folder: str) -> tuple[str, ...]:
    """Copies of files in a folder that other machines read, by its URL."""
    fs, root = fsspec.core.url_to_fs(folder)
    fs.makedirs(root, exist_ok=True)
    for file in files:
        fs.put_file(file, f"{root}/{Path(file).name}")
    return tuple(f"{folder}/{Path(file).name}" for file in files)


def calibrate_alarm(task: Task, version: str, window: int, home: Path) -> Calibration:
    """Set the alarm of a registered model for windows of so many documents, and keep it there."""
    from tamis.monitoring.calibration import calibrate

    registry = Registry()
    chosen = registry.get(task.name, version)
    profile = profile_of_version(registry, chosen, home, task.metric)
    found = calibrate(profile.sample, task.monitor, window, task.seed)
    keep_calibration(registry, chosen, found)
    return found
