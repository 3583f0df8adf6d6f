"""Real documents that installed packages carry: a corpus for a machine with no hub.

Genres: sections of English Wikipedia and news stories (gensim's test data), descriptions and
licences of every installed package, and public docstrings of fourteen libraries.
"""

from __future__ import annotations

import ast
import bz2
import csv
import importlib.metadata as metadata
import multiprocessing
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from tamis.corpus.document import content_hash, normalise
from tamis.errors import DataError
from tamis.fingerprint import sha256_of

DOCSTRING_PACKAGES = (
    "sympy",
    "networkx",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "nltk",
    "gensim",
    "mpmath",
    "numpy",
    "pandas",
    "transformers",
    "torch",
    "zenml",
    "ray",
)
SHORTEST = 500
SHORTEST_SECTION = 600
LICENCE_FILE = re.compile(r"LICEN[CS]E|NOTICE|COPYING|AUTHORS", re.IGNORECASE)
LICENCES = {
    "wikipedia": "CC BY-SA 3.0 (English Wikipedia, in gensim's test data)",
    "news": "for research (Lee background corpus, in gensim's test data)",
    "readme": "each package's own licence",
    "licence": "each licence's own terms",
    "docstring": "each package's own licence",
}


@dataclass(frozen=True, slots=True)
class PackageDocument:
    """One document of the embedded pool.

    Attributes:
        genre: ``wikipedia``, ``news``, ``readme``, ``licence`` or ``docstring/PACKAGE``.
        origin: Package, version, file and the place in it.
        text: The normalised text.
    """

    genre: str
    origin: str
    text: str

    @property
    def sha256(self) -> str:
        """Content hash of the text."""
        return content_hash(self.text)

    @property
    def group(self) -> str:
        """The page, module or package that the document is part of.

        Documents of one group resemble one another and belong on one side of a split.
        """
        file, _, place = self.origin.partition("#")
        if self.genre == "wikipedia":
            return f"{file}#{place.split('/')[0]}"
        if self.genre == "licence":
            return file.split(":")[0]
        return self.origin if self.genre == "news" else file


def genres() -> tuple[str, ...]:
    """Every genre, in the order in which the pool is read."""
    return tuple(_READERS)


def read_pool(
    patterns: tuple[str, ...] = ("*",), files: frozenset[str] | None = None, workers: int = 1
) -> Iterator[PackageDocument]:
    """The documents of the genres that match, each text once.

    A text is a repetition when its first 1,500 characters equal another's, letters and digits
    only. Genres are read in a fixed order, so which one stays is the same on every machine.

    Args:
        patterns: Shell patterns over the genres.
        files: Read docstrings of these files only (the part of an origin before ``#``).
        workers: Processes that read genres side by side.

    Raises:
        DataError: A package that carries documents is not installed.
    """
    wanted = [g for g in _READERS if any(fnmatchcase(g, pattern) for pattern in patterns)]
    seen: set[str] = set()
    try:
        for genre, documents in zip(wanted, _read_genres(wanted, files, workers), strict=True):
            for origin, text in documents:
                key = re.sub(r"\W+", "", text[:1500]).lower()
                if key not in seen:
                    seen.add(key)
                    yield PackageDocument(genre, origin, text)
    except metadata.PackageNotFoundError as error:
        raise DataError(f"packages: {error.name} is not installed; run make setup") from None


def _read_genres(
    wanted: list[str], files: frozenset[str] | None, workers: int
) -> Iterator[list[tuple[str, str]]]:
    if workers == 1:
        yield from (_read_genre(genre, files) for genre in wanted)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_read_genre, wanted, [files] * len(wanted))


def _read_genre(genre: str, files: frozenset[str] | None) -> list[tuple[str, str]]:
    """Origin and normalised text of every document of a genre."""
    warnings.simplefilter("ignore", SyntaxWarning)  # other people's string escapes
    return [(origin, normalise(raw)) for origin, raw in _READERS[genre](files)]


def version() -> str:
    """A hash over the names and versions of the installed packages."""
    installed = [f"{name}=={distribution.version}" for name, distribution in _installed()]
    return sha256_of(installed)


def unknown_patterns(patterns: tuple[str, ...]) -> list[str]:
    """Those patterns that no genre matches."""
    return [p for p in patterns if not any(fnmatchcase(genre, p) for genre in _READERS)]


def _distribution(package: str) -> tuple[metadata.Distribution, str, list[str]]:
    """A package, the start of its documents' origins, and its files."""
    distribution = metadata.distribution(package)
    files = sorted(str(file) for file in distribution.files or [])
    # Asking for the version parses the metadata anew each time: once is enough.
    return distribution, f"{package}=={distribution.version}", files


