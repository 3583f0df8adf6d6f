"""From a registered version to a package that is tried, recorded and the same each time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deployment.packaging import lock, record
from deployment.packaging.backend import backend_for_package
from deployment.packaging.bento import SERVED, build_bento
from deployment.packaging.closure import Needs, Pin, closure, read_pins, roots
from deployment.packaging.record import Package, Sizes, fingerprint_of, hashes_of, read_package
from deployment.packaging.sbom import FILE as SBOM
from deployment.packaging.sbom import Contents, make_sbom
from deployment.packaging.sources import Sources, sources_of
from deployment.packaging.trial import try_bento
from deployment.stacks import PROJECT
from tamis import __version__
from tamis.errors import ModelError, UsageError
from tamis.fingerprint import sha256_of
from tamis.models.backbone import file_sha256
from tamis.models.classifier import read_info
from tamis.scoring.backends.choose import BackendChoice
from tamis.scoring.backends.folder import read_export
from tamis.scoring.settings import BackendName
from tamis.serving.model import CLASSIFIER, Probe, ServedModel, load_served, read_served
from tamis.serving.model import FILE as SERVED_FILE

if TYPE_CHECKING:
    from deployment.registry import Version
    from tamis.task import Task

REQUIREMENTS = PROJECT / "requirements.txt"
DOCKERFILE = PROJECT / "deployment" / "images" / "serving.Dockerfile"
BENTO = "bento"
_BASE = re.compile(r"^FROM (\S+@sha256:[0-9a-f]{64}) AS base$", re.MULTILINE)
_ARGUMENT = re.compile(r"^ARG (\w+)=unknown$", re.MULTILINE)


@dataclass(frozen=True)
class Parts:
    """What a package is made of.

    Attributes:
        served: The served model, as it goes into the package.
        choice: The backend, and why that one.
        registered: When the version was, ISO 8601.
        sources: Files of this project.
        pins: Packages of others.
        hashes: sha256 of wheels.
        dockerfile: Text of the Dockerfile.
    """

    served: ServedModel
    choice: BackendChoice
    registered: str
    sources: Sources
    pins: tuple[Pin, ...]
    hashes: Mapping[str, str]
    dockerfile: str

    @property
    def image(self) -> str:
        """The base image."""
        found = _BASE.search(self.dockerfile)
        if found is None:
            raise UsageError(f"{DOCKERFILE.name}: given no `FROM image@sha256:... AS base`")
        return found[1]

    @property
    def code_files(self) -> dict[str, str]:
        """sha256 of this project's files."""
        return {name: file_sha256(PROJECT / name) for name in self.sources.files}

    @property
    def code(self) -> str:
        """Version of the code that serves."""
        parts = (part for pair in self.code_files.items() for part in pair)
        return f"{__version__}+{sha256_of(parts)[:16]}"


def package(
    task: Task,
    version: Version,
    home: Path,
    output: Path,
    backend: BackendName | None = None,
    trial: bool = True,
) -> tuple[Path, Package, bool]:
    """Package a registered version; what is there already with the same contents is kept.

    Args:
        task: The task; its section ``serve`` goes along.
        version: Of its model, in the registry of the open session.
        home: Folder of the stack's local files.
        output: Folder for packages.
        backend: That the model is prepared for; None leaves it to the task, then to the gate.
        trial: Whether to start the service from the package and have it score.

    Returns:
        The package's folder, its record, and whether it was made now.

    Raises:
        UsageError: Installed packages are not those that requirements.txt pins.
        ModelError: The model is damaged, or does not run with the backend.
        EngineError: The Bento cannot be built, or its service does not score as it should.
    """
    from deployment.registry import Registry
    from deployment.serving.prepare import prepare
    from tamis.corpus.sources import ingest

    source = Registry().download(version, home / "models")
    choice = backend_for_package(
        source, lambda: ingest(task).texts(), task.scoring, home, task.seed, backend
    )
    served = prepare(task, version, home, choice.backend)
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output, prefix=".tmp-") as scratch:
        model = Path(scratch) / "served"
        shutil.copytree(served, model)
        described = _settle(model, version, choice)
        parts = parts_of(model, described, choice, version.created)
        inputs = _inputs(parts, model)
        target = output / task.name / f"{version.version}-{choice.backend}-{inputs[:12]}"
        known = _known(target, inputs, trial)
        if known is not None:
            return target, known, False
        staged = Path(scratch) / "package"
        staged.mkdir()
        made = _make(parts, model, inputs, staged, trial)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            target.rename(Path(scratch) / "before")
        staged.rename(target)
    return target, made, True


def parts_of(model: Path, served: ServedModel, choice: BackendChoice, registered: str) -> Parts:
    """Find what a served model needs.

    Args:
        model: Folder of the served model.
        served: What it says of itself.
        choice: Of its backend.
        registered: When the version was.

    Raises:
        UsageError: Installed packages are not those that requirements.txt pins.
    """
    info = read_info(model / CLASSIFIER)
    found = read_export(model / CLASSIFIER)
    needs = Needs(
        family=info.family,
        backend=served.backend,
        light_tokenizer=found is not None and found.light_tokenizer,
        steps=info.text.preparation,
    )
    sources = sources_of(PROJECT)
    pins = closure(roots(sources, needs), read_pins(REQUIREMENTS))
    dockerfile = DOCKERFILE.read_text("utf-8")
    return Parts(served, choice, registered, sources, pins, lock.read_hashes(), dockerfile)


