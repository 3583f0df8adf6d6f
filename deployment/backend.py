"""Which backend a run uses: what the task names, or what was measured best on this machine."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tamis.corpus.document import Document
from tamis.corpus.readers import Shard
from tamis.fingerprint import sha256_of
from tamis.machine import machine
from tamis.models.classifier import digest
from tamis.scoring.backends import choose as choosing
from tamis.scoring.backends.choose import BackendChoice, Judged
from tamis.scoring.estimate import choose_shards, count_documents
from tamis.scoring.plan import SiftPlan
from tamis.scoring.settings import ScoringSettings
from tamis.target import Floats

_WORTH = 4
"""A corpus with fewer documents than so many times those of the gate is scored by the reference:
measuring would take longer than it saves."""


def backend_for(
    plan: SiftPlan, shards: list[Shard], settings: ScoringSettings, home: Path, seed: int
) -> BackendChoice:
    """The backend for a plan over a corpus, chosen once on a machine and then kept.

    Args:
        plan: With the model as it was saved, and the threshold.
        shards: The corpus.
        settings: What the task asks for.
        home: Folder of the stack's local files.
        seed: Of the documents that backends are compared on.

    Raises:
        UsageError: The corpus has no row.
        ModelError: The model cannot be loaded.
    """
    source = digest(plan.model_dir)
    named = _named(settings, source)
    if named is not None:
        return named
    path = _path(home, source, plan.threshold, settings)
    known = _read(path)
    if known is not None:
        return known
    found = count_documents(plan, shards, seed)
    if found < _WORTH * settings.gate.documents:
        return BackendChoice(
            backend=choosing.REFERENCE,
            reason=f"The corpus has about {found:,} documents: measuring backends would take "
            "longer than it saves.",
            source=source,
            machine=machine(),
        )
    texts = sample_texts(plan, shards, settings.gate.documents, seed)
    return _choose(plan, Judged(texts, plan.threshold), settings, home, path)


def backend_by(
    plan: SiftPlan,
    texts: list[str],
    reference: Floats,
    settings: ScoringSettings,
    home: Path,
    seed: int,
) -> BackendChoice:
    """Likewise, judged on documents that the fp32 encoder has scored already.

    Args:
        plan: With the model as it was saved, and the threshold.
        texts: The documents (n).
        reference: Their scores (n,).
        settings: What the task asks for.
        home: Folder of the stack's local files.
        seed: Of the choice among the documents.
    """
    source = digest(plan.model_dir)
    path = _path(home, source, plan.threshold, settings)
    known = _named(settings, source) or _read(path)
    if known is not None:
        return known
    rows = np.random.default_rng(seed).permutation(len(texts))[: settings.gate.documents]
    judged = Judged([texts[row] for row in rows.tolist()], plan.threshold, reference[rows])
    return _choose(plan, judged, settings, home, path)


def sample_texts(plan: SiftPlan, shards: list[Shard], documents: int, seed: int) -> list[str]:
    """Documents from the beginnings of up to 32 shards."""
    chosen = choose_shards(shards, seed)
    each = -(-documents // max(1, len(chosen)))
    texts = [
        row.text
        for shard in chosen
        for row in islice(plan.read(shard), each)
        if isinstance(row, Document)
    ]
    return texts[:documents]


def _named(settings: ScoringSettings, source: str) -> BackendChoice | None:
    if settings.backend == "auto":
        return None
    return BackendChoice(
        backend=settings.backend,
        reason="The task names it (scoring.backend); it was not judged.",
        source=source,
        machine=machine(),
    )


def _path(home: Path, source: str, threshold: float, settings: ScoringSettings) -> Path:
    facts = (source, repr(float(threshold)), machine(), settings.gate.model_dump_json())
    return home / "backends" / f"{sha256_of(facts)[:16]}.json"


def _read(path: Path) -> BackendChoice | None:
    try:
        return BackendChoice.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _choose(
    plan: SiftPlan, judged: Judged, settings: ScoringSettings, home: Path, path: Path
) -> BackendChoice:
    found = choosing.choose(
        Path(plan.model_dir), home / "exports", judged, settings.gate, plan.scale
    )
    if found.kept < settings.gate.min_kept:  # the next corpus may have more to judge on
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix="tmp-") as folder:
        staged = Path(folder) / path.name
        staged.write_text(found.model_dump_json(indent=1), "utf-8")
        staged.replace(path)
    return found
