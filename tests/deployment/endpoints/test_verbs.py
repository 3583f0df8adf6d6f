"""``promote`` and ``rollback`` with ``--endpoint``, with the real clients of Vertex AI."""

import json
import sys
from contextlib import contextmanager

import pytest

from deployment.ledger import Ledger
from deployment.session import Session
from deployment.stacks import load_stack
from deployment.vertex.endpoints import Endpoints, endpoint_id
from tamis.errors import EngineError, StackError
from tests.deployment.endpoints.endpoint_stubs import FakeRegistry, changes, shares
from tests.vertex.services import free_ports as ports

TASK = """\
name: {name}
target: {{kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 2}}
sources: [{{kind: packages, genres: [licence]}}]
model: {{frozen: {{layers: [1], heads: [ridge]}}}}
"""


class TestVerbs:
    """``promote`` and ``rollback`` in this process: ZenML's session and MLflow are made up."""

    @pytest.fixture
    def verb(self, stacks, task, tmp_path, monkeypatch, capsys):
        from cli import app

        folder = tmp_path / "classifier"
        folder.mkdir()
        (folder / "classifier.json").write_text("{}")
        (tmp_path / "task.yaml").write_text(TASK.format(name=task))
        registry = FakeRegistry(folder)
        opened = []

        @contextmanager
        def session(name, experiments=()):
            opened.append(name)
            yield Session(name, load_stack(name))

        monkeypatch.setattr("deployment.session.open_session", session)
        monkeypatch.setattr("deployment.registry.Registry", lambda: registry)
        monkeypatch.setenv("COLUMNS", "300")
        stacks()

        def call(*arguments, stack="vertex"):
            where = ["--task", str(tmp_path / "task.yaml"), "--stack", stack]
            result = tmp_path / "result.json"
            result.unlink(missing_ok=True)
            line = ["run.py", arguments[0], *where, *arguments[1:], "--result", str(result)]
            monkeypatch.setattr(sys, "argv", line)
            with pytest.raises(SystemExit) as ended:
                app.main()
            said = capsys.readouterr()
            written = result.read_text() if result.exists() else ""
            return ended.value.code, said.out, said.err, json.loads(written or "{}")

        call.registry, call.opened = registry, opened
        call.ledger = Ledger("gs://tamis-test/ledger", task)
        return call

    def test_promotions_and_a_rollback(self, verb, endpoints, task):
        code, out, _, result = verb("promote", "--version", "1", "--endpoint")
        assert code == 0
        assert "version 1 is champion" in out
        assert "the endpoint serves version 1: 100%" in out
        assert result["outputs"]["endpoint"].endswith(f"/endpoints/{endpoint_id(task)}")
        code, out, _, _ = verb("promote", "--version", "2", "--endpoint")
        assert (code, verb.registry.aliases) == (0, {"champion": "2"})
        assert "serves version 1: 90%, version 2: 10%" in out
        assert "--version 2 --endpoint --traffic 100` gives it the rest" in out
        verb("promote", "--version", "2", "--endpoint", "--traffic", "50")
        verb("promote", "--version", "2", "--endpoint")
        assert shares(endpoints.state(task)) == {"1": 50, "2": 50}  # not back to the canary share
        code, out, _, _ = verb("promote", "--version", "2", "--endpoint", "--traffic", "100")
        assert (code, shares(endpoints.state(task))) == (0, {"2": 100, "1": 0})
        assert "before: the same" in out
        assert len(verb.ledger.entries()) == 2  # nothing was promoted the second time
        verb("promote", "--version", "2")  # once more in the ledger, over itself
        verb("promote", "--version", "2", "--endpoint")
        assert shares(endpoints.state(task)) == {"2": 100, "1": 0}
        code, out, _, result = verb("rollback", "--endpoint")
        assert (code, verb.registry.aliases) == (0, {"champion": "1"})
        assert "serves version 1: 100%, version 2: 0%" in out
        assert (result["model_version"], "endpoint" in result["outputs"]) == ("1", True)
        verb("promote", "--version", "1", "--endpoint")
        assert shares(endpoints.state(task)) == {"1": 100, "2": 0}  # mending undoes nothing
        assert len(verb.ledger.entries()) == 4

    def test_a_dry_run_says_what_it_would_do(self, verb, endpoints, task, api):
        verb("promote", "--version", "1", "--endpoint")
        before = len(changes(api))
        code, out, _, result = verb("promote", "--version", "2", "--endpoint", "--dry-run")
        assert (code, result["status"]) == (0, "planned")
        assert "serves     version 1: 100%" in out
        assert "then       version 1: 90%, version 2: 10%" in out
        assert verb.registry.aliases == {"champion": "1"}
        verb("promote", "--version", "2")
        code, out, _, _ = verb("rollback", "--endpoint", "--dry-run")
        assert "upload     version 1 is uploaded" in out
        assert "then       version 1: 100%" in out
        assert verb.registry.aliases == {"champion": "2"}
        assert len(changes(api)) == before

    def test_without_the_option_no_endpoint_is_touched(self, verb, endpoints, task):
        assert verb("promote", "--version", "1")[0] == 0
        assert verb("promote", "--version", "2")[0] == 0
        assert verb("rollback")[0] == 0
        assert endpoints.state(task).endpoint is None

    def test_a_rollback_to_what_was_never_uploaded(self, verb, endpoints, task):
        verb("promote", "--version", "1")
        verb("promote", "--version", "2", "--endpoint")
        assert verb("rollback", "--endpoint")[0] == 0
        assert shares(endpoints.state(task)) == {"1": 100, "2": 0}

    def test_a_refused_version_is_not_deployed(self, verb, endpoints, task):
        code, _, _, result = verb("promote", "--version", "4", "--endpoint")
        assert (code, result["status"]) == (3, "refused")
        assert endpoints.state(task).endpoint is None
        assert verb("promote", "--version", "4", "--endpoint", "--force")[0] == 0
        # It is champion already: only the endpoint is mended, which the gate has no say in.
        assert verb("promote", "--version", "4", "--endpoint")[0] == 0
        assert shares(endpoints.state(task)) == {"4": 100}

    def test_where_there_is_no_endpoint_nothing_begins(self, verb, stacks):
        code, _, err, _ = verb("promote", "--version", "1", "--endpoint", stack="local")
        assert code == 2
        assert "--endpoint: given with --stack local; allowed: a stack of kind vertex" in err
        assert verb("rollback", "--endpoint", stack="local")[0] == 2
        stacks(more="")
        code, _, err, _ = verb("promote", "--version", "1", "--endpoint")
        assert (code, "the stack's file has no serving" in err) == (2, True)
        code, _, err, _ = verb("promote", "--version", "1", "--traffic", "5")
        assert (code, "--traffic: given 5; allowed: only with --endpoint" in err) == (2, True)
        assert (verb.opened, verb.registry.aliases) == ([], {})

    def test_vertex_that_does_not_answer_moves_nothing(self, verb, stacks, task):
        stacks(vertex=f"http://127.0.0.1:{ports(1)[0]}")
        code, _, err, _ = verb("promote", "--version", "1", "--endpoint")
        assert (code, verb.registry.aliases, verb.ledger.entries()) == (1, {}, [])
        assert f"looking up the endpoint of {task}: " in err

    def test_vertex_that_fails_after_the_alias_moved_is_told_and_mended(
        self, verb, endpoints, task, monkeypatch
    ):
        verb("promote", "--version", "1", "--endpoint")
        with monkeypatch.context() as patch:
            patch.setattr(Endpoints, "_give", out_of_quota)
            code, _, err, _ = verb("promote", "--version", "2", "--endpoint")
            assert code == 1
            assert f"error: {task}: the registry says version 2 is champion" in err
            assert "the endpoint serves version 1: 100%, version 2: 0%: out of quota;" in err
            assert "Traceback" not in err
        command = err.partition("`python run.py ")[2].partition("`")[0].split()
        assert command[-5:] == ["--version", "2", "--endpoint", "--traffic", "10"]
        assert verb(command[0], *command[5:])[0] == 0
        assert shares(endpoints.state(task)) == {"1": 90, "2": 10}

        with monkeypatch.context() as patch:
            patch.setattr(Endpoints, "rollback", not_allowed)
            code, _, err, _ = verb("rollback", "--endpoint")
            assert (code, verb.registry.aliases) == (1, {"champion": "1"})
            assert "the endpoint serves version 1: 90%, version 2: 10%: not allowed;" in err
        command = err.partition("`python run.py ")[2].partition("`")[0].split()
        assert verb(command[0], *command[5:])[0] == 0
        assert shares(endpoints.state(task)) == {"1": 100, "2": 0}
        assert [entry.champion for entry in verb.ledger.entries()] == ["1", "2", "1"]


def out_of_quota(*_, **__):
    raise EngineError("out of quota")


def not_allowed(*_, **__):
    raise StackError("not allowed")
