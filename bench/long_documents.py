"""What reading the beginning only of long documents costs, beside the other ways to read them.

Trains frozen settings on labelled documents once for each value of ``text.long``, and prints
cross-validated Spearman correlations with 95% intervals, also of the paired difference from the
beginning alone, and what each way costs. Run as ``python bench/long_documents.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np  # noqa: E402

from tamis.config import validate  # noqa: E402
from tamis.corpus.dataset import Dataset  # noqa: E402
from tamis.corpus.sources import ingest  # noqa: E402
from tamis.corpus.split import split  # noqa: E402
from tamis.evaluation.bootstrap import Sampled, difference, interval, resample, sample  # noqa: E402
from tamis.models.backbone import cut, load_backbone  # noqa: E402
from tamis.models.encoder import Encoder  # noqa: E402
from tamis.models.selection import cross_validate  # noqa: E402
from tamis.models.tokens import Tokens, combine, tokenize  # noqa: E402
from tamis.models.train import problem_of  # noqa: E402
from tamis.task import Task, TextLimits, load_task  # noqa: E402

Features = dict[Any, np.ndarray[Any, Any]]
WAYS = ("head", "head_tail", "windows_mean", "windows_max")


def documents(task: Task, most: int) -> Dataset:
    """Labelled documents of a task, at most so many of them, drawn with its seed."""
    found = ingest(task)
    found = found.take(~np.isnan(found.labels))
    chosen = np.zeros(len(found), dtype=bool)
    rows = np.random.default_rng(task.seed).permutation(len(found))[:most]
    chosen[rows] = True
    return found.take(chosen)


def embed(encoder: Encoder, texts: list[str], task: Task) -> tuple[Features, Tokens, float]:
    """Vectors of sequences by layer and pooling, the tokens, and the CPU seconds of both."""
    settings, before = task.model.frozen, time.process_time()
    tokens = tokenize(encoder.tokenizer, texts, encoder.limits)
    alone = Tokens(tokens.ids, tokens.pad)
    vectors = encoder.encode(alone, settings.layers or (), settings.poolings)
    return dict(vectors), tokens, time.process_time() - before


def compare(name: str, task: Task, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way to read the documents of a task."""
    dataset = documents(task, given.documents)
    problem = problem_of(task, dataset, split(dataset, task.target, task.split, task.seed))
    model, tokenizer = load_backbone(task.model.backbone)
    model, resamples = cut(model, max(given.layers)), resample(problem.groups.tolist(), task.seed)
    rows: list[dict[str, Any]] = []
    head: Sampled | None = None
    windows: tuple[Features, Tokens, float] | None = None
    for way in WAYS:
        limits: dict[str, Any] = {"max_tokens": given.max_tokens, "long": way}
        limits["max_characters"] = given.max_characters
        if way.startswith("windows"):
            limits["windows"] = given.windows
        encoder = Encoder(model, tokenizer, TextLimits(**limits))
        if way == "windows_max" and windows is not None:
            vectors, tokens, seconds = windows  # the same sequences, joined otherwise
            tokens = replace(tokens, join="max")
        else:
            vectors, tokens, seconds = embed(encoder, dataset.texts(), task)
        windows = (vectors, tokens, seconds)
        features = {key: combine(found, tokens) for key, found in vectors.items()}
        found = cross_validate(problem, features, task.split.folds or 5)
        threshold = found.thresholds[found.fold]
        sampled = sample(task.target, problem.labels, found.scores, threshold, resamples)
        head = head or sampled["spearman"]
        gain = difference(sampled["spearman"], head)
        rows.append(
            {
                "corpus": name,
                "long": way,
                "documents": len(dataset),
                "longer": float(np.mean(tokens.whole > given.max_tokens - 2)),
                "spearman": interval(sampled["spearman"]).model_dump(),
                "gain": gain.model_dump(),
                "sequences_per_document": len(tokens.ids) / len(dataset),
                "tokens_per_document": float(tokens.read.mean()),
                "cpu_seconds_per_1000": 1_000 * seconds / len(dataset),
            }
        )
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table, in Markdown."""
    spearman, gain = row["spearman"], row["gain"]
    cells = (
        row["corpus"],
        row["long"],
        "{value:.3f} ({low:.3f} to {high:.3f})".format(**spearman),
        "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**gain),
        f"{row['sequences_per_document']:.2f}",
        f"{row['tokens_per_document']:.0f}",
        f"{row['cpu_seconds_per_1000']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def changed(task: Task, given: argparse.Namespace) -> Task:
    """The task with the layers and heads that are compared."""
    frozen = {"layers": tuple(given.layers), "heads": tuple(given.heads)}
    model = task.model.model_copy(update={"frozen": task.model.frozen.model_copy(update=frozen)})
    return task.model_copy(update={"model": model})


def table_task(given: argparse.Namespace) -> Task:
    """A task on a table of documents with scores."""
    data = {
        "name": "table",
        "target": {"kind": "ordinal", "minimum": 0, "maximum": 5, "keep_at_least": 3},
        "sources": [
            {
                "kind": "files",
                "path": str(given.parquet),
                "columns": {"text": given.text_column, "label": given.label_column},
            }
        ],
    }
    return validate(Task, data, "table")


def main() -> None:
    """Compare on the task's documents, then on the table's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="edu_quality", help="labelled documents; '' for none")
    parser.add_argument("--parquet", type=Path, help="more documents, with scores from 0 to 5")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="score")
    parser.add_argument("--documents", type=int, default=1_000, help="most of each")
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--max-characters", type=int, default=1_800)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--layers", type=int, nargs="+", default=[3])
    parser.add_argument("--heads", nargs="+", default=["ridge", "kernel"])
    parser.add_argument("--output", type=Path, help="write the rows here as JSON")
    given = parser.parse_args()
    print("| corpus | long | Spearman | gain over head | sequences | tokens | CPU s per 1,000 |")
    print("|---|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    if given.task:
        task = load_task(given.task)
        rows += compare(task.name, changed(task, given), given)
    if given.parquet:
        rows += compare(given.parquet.stem, changed(table_task(given), given), given)
    for name in dict.fromkeys(row["corpus"] for row in rows):
        row = next(row for row in rows if row["corpus"] == name)
        print(f"{name}: {row['documents']} documents, {row['longer']:.0%} longer than is read.")
    if given.output:
        facts = {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "settings": {key: str(value) for key, value in vars(given).items()},
            "rows": rows,
        }
        given.output.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
