"""Packed tokens in bf16 beside padded batches, for two sizes of encoder, on whatever is here.

Needs torch, transformers and numpy; sentence-transformers is measured too where it is installed.
Weights are random: they serve for speed and for arithmetic. Texts are token ids, so that nobody's
time counts tokenizing; all else counts, from lists of ids to vectors on the host.
Where there is no GPU, or with ``--quick``, all sizes are tiny and the figures mean nothing.
Writes ``bench/gpu.json``. Run as ``python bench/gpu.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

from bench.gpu_padded import Ids, Vectors, filled, padded  # noqa: E402
from tamis.scoring.backends.packed_network import PackedNetwork, first_line  # noqa: E402

FLOPS = (
    "per text of s tokens: layers * 2 * (4 * d**2 + 2 * d * inner) * s for the matrix products, "
    "+ 4 * layers * s**2 * d for attention; padding and filler count for nothing"
)
KEPT = 0.12
VOCABULARY = 30_522
PADDED = "padded autocast, sorted, batch 256"
PACKED: dict[str, dict[str, bool]] = {
    "packed bf16": {},
    "packed bf16, graphs": {"graphs": True},
    "packed bf16, compiled": {"compiled": True},
    "packed bf16, compiled, graphs": {"compiled": True, "graphs": True},
}
SHARE, TIMES = 0.5, 3.0
PATIENCE_S = 30.0
"""Repeats of one side end when they have taken so long."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    models: dict[str, tuple[int, int, int, int]]
    longest: int
    documents: int
    repeats: int
    square: int
    budgets: tuple[int, ...] | None


FULL = Sizes(
    models={"MiniLM-L6": (384, 6, 12, 1536), "BERT-base": (768, 12, 12, 3072)},
    longest=512,
    documents=4_096,
    repeats=5,
    square=8_192,
    budgets=None,
)
QUICK = Sizes(
    models={"MiniLM-L6": (32, 2, 4, 64), "BERT-base": (48, 2, 4, 96)},
    longest=64,
    documents=32,
    repeats=1,
    square=256,
    budgets=(256, 1_024),
)


@dataclass(frozen=True)
class Case:
    """One network, one mix of lengths.

    Attributes:
        model: In fp32, on the device.
        flops: Of all texts.
        reference: Vectors in fp32 (n, d).
    """

    model: Any
    ids: Ids
    flops: float
    reference: Vectors
    sizes: Sizes
    device: str


def texts(mix: str, sizes: Sizes) -> Ids:
    """Token ids of texts: log-normal lengths, 376 of 512 on average, or all of the longest.

    Each text draws from a few words of its own, so that texts differ as real ones do.
    """
    rng = np.random.default_rng(7)
    lengths = np.full(sizes.documents, sizes.longest)
    if mix == "mixed":
        drawn = rng.lognormal(np.log(0.78), 0.6, sizes.documents) * sizes.longest
        lengths = np.clip(drawn, 8, sizes.longest).astype(np.int64)
    own = (rng.integers(1_000, VOCABULARY, 48) for _ in lengths)
    return [
        [101, *words[rng.integers(0, 48, length - 2)].tolist(), 102]
        for words, length in zip(own, lengths.tolist(), strict=True)
    ]


def flops(ids: Ids, shape: tuple[int, int, int, int]) -> float:
    """See ``FLOPS``."""
    width, layers, _, inner = shape
    lengths = np.array([len(text) for text in ids], dtype=np.float64)
    products = 2 * (4 * width**2 + 2 * width * inner) * lengths
    return float(layers * (products + 4 * lengths**2 * width).sum())


def network(shape: tuple[int, int, int, int], sizes: Sizes, device: str) -> Any:
    """A BERT with random weights, in fp32."""
    width, layers, heads, inner = shape
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=sizes.longest,
        initializer_range=0.05,
    )
    made: Any = BertModel(config, add_pooling_layer=False)
    return made.eval().to(device)


def wait(device: str) -> None:
    """Until the device has done all."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Wall seconds of some calls, each begun and ended with an idle device."""
    found: list[float] = []
    while len(found) < repeats and sum(found) < PATIENCE_S:
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - start)
    return found