def _path(distribution: metadata.Distribution, file: str) -> Path:
    return Path(str(distribution.locate_file(file)))


def _wikipedia(files: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    gensim, name, carried = _distribution("gensim")
    dump = next(file for file in carried if "enwiki-latest-pages-articles1" in file)
    seen: Counter[str] = Counter()
    with bz2.open(_path(gensim, dump)) as pages:
        for title, markup, _ in extract_pages(pages, filter_namespaces=("0",)):
            if markup.lower().startswith("#redirect"):
                continue
            parts = re.split(r"\n=+\s*([^=\n]+?)\s*=+\s*\n", f"\n==Introduction==\n{markup}")
            for heading, body in zip(parts[1::2], parts[2::2], strict=True):
                text = normalise(re.sub(r"'{2,}", "", filter_wiki(body)))
                if len(text) >= SHORTEST_SECTION:
                    origin = f"{name}:{dump}#{title}/{heading}"
                    seen[origin] += 1
                    if seen[origin] > 1:  # two sections of a page may share a heading
                        origin += f" ({seen[origin]})"
                    yield origin, f"{title} - {heading}\n\n{text}"


def _news(files: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    gensim, name, carried = _distribution("gensim")
    stories = next(file for file in carried if file.endswith("lee_background.cor"))
    lines = _path(gensim, stories).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines):
        if len(line) >= SHORTEST:
            yield f"{name}:{stories}#{number}", line


def _installed() -> list[tuple[str, metadata.Distribution]]:
    """Every installed package by lower-case name; of two with one name, the first on the path."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        found.setdefault(distribution.metadata["Name"].lower(), distribution)
    return sorted(found.items())


def _readmes(files: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    for name, distribution in _installed():
        facts = distribution.metadata
        payload = facts.get_payload()  # type: ignore[attr-defined]
        text = payload or (facts["Description"] if "Description" in facts else "")  # noqa: SIM401  # no get in one backport
        if len(text) >= SHORTEST:
            yield f"{name}=={distribution.version}:METADATA", text


def _about(distribution: metadata.Distribution) -> list[str]:
    """A distribution's files about itself, sorted.

    ``files`` would make an object of each of its thousands of files first.
    """
    record = distribution.read_text("RECORD")
    if record is None:
        named = [str(file) for file in distribution.files or []]
    else:
        named = [row[0] for row in csv.reader(x for x in record.splitlines() if ".dist-info/" in x)]
    return sorted(file for file in named if ".dist-info/" in file)


def _licences(files: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    for name, distribution in _installed():
        version = distribution.version
        for file in _about(distribution):
            if not LICENCE_FILE.search(file):
                continue
            try:
                text = _path(distribution, file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if len(text) >= SHORTEST:
                yield f"{name}=={version}:{file}", text


def _docstrings(package: str, files: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    distribution, name, carried = _distribution(package)
    for file in carried:
        origin = f"{name}:{file}"
        if files is not None and origin not in files:
            continue
        if not file.endswith(".py") or "/tests/" in file or "/test_" in file:
            continue
        try:
            tree = ast.parse(_path(distribution, file).read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        for place, docstring in _module_docstrings(tree):
            if len(docstring) >= SHORTEST:
                yield f"{origin}#{place}", docstring


def _module_docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Docstrings of a module, its public classes and functions, by dotted name."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, prefix = waiting.pop()
        for child in getattr(node, "body", []):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                name = f"{prefix}.{child.name}".strip(".")
                docstring = ast.get_docstring(child)
                if docstring and not child.name.startswith("_"):
                    yield name, docstring
                waiting.append((child, name))
        if isinstance(node, ast.Module) and (docstring := ast.get_docstring(node)):
            yield "", docstring


_READERS: dict[str, Callable[[frozenset[str] | None], Iterator[tuple[str, str]]]] = {
    "wikipedia": _wikipedia,
    "news": _news,
    "readme": _readmes,
    "licence": _licences,
    **{f"docstring/{package}": partial(_docstrings, package) for package in DOCSTRING_PACKAGES},
}


def genre_of(origin: str) -> str:
    """The genre that an origin belongs to."""
    file = origin.partition("#")[0]
    if "enwiki-latest-pages-articles1" in file:
        return "wikipedia"
    if "lee_background.cor" in file:
        return "news"
    if file.endswith(":METADATA"):
        return "readme"
    return "licence" if ".dist-info/" in file else f"docstring/{file.split('==')[0]}"
