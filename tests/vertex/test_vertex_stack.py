"""The same verbs on a local stack and on Vertex AI, through the real clients and a stand-in."""

import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from cli.watching import Watcher
from deployment.retraining.journal import Retrains, RunUnderWay
from deployment.retraining.request import Trigger, TriggerRequest, Work
from tamis.corpus.manifest import read_manifest, read_output
from tamis.errors import UsageError
from tamis.monitoring.monitored_files import window_of_files
from tamis.task import load_task
from tests.monitoring.log_tools import TEXT, fill, record
from tests.program import run
from tests.vertex.cluster import API, id_of

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]

CPU = {"cpuLimit": 4.0, "resourceMemoryLimit": "16Gi"}


@pytest.fixture(scope="module")
def corpus(cluster, here):
    """The same shards on this machine and in the bucket."""
    folder = here / "corpus"
    folder.mkdir(parents=True)
    for shard in range(3):
        lines = [
            json.dumps({"id": f"d{shard}-{row}", "text": f"{WORDS[row % 4]} {shard}-{row}. " * 3})
            for row in range(40)
        ]
        lines[7] = '{"text": broken'
        text = "\n".join(lines) + "\n"
        (folder / f"part-{shard}.jsonl").write_text(text, encoding="utf-8")
        cluster.put(f"corpus/part-{shard}.jsonl", text)
    return folder


WORDS = (
    "The sum of two even numbers is even, because each is twice a whole number",
    "Buy cheap watches now, click here, best offer of the week",
    "Permission is hereby granted, free of charge, to any person obtaining a copy",
    "Photosynthesis turns light into sugar, which a plant burns at night",
)


@pytest.fixture(scope="module")
def filtered(cluster, task, trained, corpus, here):
    local = run(here, "filter", "--task", task, "-i", corpus, "-o", here / "out", "-j", 1)
    assert local.code == 0, local.err
    remote = cluster.run(
        "filter", "--task", task, "-i", "gs://tamis-test/corpus/*.jsonl", "-j", "1"
    )
    assert remote.code == 0, remote.out + remote.err
    return local, remote


WATCH = ("--retrain-on-drift", "--trigger", "vertex:nightly", "--id", "one")


@pytest.fixture(scope="module")
def retrained(cluster, task, trained, window, here):
    local = run(here, "monitor", "--task", task, "--window", window[0], *WATCH)
    assert local.code == 0, local.err
    remote = cluster.run("monitor", "--task", task, "--window", window[1], *WATCH)
    assert remote.code == 0, remote.out + remote.err
    return local, remote


