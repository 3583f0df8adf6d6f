"""Scoring beside what people score with today, on the same documents, in turns.

Trains and distills into a home of its own (``.tamis/bench``) unless that was done before, then
times each way on documents that neither student nor band have seen: CPU time of one thread,
medians over rounds. Run as ``make bench``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench import rivals  # noqa: E402
from bench.growth import growth  # noqa: E402
from bench.uncut import Fitted, fit_uncut  # noqa: E402
from tamis.models.classifier import digest, read_info  # noqa: E402
from tamis.scoring.backends.choose import machine  # noqa: E402
from tamis.scoring.backends.folder import load_backend  # noqa: E402
from tamis.scoring.cascade import load_cascade  # noqa: E402
from tamis.scoring.distill import Taught, part, read_taught  # noqa: E402
from tamis.scoring.load import LoadScorer, Scorer  # noqa: E402
from tamis.task import Task, load_task  # noqa: E402

HOME = ROOT / ".tamis" / "bench"
RESULTS = ROOT / "bench" / "results.json"
FINEWEB = ROOT.parent / "shared" / "data" / "fineweb_legal.parquet"
TARGETS = {"encoder-auto": 2.5, "cascade": 15.0}
"""Times sentence-transformers."""


@dataclass(frozen=True)
class Prepared:
    """A corpus with its model, its cascade, and documents that had no say in either.

    Attributes:
        task: The task.
        model: Folder of the classifier.
        backend: Folder of what ``auto`` took.
        margin: Scores so near to the threshold are checked in fp32.
        cascade: Folder of the cascade.
        train: Documents that taught the student.
        test: Documents to time and measure on.
    """

    task: Task
    model: Path
    backend: Path
    margin: float
    cascade: Path
    train: Taught
    test: Taught


def prepare(name: str, task_file: str, inputs: Sequence[str]) -> Prepared:
    """Train and distill, unless that was done; nothing is left in the user's own home."""
    found = HOME / f"{name}.json"
    environment = os.environ | {"TAMIS_HOME": str(HOME / name)}
    if not found.is_file():
        for verb, more in (("train", []), ("distill", [f"--input={each}" for each in inputs])):
            command = [sys.executable, str(ROOT / "run.py"), verb, "--task", task_file, *more]
            code = subprocess.run(command, env=environment, check=False).returncode
            if code not in (0, 3):
                raise SystemExit(code)
    command = [sys.executable, str(ROOT / "bench" / "locate.py"), task_file, *inputs]
    subprocess.run([*command, str(found)], env=environment, check=True)
    facts = json.loads(found.read_text(encoding="utf-8"))
    task = load_task(task_file)
    seen = read_info(facts["model"]).trained_on
    taught = read_taught(facts["taught"], {*seen.train, *seen.validation})
    train, _, test = map(taught.take, part(len(taught.texts), task.scoring.cascade, task.seed))
    return Prepared(
        task, Path(facts["model"]), Path(facts["backend"]), facts["margin"],
        Path(facts["cascade"]), train, test,
    )  # fmt: skip


def ways(made: Prepared, uncut: Fitted) -> dict[str, rivals.Rival]:
    """Everything that is timed, by name."""
    task = made.task
    exact = load_backend(made.model)
    threshold = exact.info.threshold
    auto = LoadScorer(threshold, made.margin)(str(made.backend))
    for one in (exact, auto):
        one.use_threads(1)  # type: ignore[attr-defined]
    cascade = load_cascade(made.cascade, digest(made.model), task.scoring.cascade.audit)

    def deciding(scorer: Scorer) -> rivals.Rival:
        return lambda texts: np.asarray(scorer.score(texts).values >= threshold)

    def tokenize(texts: Sequence[str]) -> None:
        exact.prepare(texts)

    tokens = task.text.max_tokens
    return {
        "transformers-pipeline": rivals.transformers_pipeline(
            uncut.model, uncut.tokenizer, tokens, uncut.decider
        ),
        "sentence-transformers": rivals.sentence_transformers(uncut.folder, tokens, uncut.decider),
        "encoder-fp32": deciding(exact),
        "encoder-auto": deciding(auto),
        "cascade": lambda texts: np.asarray(cascade.score(texts, auto).values >= threshold),
        "tokenize": tokenize,
        "fasttext": rivals.fasttext(made.train.texts, made.train.scores >= threshold),
    }


def timed(way: rivals.Rival, texts: Sequence[str]) -> float:
    """Documents in a CPU-second, over at least a third of one."""
    started, times = time.process_time(), 0
    while (spent := time.process_time() - started) < 0.3:
        way(texts)
        times += 1
    return times * len(texts) / spent


