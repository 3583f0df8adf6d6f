"""Two versions of one task's data, and a model made again on the first of them."""

import csv
import shutil

import pytest

from tests.program import PROJECT, run, run_warm
from tests.tiny import easy_set, save_tiny_bert

pytestmark = pytest.mark.pipeline

TASK = """\
name: versions
target: {kind: ordinal, keep_at_least: 3}
sources:
  - {kind: files, path: FOLDER/labels.csv, columns: {id: id, group: group}}
text: {max_tokens: 64}
split: {folds: 0}
model:
  backbone: {kind: path, path: BACKBONE}
  frozen: {layers: [2], heads: [ridge]}
gate: {floor: 0.0, beat: [median]}
"""
COPIED = ("cli", "configs", "data", "deployment", "materializers", "pipelines", "steps", "tamis")


def write_labels(folder, size, shift=0.0):
    rows = easy_set(120).table.to_pylist()[:size]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "group"])
        for number, row in enumerate(rows):
            label = min(row["label"] + (shift if number < 10 else 0), 5)
            writer.writerow([row["id"], row["text"], label, row["group"]])


def changed_project(folder):
    """The project with one comment more, so that no step's result is reused."""
    for name in COPIED:
        shutil.copytree(PROJECT / name, folder / name,
                        ignore=shutil.ignore_patterns("__pycache__", "terraform"))  # fmt: skip
    shutil.copy(PROJECT / "run.py", folder / "run.py")
    helper = folder / "tamis" / "corpus" / "split.py"
    helper.write_text(helper.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    return folder


def test_a_model_is_made_again_on_the_data_of_then(tmp_path):
    home = tmp_path / "home"
    backbone = save_tiny_bert(tmp_path / "bert")
    task = tmp_path / "versions.yaml"
    text = TASK.replace("BACKBONE", str(backbone)).replace("FOLDER", str(tmp_path))
    task.write_text(text, encoding="utf-8")
    write_labels(tmp_path, 120)
    then = run_warm(home, "train", "--task", task)
    assert then.code == 0, then.out + then.err
    write_labels(tmp_path, 100, shift=1.0)
    later = run_warm(home, "train", "--task", task)
    assert later.result["model_version"] == "2", later.out + later.err

    (tmp_path / "labels.csv").unlink()  # nothing but the artifact can give them back
    project = changed_project(tmp_path / "project")
    again = run(home, "train", "--task", task, "--data", "champion", project=project)
    assert again.code == 0, again.out + again.err
    assert "unchanged, result reused" not in again.out
    # A model with the same digest is the version that is there, and gets no number of its own.
    assert again.result["model_version"] == then.result["model_version"] == "1"
    for part in ("metrics", "baselines", "gains", "threshold"):
        assert again.result[part] == then.result[part]
    assert again.result["metrics"] != later.result["metrics"]

    # To train on old data does not make them the latest.
    found = run_warm(home, "data", "diff", "champion", "latest", "--task", task)
    assert found.code == 0, found.err
    counts = found.result["counts"]
    assert (counts["removed"], counts["added"], counts["text changed"]) == (20, 0, 0)
    assert 0 < counts["relabelled"] <= 10
    assert counts["both"] == 100 == counts["unchanged"] + counts["relabelled"]
