"""What decides an output besides its settings: the code that makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import tamis

_ROOT = Path(tamis.__file__).parent
FILTER_SOURCES = (
    "corpus/decontamination.py",
    "corpus/dedup.py",
    "corpus/document.py",
    "corpus/exact.py",
    "corpus/extraction.py",
    "corpus/language.py",
    "corpus/minhash.py",
    "corpus/near.py",
    "corpus/pii.py",
    "corpus/readers.py",
    "corpus/rules.py",
    "corpus/streams.py",
    "corpus/tables.py",
    "corpus/text_statistics.py",
    "corpus/warc.py",
    "corpus/writers.py",
    "models/*.py",
    "scoring/audit.py",
    "scoring/backends/*.py",
    "scoring/band.py",
    "scoring/cascade.py",
    "scoring/passes.py",
    "scoring/sift.py",
    "scoring/stages.py",
    "scoring/student.py",
    "target.py",
)
"""Sources that decide which rows a filter writes and what is in them."""


def pipeline_fingerprint() -> str:
    """Likewise over ``pipelines/`` and ``steps/``, as they are on the machine that runs this."""
    return code_fingerprint(("pipelines/*.py", "steps/*.py"), _ROOT.parent)


def sha256_of(parts: Iterable[str]) -> str:
    """sha256 in hexadecimal over strings, each told apart from the next."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", errors="surrogatepass") + b"\x00")
    return digest.hexdigest()


def code_fingerprint(patterns: Iterable[str] = FILTER_SOURCES, root: Path | None = None) -> str:
    """Version of tamis and a hash over some of its sources, such as ``0.1.0+3f9a…``.

    Args:
        patterns: Globs below the root; matching files count by name and content.
        root: The package, unless told otherwise.
    """
    root = root or _ROOT
    files = sorted({file for pattern in patterns for file in root.glob(pattern)})
    parts = [
        part
        for file in files
        for part in (file.relative_to(root).as_posix(), file.read_text(encoding="utf-8"))
    ]
    return f"{tamis.__version__}+{sha256_of(parts)[:16]}"
