"""Memory of the service under load, second by second, and whether it grows."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.serving_prepare import Prepared
from bench.serving_servers import Running, Service, client, go, running, wait_for

CONNECTIONS = 16
WARM_UP = 0.2
"""Share of the time in which caches fill and arenas grow."""
BLOCK_S = 20
"""Neighbouring seconds are alike, so they are drawn together."""
DRAWS = 2_000
FLAT = 0.02
"""Growth over the time after warm-up that counts as none, as a share of the memory."""


def soak(service: Service, made: Prepared, seconds: float, folder: Path) -> dict[str, Any]:
    """Keep a service busy and look at its memory each second.

    Args:
        service: To start.
        made: The documents, sent one a request, again and again.
        seconds: How long.
        folder: For what is written meanwhile.

    Returns:
        Trends of unshared and of resident memory, load, errors, verdict, and the samples
        (second, resident MB, unshared MB).
    """
    spec = {
        "path": service.path,
        "headers": {"Authorization": f"Bearer {service.key}"},
        "bodies": [service.body([text]) for text in made.texts],
        "connections": CONNECTIONS,
        "warm": CONNECTIONS,
        "seconds": seconds,
    }
    given, result = folder / "soak.json", folder / "soaked.json"
    with running(service, folder) as up:
        given.write_text(json.dumps(spec | {"port": up.port}), encoding="utf-8")
        with client(given, result) as process:
            wait_for(process, "ready")
            go(process)
            samples = sampled(up, process)
            if process.wait():
                raise SystemExit("the load client failed")
    told = json.loads(result.read_text(encoding="utf-8"))
    steady = [each for each in samples if each[0] >= WARM_UP * seconds] or samples
    latencies, finished = (np.array(told[name]) for name in ("latencies", "finished"))
    at = np.array([each[0] for each in steady])
    unshared = trend(at, np.array([each[2] for each in steady]))
    per_second = len(latencies) / told["seconds"]
    tenth = seconds / 10
    return {
        "name": service.name,
        "seconds": seconds,
        "connections": CONNECTIONS,
        "requests": len(latencies),
        "docs_per_second": round(per_second, 1),
        "errors": sum(told["failures"].values()),
        "failures": told["failures"],
        "p99_ms_first_tenth": _p99(latencies[finished < tenth]),
        "p99_ms_last_tenth": _p99(latencies[finished >= seconds - tenth]),
        "uss": unshared,
        "rss": trend(at, np.array([each[1] for each in steady])),
        "bytes_per_request": round(unshared["mb_per_hour"] / 3_600 * 1e6 / per_second, 1),
        "warm_up_seconds": WARM_UP * seconds,
        "flat_below": FLAT,
        "verdict": "flat" if unshared["growth_high"] < FLAT else "growing or not known",
        "samples": [[round(value, 2) for value in each] for each in samples],
    }


def sampled(up: Running, process: Any) -> list[tuple[float, float, float]]:
    """Second, resident MB and unshared MB, each second until the client says that it is done."""
    done = threading.Event()

    def listen() -> None:
        try:
            wait_for(process, "done")
        finally:
            done.set()

    threading.Thread(target=listen, daemon=True).start()
    found, began = [], time.monotonic()
    while not done.is_set():
        found.append((time.monotonic() - began, *up.memory_mb()))
        done.wait(max(0.0, began + len(found) - time.monotonic()))
    return found


def trend(seconds: Any, values: Any, seed: int = 0) -> dict[str, float]:
    """The straight line through memory over time, with 95% intervals.

    Residuals are drawn in blocks (moving-block bootstrap: Kuensch 1989, "The jackknife and the
    bootstrap for general stationary observations", Annals of Statistics 17, 1217-1241).

    Args:
        seconds: When (n,).
        values: MB at those times (n,).
        seed: Of the draws.

    Returns:
        Mean MB, slope in MB an hour with its interval, and the growth over these seconds as a
        share of the mean, with the upper end of its interval.
    """
    if len(values) < 3:
        raise SystemExit("too short to see a trend")
    centred = seconds - seconds.mean()
    weights = centred / (centred**2).sum()
    slope = float(weights @ values)
    residuals = values - values.mean() - slope * centred
    size = min(BLOCK_S, max(1, len(values) // 3))
    chance = np.random.default_rng(seed)
    starts = chance.integers(0, len(values) - size + 1, (DRAWS, -(-len(values) // size)))
    rows = (starts[:, :, None] + np.arange(size)).reshape(DRAWS, -1)[:, : len(values)]
    low, high = np.percentile(slope + residuals[rows] @ weights, [2.5, 97.5])
    span, mean = float(np.ptp(seconds)), float(values.mean())
    return {
        "mb": round(mean, 1),
        "mb_per_hour": round(slope * 3_600, 2),
        "mb_per_hour_low": round(float(low) * 3_600, 2),
        "mb_per_hour_high": round(float(high) * 3_600, 2),
        "growth": round(slope * span / mean, 5),
        "growth_high": round(float(high) * span / mean, 5),
    }


def _p99(latencies: Any) -> float | None:
    return round(float(np.percentile(latencies, 99)) * 1e3, 1) if len(latencies) else None
