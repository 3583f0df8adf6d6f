"""The verbs about stacks, runs and schedules, as far as they go without a server."""

import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import yaml

from cli.app import main
from deployment.session import Session
from deployment.stacks import load_stack
from deployment.vertex import check as checks
from deployment.vertex.schedules import Scheduled
from tamis.errors import StackError, UsageError
from tests.deployment.vertex.test_settings import GOOD, GPU
from tests.program import PROJECT

WEEKLY = Scheduled("weekly", "0 3 * * 1", "ACTIVE", True, "2025-05-05 03:00 UTC", 3)


@pytest.fixture
def tell(monkeypatch, capsys, tmp_path):
    """Run the command line in this process: exit code, what it prints, what it says of errors."""
    monkeypatch.delenv("TAMIS_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err.strip()

    return run_here


@pytest.fixture
def stacks(monkeypatch, tmp_path):
    """Stack files of our own: one on this machine, one on Vertex AI, one that is wrong."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    (folder / "local.yaml").write_text("kind: local\nhome: .tamis\n")
    (folder / "mine.yaml").write_text(yaml.safe_dump(GOOD))
    (folder / "wrong.yaml").write_text("kind: vertex\nproject: <project id>\n")
    monkeypatch.setenv("TAMIS_STACKS", str(folder))
    return folder


def one_sentence(said, part):
    assert said.startswith("error: ") and "\n" not in said
    assert part in said


def test_the_stacks_that_there_are(tell, stacks):
    assert tell("stack", "list") == (0, "local\nmine\nwrong\n", "")


def test_the_stacks_that_come_with_it(tell):
    code, out, _ = tell("stack", "list")
    assert code == 0 and {"local", "vertex"} <= set(out.split())


def test_a_stack_on_this_machine_is_shown(tell, stacks, tmp_path):
    code, out, _ = tell("stack", "show")
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    home = tmp_path / "tamis-home"
    assert code == 0
    assert (shown["kind"], shown["home"], shown["ledger"]) == ("local", str(home), f"{home}/ledger")
    assert shown["mlflow"] == f"sqlite:///{home}/mlflow.db"
    assert tell("stack", "show", "local")[1] == tell("stack", "show", "-s", "local")[1] == out
    assert not home.exists()


def test_a_stack_on_vertex_ai_is_shown(tell, stacks):
    code, out, _ = tell("stack", "show", "mine")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    for line in (
        "kind vertex",
        "project my-project-1, us-central1",
        "artifacts gs://my-tamis",
        f"image {GOOD['image']}",
        f"gpu image {GOOD['gpu_image']}",
        f"runs as {GOOD['service_account']}",
        "default 4 cores and 16GiB",
        f"train {GPU['machine_type']} with NVIDIA_L4, spot",
        "outputs gs://my-tamis/output",
        "ledger gs://my-tamis/ledger",
    ):
        assert line in lines


def test_each_problem_of_the_file_with_placeholders_is_a_line(tell):
    code, out, err = tell("stack", "check", "vertex")
    assert (code, err) == (2, "")
    lines = out.splitlines()
    assert all(line.startswith("✗ configs/stacks/vertex.yaml: ") for line in lines)
    keys = [line.split(": ")[1] for line in lines]
    assert keys == [
        "project", "bucket", "registry", "image", "gpu_image", "service_account", "zenml_server",
        "mlflow.tracking_uri",
    ]  # fmt: skip
    assert all("given " in line and "allowed: " in line for line in lines)


def test_the_file_is_mended_before_anything_is_asked(tell, stacks, monkeypatch):
    monkeypatch.setattr(checks, "check", lambda *given: pytest.fail("something was asked"))
    code, out, _ = tell("stack", "check", "wrong")
    assert code == 2 and out.startswith("✗ configs/stacks/wrong.yaml: project: given")
    assert "region: given 'nothing'" in out


def test_what_a_stack_lacks_is_told_beside_what_it_has(tell, stacks, monkeypatch):
    def check(name, stack, found):
        assert (name, stack.project) == ("mine", "my-project-1")
        found.look("the bucket [bold]", lambda: None)
        if wrong:
            found.look("the image", lambda: lacks("image: a:1 is not there; build it"))

    def lacks(what):
        raise StackError(what)

    monkeypatch.setattr(checks, "check", check)
    wrong = True
    code, out, err = tell("stack", "check", "mine")
    assert (code, err) == (2, "")
    assert out == "✓ the bucket [bold]\n✗ image: a:1 is not there; build it\n"
    wrong = False
    assert tell("stack", "check", "mine") == (0, "✓ the bucket [bold]\nmine is ready\n", "")


def test_a_stack_on_this_machine_needs_no_check(tell, stacks):
    code, out, _ = tell("stack", "check", "local")
    assert code == 0 and out.startswith("✓ local is on this machine")
    (stacks / "local.yaml").write_text("kind: local\nhoem: x\n")
    code, _, said = tell("stack", "check", "local")
    assert code == 2
    one_sentence(said, "did you mean 'home'?")


@pytest.mark.parametrize(
    "arguments",
    [
        ["stack", "show"], ["stack", "check"], ["stack", "up"], ["stack", "down"], ["runs", "-s"],
        ["logs", "r", "-s"], ["stop", "r", "-s"], ["schedule", "list", "-s"],
        ["schedule", "create", "train", "--cron", "0 3 * * 1", "-s"],
        ["schedule", "pause", "x", "-s"], ["schedule", "resume", "x", "-s"],
        ["schedule", "delete", "x", "-s"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_unknown_stack_is_refused_everywhere(tell, stacks, arguments):
    code, _, said = tell(*arguments, "mars")
    assert code == 2
    one_sentence(said, "--stack: given 'mars'; allowed: local, mine, wrong")


@pytest.mark.parametrize(
    "arguments",
    [
        ["stack", "show"], ["stack", "up"], ["stack", "down"], ["runs", "-s"], ["stop", "r", "-s"],
        ["schedule", "list", "-s"], ["train", "-s"], ["filter", "-s"], ["retrain", "-s"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_stack_file_is_refused_everywhere(tell, stacks, arguments):
    code, _, said = tell(*arguments, "wrong")
    assert code == 2
    one_sentence(said, "configs/stacks/wrong.yaml: project: given '<project id>'; allowed: the id")


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_stack_on_this_machine_is_not_registered_by_hand(tell, stacks, verb):
    code, _, said = tell("stack", verb, "local")
    assert code == 2
    one_sentence(said, "--stack: given 'local'; allowed: a stack of kind vertex")


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_server_that_is_not_there(tell, stacks, verb):
    (stacks / "mine.yaml").write_text(yaml.safe_dump(GOOD | {"zenml_server": "http://127.0.0.1:9"}))
    code, _, said = tell("stack", verb, "mine")
    assert code == 2
    one_sentence(said, "zenml_server: http://127.0.0.1:9/health does not answer (ConnectionError)")


def test_a_run_needs_the_server_too(tell, stacks):
    (stacks / "mine.yaml").write_text(yaml.safe_dump(GOOD | {"zenml_server": "http://127.0.0.1:9"}))
    for arguments in (["runs"], ["logs", "r"], ["stop", "r"], ["schedule", "list"]):
        code, _, said = tell(*arguments, "-s", "mine")
        assert code == 2
        one_sentence(said, "zenml_server: http://127.0.0.1:9/health does not answer")


CREATE = ["schedule", "create", "train", "--cron"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            [*CREATE, "0 3 * * 1", "-s", "local"],
            "0 3 * * 1 cd THE_PROJECT && .venv/bin/python run.py train --task edu_quality",
        ),
        ([*CREATE, "0 3 * *", "-s", "mine"], "--cron: given '0 3 * *'; allowed: five fields"),
        ([*CREATE, "@daily", "-s", "mine"], "--cron: given '@daily'"),
        ([*CREATE, "0 3 * * 1", "-s", "mine", "-t", "edu_qualty"], "edu_quality"),
        ([*CREATE, "0 3 * * 1", "-s", "mine", "--set", "sed=3"], "did you mean 'seed'"),
    ],
)
def test_a_schedule_that_cannot_be(tell, stacks, arguments, part):
    code, _, said = tell(*arguments)
    assert code == 2
    one_sentence(said, part)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["schedule", "create", "promote", "--cron", "0 3 * * 1"], "promote"),
        (["schedule", "create", "train"], "--cron"),
        (["schedule", "pause"], "name"),
        (["runs", "-n", "0"], "--number"),
        (["runs", "-n", "201"], "--number"),
        (["logs"], "RUN"),
        (["stop"], "RUN"),
        (["stack", "chek"], "chek"),
    ],
)
def test_an_option_that_is_no_such_thing(tell, arguments, part):
    code, _, said = tell(*arguments)
    assert code == 2 and part in said and "Traceback" not in said


@pytest.fixture
def opened(monkeypatch, stacks):
    """A session without ZenML."""

    @contextmanager
    def session(name, experiments=()):
        yield Session(name, load_stack(name))

    monkeypatch.setattr("deployment.session.open_session", session)


def test_a_run_on_this_machine_is_ended_where_it_runs(tell, opened, monkeypatch):
    fakes = {"zenml": {}, "zenml.enums": {"ExecutionStatus": None},
             "zenml.orchestrators": {"publish_utils": None}}  # fmt: skip
    for name, content in fakes.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))
    code, _, said = tell("stop", "training-7", "-s", "local")
    assert code == 2
    one_sentence(said, "stop: given a run on this machine; allowed: Ctrl-C where it runs")


@pytest.mark.parametrize("verb", ["list", "pause", "resume", "delete"])
def test_a_stack_on_this_machine_has_no_schedules(tell, opened, verb):
    name = [] if verb == "list" else ["weekly"]
    code, _, said = tell("schedule", verb, *name, "-s", "local")
    assert code == 2
    one_sentence(said, "--stack: given 'local'; allowed: a stack on Vertex AI")


@pytest.fixture
def schedules(monkeypatch, opened):
    """Schedules that keep what is done to them."""
    found = SimpleNamespace(known=[], done=[])

    def change(verb):
        def done(name):
            if name not in [each.name for each in found.known]:
                raise UsageError(f"schedule: given {name!r}; allowed: there is none")
            found.done.append((verb, name))

        return done

    made = SimpleNamespace(
        all=lambda: found.known,
        create=lambda *given: found.done.append(given),
        **{verb: change(verb) for verb in ("pause", "resume", "delete")},
    )
    monkeypatch.setattr("deployment.vertex.schedules.Schedules", lambda stack: made)
    return found


def test_schedules_are_listed_with_where_the_sides_differ(tell, schedules):
    assert tell("schedule", "list", "-s", "mine") == (0, "no schedule on mine\n", "")
    schedules.known = [WEEKLY]
    code, out, _ = tell("schedule", "list", "-s", "mine")
    row = ["weekly", "0", "3", "*", "*", "1", "active", "active", "2025-05-05", "03:00", "UTC", "3"]
    assert code == 0 and out.splitlines()[1].split() == row
    assert len(out.splitlines()) == 2
    schedules.known = [WEEKLY, Scheduled("lost", "0 3 * * 1", None, False, "", 0)]
    schedules.known.append(Scheduled("stray", "0 3 * * 1", "PAUSED", None, "", 0))
    _, out, _ = tell("schedule", "list", "-s", "mine")
    lines = out.splitlines()
    assert lines[2].split()[-3:] == ["missing", "paused", "0"]
    assert lines[3].split()[-3:] == ["paused", "missing", "0"]
    assert "deleting mends it" in lines[4]


@pytest.mark.parametrize("verb", ["pause", "resume", "delete"])
def test_a_schedule_is_changed(tell, schedules, verb):
    schedules.known = [WEEKLY]
    code, out, _ = tell("schedule", verb, "weekly", "-s", "mine")
    assert code == 0 and out.startswith(f"✓ schedule weekly {verb.rstrip('e')}ed")
    assert schedules.done == [(verb, "weekly")]
    code, _, said = tell("schedule", verb, "daily", "-s", "mine")
    assert code == 2 and schedules.done == [(verb, "weekly")]
    one_sentence(said, "schedule: given 'daily'; allowed: there is none")


@pytest.fixture
def runs(monkeypatch, opened):
    """Runs of a stack."""
    began = datetime(2025, 5, 1, 12, tzinfo=UTC)

    def record(name, status, minutes=None):
        ended = began + timedelta(minutes=minutes) if minutes is not None else None
        tags = [SimpleNamespace(name="toy")]
        return SimpleNamespace(name=name, tags=tags, status=status, start_time=began,
                               created=began, end_time=ended)  # fmt: skip

    found = [record("training-8", "running"), record("training-7", "failed", 90)]
    monkeypatch.setattr("deployment.runs.recent", lambda session, number: found[:number])
    monkeypatch.setattr("deployment.runs.status_of", lambda session, each: each.status)
    return found


def test_the_last_runs_are_listed(tell, runs):
    code, out, _ = tell("runs", "-s", "mine")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["run", "task", "status", "minutes"],
        ["training-8", "toy", "running"],
        ["training-7", "toy", "failed", "90.0"],
    ]
    assert len(tell("runs", "-s", "mine", "-n", "1")[1].splitlines()) == 2
    runs.clear()
    assert tell("runs", "-s", "mine") == (0, "no run on mine yet\n", "")


def test_logs_are_printed_as_they_are(tell, opened, monkeypatch):
    said = {"ingest": ["read 3 [documents]"], "train": ["epoch 1", "x" * 300]}
    monkeypatch.setattr("deployment.logs.step_names", lambda run: list(said))
    monkeypatch.setattr("deployment.logs.lines", lambda run, step: said[step])
    lines = ["ingest | read 3 [documents]", "train | epoch 1", f"train | {'x' * 300}"]
    assert tell("logs", "training-7", "-s", "mine") == (0, "\n".join([*lines, ""]), "")
    code, out, _ = tell("logs", "training-7", "--step", "train", "-s", "mine")
    assert (code, out.splitlines()) == (0, lines[1:])
    said.clear()
    assert tell("logs", "training-7", "-s", "mine")[1] == "no step has begun\n"


@pytest.mark.pipeline
def test_a_run_that_there_is_not(tmp_path):
    """With ZenML itself."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "run.py"), "logs", "training-7"],
        env=os.environ | {"COLUMNS": "200"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
    told = (
        "run: given 'training-7'; allowed: a run's name or id, as `python run.py runs` lists them"
    )
    one_sentence(done.stderr.strip().splitlines()[-1], told)
