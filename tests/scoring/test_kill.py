"""A filter that is killed again and again ends with what an unkilled one keeps."""

import hashlib
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
from tests.scoring import filter_stubs as stubs

SHARDS, ROWS = 12, 60


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for shard in range(SHARDS):
        rows = [{"text": f"text {shard} {i}", "id": f"{shard}-{i}"} for i in range(ROWS)]
        lines = [json.dumps(row) for row in rows]
        lines.insert(shard, "{broken")
        (folder / f"part{shard:02}.jsonl").write_text("\n".join(lines))
    return folder


def start(corpus, out, delay):
    root = str(Path(tamis.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, stubs.__file__, str(corpus), str(out), "2", str(delay)],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )


def finish(corpus, out):
    process = start(corpus, out, 0)
    assert process.wait(timeout=60) == 0


def facts(out, part):
    found = [
        (row["shard"], row["row"], row.get("id"), hashlib.sha256(row.get("text", "").encode()))
        for row in read_output(str(out), part, verify=True)
    ]
    return [(shard, row, name, digest.hexdigest()) for shard, row, name, digest in found]


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def committed(out):
    path = Path(out, "manifest.jsonl")
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(corpus, out, moment, wanted):
    """Kill the driver with -9 once some shards are committed and ``moment`` seconds passed."""
    process = start(corpus, out, 0.04)
    end = time.monotonic() + 30
    while committed(out) < wanted and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(moment)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return family


def test_killed_three_times(corpus, tmp_path):
    calm, out = tmp_path / "calm", tmp_path / "out"
    finish(corpus, calm)
    chance = random.Random(20240607)
    progress = []
    for number in range(3):
        family = kill_at(corpus, out, chance.uniform(0, 0.15), wanted=3 * number + 1)
        assert family, "there were workers to orphan"
        end = time.monotonic() + 15
        while any(alive(process) for process in family) and time.monotonic() < end:
            time.sleep(0.02)
        assert not [process for process in family if alive(process)]
        progress.append(committed(out))
    assert 0 < progress[0] < progress[1] < progress[2] < SHARDS
    finish(corpus, out)

    for part in ("kept", "dropped", "quarantine"):
        calm_rows, rows = facts(calm, part), facts(out, part)
        assert rows == calm_rows
        assert len({row[:2] for row in rows}) == len(rows)
    scored = facts(out, "kept") + facts(out, "dropped")
    assert len({row[2] for row in scored}) == SHARDS * ROWS
    assert len(facts(out, "quarantine")) == SHARDS
    manifest = read_manifest(str(out))
    assert [record.position for record in manifest.shards] == list(range(SHARDS))
    on_disk = {
        str(f.relative_to(out))
        for part in ("kept", "dropped", "quarantine")
        for f in (out / part).iterdir()
    }
    assert on_disk == {file.path for record in manifest.shards for file in record.files}
    assert not list(out.rglob(".tmp-*"))


def test_a_worker_killed_alone_is_replaced(corpus, tmp_path):
    calm, out = tmp_path / "calm", tmp_path / "out"
    finish(corpus, calm)
    process = start(corpus, out, 0.05)
    end = time.monotonic() + 30
    while not committed(out) and time.monotonic() < end:
        time.sleep(0.005)
    workers = [
        child
        for child in psutil.Process(process.pid).children()
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    workers[0].kill()
    assert process.wait(timeout=60) == 0
    for part in ("kept", "dropped", "quarantine"):
        assert facts(out, part) == facts(calm, part)
