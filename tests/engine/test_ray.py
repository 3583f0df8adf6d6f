import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest

import tamis
from tamis.corpus.split import split
from tamis.engine.local import LocalEngine
from tamis.engine.ray import RayEngine
from tamis.engine.ray_files import ShippedFolder
from tamis.engine.ray_watch import MARK, end
from tamis.errors import EngineError, ModelError, UsageError
from tamis.models.classifier import load_classifier
from tests.engine import engine_stubs as stubs
from tests.engine import ray_stubs
from tests.engine.test_local import alive, wait_for
from tests.tiny import easy_set, easy_texts, save_tiny_bert, tiny_task

ROOT = Path(tamis.__file__).parent.parent
TEXTS = easy_texts(np.linspace(0, 1, 40), seed=7, words=40)
TEXTS += ["", "proof", "漢字 \x00", " ".join(TEXTS)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """One Ray for all tests, with two workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("node")))
        before = set(psutil.Process().children(recursive=True))
        with RayEngine(workers=2) as engine:
            folder = engine._session._folder
            yield engine
        started = set(psutil.Process().children(recursive=True)) - before
        assert not [process for process in started if alive(process.pid)]
        assert not folder.exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A trained classifier over the tiny BERT."""
    folder = tmp_path_factory.mktemp("model")
    task = tiny_task(save_tiny_bert(folder / "bert"))
    data = easy_set()
    assignment = split(data, task.target, task.split, task.seed)
    from tamis.models.train import train

    train(task, data, assignment, folder / "checkpoints").classifier.save(folder / "saved")
    return folder / "saved"


def collect(engine, items, work, **settings):
    done = []
    engine.run(items, work, lambda item, result: done.append((item, result)), **settings)
    return done


def score(engine, load, model_dir, items):
    return collect(
        engine, items, ray_stubs.scored,
        initializer=ray_stubs.take_scorer, initargs=(load, str(model_dir)),
    )  # fmt: skip


def test_each_item_once_with_its_result_in_every_run(engine):
    for value in (5, 7):
        done = collect(
            engine, range(20), stubs.double, initializer=stubs.prepare, initargs=(value,)
        )
        assert sorted(done) == [(n, 2 * n + value) for n in range(20)]
    assert collect(engine, [], stubs.double) == []


def test_a_worker_is_initialized_once_for_each_run(engine):
    first = collect(
        engine, range(12), ray_stubs.begun, initializer=ray_stubs.begin, initargs=("a",)
    )
    again = collect(
        engine, range(12), ray_stubs.begun, initializer=ray_stubs.begin, initargs=("b",)
    )
    assert {labels for _, (_, labels) in first} == {("a",)}
    seen = {labels for _, (_, labels) in again}
    assert seen <= {("a", "b"), ("b",)}
    assert ("a", "b") in seen, "processes are used again"
    assert os.getpid() not in {pid for _, (pid, _) in first + again}


def test_no_more_items_are_in_work_than_there_are_workers(engine, tmp_path, monkeypatch):
    import ray

    handed_out, wait = [], ray.wait
    monkeypatch.setattr(
        ray, "wait", lambda tasks, **more: handed_out.append(len(tasks)) or wait(tasks, **more)
    )
    done = collect(engine, [(str(tmp_path), n) for n in range(10)], ray_stubs.running)
    assert max(seen for _, seen in done) == 2
    assert max(handed_out) == 2


def test_a_worker_that_dies_is_replaced(engine, tmp_path):
    items = [(str(tmp_path / "marker"), n) for n in range(10)]
    done = collect(engine, items, stubs.die_once)
    assert sorted(number for _, number in done) == list(range(10))
    assert (tmp_path / "marker").exists()


def test_the_item_that_kills_its_workers_is_named_and_no_other(engine):
    done = []
    with pytest.raises(EngineError, match=r"^shard number 3 failed 3 times: a worker died$"):
        engine.run(
            range(8),
            stubs.die_on_three,
            lambda item, result: done.append(item),
            name=lambda item: f"number {item}",
        )
    assert len(done) == len(set(done))
    assert 3 not in done


def test_a_storage_error_is_tried_again(engine, tmp_path):
    done = collect(engine, [(str(tmp_path), n, 2) for n in range(3)], stubs.storage_fails)
    assert sorted(number for _, number in done) == [0, 1, 2]
    with pytest.raises(EngineError, match=r"failed 3 times: the network is gone$"):
        collect(engine, [(str(tmp_path), 9, 3)], stubs.storage_fails)


def test_the_reason_of_a_failed_start_comes_back(engine):
    with pytest.raises(ModelError, match="^this model is damaged$"):
        collect(engine, [1], stubs.double, initializer=stubs.refuse)


def test_an_error_that_cannot_be_made_again_keeps_its_kind_and_text(engine):
    with pytest.raises(UsageError, match=r"^task.yaml: text.max_tokens: given 3; allowed: 16"):
        collect(engine, [1], ray_stubs.bad_key)


@pytest.mark.parametrize(
    ("work", "text"),
    [(stubs.bug, "ValueError: unforeseen"), (ray_stubs.stubborn, "Stubborn: stays here")],
)
def test_a_bug_names_the_item(engine, work, text):
    with pytest.raises(EngineError, match=f"^shard 7 failed: {text}$"):
        collect(engine, [7], work)


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_an_error_of_the_driver_ends_what_runs(engine, tmp_path, error):
    def fail(item, result):
        raise error

    with pytest.raises(type(error)):
        engine.run([(str(tmp_path), n) for n in range(2)], ray_stubs.first_returns, fail)
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    wait_for(lambda: not alive(pid))
    assert collect(engine, [1], stubs.double)[0][0] == 1


def test_actors_score_as_a_model_in_each_worker_does(engine, model):
    blocks = [TEXTS[:17], TEXTS[17:], [], ["proof " * 3_000]]
    expected = score(LocalEngine(0), load_classifier, model, blocks)
    done = score(engine, engine.place(load_classifier, str(model)), model, blocks)
    assert len(done) == len(blocks)
    for block, (said, kind, _) in done:
        (alike,) = [result[0] for given, result in expected if given == block]
        assert said.values.tobytes() == alike.values.tobytes()
        assert said.tokens.tolist() == alike.tokens.tolist()
        assert kind == "SharedScorer"


def test_a_task_tokenizes_and_holds_no_weights(engine, model, monkeypatch):
    load = engine.place(load_classifier, str(model))
    assert engine.place(load_classifier, str(model)) is load
    scorer = load(str(model))
    assert not hasattr(scorer.preparer, "encoder")
    with pytest.raises(EngineError, match="placed was"):
        load("another")
    whole = load_classifier(model)
    assert scorer.preparer.prepare(TEXTS).same(whole.prepare(TEXTS))
    done = score(engine, load, model, [TEXTS[:3]])
    assert done[0][1][0].values.tolist() == whole.score(TEXTS[:3]).values.tolist()
    heavy = collect(engine, range(4), ray_stubs.heavy_modules)
    assert {tuple(names) for _, names in heavy} == {()}


def test_a_model_without_a_tokenizing_half_is_sent_texts(engine, tmp_path):
    load = engine.place(ray_stubs.load_model, str(tmp_path))
    done = score(engine, load, tmp_path, [["ab", "abcd"], ["x"], ["y"], ["z"]])
    assert {tuple(block): said.values.tolist() for block, (said, _, _) in done} == {
        ("ab", "abcd"): [1, 2], ("x",): [0.5], ("y",): [0.5], ("z",): [0.5],
    }  # fmt: skip
    actors = {said.pid for _, (said, _, _) in done}
    assert not actors & {pid for _, (_, _, pid) in done}
    assert len(actors) <= len(engine._placement.actors)
    engine.place(ray_stubs.load_model, str(tmp_path / "other"))
    wait_for(lambda: not any(alive(pid) for pid in actors))


def test_an_actor_that_dies_is_replaced(engine, tmp_path):
    load = engine.place(ray_stubs.load_model, str(tmp_path))
    done = score(engine, load, tmp_path, [["a"], ["DIE ONCE"], ["b"], ["c"]])
    assert sorted(block for block, _ in done) == [["DIE ONCE"], ["a"], ["b"], ["c"]]
    assert (tmp_path / "died").exists()


def test_the_item_that_kills_actors_is_named(engine, tmp_path):
    load = engine.place(ray_stubs.load_model, str(tmp_path))
    with pytest.raises(EngineError, match=r"^shard \['DIE'\] failed 3 times: a worker died$"):
        score(engine, load, tmp_path, [["a"], ["DIE"], ["b"], ["c"], ["d"]])
    assert len(score(engine, load, tmp_path, [["a"], ["b"]])) == 2


def test_a_bug_of_the_model_names_the_item(engine, tmp_path):
    load = engine.place(ray_stubs.load_model, str(tmp_path))
    with pytest.raises(EngineError, match=r"^shard \['BUG'\] failed: ValueError: unforeseen$"):
        score(engine, load, tmp_path, [["BUG"]])


def test_a_model_that_cannot_be_loaded_is_not_placed(engine):
    with pytest.raises(ModelError, match="^nowhere is damaged$"):
        engine.place(ray_stubs.load_damaged, "nowhere")


def test_ray_listens_on_this_machine_only(engine):
    places = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections():
                if connection.status == psutil.CONN_LISTEN:
                    places.add(connection.laddr.ip)
    assert places
    assert places <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_a_second_engine_beside_it_is_refused(engine):
    processes = {child.pid for child in psutil.Process().children()}
    with pytest.raises(EngineError, match="connected to a Ray already"):
        RayEngine(workers=1).__enter__()
    assert {child.pid for child in psutil.Process().children()} == processes
    assert len(collect(engine, range(3), stubs.double)) == 3


def test_a_cluster_is_joined_with_sources_and_model_and_left_running(engine, model, tmp_path):
    import ray

    texts = ["proof lemma", "cheap sale click"]
    expected = load_classifier(model).score(texts).values.tolist()
    copy = shutil.copytree(model, tmp_path / "model")
    out = tmp_path / "out.json"
    engine._release()  # the cluster has two CPUs
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.run(
        [sys.executable, ray_stubs.__file__, "joined", address, str(copy), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert driver.returncode == 0, driver.stderr
    values, folder, files = json.loads(out.read_text())
    assert values == expected
    assert folder.endswith("/tamis")
    assert {"tamis/engine/ray.py", "tamis/models/classifier.py"} <= set(files)
    assert {Path(name).suffix for name in files if "__pycache__" not in name} == {"", ".py"}
    assert (driver.stdout, driver.stderr) == ("", "")
    assert len(collect(engine, range(3), stubs.double)) == 3


def test_nothing_outlives_a_driver_that_is_killed(tmp_path):
    driver = subprocess.Popen(
        [sys.executable, ray_stubs.__file__, "killed", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        folder = Path(driver.stdout.readline().strip())
        assert folder.is_dir(), driver.stderr.read()
        wait_for(lambda: len(list((tmp_path / "tasks").iterdir())) == 2)
        files = [*(tmp_path / "tasks").iterdir(), *(tmp_path / "started").iterdir()]
        started = [psutil.Process(int(path.name)) for path in files if alive(int(path.name))]
        assert len(started) > 10
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    wait_for(lambda: not [p for p in started if p.is_running() and alive(p.pid)])
    wait_for(lambda: not folder.exists())
    assert driver.stderr.read() == ""


def test_the_watch_ends_what_is_marked_and_nothing_else(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    marks = (str(folder), str(tmp_path), None)
    sleepers = [
        subprocess.Popen(["sleep", "60"], env=os.environ | ({MARK: mark} if mark else {}))
        for mark in marks
    ]
    try:
        end(str(folder))
        assert [sleeper.poll() is None for sleeper in sleepers] == [False, True, True]
        assert not folder.exists()
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_the_watch_ends_agents_that_hide_their_environment(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    code = (
        "import sys, time\nlog = open(sys.argv[2], 'w')\n"
        "open('/proc/self/comm', 'w').write(sys.argv[1])\nprint(flush=True)\ntime.sleep(60)"
    )
    logs = {"ray::Agent": folder, "reader": folder, "ray::Other": tmp_path}
    sleepers = [
        subprocess.Popen(
            [sys.executable, "-c", code, title, str(place / "log")], stdout=subprocess.PIPE
        )
        for title, place in logs.items()
    ]
    try:
        for sleeper in sleepers:
            sleeper.stdout.readline()
        end(str(folder))
        assert [sleeper.poll() is None for sleeper in sleepers] == [False, True, True]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.communicate()


def watches(driver):
    """Folders of the watches that a driver has started."""
    lines = [p.cmdline() for p in psutil.Process(driver).children(recursive=True)]
    return [line[-1] for line in lines if any("ray_watch" in word for word in line)]


@pytest.mark.parametrize("when", [0, 2, 5])
def test_nothing_outlives_a_driver_that_is_killed_while_ray_starts(tmp_path, when):
    code = "from tamis.engine.ray import RayEngine; RayEngine(workers=1).__enter__(); input()"
    driver = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"},
        stdin=subprocess.PIPE,
    )
    try:
        wait_for(lambda: len(psutil.Process(driver.pid).children(recursive=True)) > when)
        # The first child may still be a copy of the driver that has not become the watch.
        wait_for(lambda: watches(driver.pid))
        started = psutil.Process(driver.pid).children(recursive=True)
        folder = Path(watches(driver.pid)[0])
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        driver.stdin.close()
    wait_for(lambda: not any(alive(process.pid) for process in started))
    assert not folder.exists()


def test_a_shipped_folder_that_was_changed_is_refused(engine, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = ray.put(np.frombuffer(b"weights", dtype=np.uint8))
    sha = "9a2e4a11e37b0d2e1ca4b5b6b6ee9e8f"
    with pytest.raises(EngineError, match="is not the model's file that was sent"):
        ShippedFolder(("head",), (sha,), (content,)).unpack()


def test_ray_is_not_imported_until_it_is_used():
    code = "import sys, tamis.engine.ray as e; e.RayEngine(workers=1); print('ray' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("given", [{"workers": -1}, {"encoder_cpus": 0}, {"encoders": 0}])
def test_refuses_numbers_out_of_range(given):
    with pytest.raises(UsageError, match=next(iter(given))):
        RayEngine(**given)
