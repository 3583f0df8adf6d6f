"""Whatever breaks: nothing lost, nothing twice, nothing half-written visible; on both engines."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import tamis
from tamis.corpus.manifest import read_manifest, read_output
from tests.scoring.test_stages import prose

SHARDS, ROWS = 16, 24
KILLS = {"local": 30, "ray": 12}  # a start of Ray takes seconds
ROOT = str(Path(tamis.__file__).parent.parent)
ENGINES = ["local", "ray"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Shards with repetitions across them, near-duplicates and broken lines."""
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(3)
    for shard in range(SHARDS):
        texts = [prose(chance.randrange(300), 6) for _ in range(ROWS)]
        texts[0] += " One more word."
        lines = [json.dumps({"text": t, "id": f"{shard}-{i}"}) for i, t in enumerate(texts)]
        lines.insert(shard, "{broken")
        (folder / f"part{shard:02}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def calm(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("calm") / "out"
    assert finish(corpus, out, "local") == 0
    return facts(out)


def start(corpus, out, engine, model="stub"):
    script = Path(__file__).parent / "fault_stubs.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(corpus), str(out), engine, model],
        env={**os.environ, "PYTHONPATH": ROOT},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(corpus, out, engine, model="stub"):
    process = start(corpus, out, engine, model)
    process.communicate(timeout=120)
    return process.returncode


def facts(out):
    """Every row of every part: what it is and what was decided."""
    found = {}
    for part in ("kept", "dropped", "duplicates", "quarantine"):
        rows = list(read_output(str(out), part, verify=True))
        keys = [(row["shard"], row["row"]) for row in rows]
        assert len(set(keys)) == len(keys), "nothing twice"
        found[part] = sorted(
            (row["shard"], row["row"], row.get("id"), row.get("text"), row["reason"],
             row.get("score"), row.get("duplicate_of"))
            for row in rows
        )  # fmt: skip
    return found


def check(out, calm):
    assert facts(out) == calm
    manifest = read_manifest(str(out))
    assert manifest.counts.balanced and manifest.counts.read == SHARDS * (ROWS + 1)
    on_disk = {
        str(file.relative_to(out))
        for part in ("kept", "dropped", "duplicates", "quarantine")
        for file in (Path(out) / part).glob("*")
    }
    assert on_disk == {file.path for record in manifest.shards for file in record.files}
    assert not (Path(out) / "work").exists()


def readable(out):
    """What is visible of an unfinished output is whole."""
    if (Path(out) / "run.json").exists():
        for part in ("kept", "dropped", "duplicates"):
            assert all(row["text"] for row in read_output(str(out), part, verify=True))


def workers_of(driver, engine):
    try:
        family = psutil.Process(driver.pid).children(recursive=True)
        if engine == "ray":
            return [p for p in family if p.name().startswith(("ray::_work", "ray::ModelActor"))]
        return [p for p in family if "spawn_main" in " ".join(p.cmdline())]
    except psutil.NoSuchProcess:
        return []


def gone(family):
    end = time.monotonic() + 30
    while any(p.is_running() and p.status() != "zombie" for p in family):
        assert time.monotonic() < end, "a worker outlived its driver"
        time.sleep(0.05)


@pytest.mark.timeout(420)
@pytest.mark.parametrize("engine", ENGINES)
def test_random_kills(corpus, calm, tmp_path, engine):
    chance, out = random.Random(20261121), tmp_path / "out"
    kills = {"driver": 0, "worker": 0}
    # Ray takes long to start: its runs are longer, and most of the kills hit workers.
    share, delay = (0.4, "delay=0.02") if engine == "local" else (0.1, "delay=0.3")
    driver = start(corpus, out, engine, delay)
    while sum(kills.values()) < KILLS[engine]:
        if driver.poll() is not None:
            driver.communicate()
            readable(out)
            if driver.returncode == 0:
                # All done under fire; begin again with the rest of the kills.
                check(out, calm)
                out = tmp_path / f"out{sum(kills.values())}"
            driver = start(corpus, out, engine, delay)
        time.sleep(chance.uniform(0.05, 0.6))
        workers = workers_of(driver, engine)
        if not workers:
            continue
        # Chance may pass the driver over.
        due = sum(kills.values()) == KILLS[engine] - 1 and not kills["driver"]
        if chance.random() < share or due:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            gone(workers)
            kills["driver"] += 1
        else:
            chance.choice(workers).kill()
            kills["worker"] += 1
    driver.kill()
    driver.communicate()
    gone(workers_of(driver, engine))
    assert kills["driver"] >= 1 and kills["worker"] >= 5
    assert finish(corpus, out, engine) == 0
    check(out, calm)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_disk_stops_the_run_and_the_next_goes_on(corpus, calm, tmp_path, engine):
    out = tmp_path / "out"
    process = start(corpus, out, engine, "fsize=3000")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "failed 3 times" in told and "File too large" in told
    assert "Traceback" not in told
    readable(out)
    assert finish(corpus, out, engine) == 0
    check(out, calm)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_source_that_fails_at_random(corpus, calm, tmp_path, engine):
    out = tmp_path / "out"
    for _ in range(20):
        process = start(f"flaky://{corpus}", out, engine)
        _, told = process.communicate(timeout=120)
        assert process.returncode in (0, 1) or "cannot be listed" in told
        readable(out)
        if process.returncode == 0:
            break
    check(out, calm)


def test_a_read_only_output_is_one_sentence(corpus, tmp_path):
    process = start(corpus, f"readonly://{tmp_path}/out", "local")
    _, told = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert "Read-only file system" in told and "Traceback" not in told