def all_pins() -> tuple[Pin, ...]:
    """What any package may need."""
    everything = Needs("encoder", "torch", steps=("emoji", "stem", "lemmatise"))
    sources, pins = sources_of(PROJECT), read_pins(REQUIREMENTS)
    needed = roots(sources, everything) | roots(sources, Needs("linear", "torch"))
    needed |= roots(sources, Needs("encoder", "onnx"))
    return closure(needed, pins)


def _settle(model: Path, version: Version, choice: BackendChoice) -> ServedModel:
    """Have a copy of the served model say what is true of every copy.

    When the folder was made and by which code differ from one machine to the next; so does how
    near to the threshold scores are checked, unless it was measured.
    """
    found = read_served(model).model_copy(
        update={"created": version.created, "code_version": "", "margin": choice.margin}
    )
    path = model / SERVED_FILE
    path.write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
    classifier = load_served(model)
    probes = tuple(
        Probe(text=probe.text, score=round(float(classifier.score([probe.text]).values[0]), 9))
        for probe in found.probes
    )
    found = found.model_copy(update={"probes": probes})
    path.write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
    return found


def _inputs(parts: Parts, model: Path) -> str:
    """sha256 over all that decides what is in a package."""
    ours = sorted(Path(__file__).parent.glob("*.py"))
    facts = [
        *(part for pair in hashes_of(model).items() for part in pair),
        *(part for pair in parts.code_files.items() for part in pair),
        *map(str, parts.pins),
        *(f"{name}@{value}" for name, value in sorted(parts.hashes.items())),
        parts.dockerfile,
        parts.registered,
        metadata.version("bentoml"),
        *(file.read_text("utf-8") for file in ours),
    ]
    return sha256_of(facts)


def _known(target: Path, inputs: str, trial: bool) -> Package | None:
    """The package that is there, if it is whole, of these inputs, and tried where it has to be."""
    try:
        found = read_package(target)
    except ModelError:
        return None
    return found if found.inputs == inputs and (found.tried or not trial) else None


def _make(parts: Parts, model: Path, inputs: str, target: Path, trial: bool) -> Package:
    served, code = parts.served, parts.code
    hashed = lock.write_lock(parts.pins, parts.hashes, target)
    tag = f"{served.task}:{served.version}-{inputs[:12]}"
    labels = {
        "version": served.version,
        "digest": served.digest[:32],
        "backend": served.backend,
        "code": code,
    }
    pinned = "".join(f"{pin}\n" for pin in parts.pins)
    build_bento(
        PROJECT, parts.sources.files, model, pinned, parts.image, tag, labels, parts.registered,
        target / BENTO,
    )  # fmt: skip
    values = {
        "TASK": served.task,
        "MODEL_VERSION": served.version,
        "MODEL_DIGEST": served.digest,
        "BACKEND": served.backend,
        "CODE": code,
        "FINGERPRINT": inputs,
    }
    filled = _ARGUMENT.sub(lambda found: f"ARG {found[1]}={values[found[1]]}", parts.dockerfile)
    (target / "Dockerfile").write_text(filled, "utf-8")
    ignored = DOCKERFILE.with_name(f"{DOCKERFILE.name}.dockerignore")
    shutil.copyfile(ignored, target / ".dockerignore")
    contents = Contents(
        task=served.task,
        version=served.version,
        digest=served.digest,
        backend=served.backend,
        code=code,
        code_files=parts.code_files,
        model_files=hashes_of(target / BENTO / "src" / SERVED),
        pins=parts.pins,
        hashes=parts.hashes,
        image=parts.image,
        at=datetime.fromisoformat(parts.registered),
    )
    (target / SBOM).write_text(make_sbom(contents), "utf-8")
    if trial:
        try_bento(target / BENTO, parts.pins)
    files = hashes_of(target)
    made = Package(
        task=served.task,
        version=served.version,
        digest=served.digest,
        registered=parts.registered,
        backend=served.backend,
        reason=parts.choice.reason,
        margin=served.margin,
        threshold=served.threshold,
        code=code,
        image=parts.image,
        packages=len(parts.pins),
        hashed=hashed,
        bento=tag,
        packed=datetime.now(UTC).isoformat(timespec="seconds"),
        tried=trial,
        inputs=inputs,
        fingerprint=fingerprint_of(files),
        files=files,
        sizes=_sizes(parts, model),
    )
    (target / record.FILE).write_text(made.model_dump_json(indent=1) + "\n", "utf-8")
    return made


def _sizes(parts: Parts, model: Path) -> Sizes:
    return Sizes(
        code=sum((PROJECT / name).stat().st_size for name in parts.sources.files),
        model=sum(path.stat().st_size for path in model.rglob("*") if path.is_file()),
        packages=sum(installed_bytes(pin) for pin in parts.pins),
    )


def installed_bytes(pin: Pin) -> int:
    """Bytes of a package's files, as they lie here."""
    found = metadata.distribution(pin.key)
    paths = (Path(str(found.locate_file(file))) for file in found.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())