@pytest.fixture
def in_bucket(cluster, monkeypatch):
    """This process reads the bucket, too."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cluster.services.storage_url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(cluster.services.credentials))


def artifacts(cluster, here, output):
    """The newest JSON of an output, as both sides keep it, and the folders that it lies in."""
    ours = max(here.glob(f"artifacts/*/{output}/*/*/report.json"), key=lambda f: f.stat().st_mtime)
    files = [
        file
        for file in cluster.bucket.find("tamis-test", detail=True).values()
        if f"/{output}/" in file["name"] and file["name"].endswith("report.json")
    ]
    theirs = max(files, key=lambda file: file["timeCreated"])["name"]
    read = [json.loads(ours.read_text()), json.loads(cluster.bucket.cat_file(theirs))]
    return *read, ours.parent, theirs.rpartition("/")[0]


def job_of(cluster, pipeline):
    wanted = {"pipeline": pipeline, "task": "small"}
    return next(job for job in cluster.jobs() if job["labels"].items() >= wanted.items())


def test_a_stack_has_to_be_registered_and_is_once(up):
    before, refused, first, second = up
    assert before.code == 2 and "`python run.py stack up vertex` mends that" in before.err
    assert refused.code == 2 and "zenml secret create tamis_mlflow" in refused.err
    assert first.code == 0 and "stack tamis-vertex made" in first.out
    assert second.code == 0 and "nothing to do" in second.out


def test_the_users_active_stack_stays_as_it_was(cluster, trained):
    assert cluster.zenml("print(json.dumps(Client().active_stack_model.name))") == "default"


def test_training_gives_the_local_figures(trained):
    local, remote = trained
    assert remote.result["status"] == "done" and remote.result["alias"] == "champion"
    for part in ("metrics", "baselines", "gains", "decision", "model_version"):
        assert remote.result[part] == local.result[part]


def registered(cluster, here, version="2"):
    """A version in the registries of both sides, and the figures of its run."""
    from mlflow import MlflowClient

    for uri in (f"sqlite:///{here}/mlflow.db", cluster.services.mlflow_url):
        client = MlflowClient(uri)
        found = client.get_model_version("small", version)
        yield found, client.get_run(found.run_id).data.metrics


def test_the_code_of_pipelines_and_steps_is_the_same(cluster, here, trained, filtered, retrained):
    for local, remote in (trained, filtered):
        assert remote.result["pipeline_code"] == local.result["pipeline_code"]
        assert len(remote.result["pipeline_code"]) > 16
    ours, theirs = (version.tags for version, _ in registered(cluster, here))
    assert ours["pipeline_code"] == theirs["pipeline_code"]


def test_the_server_knows_the_run_as_completed(cluster, trained):
    _, remote = trained
    code = f"print(json.dumps(Client().get_pipeline_run('{remote.result['run_id']}').status))"
    assert cluster.zenml(code) == "completed"
    listed = cluster.run("runs")
    assert listed.code == 0 and "tamis_training-" in listed.out and "completed" in listed.out


def test_every_step_ran_where_the_stack_says(cluster, trained):
    tasks = cluster.inside(job_of(cluster, "tamis_training"))["tasks"]
    steps = {"ingest", "validate", "split", "train", "evaluate", "behave", "gate", "register"}
    assert set(tasks) == steps
    for step, task in tasks.items():
        assert task["exit_code"] == 0
        assert task["env"]["ZENML_STORE_API_TOKEN"] == "***"
        gpu = step in ("train", "evaluate")
        assert task["image"].endswith("steps:1-gpu" if gpu else "steps:1-cpu")
        if step not in ("train", "evaluate"):
            assert task["resources"].items() >= CPU.items() and task["custom_job"] is None
    two = tasks["evaluate"]["resources"]
    assert two["resourceMemoryLimit"] == "32Gi" and two["cpuLimit"] == 8.0
    assert two["accelerator"]["type"] == "NVIDIA_TESLA_T4" and int(two["accelerator"]["count"]) == 2


def test_a_machine_by_its_type_is_a_spot_job_with_all_that_belongs_to_it(cluster, trained):
    task = cluster.inside(job_of(cluster, "tamis_training"))["tasks"]["train"]
    name = task["custom_job"].rsplit("/", 1)[-1]
    job = cluster.vertex("GET", f"{API}/customJobs/{name}").json()
    (pool,) = job["jobSpec"]["workerPoolSpecs"]
    machine = pool["machineSpec"]
    assert machine["machineType"] == "g2-standard-8"
    assert (machine["acceleratorType"], machine["acceleratorCount"]) == ("NVIDIA_L4", 1)
    assert pool["diskSpec"]["bootDiskSizeGb"] == 200
    assert job["jobSpec"]["scheduling"]["strategy"] == "SPOT"
    assert job["jobSpec"]["serviceAccount"].startswith("tamis-steps@")
    assert job["jobSpec"]["network"] == "projects/123456789012/global/networks/tamis"
    assert job["labels"]["task"] == "small" and job["labels"]["team"] == "data"


def test_the_job_has_labels_account_network_and_no_cache(cluster, trained):
    job = job_of(cluster, "tamis_training")
    assert job["state"] == "PIPELINE_STATE_SUCCEEDED"
    labels = {"task": "small", "pipeline": "tamis_training", "team": "data"}
    assert job["labels"].items() >= labels.items()
    assert job["labels"]["run"].startswith("tamis_training-")
    full = cluster.vertex("GET", f"{API}/pipelineJobs/{id_of(job)}").json()
    assert full["serviceAccount"].startswith("tamis-steps@")
    assert full["network"].endswith("networks/tamis")
    for task in full["pipelineSpec"]["root"]["dag"]["tasks"].values():
        assert not task["cachingOptions"].get("enableCache", False)


def test_nothing_but_source_is_uploaded(cluster, trained):
    archive = cluster.bucket.glob("tamis-test/code_uploads/*.tar.gz")[-1]
    with tarfile.open(fileobj=io.BytesIO(cluster.bucket.cat_file(archive))) as packed:
        names = [name.removeprefix("./") for name in packed.getnames()]
    files = [name for name in names if "." in name.rsplit("/", 1)[-1]]
    assert {"steps/model.py", "pipelines/training.py", "tamis/task.py"} <= set(files)
    odd = [name for name in files if not name.endswith(".py")]
    assert odd == ["data/demo_annotations.jsonl"]
    assert {name.split("/")[0] for name in files} == {
        "data", "deployment", "materializers", "pipelines", "steps", "tamis"
    }  # fmt: skip


def test_the_model_is_in_mlflow_with_its_alias(cluster, trained):
    status = cluster.run("status", "--task", cluster.folder / "small.yaml")
    assert status.code == 0 and status.result["alias"] == "champion"
    found = cluster.services.mlflow_url
    from mlflow import MlflowClient

    version = MlflowClient(found).get_model_version_by_alias("small", "champion")
    assert version.tags["pipeline_code"] and version.source.startswith("mlflow-artifacts:")
    assert cluster.bucket.exists("tamis-test/mlflow")


def test_a_filter_writes_to_the_bucket_what_it_writes_here(filtered, here, in_bucket):
    local, remote = filtered
    assert remote.result["counts"] == local.result["counts"]
    assert remote.result["counts"]["quarantined"] == 3
    output = remote.result["outputs"]["output"]
    assert output.startswith("gs://tamis-test/output/small/")
    assert len(read_manifest(output).shards) == 3
    for part in ("kept", "dropped", "duplicates"):
        mine, theirs = (sorted_rows(where, part) for where in (str(here / "out"), output))
        assert [plain(row) for row in mine] == [plain(row) for row in theirs]
        scores = [[row["score"] for row in rows] for rows in (mine, theirs)]
        assert np.allclose(*[np.array(side, dtype=float) for side in scores], atol=1e-6)
    assert local.result["counts"]["kept"] > 0


def sorted_rows(where, part):
    return sorted(read_output(where, part), key=lambda row: row["id"])


def plain(row):
    """A row without what names the place or the float's last digit."""
    left_out = {"score", "encoder_score", "student_score", "shard", "url"}
    return {key: value for key, value in row.items() if key not in left_out}