def measure(
    made: Prepared, corpus: str, documents: int, rounds: int, told: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each way."""
    uncut = fit_uncut(made.task)
    found = ways(made, uncut)
    texts = made.test.texts[:documents]
    kept = made.test.scores >= load_backend(made.model).info.threshold
    speeds: dict[str, list[float]] = {name: [] for name in found}
    for way in found.values():
        way(texts[:32])  # what is made at the first call is not timed
    for number in range(rounds):
        for name, way in found.items():
            speeds[name].append(timed(way, texts))
            told(f"{corpus} round {number + 1} of {rounds}: {name} {speeds[name][-1]:,.1f}")
    rows = []
    for name, way in found.items():
        whole = name in ("encoder-auto", "cascade", "fasttext", "encoder-fp32")
        judged = made.test.texts if whole else texts
        rows.append(
            {
                "name": name,
                "corpus": corpus,
                "docs_per_cpu_second": round(statistics.median(speeds[name]), 1),
                "rounds": [round(speed, 1) for speed in speeds[name]],
                "documents_timed": len(texts),
                **quality(way(judged), kept[: len(judged)]),
            }
        )
    base = next(r for r in rows if r["name"] == "sentence-transformers")["docs_per_cpu_second"]
    for row in rows:
        row["times_sentence_transformers"] = round(row["docs_per_cpu_second"] / base, 2)
    rows[[r["name"] for r in rows].index("encoder-auto")]["backend"] = made.backend.name
    for row in rows:
        row["labels"] = uncut.against_labels
    return rows


def quality(decided: rivals.Bools | None, kept: rivals.Bools) -> dict[str, Any]:
    """Recall, precision and F1 of decisions against those of the fp32 encoder alone."""
    from tamis.scoring.band import Band, Sample
    from tamis.scoring.band import measure as figures

    if decided is None:
        return {"documents_judged": 0, "recall": None, "precision": None, "f1": None}
    sample = Sample(np.zeros(len(kept)), kept, decided)
    found = figures(Band(), sample)
    rates = {"recall": found.recall, "precision": found.precision, "f1": found.f1}
    values = {name: None if r is None else round(r.value, 4) for name, r in rates.items()}
    ends = {
        f"{name}_interval": None if r is None else [round(r.low, 4), round(r.high, 4)]
        for name, r in rates.items()
    }
    return {"documents_judged": len(kept), "kept_by_fp32": int(kept.sum()), **values, **ends}


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """The rows as a table."""
    table = Table(title="documents per CPU-second, one thread")
    for head in ("corpus", "name", "docs/CPU-s", "x s-t", "recall", "precision", "F1"):
        table.add_column(head, justify="left" if head in ("corpus", "name") else "right")
    for row in rows:
        rates = ("" if row[k] is None else f"{row[k]:.3f}" for k in ("recall", "precision", "f1"))
        table.add_row(
            row["corpus"], row["name"], f"{row['docs_per_cpu_second']:,.1f}",
            f"{row['times_sentence_transformers']:.2f}", *rates,
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Measure every corpus that is here, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=500, help="Documents that are timed.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parquet", type=Path, default=FINEWEB, help="A second corpus, if there.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    console = Console(stderr=True)
    HOME.mkdir(parents=True, exist_ok=True)
    corpora: dict[str, tuple[str, list[str]]] = {"packages": ("edu_quality", ["packages"])}
    if given.parquet.is_file():
        corpora[given.parquet.stem] = second(given.parquet)
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "cpus": os.cpu_count(),
        "versions": {
            each: version(each)
            for each in ("torch", "onnxruntime", "transformers", "sentence-transformers", "floret")
        },
    }
    rows: list[dict[str, Any]] = []
    for corpus, (task_file, inputs) in corpora.items():
        made = prepare(corpus, task_file, inputs)
        rows += measure(made, corpus, given.documents, given.rounds, console.print)
        if corpus == "packages":
            rows += growth(made, given.sizes, console.print)
        text = json.dumps([row | facts for row in rows], indent=1)
        given.output.write_text(text + "\n", encoding="utf-8")
    timed_rows = [row for row in rows if "rounds" in row]
    show(console, timed_rows)
    for row in timed_rows:
        target = TARGETS.get(row["name"], 0.0)
        if row["times_sentence_transformers"] < target:
            console.print(
                f"missed: {row['corpus']}, {row['name']}: "
                f"{row['times_sentence_transformers']:g} times sentence-transformers, {target:g} "
                "wanted"
            )


def second(parquet: Path) -> tuple[str, list[str]]:
    """A task on the first thousand rows of a labelled table, and the other rows as its corpus."""
    folder = HOME / "second"
    folder.mkdir(exist_ok=True)
    table = pq.read_table(parquet, columns=["id", "text", "score"])
    pq.write_table(table.slice(0, 1_000), folder / "labelled.parquet")
    pq.write_table(table.slice(1_000).drop_columns("score"), folder / "corpus.parquet")
    task = folder / "legal_value.yaml"
    task.write_text(LEGAL, encoding="utf-8")
    return str(task), [str(folder / "corpus.parquet")]


LEGAL = """name: legal_value
description: Legal value of web documents, 0-5.
target: {kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 3}
sources:
  - kind: files
    path: labelled.parquet
    columns: {text: text, label: score}
text: {max_characters: 1800, max_tokens: 192}
scoring: {gate: {documents: 400}}
"""

if __name__ == "__main__":
    main()
