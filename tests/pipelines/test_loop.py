"""The whole loop by real runs: train, filter, retrain, promote, roll back."""

import json
import shutil

import pytest

from tamis.corpus.manifest import read_manifest, read_output
from tests.program import PROJECT, run, run_warm, small_task

pytestmark = pytest.mark.pipeline

PICKLED = (b"\x80\x04\x95", b"\x80\x05\x95", b"\x80\x02}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def task(home):
    return small_task(home)


@pytest.fixture(scope="module")
def trained(home, task):
    outcome = run_warm(home, "train", "--task", task)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def corpus(home):
    folder = home / "corpus"
    folder.mkdir()
    for shard in range(3):
        lines = [
            json.dumps({"text": f"Theorem {shard}-{row}. The sum of two even numbers is even, "
                        "because each is twice a whole number.", "id": f"d{shard}-{row}"})
            for row in range(40)
        ]  # fmt: skip
        lines[7] = '{"text": broken'
        (folder / f"part-{shard}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def filtered(home, task, trained, corpus):
    output = home / "sifted"
    outcome = run_warm(
        home, "filter", "--task", task, "--input", corpus, "--output", output, "-j", 1
    )
    assert outcome.code == 0, outcome.err
    return outcome, output


@pytest.fixture(scope="module")
def retrained(home, task, filtered):
    return run_warm(home, "retrain", "--task", task)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The same training by another process, in a copy of the project; its folder and outcome."""
    folder = tmp_path_factory.mktemp("elsewhere")
    project, task = folder / "project", small_task(folder)
    for name in ("cli", "configs", "data", "deployment", "materializers", "pipelines", "steps",
                 "tamis"):  # fmt: skip
        shutil.copytree(
            PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(PROJECT / "run.py", project / "run.py")
    outcome = run(folder / "home", "train", "--task", task, project=project)
    assert outcome.code == 0, outcome.err
    return folder, outcome


def oldest(folder, name):
    """What the first run wrote; other tests may have run the step again."""
    file = min(folder.rglob(name), key=lambda file: file.stat().st_mtime)
    return file.read_text(encoding="utf-8")


def test_training_makes_a_champion_with_figures(trained):
    result = trained.result
    assert result["status"] == "done"
    assert result["alias"] == "champion"
    assert result["decision"]["passed"] is True
    figure = result["metrics"]["spearman"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert figure["n"] > 50
    assert result["gains"]["median"]["low"] > 0


def test_no_artifact_is_a_pickle(home, retrained):
    files = [f for f in (home / "artifacts").rglob("*") if f.is_file()]
    files += [f for f in (home / "mlruns").rglob("*") if f.is_file()]
    assert len(files) > 20
    for file in files:
        assert file.suffix not in (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"), file
        assert not file.read_bytes()[:3].startswith(PICKLED), file


def test_reports_are_pages_for_the_dashboard(home, trained):
    pages = list((home / "artifacts" / "evaluate").rglob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "tfidf" in text
        assert "data:image/png" in text


def test_the_registry_holds_the_card_and_the_figures(home, trained):
    cards = list((home / "mlruns").rglob("MODEL_CARD.md"))
    assert len(cards) >= 1
    assert "language model" in cards[0].read_text(encoding="utf-8")


def test_a_second_run_reuses_results_and_registers_nothing_new(home, task, trained):
    again = run_warm(home, "train", "--task", task)
    assert again.code in (0, 3)  # a later champion may be better
    assert "train unchanged, result reused" in again.out
    assert again.result["model_version"] == trained.result["model_version"]
    assert again.result["metrics"] == trained.result["metrics"]


def test_the_same_seed_gives_the_same_figures_elsewhere(trained, elsewhere):
    _, outcome = elsewhere
    assert outcome.result["metrics"] == trained.result["metrics"]


def test_a_refused_model_is_kept_and_not_promoted(home, task, filtered):
    before = run_warm(home, "status", "--task", task).result["model_version"]
    refused = run_warm(
        home, "train", "--task", task, "--set", "gate.floor=0.999", "--set", "seed=3"
    )
    assert refused.code == 3
    assert refused.result["status"] == "refused"
    assert refused.result["alias"] is None
    version = refused.result["model_version"]
    assert run_warm(home, "promote", "--task", task, "--version", version).code == 3
    assert run_warm(home, "status", "--task", task).result["model_version"] == before


def test_filter_commits_balances_and_quarantines(filtered):
    outcome, output = filtered
    counts = outcome.result["counts"]
    assert counts["read"] == 120
    assert counts["quarantined"] == 3
    assert counts["kept"] + counts["dropped"] + counts["duplicates"] == 117
    assert len(read_manifest(str(output)).shards) == 3
    parts = ("kept", "dropped", "duplicates")
    rows = [row for part in parts for row in read_output(str(output), part)]
    assert {row["id"] for row in rows} == {f"d{s}-{r}" for s in range(3) for r in range(40)} - {
        "d0-7", "d1-7", "d2-7"
    }  # fmt: skip
    assert {row["model_version"] for row in rows} == {"small/1"}
    assert (output / "report.html").is_file()


def test_filter_under_another_threshold_is_refused(home, task, filtered, corpus):
    _, output = filtered
    before = (output / "manifest.jsonl").read_bytes()
    again = run_warm(
        home, "filter", "--task", task, "--input", corpus, "--output", output, "--threshold", 4
    )
    assert again.code == 2
    assert "threshold is 4" in again.err
    assert "--fresh" in again.err
    assert "Traceback" not in again.err
    assert (output / "manifest.jsonl").read_bytes() == before


def test_retraining_sees_the_drift_and_promotes(home, task, retrained):
    assert retrained.code == 0, retrained.out + retrained.err
    result = retrained.result
    assert result["drift"]["drifted"] == 1.0
    assert result["alias"] == "champion"
    assert result["model_version"] != "1"


def test_rollback_restores_the_champion_before(home, task, retrained):
    back = run_warm(home, "rollback", "--task", task)
    assert back.code == 0, back.err
    assert run_warm(home, "status", "--task", task).result["model_version"] == "1"
    assert run_warm(home, "rollback", "--task", task).code == 2


def test_retraining_never_trains_on_what_the_champion_was_tested_on(home, retrained):
    first, later = (
        json.loads(oldest(home / "artifacts" / step, "report.json"))["sides"]
        for step in ("split", "split_keeping")
    )
    assert set(first["test"]) <= set(later["test"])
    assert not set(first["test"]) & {*later["train"], *later["validation"]}


def test_a_changed_helper_makes_its_step_run_again(elsewhere):
    folder, _ = elsewhere
    project = folder / "project"
    helper = project / "tamis" / "evaluation" / "baselines.py"
    helper.write_text(helper.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    again = run(folder / "home", "train", "--task", folder / "small.yaml", project=project)
    assert again.code == 0
    assert "split unchanged, result reused" in again.out
    assert "evaluate unchanged" not in again.out
    assert "✓ evaluate" in again.out
