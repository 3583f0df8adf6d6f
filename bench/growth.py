"""How the cost of a filter with a cascade grows with the corpus."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.corpus.readers import list_shards
from tamis.corpus.settings import FilterSettings, NearDuplicateSettings
from tamis.engine.local import LocalEngine
from tamis.models.classifier import digest, read_info
from tamis.scoring.cascade import load_cascade
from tamis.scoring.filter_run import run_filter
from tamis.scoring.load import LoadScorer
from tamis.scoring.plan import SiftPlan

if TYPE_CHECKING:
    from bench.scoring import Prepared

_SHARD = 5_000


def growth(
    made: Prepared, sizes: Sequence[int], told: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each size: CPU time a document of a whole filter, in one process.

    The documents are those of the test part over and over, each with its number in front, so
    that exact duplicates do not take them out.
    """
    info = read_info(made.model)
    cascade = load_cascade(made.cascade, digest(made.model), made.task.scoring.cascade.audit)
    scorer = LoadScorer(info.threshold, made.margin)(str(made.backend))
    scorer.use_threads(1)  # type: ignore[attr-defined]
    scorer.score(made.test.texts[:64])
    rows: list[dict[str, Any]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder) / "in", _numbered(made.test.texts, size))
            plan = SiftPlan(
                model_dir=str(made.backend),
                output=str(Path(folder) / "out"),
                threshold=info.threshold,
                scale=info.target.scale,
                model_version="bench",
                filter=FilterSettings(near_duplicates=NearDuplicateSettings(enabled=False)),
                cascade=cascade,
                threads=1,
                load=lambda model_dir: scorer,
            )
            shards = list_shards([str(Path(folder) / "in")])
            report = run_filter(plan, shards, engine=LocalEngine(0), progress=lambda state: None)
        each = 1e6 * report.cpu_seconds / report.counts.read
        rows.append(
            {
                "name": "filter with cascade",
                "corpus": f"packages x {size:,}",
                "docs_per_cpu_second": round(report.documents_per_cpu_second, 1),
                "microseconds_a_document": round(each, 1),
                "recall": None,
                "precision": None,
                "f1": None,
            }
        )
        told(f"{size:,} documents: {each:,.0f} us each")
    return rows


def _numbered(texts: Sequence[str], size: int) -> Iterator[str]:
    for number, text in enumerate(islice(cycle(texts), size)):
        yield f"{number} {text}"


def _write(folder: Path, texts: Iterator[str]) -> None:
    folder.mkdir()
    number = 0
    while block := list(islice(texts, _SHARD)):
        with (folder / f"{number:03d}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in block)
        number += 1
