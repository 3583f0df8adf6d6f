import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import tamis
from tamis.engine.local import run_shards
from tamis.errors import EngineError, ModelError, UsageError
from tests.engine import engine_stubs as stubs


def collect(items, work, **settings):
    done = []
    run_shards(items, work, lambda item, result: done.append((item, result)), **settings)
    return done


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_item_once_with_its_result(workers):
    done = collect(
        range(20), stubs.double, workers=workers, initializer=stubs.prepare, initargs=(5,)
    )
    stubs.state.clear()
    assert sorted(done) == [(n, 2 * n + 5) for n in range(20)]


def test_nothing_to_do():
    assert collect([], stubs.double, workers=2) == []


def test_work_is_in_other_processes(tmp_path):
    done = collect([(str(tmp_path), n) for n in range(8)], stubs.note_pid, workers=2)
    pids = {pid for _, pid in done}
    assert os.getpid() not in pids
    assert len(pids) == 2


def test_a_worker_that_dies_is_replaced(tmp_path):
    items = [(str(tmp_path / "marker"), n) for n in range(10)]
    done = collect(items, stubs.die_once, workers=2)
    assert sorted(number for _, number in done) == list(range(10))
    assert (tmp_path / "marker").exists()


def test_the_item_that_kills_its_workers_is_named_and_no_other():
    done = []
    with pytest.raises(EngineError, match="shard number 3 failed 3 times: a worker died"):
        run_shards(
            range(8),
            stubs.die_on_three,
            lambda item, result: done.append(item),
            workers=2,
            name=lambda item: f"number {item}",
        )
    assert len(done) == len(set(done))
    assert 3 not in done


def test_the_blame_is_not_put_on_what_ran_beside():
    with pytest.raises(EngineError, match="shard 3 failed"):
        collect([0, 1, 2, 3, 4, 5, 6, 7], stubs.die_beside_slow_ones, workers=4)


def test_a_storage_error_is_tried_again(tmp_path):
    done = collect([(str(tmp_path), n, 2) for n in range(3)], stubs.storage_fails, workers=2)
    assert sorted(number for _, number in done) == [0, 1, 2]
    with pytest.raises(EngineError, match=r"failed 3 times: the network is gone"):
        collect([(str(tmp_path), 9, 3)], stubs.storage_fails, workers=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_reason_of_a_failed_start_comes_back(workers):
    with pytest.raises(ModelError, match="this model is damaged"):
        collect([1], stubs.double, workers=workers, initializer=stubs.refuse)


def test_a_bug_names_the_item():
    with pytest.raises(EngineError, match="shard 7 failed: ValueError: unforeseen"):
        collect([7], stubs.bug, workers=1)


def test_an_error_of_the_driver_ends_the_run():
    def full(item, result):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_shards([1, 2, 3], stubs.double, full, workers=2)


def test_refuses_a_negative_number_of_workers():
    with pytest.raises(UsageError, match="-1"):
        collect([1], stubs.double, workers=-1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_driver(tmp_path, how):
    environment = {**os.environ, "PYTHONPATH": str(Path(tamis.__file__).parent.parent)}
    driver = subprocess.Popen([sys.executable, stubs.__file__, str(tmp_path)], env=environment)
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(file.name) for file in tmp_path.iterdir()]
        assert all(psutil.pid_exists(pid) for pid in workers)
    finally:
        driver.send_signal(how)
        driver.wait()
    wait_for(lambda: not any(alive(pid) for pid in workers))


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
