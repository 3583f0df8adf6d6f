"""Versions of the labelled documents that the pipelines have ingested, and who learnt from them.

A version is what has one data fingerprint. ZenML keeps it as often as it was ingested anew;
MLflow knows which models were trained on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tamis.corpus.dataset import Dataset, DatasetInfo, fingerprint
from tamis.errors import DataError, UsageError

if TYPE_CHECKING:
    from deployment.registry import Version

Kind = Literal["documents", "window", "all_documents"]
KINDS: tuple[Kind, ...] = ("documents", "window", "all_documents")
NAME = 12
"""Characters of a fingerprint that name a version."""
NAMED = 8
PAGE = 200


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Facts(BaseModel):
    """What the metadata of an artifact say of its documents."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    documents: int
    labelled: int
    sources: dict[str, int]
    labels_by: str


class Kept(_Record):
    """One artifact.

    Attributes:
        id: ZenML's id.
        kind: What a run made it as.
        at: When.
        content: Hash over all columns in order; two artifacts of a version may differ in it.
        uri: Where its files are.
        facts: What is known of the documents.
    """

    id: str
    kind: Kind
    at: datetime
    content: str
    uri: str
    facts: Facts


class Unreadable(_Record):
    """An artifact of which is not known what is in it.

    Attributes:
        id: ZenML's id.
        kind: What a run made it as.
        at: When.
        reason: One sentence.
    """

    id: str
    kind: Kind
    at: datetime
    reason: str


class TrainedModel(_Record):
    """A registered model: its version and what it is called."""

    version: str
    aliases: tuple[str, ...] = ()


