"""Which files make up a corpus: a fixed, ordered list of shards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import fsspec
import xxhash

from tamis.corpus.manifest import is_output, list_files
from tamis.corpus.streams import Compression
from tamis.errors import UsageError

Format = Literal["jsonl", "csv", "parquet", "text", "warc", "wet"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".warc": "warc",
    ".wet": "wet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_STAMPS = ("mtime", "etag", "ETag", "md5Hash", "LastModified", "updated", "last_modified")
_NAME_LENGTH = 80

KNOWN = ".jsonl, .ndjson, .json, .csv, .tsv, .txt, .warc, .wet (each also .gz or .zst) and .parquet"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a corpus, the unit of work and of resumption.

    Attributes:
        name: Short and unique in its corpus, from the path; letters, digits and ``._-`` only.
        url: Local path or fsspec URL.
        format: How rows are laid out.
        compression: Of the whole file; Parquet compresses by itself.
        size: Bytes of the file.
        stamp: Changes when the file does: modification time, or etag of an object store.
    """

    name: str
    url: str
    format: Format
    compression: Compression
    size: int
    stamp: str


def list_shards(inputs: Sequence[str]) -> list[Shard]:
    """List the shards of a corpus, sorted by URL, each file once.

    Args:
        inputs: Files, folders (read recursively), globs, or fsspec URLs of these. A folder that
            Tamis wrote stands for the kept files of its manifest. Hidden files (``.x``, ``_x``)
            and other formats inside a folder or glob are left out. ``@FILE`` is a list of inputs
            in a text file (or at a URL), one a line; blank lines and those that begin with ``#``
            are passed over.

    Raises:
        UsageError: An input matches nothing, or no file of a known format; a list cannot be read
            or names another list.
    """
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for given, origin in _expanded(inputs):
        try:
            for url, relative, info in _files(given):
                found.setdefault(url, (relative, info))
        except UsageError as error:
            if origin:
                raise UsageError(f"{origin}: {error}") from error
            raise
    if not found:
        raise UsageError("no input was given; name a file, a folder, a glob or a URL")
    names = _names({url: relative for url, (relative, _) in found.items()})
    return [_shard(names[url], url, found[url][1]) for url in sorted(found)]


def format_of(path: str) -> tuple[Format, Compression] | None:
    """Format and compression by a file's suffix, or None when it is not a known one."""
    stem, compression = path.lower(), _COMPRESSIONS.get(PurePosixPath(path.lower()).suffix, "none")
    if compression != "none":
        stem = stem.rpartition(".")[0]
    form = _FORMATS.get(PurePosixPath(stem).suffix)
    if form is None or (form == "parquet" and compression != "none"):
        return None
    return form, compression


def _expanded(inputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The inputs with those of lists in the place of lists, and where in a list each stands."""
    for given in inputs:
        if not given.startswith("@"):
            yield given, ""
            continue
        name = given[1:]
        try:
            with fsspec.open(name, "rb") as file:
                lines = file.read().decode("utf-8-sig").splitlines()
        except Exception as error:  # what a storage raises differs with the storage
            raise UsageError(f"list {name!r} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            entry = line.strip()
            if entry.startswith("@"):
                raise UsageError(f"{name}, line {number}: a list cannot name a list ({entry})")
            if entry and not entry.startswith("#"):
                yield entry, f"{name}, line {number}"


def _files(given: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """URL, path below the input's root, and the file system's facts of each file of an input."""
    try:
        fs, path = fsspec.core.url_to_fs(given)
        root, infos, named = _match(fs, path, given)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"input {given!r} cannot be listed: {error}") from error
    usable = [info for info in infos if format_of(str(info["name"]))]
    if not infos:
        raise UsageError(f"input {given!r} matches no file")
    if not usable:
        what = "is" if named else "holds only files"
        raise UsageError(f"input {given!r} {what} of no known format; known are {KNOWN}")
    for info in usable:
        name = str(info["name"])
        yield str(fs.unstrip_protocol(name)), name.removeprefix(root).lstrip("/"), info


def _match(fs: Any, path: str, given: str) -> tuple[str, list[Mapping[str, Any]], bool]:
    """The fixed part of the paths, the files, and whether the input names one file."""
    if any(character in path for character in "*?[") and not fs.exists(path):
        fixed = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
        matched = fs.glob(path, detail=True)
        return (
            fixed,
            [i for i in matched.values() if i["type"] == "file" and _shown(i, fixed)],
            False,
        )
    try:
        info = fs.info(path)  # the one question to ask of each of a long list of files
    except FileNotFoundError:
        return path, [], True
    if info["type"] == "directory":
        if is_output(given):
            return path, [fs.info(f"{path}/{name}") for name in list_files(given, "kept")], False
        matched = fs.find(path, detail=True)
        return path, [i for i in matched.values() if i["type"] == "file" and _shown(i, path)], False
    return path.rpartition("/")[0], [info], True


def _shown(info: Mapping[str, Any], root: str) -> bool:
    parts = PurePosixPath(str(info["name"]).removeprefix(root)).parts
    return not any(part.startswith((".", "_")) for part in parts)


def _shard(name: str, url: str, info: Mapping[str, Any]) -> Shard:
    kind = format_of(url)
    if kind is None:  # only usable files come this far
        raise UsageError(f"input {url!r} is of no known format; known are {KNOWN}")
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
    path = url.removeprefix("file://")
    return Shard(name, path, kind[0], kind[1], int(info.get("size") or 0), stamp)


def _names(relatives: Mapping[str, str]) -> dict[str, str]:
    """A unique name for each URL; where two would share one, both carry a hash of their URL."""
    plain = {url: _plain(relative) for url, relative in relatives.items()}
    taken = Counter(name.lower() for name in plain.values())
    return {
        url: name
        if taken[name.lower()] == 1 and len(name) <= _NAME_LENGTH
        else f"{name[: _NAME_LENGTH - 17]}-{xxhash.xxh3_64_hexdigest(url.encode())}"
        for url, name in plain.items()
    }


def _plain(relative: str) -> str:
    stem = re.sub(r"\.(gz|zst)$", "", relative, flags=re.IGNORECASE)
    stem = stem.rpartition(".")[0] or stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem.replace("/", "-")).strip("-.") or "shard"
