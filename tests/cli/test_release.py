"""``release`` and ``rollback`` as typed: real nginx and processes, session and MLflow made up."""

import json
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from tests.deployment.releasing.load import Load
from tests.deployment.releasing.stand import FileRegistry, Stand, nginx_there

TASK = """\
name: toy
target: {{kind: ordinal, minimum: 0, maximum: 1, keep_at_least: 0.5}}
sources: [{{kind: packages, genres: [licence]}}]
release:
  steps: [50]
  min_requests: 15
  min_seconds: 0
  max_seconds: 20
  look_seconds: 0.05
  limits: {{score_shift: 0.5, keep_rate: 0.5}}
  local: {{port: {port}}}
"""


class Registry(FileRegistry):
    """With the tags that the verbs read."""

    gates: dict

    def get(self, task, version):
        aliases = tuple(k for k, v in self.aliases.items() if v == version)
        tags = {"gate": self.gates.get(version, "passed")}
        return SimpleNamespace(version=version, tags=tags, aliases=aliases)

    def with_alias(self, task, alias):
        return self.get(task, self.aliases[alias]) if alias in self.aliases else None


@pytest.fixture
def verb(tmp_path, monkeypatch, capsys):
    from cli import app

    if not nginx_there():
        pytest.skip("nginx is not installed")
    stand = Stand(tmp_path)
    stand.registry = Registry(tmp_path / "aliases.json")
    stand.registry.gates = {}
    (tmp_path / "toy.yaml").write_text(TASK.format(port=stand.port))

    @contextmanager
    def session(name, experiments=()):
        yield SimpleNamespace(name=name, home=tmp_path, ledger=str(tmp_path / "ledger"))

    def make(name, task, session, settings=None):
        stand.settings = settings or task.release
        stand.target = stand.make_target()
        return stand.target

    monkeypatch.setattr("deployment.session.open_session", session)
    monkeypatch.setattr("deployment.registry.Registry", lambda: stand.registry)
    monkeypatch.setattr("deployment.releasing.targets.make_target", make)
    monkeypatch.setattr(
        "deployment.serving.prepare.prepare", lambda t, v, h: stand.folder_of(v.version)
    )
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        result = tmp_path / "result.json"
        result.unlink(missing_ok=True)
        line = ["run.py", arguments[0], "--task", str(tmp_path / "toy.yaml"), *arguments[1:]]
        monkeypatch.setattr(sys, "argv", [*line, "--result", str(result)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        said = capsys.readouterr()
        written = json.loads(result.read_text() or "{}") if result.exists() else {}
        return ended.value.code or 0, said.out, said.err, written

    call.stand = stand
    yield call
    stand.target.end()


def test_first_version_canary_rollback_and_the_end(verb):
    stand = verb.stand
    stand.version("1")
    stand.version("2")
    code, out, _, result = verb("release", "--version", "1")
    assert (code, result["model_version"], result["alias"]) == (0, "1", "champion")
    assert "version 1 is champion and serves" in out
    stand.registry.set_alias("toy", "challenger", "2")
    code, out, _, result = verb("release", "--dry-run")
    assert (code, result["status"]) == (0, "planned")
    assert "canary 50%: 15 requests" in out and "version 1: 100%" in out
    with Load(stand.port) as load:
        code, out, _, result = verb("release", "--strategy", "canary")
    assert (code, result["status"], result["model_version"]) == (0, "done", "2")
    assert result["decision"]["passed"]
    assert any("requests failed" in reason for reason in result["decision"]["reasons"])
    assert result["outputs"]["address"] == f"http://127.0.0.1:{stand.port}/"
    assert load.lost == [] and stand.agreed() == "2"
    code, out, _, result = verb("rollback")
    assert (code, result["verb"], result["model_version"]) == (0, "rollback", "1")
    assert stand.agreed() == "1"
    code, out, _, result = verb("release", "--status")
    assert (code, result["counts"]) == (0, {"traffic 1": 100})
    code, _, err, _ = verb("rollback")
    assert code == 2 and "version 1 has no champion before it" in err
    assert verb("release", "--end")[0] == 0
    assert stand.target.running() == frozenset()


def test_one_that_does_not_start_ends_with_3(verb):
    stand = verb.stand
    stand.version("1")
    stand.version("2", broken=True)
    verb("release", "--version", "1")
    code, out, _, result = verb("release", "--version", "2")
    assert (code, result["status"], result["model_version"]) == (3, "refused", "1")
    assert "version 2 was taken back; version 1 serves" in out
    assert not result["decision"]["passed"]
    assert stand.agreed() == "1"


def test_what_the_gate_refused_is_not_tried(verb):
    stand = verb.stand
    stand.version("1")
    verb("release", "--version", "1")
    stand.registry.gates["2"] = "refused"
    code, out, _, result = verb("release", "--version", "2")
    assert (code, result["status"]) == (3, "refused")
    assert "--force releases it" in out
    assert stand.journals.unfinished() is None


def test_after_promote_resume_moves_the_traffic(verb):
    stand = verb.stand
    stand.version("1")
    stand.version("2")
    verb("release", "--version", "1")
    code, out, _, _ = verb("promote", "--version", "2")
    assert code == 0 and "--resume` has it serve" in out
    assert "they do not agree" in verb("release", "--status")[1]
    code = verb("release", "--resume")[0]
    assert (code, stand.agreed()) == (0, "2")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--resume", "--status"], "one of --version, --resume, --status and --end"),
        ([], "no champion"),
    ],
)
def test_mistakes(verb, arguments, part):
    code, _, err, _ = verb("release", *arguments)
    assert code == 2
    assert part in err.replace("\n", " ")