def ceiling(sizes: Sizes, device: str) -> float:
    """TFLOP/s of a product of two large bf16 squares of random numbers, median of repeats."""
    shape = (sizes.square, sizes.square)
    left, right = (torch.randn(shape, device=device).bfloat16() for _ in range(2))
    count = 20

    def products() -> None:
        for _ in range(count):
            torch.matmul(left, right)

    seconds(products, device, 2)
    return 2 * sizes.square**3 * count / statistics.median(seconds(products, device, 9)) / 1e12


def sentence_transformer(case: Case) -> Callable[[], Vectors]:
    """``SentenceTransformer.encode`` over the same network; its texts are looked up, not cut up.

    A text is its number, as long as it has tokens: sentence-transformers sorts by that.
    """
    package = import_module("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer ones have it elsewhere, older ones only here
        pooling = import_module("sentence_transformers.models").Pooling

    class Lookup(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = case.model

        def tokenize(self, given: list[str], **more: Any) -> dict[str, torch.Tensor]:
            numbers, mask = filled([case.ids[int(text)] for text in given])
            return {"input_ids": numbers, "attention_mask": mask}

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            found = self.network(
                input_ids=features["input_ids"], attention_mask=features["attention_mask"]
            )
            return features | {"token_embeddings": found.last_hidden_state}

    modules = [Lookup(), pooling(case.model.config.hidden_size)]
    made = package.SentenceTransformer(modules=modules, device=case.device)
    numbered = [str(row).ljust(len(text)) for row, text in enumerate(case.ids)]

    def encode() -> Vectors:
        found = made.encode(numbered, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    return encode


def measured(call: Callable[[], Vectors], case: Case, peak: float) -> dict[str, Any]:
    """Speed of one side, and how its vectors agree with those in fp32."""
    start = time.perf_counter()
    vectors = call()
    first = time.perf_counter() - start
    call()
    took = seconds(call, case.device, case.sizes.repeats)
    middle = statistics.median(took)
    tokens = sum(map(len, case.ids))
    tflops = case.flops / middle / 1e12
    head = np.random.default_rng(11).normal(size=vectors.shape[1])
    exact, ours = case.reference @ head, vectors @ head
    edge = np.quantile(exact, 1 - KEPT)
    both = float(((exact >= edge) & (ours >= edge)).sum())
    cosines = (vectors * case.reference).sum(1)
    return {
        "documents_per_second": round(len(case.ids) / middle, 2),
        "tokens_per_second": round(tokens / middle, 1),
        "tflops": round(tflops, 6),
        "share_of_ceiling": round(tflops / peak, 4),
        "documents": len(case.ids),
        "tokens": tokens,
        "seconds": [round(value, 6) for value in took],
        "first_call_seconds": round(first, 3),
        "max_difference": float(np.abs(vectors - case.reference).max()),
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
        "keep_f1": 2 * both / float((exact >= edge).sum() + (ours >= edge).sum()),
    }


def packed_side(case: Case, peak: float, wanted: dict[str, bool]) -> dict[str, Any]:
    """A packed network; nothing if it falls back, since that is another row."""
    if wanted and case.device != "cuda":
        return {"skipped": "it needs a GPU"}
    ours = PackedNetwork(
        case.model,
        dtype=torch.bfloat16,
        device=case.device,
        budgets=case.sizes.budgets,
        **wanted,
    )
    row = measured(lambda: ours.encode(case.ids), case, peak) | {"notes": list(ours.notes)}
    if any(wanted[name] and not getattr(ours, name) for name in wanted):
        return {"skipped": "; ".join(ours.notes), "measured_without": row}
    return row


def sides(case: Case, peak: float) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is compared, by name."""
    model, ids, device = case.model, case.ids, case.device
    for name, wanted in PACKED.items():
        yield name, partial(packed_side, case, peak, wanted)
    yield PADDED, partial(measured, partial(padded, model, ids, device, 256, True), case, peak)
    try:
        encode: Callable[[], Vectors] = sentence_transformer(case)
        encode()
        name = f"sentence-transformers {version('sentence-transformers')}, fp32, batch 32"
    except Exception as error:
        print(f"sentence-transformers is left out: {first_line(error)}", flush=True)
        name = "as sentence-transformers does: padded fp32, sorted, batch 32"
        encode = partial(padded, model, ids, device, 32, False)
    yield name, partial(measured, encode, case, peak)


def ran_on(device: str) -> dict[str, Any]:
    """Device and versions."""
    packages: dict[str, str] = {}
    for name in ("torch", "transformers", "numpy", "sentence-transformers"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    found: dict[str, Any] = {"device": platform.processor() or platform.machine()}
    if device == "cuda":
        found = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=True)
            found["driver"] = done.stdout.split()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            found["driver"] = "unknown"
    return found | {"python": platform.python_version(), "versions": packages}


def targets(rows: list[dict[str, Any]], longest: int) -> list[dict[str, Any]]:
    """What was aimed at, and whether the fastest packed side reaches it."""
    found = []
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        case = row["model"], row["lengths"]
        if row["side"] in PACKED and "tflops" in row:
            before = best.get(case)
            best[case] = row if before is None or row["tflops"] > before["tflops"] else before
    top = best.get(("BERT-base", "longest"))
    if top is not None:
        share = top["share_of_ceiling"]
        name = f"share of the ceiling, BERT-base, all texts of {longest} tokens"
        found.append({"name": name, "side": top["side"], "target": SHARE, "measured": share})
    for row in rows:
        case = row["model"], row["lengths"]
        if row["side"] == PADDED and case in best and "tflops" in row:
            times = round(best[case]["tflops"] / row["tflops"], 2)
            name = f"times the padded loop, {case[0]}, {case[1]}"
            side = best[case]["side"]
            found.append({"name": name, "side": side, "target": TIMES, "measured": times})
    return [target | {"met": target["measured"] >= target["target"]} for target in found]


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    start = f"{row['model']:<10} {row['lengths']:<8} {row['side']:<52}"
    if "skipped" in row:
        return f"{start} {row['skipped']}"
    return (
        f"{start} {row['documents_per_second']:>12,.1f} {row['tokens_per_second']:>14,.0f} "
        f"{row['tflops']:>9.3f} {row['share_of_ceiling']:>8.1%} {row['max_difference']:>9.1e} "
        f"{row['cosine_min']:>9.6f} {row['keep_f1']:>7.4f}"
    )


def measure(sizes: Sizes, device: str, output: Path, quick: bool) -> dict[str, Any]:
    """Everything; written after each row, so that what breaks off leaves what it has."""
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "ran_on": ran_on(device),
        "flop_formula": FLOPS,
        "ceiling": f"bf16 product of two {sizes.square} x {sizes.square} squares, median of 9",
        "ceiling_tflops": ceiling(sizes, device),
        "targets": [],
        "rows": [],
    }
    peak = results["ceiling_tflops"]
    print(f"{results['ran_on']}\nceiling {peak:,.2f} TFLOP/s, {results['ceiling']}")
    print(
        f"{'model':<10} {'lengths':<8} {'side':<52} {'documents/s':>12} {'tokens/s':>14} "
        f"{'TFLOP/s':>9} {'ceiling':>8} {'max diff':>9} {'cosine':>9} {'F1':>7}"
    )
    for name, shape in sizes.models.items():
        model = network(shape, sizes, device)
        for mix in ("mixed", "longest"):
            ids = texts(mix, sizes)
            reference = padded(model, ids, device, 32, False)
            case = Case(model, ids, flops(ids, shape), reference, sizes, device)
            for side, call in sides(case, peak):
                row: dict[str, Any] = {"model": name, "lengths": mix, "side": side}
                try:
                    row |= call()
                except Exception as error:  # one side that fails leaves the others
                    row |= {"skipped": first_line(error)}
                results["rows"].append(row)
                results["targets"] = targets(results["rows"], sizes.longest)
                output.write_text(json.dumps(results, indent=1) + "\n")
                print(line(row), flush=True)
                for note in row.get("notes", []):
                    print(f"  note: {note}", flush=True)
                if device == "cuda":
                    torch.cuda.empty_cache()  # graphs that are gone leave their memory
    return results


def main() -> None:
    """Measure, print, and write ``bench/gpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "gpu.json")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quick = given.quick or device == "cpu"
    if quick:
        print("tiny sizes: these figures show that it runs, not how fast")
    results = measure(QUICK if quick else FULL, device, given.output, quick)
    for target in results["targets"]:
        word = "met" if target["met"] else "missed"
        print(f"{word}: {target['name']}: {target['measured']} of {target['target']}")


if __name__ == "__main__":
    main()