def test_watching_gives_the_local_verdict(cluster, retrained, here):
    ours, theirs, _, folder = artifacts(cluster, here, "monitor_report")
    for report in (ours, theirs):
        del report["at"], report["source"]
    assert theirs == ours
    assert (ours["severity"], ours["drift"]["drifted"], ours["documents"]) == ("alarm", True, 179)
    assert len(ours["drift"]["tests"]) == 7 and ours["drift"]["p"] < 0.01
    assert b"<svg" in cluster.bucket.cat_file(f"{folder}/report.html")
    pages = cluster.bucket.glob("tamis-test/**/evidently_report/**/output.html")
    assert pages and b"Dataset Drift" in cluster.bucket.cat_file(pages[-1])
    assert cluster.bucket.glob("tamis-test/monitoring/small/windows/*.json")


def test_a_window_is_watched_where_the_stack_says(cluster, retrained):
    job = job_of(cluster, "tamis_monitoring")
    assert job["labels"]["team"] == "data" and job["labels"]["run"].startswith("tamis_monitoring-")
    tasks = cluster.inside(job)["tasks"]
    assert set(tasks) == {"watch", "remember"}
    watch, remember = (tasks[step] for step in ("watch", "remember"))
    assert watch["resources"]["accelerator"]["type"] == "NVIDIA_TESLA_T4"
    assert watch["image"].endswith("steps:1-gpu") and remember["image"].endswith("steps:1-cpu")
    assert remember["resources"].items() >= CPU.items()


def test_drift_ends_in_the_local_retraining(cluster, retrained, here):
    local, remote = retrained
    assert remote.result["outputs"] == local.result["outputs"] == {"end": "promoted"}
    for part in ("drift", "decision", "model_version"):
        assert remote.result[part] == local.result[part]
    (ours, figures), (theirs, their_figures) = registered(cluster, here)
    assert their_figures == figures and len(figures) > 10
    assert theirs.aliases == ours.aliases == ["champion"]
    drift, their_drift, *_ = artifacts(cluster, here, "drift")
    assert their_drift == drift and drift["drifted"]
    assert cluster.bucket.exists("tamis-test/ledger/small/000002.json")
    tasks = cluster.inside(job_of(cluster, "tamis_retraining"))["tasks"]
    assert "measure_drift" in tasks or "measure-drift" in tasks


def test_an_event_is_taken_once_and_one_at_a_time(cluster, retrained, task, window, in_bucket):
    jobs = len(cluster.jobs())
    again = cluster.run("monitor", "--task", task, "--window", window[1], *WATCH)
    assert again.code == 0 and again.result["outputs"] == {"end": "ignored"}
    assert "It is a duplicate: run 000001 was about it." in again.out
    assert len(cluster.jobs()) == jobs
    books = Retrains("gs://tamis-test/ledger", "small")
    told = [(entry.action, entry.passed, entry.end) for entry in books.ledger.entries()]
    assert told == [
        ("decided", True, None), ("retrained", True, None), ("released", True, None),
        ("ended", True, "promoted"), ("ignored", None, None),
    ]  # fmt: skip
    assert {str(entry.trigger) for entry in books.ledger.entries()} == {"vertex:nightly"}
    assert books.unfinished() is None
    other = Retrains("gs://tamis-test/ledger", "small")
    with books.lock(), pytest.raises(RunUnderWay, match="another run is under way"), other.lock():
        pass
    assert not cluster.bucket.exists("tamis-test/ledger/small/retrains/lock")


