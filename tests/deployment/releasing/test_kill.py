"""kill -9 of the controller at every step, then --resume: nothing lost, and all agree again."""

import json
import os
import signal
import subprocess
import sys

import psutil  # noqa: F401  # here, so that not every fork imports them
import pytest
import scipy.stats  # noqa: F401

from deployment.releasing.front import Nginx
from deployment.releasing.journal import Journal, Journals
from deployment.releasing.local import LocalTarget
from deployment.releasing.processes import Daemon
from tests.deployment.releasing.stand import ROOT


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class DyingJournal(Journal):
    """Kills its process before or after it writes an event."""

    place: tuple[str, str, str] | None = None  # step, phase, "before" or "after"
    seen: list | None = None

    def write(self, event):
        here = (event.step, event.phase)
        if self.seen is not None:
            self.seen.append(here)
        if self.place == (*here, "before"):
            die()
        super().write(event)
        if self.place == (*here, "after"):
            die()


class DyingJournals(Journals):
    def __init__(self, url, task, journal):
        super().__init__(url, task)
        self._journal = journal

    def get(self, number):
        return self._journal(self._fs, f"{self.folder}/{number:06d}", number)


def killed(action):
    """Run something in a process of its own; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException as error:
            sys.stderr.write(repr(error))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


class Clients:
    """The load client, as a process of its own."""

    def __init__(self, port):
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/deployment/releasing/load.py"), str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.told = json.loads(self._process.communicate("", timeout=60)[0])


@pytest.fixture
def stand(make_stand):
    made = make_stand(min_requests=10, limits={"keep_rate": 0.9, "score_shift": 0.9})
    made.serve("1")
    return made


def journals(stand, **how):
    kind = type("ThisJournal", (DyingJournal,), how)
    return DyingJournals(str(stand.folder / "ledger"), "toy", kind)


def places_of(stand, action):
    """Every moment at which the controller could be killed, from one run that is not."""
    seen = []
    assert not killed_in(stand, action, seen)
    return seen


def killed_in(stand, action, record):
    """Like ``killed``, and takes over what the journal has seen."""
    read, write = os.pipe()

    def run():
        action(stand.controller(journals(stand, seen=record)))
        os.write(write, json.dumps(record).encode())

    result = killed(run)
    os.close(write)
    with os.fdopen(read) as pipe:
        record[:] = [tuple(each) for each in json.loads(pipe.read() or "[]")]
    return result


def moments(seen):
    for step, phase in dict.fromkeys(seen):
        # How many looks there are depends on the traffic; before "opened" there is nothing at all.
        if step.startswith("look") or step == "opened":
            continue
        # What holds before "begun" and after "done", does so at the event before or after.
        if phase != "done":
            yield step, phase, "after"
        if phase != "begun":
            yield step, phase, "before"


def other(stand):
    now = stand.registry.aliases["champion"]
    return now, ("2" if now == "1" else "1")


def test_a_release_killed_at_each_step_is_finished_by_resume(stand):
    stand.version("2")
    with Clients(stand.port):
        seen = places_of(stand, lambda c: c.release(stand.spec("2")))
    assert stand.agreed() == "2"
    steps = [step for step, phase in seen if phase == "begun"]
    assert steps == [
        "start champion", "route champion", "begin measuring", "start challenger",
        "route canary 50%", "measure canary 50%", "start version", "ledger", "alias", "route",
        "end measuring", "stop others",
    ]  # fmt: skip
    with Clients(stand.port) as clients:
        for moment in moments(seen):
            _, version = other(stand)
            entries = len(stand.ledger.entries())
            dying = stand.controller(journals(stand, place=moment))
            assert killed(lambda d=dying, v=version: d.release(stand.spec(v))), moment
            assert not killed(lambda: stand.controller().resume()), moment
            assert stand.agreed() == version, moment
            assert stand.target.running() == {version}, moment
            assert len(stand.ledger.entries()) == entries + 1, moment
            assert stand.journals.unfinished() is None, moment
    assert clients.told["lost"] == []
    assert set(clients.told["counts"]) == {"200"}


def test_a_refusal_killed_at_each_step_is_finished_by_resume(stand):
    stand.version("2", broken=True)
    seen = places_of(stand, lambda c: c.release(stand.spec("2")))
    with Clients(stand.port) as clients:
        for moment in moments(seen[seen.index(("verdict", "note")) :]):
            dying = stand.controller(journals(stand, place=moment))
            assert killed(lambda d=dying: d.release(stand.spec("2"))), moment
            assert not killed(lambda: stand.controller().resume()), moment
            assert stand.agreed() == "1", moment
            assert stand.ledger.entries()[-1].action == "refused", moment
    assert clients.told["lost"] == []


def test_a_rollback_killed_at_each_step_is_finished_by_resume(stand):
    stand.version("2")

    def promote():
        stand.ledger.append("promoted", "2", "1", "2", (), "test")
        stand.controller().resume()

    promote()
    seen = places_of(stand, lambda c: c.rollback())
    assert stand.agreed() == "1"
    with Clients(stand.port) as clients:
        for moment in moments(seen):
            killed(promote)
            dying = stand.controller(journals(stand, place=moment))
            assert killed(dying.rollback), moment
            assert not killed(lambda: stand.controller().resume()), moment
            assert stand.agreed() == "1", moment
            assert stand.target.running() == {"1"}, moment
            assert stand.ledger.entries()[-1].action == "rolled_back", moment
    assert clients.told["lost"] == []


def test_rollback_takes_back_what_was_cut_off_before_its_verdict(stand):
    stand.version("2")
    dying = stand.controller(journals(stand, place=("measure canary 50%", "done", "after")))
    assert killed(lambda: dying.release(stand.spec("2")))
    assert stand.target.state().shares == {"1": 50, "2": 50}
    assert stand.controller().rollback().end == "rolled back"
    assert stand.agreed() == "1"
    entry = stand.ledger.entries()[-1]
    assert (entry.action, entry.version, entry.champion) == ("aborted", "2", "1")
    assert "it was taken back by rollback" in entry.reasons[0]


def test_rollback_after_the_verdict_finishes_and_then_goes_back(stand):
    stand.version("2")
    with Clients(stand.port) as clients:
        dying = stand.controller(journals(stand, place=("ledger", "done", "after")))
        assert killed(lambda: dying.release(stand.spec("2")))
    assert clients.told["lost"] == []
    assert stand.controller().rollback().champion == "1"
    assert [e.action for e in stand.ledger.entries()] == ["promoted", "promoted", "rolled_back"]
    assert stand.agreed() == "1"


def dies_in(owner, name, before, number=1):
    """A context in which a method kills the process at its first call, or a later one."""
    original, calls = getattr(owner, name), []

    def wrapper(*arguments, **named):
        calls.append(name)
        if len(calls) < number:
            return original(*arguments, **named)
        if before:
            die()
        original(*arguments, **named)
        die()
        return None

    return wrapper


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Daemon, "start"),
        (Daemon, "wait_ready"),
        (Daemon, "stop"),
        (Nginx, "_run"),
        (Nginx, "_signal"),
        (Nginx, "_wait_for"),
        (LocalTarget, "_write"),
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_killed_within_a_step(stand, owner, name):
    stand.version("2")
    with Clients(stand.port) as clients:
        for before in (True, False):
            _, version = other(stand)

            def run(version=version, before=before):
                setattr(owner, name, dies_in(owner, name, before))
                stand.controller().release(stand.spec(version))

            assert killed(run), before
            assert not killed(lambda: stand.controller().resume()), before
            assert stand.agreed() == version
            assert stand.target.running() == {version}
    assert clients.told["lost"] == []