class DataVersion(_Record):
    """Labelled documents with one fingerprint.

    Attributes:
        artifacts: Every one that holds them, the oldest first.
        models: Registered models that were trained on them, the newest first.
    """

    artifacts: tuple[Kept, ...]
    models: tuple[TrainedModel, ...] = ()

    @property
    def facts(self) -> Facts:
        """What is known of the documents, as it was last written."""
        return self.artifacts[-1].facts

    @property
    def fingerprint(self) -> str:
        """The data fingerprint."""
        return self.facts.fingerprint

    @property
    def name(self) -> str:
        """What it is called."""
        return self.fingerprint[:NAME]

    @property
    def first(self) -> datetime:
        """When it was first ingested."""
        return self.artifacts[0].at

    @property
    def last(self) -> datetime:
        """When it was last ingested."""
        return self.artifacts[-1].at

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What runs made it as."""
        return tuple(kind for kind in KINDS if any(each.kind == kind for each in self.artifacts))

    @property
    def forms(self) -> int:
        """How many sets of other order, groups or sources have this fingerprint."""
        # Where the hash is the fingerprint, it was taken before order and groups counted in it.
        return len({each.content for each in self.artifacts} - {self.fingerprint}) or 1


class Catalogue(_Record):
    """All versions of a task's documents on a stack.

    Attributes:
        task: Name of the task.
        versions: The newest first, by when each was first ingested: training on an old one again
            does not make it new.
        unreadable: Artifacts that could not be looked into, whosever they are.
        gone: Fingerprints that models were trained on and of which no artifact is left.
    """

    task: str
    versions: tuple[DataVersion, ...]
    unreadable: tuple[Unreadable, ...] = ()
    gone: Mapping[str, tuple[TrainedModel, ...]] = {}

    @property
    def champion(self) -> str | None:
        """Fingerprint that the champion was trained on."""
        models = {each.fingerprint: each.models for each in self.versions} | dict(self.gone)
        return next(
            (found for found, made in models.items() if any("champion" in m.aliases for m in made)),
            None,
        )

    def find(self, given: str, where: str) -> DataVersion:
        """A version by the beginning of its fingerprint, ``champion`` or ``latest``.

        Args:
            given: What the user named; ``VERSION@ARTIFACT`` names one artifact of it.
            where: The option or argument, for the message.

        Raises:
            UsageError: None or several are called so, or its documents were deleted.
        """
        name, at, artifact = given.partition("@")
        found = self._named(name, given, where)
        if not at:
            return found
        chosen = [each for each in found.artifacts if artifact and each.id.startswith(artifact)]
        if len(chosen) != 1:
            ids = ", ".join(each.id[:8] for each in found.artifacts)
            raise UsageError(f"{where}: given {given!r}; allowed after the @: one of {ids}")
        return found.model_copy(update={"artifacts": tuple(chosen)})

    def _named(self, name: str, given: str, where: str) -> DataVersion:
        wanted = name.lower()
        if wanted == "latest":
            sets = [each for each in self.versions if each.kinds != ("window",)]
            if sets:
                return sets[0]
        if wanted == "champion":
            if self.champion is None:
                raise UsageError(f"{where}: given 'champion', but {self.task} has none; allowed: "
                                 f"{self._allowed()}")  # fmt: skip
            wanted = self.champion
        matching = [e for e in self.versions if wanted and e.fingerprint.startswith(wanted)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise UsageError(
                f"{where}: given {given!r}, with which several begin; allowed: "
                + _some([each.name if len(wanted) < NAME else each.fingerprint
                         for each in matching])
            )  # fmt: skip
        lost = [found for found in self.gone if wanted and found.startswith(wanted)]
        if lost:
            models = ", ".join(each.version for each in self.gone[lost[0]])
            raise UsageError(
                f"{where}: given {given!r}; model {models} was trained on these documents, but "
                f"their artifact was deleted; allowed: {self._allowed()}"
            )
        raise UsageError(f"{where}: given {given!r}; allowed: {self._allowed()}")

    def _allowed(self) -> str:
        if not self.versions:
            return f"nothing yet; run `python run.py train --task {self.task}` first"
        names = [each.name for each in self.versions]
        return f"the beginning of {_some(names)}, or champion, or latest"


def catalogue(task: str) -> Catalogue:
    """All versions of a task's documents on the stack of the session that is open.

    No document is read: ZenML has what is known of each artifact; of artifacts made before it
    was recorded, one small file is read.
    """
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    from deployment.registry import Registry

    client = Client()
    store = client.active_stack.artifact_store
    found: list[Kept | Unreadable] = []
    for kind in KINDS:
        artifacts: list[Any] = depaginate(
            client.list_artifact_versions,
            artifact=kind,
            artifact_store_id=store.id,
            size=PAGE,
            hydrate=True,
        )
        found += [described(kind, each) for each in artifacts]
    return assemble(task, found, Registry().versions(task))


def described(kind: Kind, artifact: Any) -> Kept | Unreadable:
    """What ZenML knows of an artifact, or why it is not known what is in it."""
    created = artifact.created
    at = created.astimezone(UTC) if created.tzinfo else created.replace(tzinfo=UTC)
    try:
        facts = _facts(dict(artifact.run_metadata or {}), artifact.uri)
    except Exception as error:  # storages and older code fail in many ways; a list shows them all
        reason = _first_line(error)
        return Unreadable(id=str(artifact.id), kind=kind, at=at, reason=reason)
    return Kept(
        id=str(artifact.id),
        kind=kind,
        at=at,
        content=str(artifact.content_hash or ""),
        uri=artifact.uri,
        facts=facts,
    )


def _facts(metadata: dict[str, Any], uri: str) -> Facts:
    try:
        return Facts.model_validate(metadata)
    except ValidationError:
        from zenml.io import fileio

        with fileio.open(f"{uri}/info.json", "r") as file:
            info = DatasetInfo.model_validate_json(file.read())
        return Facts.model_validate(info.model_dump())


def assemble(task: str, found: Iterable[Kept | Unreadable], models: Iterable[Version]) -> Catalogue:
    """Put artifacts of one fingerprint together, and the models beside them."""
    by_print: dict[str, list[Kept]] = {}
    unreadable: list[Unreadable] = []
    for each in sorted(found, key=lambda item: (item.at, item.id)):
        if isinstance(each, Unreadable):
            unreadable.append(each)
        elif each.facts.task == task:
            by_print.setdefault(each.facts.fingerprint, []).append(each)
    trained: dict[str, list[TrainedModel]] = {}
    for model in models:
        learnt_from = model.tags.get("data_fingerprint", "")
        made = TrainedModel(version=model.version, aliases=model.aliases)
        trained.setdefault(learnt_from, []).append(made)
    versions = [
        DataVersion(artifacts=tuple(artifacts), models=tuple(trained.get(name, ())))
        for name, artifacts in by_print.items()
    ]
    return Catalogue(
        task=task,
        versions=tuple(sorted(versions, key=lambda each: each.first, reverse=True)),
        unreadable=tuple(reversed(unreadable)),
        gone={k: tuple(made) for k, made in trained.items() if k and k not in by_print},
    )


def present(version: DataVersion) -> Kept:
    """The newest artifact of a version whose files are there.

    Raises:
        UsageError: The files of all of them were deleted.
    """
    from zenml.io import fileio

    for each in reversed(version.artifacts):
        if fileio.exists(f"{each.uri}/documents.parquet"):
            return each
    raise UsageError(
        f"data version {version.name}: its files were deleted from {version.artifacts[-1].uri}; "
        "allowed: a version whose documents are there"
    )


def load(version: DataVersion) -> Dataset:
    """The documents of a version.

    Raises:
        UsageError: They were deleted.
        DataError: They cannot be read, or are not those that the version is named after.
    """
    return load_artifact(present(version).id)


def load_artifact(artifact: str) -> Dataset:
    """The documents of one artifact, exactly as they were ingested.

    Args:
        artifact: ZenML's id.

    Raises:
        DataError: It was deleted, cannot be read, or is not what its fingerprint says.
    """
    from zenml.client import Client

    try:
        found = Client().get_artifact_version(artifact).load(disable_cache=True)
    except Exception as error:  # of ZenML, of the storage, of Arrow: it cannot be had
        raise DataError(
            f"data artifact {artifact}: it was deleted or cannot be read ({_first_line(error)}); "
            "`python run.py data list` shows what is there"
        ) from None
    if not isinstance(found, Dataset):
        raise DataError(f"data artifact {artifact}: it holds no labelled documents")
    if fingerprint(found.table) != found.info.fingerprint:
        raise DataError(
            f"data artifact {artifact}: its documents are not those that were ingested, which "
            f"had the fingerprint {found.info.fingerprint[:NAME]}"
        )
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _first_line(error: Exception) -> str:
    name = type(error).__name__
    return f"{name}: {str(error).strip().splitlines()[0][:200]}" if str(error).strip() else name
