import os
import subprocess
import sys
import threading
import uuid

import fsspec
import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tamis.corpus import lease as module
from tamis.corpus.lease import Held, Lease
from tamis.errors import EngineError, UsageError


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


class OldStore(MemoryFileSystem):
    """A store that cannot create exclusively."""

    protocol = "oldstore"
    store: dict = {}  # noqa: RUF012 - as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012

    def pipe_file(self, path, value, **kwargs):
        assert "mode" not in kwargs
        super().pipe_file(path, value)


@pytest.fixture(params=["memory", "old"])
def fs(request):
    found = fsspec.filesystem("memory") if request.param == "memory" else OldStore()
    yield found
    found.store.clear()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path():
    return f"/{uuid.uuid4().hex}/out/.lock"


@pytest.fixture
def make(fs, path, clock):
    """Leases on one lock, as runs on different machines would make them."""
    made = []

    def lease(**options):
        options = {"renew_seconds": 0, "clock": clock, "sleep": lambda _: None, **options}
        made.append(Lease(fs, path, "gs://b/out", **options))
        return made[-1]

    yield lease
    for one in made:
        one.release()


def put(fs, path, clock, age=0.0, **changed):
    """The lock of a run elsewhere."""
    now = clock()
    held = Held("0123456789abcdef", "far", 7, now - age, now - age)
    held = msgspec.structs.replace(held, **changed)
    fs.pipe_file(path, msgspec.json.encode(held))
    return held


def test_one_at_a_time(make, fs, path):
    first = make()
    first.acquire()
    first.check()
    with pytest.raises(UsageError, match="another run is writing to gs://b/out"):
        make().acquire()
    first.check()
    first.release()
    assert not fs.exists(path)
    second = make()
    second.acquire()
    second.check()


def test_the_refusal_says_who_since_when_and_how_long_still(make, fs, path, clock):
    put(fs, path, clock, age=400)
    with pytest.raises(UsageError) as caught:
        make().acquire()
    said = str(caught.value)
    assert "process 7 on 'far'" in said
    assert "held it for 6 min" in said and "lapses in 3 min" in said
    assert "wait for its end or choose another output" in said


def test_a_lock_that_is_not_renewed_lapses(make, fs, path, clock):
    first, second = make(), make()
    first.acquire()
    fs_held = msgspec.json.decode(fs.cat_file(path), type=Held)
    fs.pipe_file(path, msgspec.json.encode(msgspec.structs.replace(fs_held, kernel="")))
    clock.pass_(599)
    with pytest.raises(UsageError):
        second.acquire()
    clock.pass_(1)
    second.acquire()
    second.check()
    with pytest.raises(EngineError, match="lock on gs://b/out was lost"):
        first.check()
    first.renew()
    first.release()
    second.check()
    assert list(fs.find(path.rpartition("/")[0])) == [path]


def test_renewing_keeps_it(make, clock):
    first = make()
    first.acquire()
    for _ in range(5):
        clock.pass_(400)
        first.renew()
    with pytest.raises(UsageError, match="33 min"):
        make().acquire()
    first.check()


def test_a_holder_that_slept_too_long_stops_by_itself(make, clock):
    first = make()
    first.acquire()
    clock.pass_(600)
    first.renew()
    with pytest.raises(EngineError):
        first.check()


def test_a_removed_lock_is_a_lost_lock(make, fs, path):
    first = make()
    first.acquire()
    fs.rm_file(path)
    with pytest.raises(EngineError):
        first.check()
    first.renew()
    assert not fs.exists(path)


def test_of_two_that_take_over_one_goes_on(make, fs, path, clock, monkeypatch):
    put(fs, path, clock, age=700)
    first, second = make(), make()
    read = first._read
    turns = []

    def late(*arguments):
        """The second takes the lock over after the first has seen that it lapsed."""
        found = read(*arguments)
        if not turns and not arguments:
            turns.append(1)
            second.acquire()
        return found

    monkeypatch.setattr(first, "_read", late)
    with pytest.raises(UsageError, match="another run"):
        first.acquire()
    second.check()


def test_a_takeover_that_died_halfway_is_taken_over_in_turn(make, fs, path, clock):
    held = put(fs, path, clock, age=700)
    fs.pipe_file(f"{path}-{held.holder}-1", msgspec.json.encode(held))
    with pytest.raises(UsageError):
        make().acquire()
    clock.pass_(600)
    last = make()
    last.acquire()
    last.check()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b'{"holder": "../../x"}', b"1" * 100_000]
)
def test_an_object_that_is_no_lock_of_ours(make, fs, path, content):
    fs.pipe_file(path, content)
    with pytest.raises(UsageError, match="cannot be read; remove it"):
        make().acquire()
    assert fs.cat_file(path) == content


def test_a_storage_that_fails_is_not_a_lost_lock(make, fs, monkeypatch):
    first = make()
    first.acquire()

    def broken(*_, **__):
        raise OSError("503")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "cat_file", broken)
        with pytest.raises(OSError, match="503"):
            first.check()
    first.check()


def test_the_lock_of_a_run_killed_on_this_machine_is_free_at_once(make, fs, path, clock):
    if not module._kernel():
        pytest.skip("only Linux tells")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    put(fs, path, clock, pid=process.pid, kernel=module._kernel())
    make().acquire()


@pytest.mark.parametrize("changed", [{"pid": os.getpid()}, {"kernel": "another boot/1"}])
def test_but_not_of_one_that_lives_or_ran_elsewhere(make, fs, path, clock, changed):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    put(fs, path, clock, **{"pid": process.pid, "kernel": module._kernel(), **changed})
    with pytest.raises(UsageError):
        make().acquire()


def test_a_repeated_request_meets_its_own_object(path, clock):
    class Flaky(MemoryFileSystem):
        """Stores the object, loses the answer, and tries once more."""

        def pipe_file(self, path, value, mode="overwrite", **kwargs):
            super().pipe_file(path, value, mode=mode)
            if mode == "create":
                raise FileExistsError(path)

    fs = Flaky()
    lease = Lease(fs, path, "gs://b/out", renew_seconds=0, clock=clock)
    lease.acquire()
    lease.check()
    lease.release()
    assert not fs.exists(path)


def test_a_store_without_exclusive_creation_is_read_back(path, clock):
    fs = OldStore()

    def overtaken(seconds):
        assert seconds > 0
        put(fs, path, clock)

    lease = Lease(fs, path, "x://out", renew_seconds=0, clock=clock, sleep=overtaken)
    with pytest.raises(UsageError, match="far"):
        lease.acquire()
    fs.store.clear()


def test_a_thread_renews_it_and_ends_with_it(make, fs, path, clock):
    renewed = threading.Event()
    write = fs.pipe_file

    def seen(where, value, **options):
        write(where, value, **options)
        if msgspec.json.decode(value, type=Held).renewed > 1_700_000_000:
            renewed.set()

    fs.pipe_file = seen
    try:
        lease = make(renew_seconds=0.01)
        lease.acquire()
        thread = lease._thread
        clock.pass_(5)
        assert renewed.wait(20)
        lease.release()
        assert not thread.is_alive()
        assert not fs.exists(path)
    finally:
        del fs.pipe_file
