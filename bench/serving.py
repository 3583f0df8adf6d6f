"""The service beside a bare FastAPI endpoint and ``mlflow models serve``, on the same documents.

All run at once and are asked in turns by one load client of its own process (``serving_load.py``)
over keep-alive connections, each of which sends its next request when it has the answer to the
last. CPU time is that of a service's whole process tree. Figures are medians over rounds. Writes
``bench/serving.json``; run as ``make bench-serving``. With ``--soak SECONDS`` the memory of the
service is watched under load instead (``bench/serving_soak.json``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bench.serving_prepare import Prepared, prepare, prepare_quick  # noqa: E402
from bench.serving_servers import BIN, Running, Service, load, running  # noqa: E402

PACKAGES = ("bentoml", "fastapi", "uvicorn", "mlflow", "onnxruntime", "tokenizers", "torch")
FIGURES = ("docs_per_second", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_doc")
CLIENT = "client_cpu_ms_per_doc"
EXACT = frozenset({"tamis", "mlflow"})
"""These compute just what the bare endpoint does, where a request has one document."""
MOST_DIFFERENT = {True: 1e-5, False: 0.1}
"""Largest difference of a score from the bare endpoint's, as a share of the scale, for those and
for others; int8 is not fp32, and what is scored in one batch shares a scale of activations."""
KEYS = 3
SETTINGS: Mapping[str, Any] = {"rate": {"requests_per_minute": 1_000_000}}
"""Of our service; all else is as it comes: keys, limits, rate and log are on."""
FORMS = {
    "tamis": "keys, limits, rate limit, request log, metrics; onnx-int8",
    "tamis-checked": "the same with scores near the threshold checked in fp32",
    "tamis-bf16": "the same in bfloat16 by torch, which filter takes on this kind of machine",
    "fastapi": "def endpoint, threads bounded to cores + 1, uvicorn; the same int8 export",
    "mlflow": "mlflow models serve, pyfunc with type hints; the same int8 export",
    "mlflow-torch": "mlflow models serve, the classifier as the registry holds it, in torch",
}


def services(made: Prepared, folder: Path) -> dict[str, Callable[[], Service]]:
    """All that can be measured, in turn; each is prepared when it is asked for."""
    return {
        "tamis": lambda: ours("tamis", made.served, folder),
        "fastapi": lambda: bare(made),
        "mlflow": lambda: mlflow("mlflow", made.export, folder),
        "tamis-checked": lambda: ours("tamis-checked", made.checked, folder),
        "tamis-bf16": lambda: ours("tamis-bf16", made.bf16, folder),
        "mlflow-torch": lambda: mlflow("mlflow-torch", made.saved, folder),
    }


def bare(made: Prepared) -> Service:
    """FastAPI and onnxruntime, nothing else."""
    line = [
        str(BIN / "uvicorn"), "bench.peers.fastapi_app:app", "--port", "{port}",
        "--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    variables = {"PEER_MODEL": str(made.export), "TOKENIZERS_PARALLELISM": "false"}
    return Service("fastapi", line, variables, "/health", "/score")


def ours(name: str, served: Path, folder: Path) -> Service:
    """The service of this project, with its safety on."""
    from deployment.serving.process import command, environment
    from deployment.serving.runtime import processes_of
    from tamis.serving.keys import ApiKey, hash_of, new_key, write_keys
    from tamis.serving.model import read_served

    keys, file = [new_key() for _ in range(KEYS)], folder / f"{name}-keys.json"
    write_keys(file, [ApiKey(name=f"team-{n}", hash=hash_of(key)) for n, key in enumerate(keys)])
    variables = environment(
        served, log=folder / f"{name}-log", keys_file=file, settings=SETTINGS, base={}
    )
    variables["BENTOML_HOME"] = str(folder / f"{name}-bento")
    # The port is put in when it is known.
    line = command(0, processes=processes_of(read_served(served).settings))
    line[line.index("--port") + 1] = "{port}"
    return Service(name, line, variables, "/readyz", "/score", keys[-1])


def mlflow(name: str, classifier: Path, folder: Path) -> Service:
    """``mlflow models serve`` on a classifier that is saved as a pyfunc."""
    target = folder / name
    variables = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TOKENIZERS_PARALLELISM": "false",
    }
    save = [sys.executable, str(ROOT / "bench/peers/mlflow_save.py"), str(classifier), str(target)]
    done = subprocess.run(save, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    serve = ["models", "serve", "--env-manager", "local", "--model-uri", str(target)]
    line = [str(BIN / "mlflow"), *serve, "--host", "127.0.0.1", "--port", "{port}"]
    return Service(name, line, variables, "/ping", "/invocations")


def once(
    found: Running, made: Prepared, connections: int, together: int, requests: int, folder: Path
) -> dict[str, Any]:
    """One turn of one service: its figures, and the scores of the documents it was sent."""
    texts = made.texts
    groups = [texts[at : at + together] for at in range(0, len(texts), together)]
    spec = {
        "bodies": [found.service.body(group) for group in groups],
        "connections": connections,
        "warm": max(4, connections),
        "requests": requests,
        "keep": True,
    }
    told = load(found, spec, folder)
    documents = sum(len(groups[number % len(groups)]) for number in range(requests))
    scores: dict[str, list[float] | None] = told["scores"]
    unfit = sum(
        scores.get(str(number)) is None
        or len(scores[str(number)] or ()) != len(groups[number % len(groups)])
        for number in range(requests)
    )
    failures = told["failures"]
    latencies = np.array(told["latencies"] or [np.nan]) * 1e3
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    figures = (documents / told["seconds"], p50, p95, p99, told["server_cpu_s"] / documents * 1e3)
    return {
        **{name: float(value) for name, value in zip(FIGURES, figures, strict=True)},
        CLIENT: told["client_cpu_s"] / documents * 1e3,
        "errors": max(unfit, sum(failures.values())),
        "failures": failures,
        "scores": [scores.get(str(number)) for number in range(requests)],
    }


Cell = tuple[int, int]
"""Connections, and documents a request."""


def measure(
    made: Prepared,
    cells: Mapping[Cell, Sequence[str]],
    requests: int,
    rounds: int,
    folder: Path,
    told: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row for each service in each cell."""
    turns: dict[tuple[str, Cell], list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        asked = {name for names in cells.values() for name in names}
        made_of = services(made, folder)
        up = {
            name: stack.enter_context(running(make(), folder))
            for name, make in made_of.items()
            if name in asked
        }
        for number in range(rounds):
            for cell, names in cells.items():
                connections, together = cell
                # A request of many documents takes long, so there are fewer of them.
                count = max(2 * connections, 2 * requests // together) if together > 1 else requests
                for name in names:
                    turn = once(up[name], made, connections, together, count, folder)
                    turns.setdefault((name, cell), []).append(turn)
                    told(
                        f"round {number + 1} of {rounds}, {connections} connections, {together} a "
                        f"request: {name} {turn['docs_per_second']:.1f}/s, "
                        f"p99 {turn['p99_ms']:.0f} ms, {turn['cpu_ms_per_doc']:.2f} CPU ms"
                    )
    return [row(name, cell, turns, made.scale) for name, cell in turns]


def row(
    name: str, cell: Cell, turns: Mapping[tuple[str, Cell], list[dict[str, Any]]], scale: float
) -> dict[str, Any]:
    """The medians of a service in a cell, and how it stands to the bare endpoint."""
    mine, bare = turns[name, cell], turns.get(("fastapi", cell), [])
    pairs = [a["docs_per_second"] / b["docs_per_second"] for a, b in zip(mine, bare, strict=False)]
    gaps = [difference(a["scores"], b["scores"]) for a, b in zip(mine, bare, strict=False)]
    failures: dict[str, int] = {}
    for turn in mine:
        for why, times in turn["failures"].items():
            failures[why] = failures.get(why, 0) + times
    return {
        "name": name,
        "connections": cell[0],
        "documents_per_request": cell[1],
        **{key: round(statistics.median(t[key] for t in mine), 2) for key in (*FIGURES, CLIENT)},
        "errors": sum(turn["errors"] for turn in mine),
        "failures": failures,
        "requests": sum(len(turn["scores"]) for turn in mine),
        "rounds": [round(turn["docs_per_second"], 1) for turn in mine],
        "times_fastapi": round(statistics.median(pairs), 3) if pairs else None,
        "score_difference": round(max(gaps) / scale, 6) if gaps else None,
        "form": FORMS[name],
    }


def difference(mine: list[Any], theirs: list[Any]) -> float:
    """Largest difference of scores where both have some."""
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a and b and len(a) == len(b)]
    return max((float(np.abs(np.subtract(a, b)).max()) for a, b in pairs), default=0.0)


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was to be reached and was not."""
    found = [f"{r['name']}: {r['errors']} errors" for r in rows if r["errors"]]
    found += [
        f"{r['name']}: a score differs by {r['score_difference']:.2g} of the scale"
        for r in rows
        if (r["score_difference"] or 0) > MOST_DIFFERENT[single(r) and r["name"] in EXACT]
    ]
    at = {r["name"]: r for r in rows if r["connections"] == 16 and single(r)}
    if {"tamis", "fastapi", "mlflow"} <= at.keys():
        mine, bare, peer = at["tamis"], at["fastapi"], at["mlflow"]
        if (times := mine["times_fastapi"]) < 0.9:
            found.append(f"16 connections: {times:.2f} times the bare endpoint, 0.9 wanted")
        if (times := mine["docs_per_second"] / peer["docs_per_second"]) <= 5:
            found.append(f"16 connections: {times:.2f} times MLflow, 5 wanted")
        if mine["p99_ms"] > bare["p99_ms"]:
            found.append(f"16 connections: p99 {mine['p99_ms']:.0f} ms, {bare['p99_ms']:.0f} bare")
    return found


def single(one: dict[str, Any]) -> bool:
    """Whether a row is of one document a request."""
    return bool(one["documents_per_request"] == 1)


def facts(made: Prepared) -> dict[str, Any]:
    """What it ran on, and with what."""
    from tamis.machine import machine
    from tamis.serving.model import read_served

    lengths = [len(text) for text in made.texts]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "margin_checked": round(read_served(made.checked).margin, 4),
        "documents": len(lengths),
        "median_characters": int(statistics.median(lengths)),
    }


def show(rows: Sequence[dict[str, Any]], lines: Sequence[str]) -> None:
    """Print the rows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="services under load")
    heads = ("name", "connections", "a request", "docs/s", "p50 ms", "p95 ms", "p99 ms")
    for head in (*heads, "CPU ms", "errors", "x fastapi"):
        table.add_column(head, justify="left" if head == "name" else "right")
    for one in sorted(rows, key=lambda r: (r["documents_per_request"], r["connections"])):
        figures = (f"{one[name]:,.1f}" for name in FIGURES)
        times = one["times_fastapi"]
        table.add_row(
            one["name"], str(one["connections"]), str(one["documents_per_request"]), *figures,
            str(one["errors"]), "" if times is None else f"{times:.2f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    for line in lines:
        console.print(f"missed: {line}", style="red")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=384, help="Of each turn.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="Watch memory instead.")
    parser.add_argument("--quick", action="store_true", help="A tiny model and few requests.")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = prepare_quick(folder, 64) if given.quick else prepare(given.requests)
        if given.soak:
            from bench.serving_soak import soak

            result: Any = soak(ours("tamis", made.served, folder), made, given.soak, folder)
            result |= facts(made)
            print(json.dumps({k: v for k, v in result.items() if k != "samples"}, indent=1))
        else:
            peers = ("tamis", "fastapi", "mlflow")
            more = () if given.quick else ("tamis-checked", "tamis-bf16", "mlflow-torch")
            counts = (1, 4) if given.quick else (1, 16, 64)
            cells: dict[Cell, Sequence[str]] = {(count, 1): peers for count in counts}
            cells[counts[1], 1] = (*peers, *more)
            cells[(4, 4) if given.quick else (16, 16)] = peers
            requests, rounds = (32, 1) if given.quick else (given.requests, given.rounds)
            rows = measure(made, cells, requests, rounds, folder, _say)
            found = facts(made)
            result = [each | found for each in rows]
            show(rows, missed(rows))
    output = given.output or ROOT / f"bench/serving{'_soak' if given.soak else ''}.json"
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