def test_a_retraining_that_was_left_is_found_by_its_window(cluster, retrained):
    """By what ``deployment.retraining.stages`` looks for after a crash."""
    code = """
found = Client().list_pipeline_runs(size=20, sort_by="desc:created", hydrate=True).items
mine = [run for run in found if (run.config.parameters or {}).get("window_stamp")]
print(json.dumps([[str(r.id), r.pipeline.name, r.config.parameters["task"]["name"]] for r in mine]))
"""
    assert cluster.zenml(code) == [[retrained[1].result["run_id"], "tamis_retraining", "small"]]


def test_what_was_served_is_frozen_where_the_machines_read_it(
    task, tmp_path, in_bucket, monkeypatch
):
    registry = SimpleNamespace(get=lambda task, version: SimpleNamespace(version="1"))
    monkeypatch.setattr("deployment.registry.Registry", lambda: registry)
    home = SimpleNamespace(home=tmp_path, shared="gs://tamis-test", remote=True, name="vertex")
    watcher, now = Watcher(home, load_task(task), None, ()), datetime.now(UTC)
    fill(tmp_path / "log", [record(n, f"{n} {TEXT}") for n in range(30)], keep="masked")

    def asked(start, end):
        return TriggerRequest(
            task="small", stack="vertex", trigger=Trigger(kind="vertex"), log=str(tmp_path / "log"),
            start=(now + timedelta(minutes=start)).isoformat(),
            end=(now + timedelta(minutes=end)).isoformat(),
        )  # fmt: skip

    seen = watcher._asked(asked(-5, 5), now)
    (file,) = seen.window
    assert file.startswith("gs://tamis-test/monitoring/small/frozen/") and seen.log is None
    read = window_of_files(seen.window, load_task(task), "1")
    assert len(read) == 30 and read.texts[0].endswith(TEXT)
    assert watcher._asked(asked(-5, 5), now) == seen
    with pytest.raises(UsageError, match="nothing was served in that time"):
        watcher._asked(asked(-50, -40), now)
    facts = watcher.monitor(Work(run="000001", at=now, begun=now, request=asked(-50, -40)))
    assert (facts.documents, facts.files) == (0, ())


def test_a_run_says_what_it_cost(trained, filtered):
    for _, remote in (trained, filtered):
        assert "g2-standard-8 with NVIDIA_L4, spot" in remote.out and "USD" in remote.out
        assert remote.result["cost"]["USD"] > 0
        assert remote.result["cost"]["hours, g2-standard-8 with NVIDIA_L4, spot"] > 0


def test_logs_of_a_step_are_read_from_the_bucket(cluster, filtered):
    run_id = filtered[1].result["run_id"]
    shown = cluster.run("logs", run_id, "--step", "manifest")
    assert shown.code == 0 and "manifest" in shown.out
    wrong = cluster.run("logs", run_id, "--step", "nope")
    assert wrong.code == 2 and "given 'nope'; allowed: " in wrong.err


def test_rollback(cluster, filtered, retrained, task, here):
    back = cluster.run("rollback", "--task", task)
    assert back.code == 0, back.err
    versions = [version.aliases for version, _ in registered(cluster, here, "1")]
    assert versions == [[], ["champion"]]


def test_a_stack_that_is_ready_and_one_whose_image_is_missing(cluster, up):
    looked = cluster.run("stack", "check", "vertex")
    assert looked.code == 0, looked.out
    assert "✓ bucket gs://tamis-test" in looked.out and "✓ MLflow accepts the secret" in looked.out
    assert "✓ stack vertex in ZenML" in looked.out and "vertex is ready" in looked.out
    path = cluster.folder / "stacks" / "vertex.yaml"
    (path.parent / "later.yaml").write_text(path.read_text().replace("steps:1-gpu", "steps:2-gpu"))
    looked = cluster.run("stack", "check", "later")
    assert looked.code == 2
    wrong = [line for line in looked.out.splitlines() if line.startswith("✗")]
    assert len(wrong) == 2 and "`python run.py stack up later`" in wrong[0]
    assert "steps:2-gpu is not in the registry; `gcloud builds submit" in wrong[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["filter", "-i", "corpus"], "--input: given 'corpus', which lies on this machine"),
        (["filter", "-o", "out"], "--output: given 'out', which lies on this machine"),
        (["monitor", "-w", "gs://tamis-test/none/*.jsonl"], "matches no file"),
    ],
)
def test_what_the_machines_cannot_see_is_refused(cluster, trained, task, arguments, part):
    jobs = len(cluster.jobs())
    refused = cluster.run(*arguments, "--task", task)
    assert refused.code == 2 and part in refused.err and "Traceback" not in refused.err
    assert len(cluster.jobs()) == jobs
