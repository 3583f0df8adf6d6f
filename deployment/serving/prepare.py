"""From a registered version to the folder that a service loads."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from deployment.backend import backend_by
from deployment.packaging.backend import backend_for_package
from deployment.registry import Registry, Version
from tamis.corpus.sources import ingest
from tamis.errors import ModelError
from tamis.fingerprint import code_fingerprint
from tamis.machine import gpu_name
from tamis.models.classifier import Classifier, digest, load_classifier, read_info
from tamis.scoring.backends.choose import BackendChoice
from tamis.scoring.backends.folder import export
from tamis.scoring.load import LoadScorer
from tamis.scoring.plan import SiftPlan
from tamis.scoring.settings import BackendName
from tamis.serving.model import (
    CLASSIFIER,
    FILE,
    PROBES,
    Probe,
    ReferenceScores,
    ServedModel,
    reference_scores,
)
from tamis.task import Task

_CODE = ("tamis/**/*.py", "deployment/**/*.py")


def prepare(task: Task, version: Version, home: Path, backend: BackendName | None = None) -> Path:
    """A folder for ``TAMIS_SERVE_MODEL``, made once for each version, backend and settings.

    Args:
        task: Its sections ``serve`` and ``scoring`` say how.
        version: Of the task's model.
        home: Folder of the stack's local files.
        backend: That scores; None leaves it to the task.

    Returns:
        The folder.

    Raises:
        ModelError: The registered files are damaged, or the backend does not run here.
    """
    source = Registry().download(version, home / "models")
    if digest(source) != version.tags["digest"]:
        raise ModelError(
            f"{version.name} version {version.version}: the files in {source} are not those that "
            "were registered; remove the folder and run this again"
        )
    choice = choose_backend(task, source, home, backend)
    name = f"{version.version}-{version.tags['digest'][:12]}-{choice.backend}"
    target = home / "serving" / "models" / task.name / name
    served = _describe(task, version, source, choice, home)
    if _same(target, served):
        return target
    files = export(source, choice.backend, home / "exports")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix="tmp-") as staging:
        folder = Path(staging) / "served"
        shutil.copytree(files, folder / CLASSIFIER)
        scorer = LoadScorer(served.threshold, served.margin)(str(folder / CLASSIFIER))
        probes = tuple(
            Probe(text=text, score=float(scorer.score([text]).values[0])) for text in PROBES
        )
        reference = served.reference or _own_reference(scorer, served)
        complete = served.model_copy(update={"probes": probes, "reference": reference})
        (folder / FILE).write_text(complete.model_dump_json(indent=1), "utf-8")
        if target.is_dir():
            target.rename(Path(staging) / "before")
        folder.rename(target)
    return target


def choose_backend(
    task: Task, source: Path, home: Path, named: BackendName | None
) -> BackendChoice:
    """The backend that serves a saved classifier, and why.

    A service scores request by request, where a filter scores in batches: what is fastest there
    need not be here. So ``auto`` is the fastest by measurement on a GPU only, and elsewhere what a
    package takes.

    Raises:
        ModelError: The classifier cannot be loaded, or the backend that was named does not run.
    """
    info = read_info(source)

    def documents() -> list[str]:
        return ingest(task).texts()

    free = named is None and task.scoring.backend == "auto" and info.family == "encoder"
    if not free or not gpu_name():
        return backend_for_package(source, documents, task.scoring, home, task.seed, named)
    plan = SiftPlan(
        model_dir=str(source),
        output="",
        threshold=info.threshold,
        scale=info.target.scale,
        model_version=task.name,
    )
    texts = documents()
    reference = load_classifier(source).score(texts).values
    return backend_by(plan, texts, reference, task.scoring, home, task.seed)


def _describe(
    task: Task, version: Version, source: Path, choice: BackendChoice, home: Path
) -> ServedModel:
    info = read_info(source)
    return ServedModel(
        task=task.name,
        version=version.version,
        digest=version.tags["digest"],
        backend=choice.backend,
        margin=choice.margin,
        threshold=info.threshold,
        scale=info.target.scale,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=code_fingerprint(_CODE),
        reference=_profiled_reference(version, home, info.threshold, info.target.scale),
        settings=task.serve,
    )


def _profiled_reference(
    version: Version, home: Path, threshold: float, scale: tuple[float, ...]
) -> ReferenceScores | None:
    """Scores of the version's profile, of documents that had no part in them; None without one."""
    from deployment.profiles import PROFILE
    from tamis.monitoring.profile import load_profile

    found = Registry().download_attached(version, PROFILE, home / "models")
    if found is None:
        return None
    return reference_scores(load_profile(found).current().scores, threshold, scale)


def _own_reference(scorer: object, served: ServedModel) -> ReferenceScores | None:
    """Scores of documents that the classifier was trained on, where no others are known."""
    if not isinstance(scorer, Classifier):
        return None
    return reference_scores(scorer.reference_scores, served.threshold, served.scale)


def _same(folder: Path, served: ServedModel) -> bool:
    """Whether a folder serves just that already."""
    try:
        there = ServedModel.model_validate_json((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    reference = served.reference or there.reference
    update = {"probes": there.probes, "created": there.created, "reference": reference}
    return there == served.model_copy(update=update)
