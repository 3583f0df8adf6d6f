"""The model registry. The one module that imports MLflow."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tamis.errors import UsageError
from tamis.models.classifier import digest

if TYPE_CHECKING:
    from tamis.comparison.report import Comparison
    from tamis.tuning.search import Tuning

Alias = Literal["champion", "challenger"]
CHAMPION = "champion"
MODEL_FOLDER = "classifier"
MOST_DESCRIPTION = 5_000
"""Characters of MLflow's column; Postgres refuses more, SQLite does not notice."""

logging.getLogger("alembic").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Version:
    """A registered version of a task's model.

    Attributes:
        name: The task, which is the registered model's name.
        version: Its number, as text.
        aliases: ``champion``, ``challenger``, or none.
        tags: What was recorded with it.
        source: Where its files are.
        run_id: The MLflow run that logged it.
        created: When it was registered, ISO 8601.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    source: str
    run_id: str
    created: str = ""


def ensure_experiment(client: MlflowClient, name: str, files: Path | None = None) -> None:
    """Create an experiment, unless it exists.

    Args:
        client: Of the MLflow store or server.
        name: Of the experiment.
        files: Folder for its files; None leaves that to the server.
    """
    if client.get_experiment_by_name(name) is not None:
        return
    if files is not None:
        files.mkdir(parents=True, exist_ok=True)
    try:
        client.create_experiment(name, artifact_location=files.as_uri() if files else None)
    except MlflowException:
        if client.get_experiment_by_name(name) is None:  # not made by another run meanwhile
            raise


class Registry:
    """Versions of the models, through the registry and tracker of the active ZenML stack."""

    def __init__(self) -> None:
        from zenml.client import Client

        stack: Any = Client().active_stack
        if stack.model_registry is None:
            raise UsageError(f"stack {stack.name}: it has no model registry")
        self.client: MlflowClient = stack.model_registry.mlflow_client

    def versions(self, task: str) -> list[Version]:
        """All versions of a task's model, newest first."""
        found = self.client.search_model_versions(f"name='{task}'")
        # The search leaves the aliases out.
        full = [self.client.get_model_version(task, version.version) for version in found]
        return sorted(map(_version, full), key=lambda each: -int(each.version))

    def with_alias(self, task: str, alias: Alias) -> Version | None:
        """The version that carries an alias, if one does."""
        return next((v for v in self.versions(task) if alias in v.aliases), None)

    def champion(self, task: str) -> Version:
        """The champion.

        Raises:
            UsageError: No version was promoted yet.
        """
        found = self.with_alias(task, "champion")
        if found is None:
            raise UsageError(
                f"{task}: no champion is registered; run `python run.py train --task {task}` first"
            )
        return found

    def get(self, task: str, version: str) -> Version:
        """A version by number, or the one that is champion at this moment.

        Raises:
            UsageError: There is no such version.
        """
        if version == CHAMPION:
            return self.champion(task)
        known = self.versions(task)
        found = next((each for each in known if each.version == version), None)
        if found is None:
            numbers = ", ".join(each.version for each in reversed(known)) or "none yet"
            raise UsageError(f"{task}: given version {version!r}; allowed: {numbers}")
        return found

    def set_alias(self, task: str, alias: Alias, version: str | None) -> None:
        """Give an alias to a version, or take it away."""
        if version is not None:
            self.client.set_registered_model_alias(task, alias, version)
        elif self.with_alias(task, alias) is not None:
            self.client.delete_registered_model_alias(task, alias)

    def download(self, version: Version, cache: Path) -> Path:
        """A local folder with a version's files; downloaded once.

        The download is renamed into place when complete, so a killed one leaves nothing behind.
        """
        name = f"{version.version}-{version.tags['digest'][:12]}"
        return self._fetch(version.source, cache / version.name / name)

    def _fetch(self, source: str, target: Path) -> Path:
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as staging:
            mlflow.set_tracking_uri(self.client.tracking_uri)
            got = Path(mlflow.artifacts.download_artifacts(source, dst_path=staging))
            if not target.is_dir():
                got.rename(target)
        return target

    def register(
        self, task: str, folder: Path, tags: dict[str, str], description: str
    ) -> tuple[Version, bool]:
        """Register a saved classifier from within an MLflow run; the same one only once.

        Args:
            task: Name of the task.
            folder: What ``Classifier.save`` wrote.
            tags: What is recorded with the version.
            description: A few sentences; cut where the registry's database has no room for more.

        Returns:
            The version, and whether it is new.
        """
        found = digest(folder)
        for version in self.versions(task):
            if version.tags.get("digest") == found:
                return version, False
        run = mlflow.active_run() or mlflow.last_active_run()
        mlflow.log_artifacts(str(folder), MODEL_FOLDER)
        if not self.client.search_registered_models(f"name='{task}'"):
            self.client.create_registered_model(task)
        # By MLflow itself: ZenML's registry asks for a file MLmodel, which ours has not, and a
        # server that does not find it is asked again for four minutes.
        registered = self.client.create_model_version(
            name=task,
            source=mlflow.get_artifact_uri(MODEL_FOLDER),
            run_id=run.info.run_id if run else None,
            description=description[:MOST_DESCRIPTION],
            tags=tags | {"digest": found},
        )
        return self.get(task, str(registered.version)), True

    def attach(
        self, version: Version, folder: Path, name: str, fingerprint: str, tags: dict[str, str]
    ) -> None:
        """Keep a folder with a version: its files go beside those of the run that logged it.

        Args:
            version: That it belongs to.
            folder: Whose files to keep.
            name: Of what it is, such as ``cascade``; the newest of a name is the one that counts.
            fingerprint: Of what is in it, recorded under ``name``.
            tags: What is recorded with the version besides.
        """
        self.client.log_artifacts(version.run_id, str(folder), f"{name}/{fingerprint[:16]}")
        self.tag(version, {name: fingerprint, **tags})

    def download_attached(self, version: Version, name: str, cache: Path) -> Path | None:
        """A local folder with what was last attached under a name; None where nothing was."""
        found = version.tags.get(name)
        if not found:
            return None
        source = f"runs:/{version.run_id}/{name}/{found[:16]}"
        return self._fetch(source, cache / version.name / f"{name}-{found[:16]}")

    def tag(self, version: Version, tags: dict[str, str]) -> None:
        """Record more about a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(version.name, version.version, key, value)


def log_run(
    parameters: dict[str, Any],
    metrics: dict[str, float],
    texts: dict[str, str],
    pictures: dict[str, bytes],
) -> None:
    """Log to the MLflow run of the current step.

    Args:
        parameters: Facts, by name.
        metrics: Figures, by name.
        texts: Text files (HTML, Markdown, JSON), by file name.
        pictures: PNG files, by file name.
    """
    flat = {
        key: json.dumps(value) if isinstance(value, dict | list) else value
        for key, value in parameters.items()
    }
    mlflow.log_params(flat)
    mlflow.log_metrics(metrics)
    with TemporaryDirectory() as folder:
        for name, text in texts.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        for name, content in pictures.items():
            (Path(folder) / name).write_bytes(content)
        mlflow.log_artifacts(folder, "report")


def log_comparison(found: Comparison) -> None:
    """Log a comparison to the MLflow run of the current step, each of its rows as a nested run."""
    pages = {"comparison.html": found.to_html(), "comparison.md": found.to_markdown()}
    facts = {"folds": found.folds, "documents": found.documents, "deploy": found.deploy}
    log_run(facts, {}, pages, {"quality-cost.png": found.picture()})
    for row in found.rows:
        with mlflow.start_run(run_name=row.name, nested=True):
            told = row.model_dump(include={"family", "variant", "preparation", "backend", "chosen"})
            mlflow.log_params(told | {"deploy": row.name == found.deploy})
            mlflow.log_metrics(
                {
                    found.metric: row.figure.value,
                    f"{found.metric}_low": row.figure.low,
                    f"{found.metric}_high": row.figure.high,
                    found.second_metric: row.second.value,
                    f"test_{found.metric}": row.test.value,
                    "train_cpu_seconds": row.train_seconds,
                    "documents_per_second": row.documents_per_second,
                    "size_bytes": row.size,
                }
            )


def log_tuning(found: Tuning) -> None:
    """Log a search to the MLflow run of the current step, each trial as a nested run."""
    facts = {"folds": found.folds, "documents": found.documents, "best": found.best}
    log_run(facts | found.taken.settings, {}, {"tuning.html": found.to_html()}, {})
    for trial in (found.own, *found.trials):
        name = f"trial {trial.number}" if trial.number >= 0 else "own settings"
        with mlflow.start_run(run_name=name, nested=True):
            mlflow.log_params(trial.settings | {"state": trial.state})
            mlflow.log_metric("cpu_seconds", trial.seconds)
            if trial.figure is not None:
                mlflow.log_metric(found.metric, trial.figure)


def _version(found: ModelVersion) -> Version:
    return Version(
        name=found.name,
        version=str(found.version),
        aliases=tuple(sorted(found.aliases)),
        tags=dict(found.tags),
        source=str(found.source),
        run_id=str(found.run_id or ""),
        created=datetime.fromtimestamp(found.creation_timestamp / 1_000, UTC).isoformat(
            timespec="seconds"
        ),
    )
