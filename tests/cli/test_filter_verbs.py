"""Mistakes with filter, select and estimate, and a filter that quarantines too much."""

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.app import main
from deployment.session import Session
from deployment.stacks import LocalStack
from tamis.corpus.manifest import read_manifest, read_output
from tamis.errors import DataError
from tamis.scoring.select import read_report
from tests import warm
from tests.program import PROJECT
from tests.scoring import whole_runs
from tests.scoring.test_stages import prose


@pytest.fixture
def tell(monkeypatch, capsys, tmp_path):
    """Run the command line in this process: its exit code and what it says of errors."""
    monkeypatch.delenv("TAMIS_DEBUG", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return code or 0, capsys.readouterr().err.strip()

    return run_here


def one_sentence(said, part):
    assert said.startswith("error: ") and "\n" not in said
    assert part in said


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A finished output, and a corpus."""
    folder = tmp_path_factory.mktemp("scored")
    rows = [json.dumps({"text": prose(number, 3)}) for number in range(20)]
    (folder / "corpus.jsonl").write_text("\n".join([*rows, "{"]))
    whole_runs.run(folder / "corpus.jsonl", folder / "out")
    return folder / "out"


def test_a_share_at_the_limit_is_let_through(scored):
    from deployment.filtering import require_clean

    report = read_report(str(scored))
    require_clean(report, 1 / 21)
    with pytest.raises(DataError, match=r"1 of 21 rows \(4\.76%\) were quarantined") as caught:
        require_clean(report, 0.0476)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["much", "101%", "-1%", "1.5", "nan", "inf", "1%%", "1,5%", "", "%"]
)
def test_a_share_that_is_none(tell, given):
    code, said = tell("filter", f"--max-quarantined={given}")
    assert code == 2
    one_sentence(said, f"--max-quarantined: given {given!r}; allowed: a share such as 1% or 0.01")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["filter", "--ray-address", "1.2.3.4:6379"], "--ray-address: given '1.2.3.4:6379'"),
        (["filter", "--set", "filter.pii.action=hide"], "filter.pii.action"),
        (["filter", "--set", "filter.near_duplicates.bands=2"], "at least 90%"),
        (["filter", "--set", "filter.langauge.enabled=true"], "filter.langauge"),
        (["estimate", "--machine", "e9-huge"], "--machine: given 'e9-huge'; allowed: one of"),
        (["estimate", "--machine", ""], "n2-standard-8"),
        (["estimate", "--threshold", "9"], "--threshold: given 9; allowed: above 0"),
        (["estimate", "--task", "edu_qualty"], "edu_quality"),
        (["estimate", "--stack", "mars"], "allowed: local"),
        (["estimate", "--result", "/no/such/folder/x.json"], "--result"),
    ],
)  # fmt: skip
def test_mistakes_that_need_no_model(tell, arguments, part):
    code, said = tell(*arguments)
    assert code == 2
    one_sentence(said, part)


@pytest.mark.parametrize(
    "arguments",
    [
        ["select", "--scores", "a", "--threshold", "2"],
        ["select", "--output", "a", "--threshold", "2"],
        ["select", "--scores", "a", "--output", "b", "--threshold", "high"],
        ["select", "--scores", "a", "--output", "b", "--threshold", "2", "--format", "csv"],
        ["select", "--scores", "a", "--output", "b", "--threshold", "2", "--workers", "-1"],
        ["estimate", "--documents", "5"],
        ["estimate", "--documents", "many"],
        ["filter", "--engine", "spark"],
        ["filter", "--encoder-cpus", "0"],
    ],
)
def test_options_that_cannot_be_read(tell, arguments):
    code, said = tell(*arguments)
    assert code == 2
    assert "Traceback" not in said and "Usage:" in said


CRITERIA = {
    "none": [],
    "threshold and share": ["--threshold", "2", "--top-percent", "5"],
    "threshold and budget": ["--threshold", "2", "--token-budget", "5M"],
    "share and budget": ["--top-percent", "5", "--token-budget", "5M"],
    "all": ["--threshold", "2", "--top-percent", "5", "--token-budget", "5M"],
}


@pytest.mark.parametrize("name", CRITERIA)
def test_select_takes_one_criterion(tell, scored, tmp_path, name):
    code, said = tell("select", "--scores", scored, "-o", tmp_path / "o", *CRITERIA[name])
    assert code == 2
    one_sentence(said, f"given {len(CRITERIA[name]) // 2} criteria; allowed: exactly one of")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--threshold", "9"], "--threshold: given 9; allowed: above 0 and at most 5"),
        (["--threshold", "nan"], "--threshold: given nan"),
        (["--top-percent", "101"], "--top-percent: given 101;"),
        (["--top-percent=-3"], "--top-percent: given -3;"),
        (["--top-percent", "nan"], "--top-percent: given nan;"),
        (["--token-budget", "plenty"], "--token-budget: given 'plenty'; allowed: tokens such as"),
        (["--token-budget", "0"], "--token-budget: given '0'"),
        (["--token-budget", "9" * 400], "--token-budget: given"),
        (["--token-budget", "1"], "--token-budget: given 1; allowed: at least"),
        (["--threshold", "2", "--set", "rules.enabeld=true"], "rules.enabeld"),
        (["--threshold", "2", "--set", "rules"], "allowed: key=value"),
    ],
)
def test_criteria_and_settings_that_make_no_sense(tell, scored, tmp_path, arguments, part):
    code, said = tell("select", "--scores", scored, "-o", tmp_path / "o", *arguments)
    assert code == 2
    one_sentence(said, part)
    assert not (tmp_path / "o").exists()


def test_scores_that_are_not_there(tell, scored, tmp_path):
    (tmp_path / "file").touch()
    for place in ("nowhere", "file", ".", "memory://nowhere/at/all"):
        code, said = tell("select", "--scores", place, "-o", tmp_path / "o", "--threshold", "2")
        assert code == 2
        one_sentence(said, f"{place} is no output of tamis: it has no run.json")
    code, said = tell("select", "--scores", "nope://x", "-o", tmp_path / "o", "--threshold", "2")
    assert code == 2
    one_sentence(said, "nope")
    assert not (tmp_path / "o").exists()


def test_scores_of_a_run_that_was_not_finished(tell, scored, tmp_path):
    half = tmp_path / "half"
    stopped = whole_runs.Interrupted(whole_runs.stop, after=0)
    with pytest.raises(Exception, match="on purpose"):
        whole_runs.run(scored.parent / "corpus.jsonl", half, stopped)
    code, said = tell("select", "--scores", half, "-o", tmp_path / "o", "--threshold", "2")
    assert code == 2
    one_sentence(said, "allowed: the output of a finished filter")


def test_outputs_that_a_selection_cannot_have(tell, scored, tmp_path):
    before = (scored / "manifest.jsonl").read_bytes()
    code, said = tell("select", "--scores", scored, "-o", f"{scored}/", "--threshold", "2")
    assert code == 2
    one_sentence(said, "allowed: another folder than --scores")
    assert (scored / "manifest.jsonl").read_bytes() == before
    (tmp_path / "letters.txt").touch()
    code, said = tell("select", "--scores", scored, "-o", tmp_path, "--threshold", "2")
    assert code == 2
    one_sentence(said, "holds files that no run of tamis wrote, such as letters.txt")
    file = tmp_path / "letters.txt"
    code, said = tell("select", "--scores", scored, "-o", file, "--threshold", "2")
    assert code == 2
    one_sentence(said, "cannot be written")


def test_a_selection_that_is_right_ends_with_nothing_to_say(tell, scored, tmp_path):
    options = ["-o", tmp_path / "o", "--top-percent", "25", "--result", tmp_path / "r.json"]
    options += ["--set", "near_duplicates.enabled=false", "-j", "1"]
    code, said = tell("select", "--scores", scored, *options)
    assert (code, said) == (0, "")
    counts = json.loads((tmp_path / "r.json").read_text())["counts"]
    assert (counts["read"], counts["kept"], counts["quarantined"]) == (21, 5, 1)
    assert len(list(read_output(str(tmp_path / "o")))) == 5
    code, said = tell("select", "--scores", scored, "-o", tmp_path / "o", "--threshold", "4")
    assert code == 2
    one_sentence(said, "threshold is 4.0, was ")


@pytest.fixture
def champion(monkeypatch, tmp_path):
    """A session without ZenML and a registry with a champion, for what fails before it is used."""

    @contextmanager
    def session(name):
        yield Session("local", LocalStack(kind="local", home=str(tmp_path)))

    class Registry:
        def champion(self, task):
            return SimpleNamespace(version="1")

    monkeypatch.setattr("deployment.session.open_session", session)
    monkeypatch.setattr("deployment.registry.Registry", Registry)


@pytest.mark.parametrize("verb", ["estimate", "filter"])
def test_inputs_that_are_not_there(tell, champion, tmp_path, verb):
    (tmp_path / "empty").mkdir()
    (tmp_path / "letters.doc").write_text("Dear")
    (tmp_path / "list.txt").write_text("# inputs\ngone.jsonl\n")
    for given, part in {
        "none.jsonl": "input 'none.jsonl' matches no file",
        "none*.jsonl": "input 'none*.jsonl' matches no file",
        "empty": "input 'empty' matches no file",
        "letters.doc": "is of no known format; known are .jsonl",
        "@list.txt": "list.txt, line 2: input 'gone.jsonl' matches no file",
        "@none.txt": "list 'none.txt' cannot be read",
        "nope://bucket/a.jsonl": "input 'nope://bucket/a.jsonl' cannot be listed",
    }.items():
        code, said = tell(verb, "--input", given)
        assert code == 2
        one_sentence(said, part)
    assert not (tmp_path / "output").exists()


FILTER = """
import sys
from pathlib import Path
from mlflow import MlflowClient
from cli.app import main
from deployment.stacks import load_stack
from tamis.corpus.split import split
from tamis.models.classifier import digest
from tamis.models.train import train
from tests.tiny import easy_set, save_tiny_bert, tiny_task

home = Path.cwd()
task, data = tiny_task(save_tiny_bert(home / "bert")), easy_set()
sides = split(data, task.target, task.split, task.seed)
train(task, data, sides, home / "checkpoints").classifier.save(home / "saved")
client = MlflowClient(load_stack("local").tracking_uri)
client.create_registered_model(task.name)
tags = {"digest": digest(home / "saved")}
version = client.create_model_version(task.name, (home / "saved").as_uri(), tags=tags)
client.set_registered_model_alias(task.name, "champion", version.version)
(home / "task.yaml").write_text(task.model_dump_json())  # JSON is YAML
print("ready", file=sys.stderr)
main()
"""
"""Make a tiny model the champion of a new home folder, then be ``run.py`` there."""


@dataclass
class Finished:
    """A filter that has ended: its home folder, output, exit code and what it said of errors."""

    home: Path
    out: Path
    code: int
    said: str


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A filter of 42 rows, of which 2 are broken, that may have 1% of those."""
    home = tmp_path_factory.mktemp("home")
    rows = [json.dumps({"text": prose(number, 3), "id": f"d{number}"}) for number in range(40)]
    for shard, broken in enumerate(("{", "[]")):
        lines = [*rows[20 * shard : 20 * shard + 20], broken]
        (home / f"p{shard}.jsonl").write_text("\n".join(lines))
    options = ["--task", "task.yaml", "--input", "p*.jsonl", "--output", "out", "-j", "1"]
    options += ["--max-quarantined", "1%", "--result", "result.json"]
    for stage in ("exact", "near_duplicates"):
        options += ["--set", f"filter.{stage}.enabled=false"]
    warm.furnish(home)
    environment = {
        **os.environ,
        "TAMIS_HOME": str(home),
        "PYTHONPATH": str(PROJECT),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = warm.python("-c", FILTER, "filter", *options, cwd=home, env=environment, timeout=300)
    before, ready, said = done.stderr.partition("ready\n")
    assert ready, before
    return Finished(home, home / "out", done.returncode, said.strip())


@pytest.mark.pipeline
def test_too_much_in_quarantine_fails_the_run_once_it_is_done(strict):
    assert strict.code == 1, strict.said
    one_sentence(strict.said, "2 of 42 rows (4.76%) were quarantined, more than the 1.00%")
    assert "out/report.html shows the reasons" in strict.said
    assert (strict.home / "result.json").read_text() == ""
    out = str(strict.out)
    counts = read_manifest(out).counts
    assert (counts.read, counts.quarantined) == (42, 2) and counts.balanced
    scored = [row for part in ("kept", "dropped") for row in read_output(out, part, verify=True)]
    assert sorted(row["id"] for row in scored) == sorted(f"d{number}" for number in range(40))
    assert len(list(read_output(out, "quarantine", verify=True))) == 2
    assert {"report.html", "report.json"} <= {file.name for file in strict.out.iterdir()}
    assert not (strict.out / "work").exists()
