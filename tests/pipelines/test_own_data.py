"""Somebody else's table: a task file of ten lines and no change of code."""

import csv
import gzip
import json
from random import Random

import pytest

from tests.program import run_warm

pytestmark = pytest.mark.pipeline

GOOD = """
light energy water sugar plant cell proof theorem number angle force mass planet orbit acid
atom electron species gene river rock layer history reason example because therefore defines
"""
BAD = """
click buy cheap shoes now free delivery offer subscribe today sale price login cart cookie
accept terms follow share like deal shop order coupon brand gift winner casino bonus spin vip
"""


def rows(count, seed=0):
    """Texts of random words, the better the more of them are of the good kind."""
    random = Random(seed)
    for _ in range(count):
        share = random.random()
        kinds = [GOOD if random.random() < share else BAD for _ in range(24)]
        words = [random.choice(kind.split()) for kind in kinds]
        yield " ".join(words), round(5 * share, 2)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "theirs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "score"])
        writer.writerows(rows(240))
    return path


def test_a_ten_line_task_trains_on_a_csv(tmp_path, table):
    task = tmp_path / "theirs.yaml"
    task.write_text(
        "name: theirs\n"
        "target: {kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 3}\n"
        "sources:\n"
        "  - kind: files\n"
        f"    path: {table.name}\n"
        "    columns: {text: text, label: score}\n"
        "text: {max_tokens: 32}\n"
        "model: {frozen: {layers: [1], heads: [ridge]}}\n"
        "split: {folds: 0}\n"
        "gate: {beat: [median]}\n",
        encoding="utf-8",
    )
    outcome = run_warm(tmp_path / "home", "train", "--task", task)
    assert outcome.code == 0, outcome.out + outcome.err
    assert outcome.result["metrics"]["spearman"]["value"] > 0.5


def test_a_binary_task_on_compressed_lines_trains(tmp_path):
    with gzip.open(tmp_path / "tweets.jsonl.gz", "wt", encoding="utf-8") as file:
        for text, score in rows(200):
            file.write(json.dumps({"body": text, "polarity": 4 if score > 2.5 else 0}) + "\n")
    task = tmp_path / "tweets.yaml"
    task.write_text(
        "name: tweets\n"
        "target: {kind: binary, negative: '0', positive: '4'}\n"
        "sources:\n"
        "  - {kind: files, path: tweets.jsonl.gz, columns: {text: body, label: polarity}}\n"
        "text: {max_tokens: 32}\n"
        "model: {frozen: {layers: [1], heads: [ridge]}}\n"
        "split: {folds: 0}\n"
        "gate: {beat: [median]}\n",
        encoding="utf-8",
    )
    outcome = run_warm(tmp_path / "home", "train", "--task", task)
    assert outcome.code == 0, outcome.out + outcome.err
    assert outcome.result["metrics"]["average_precision"]["value"] > 0.9
    assert "spearman" not in outcome.result["metrics"]


def test_documents_that_fail_validation_stop_the_run_with_one_sentence(tmp_path):
    table = tmp_path / "bad.csv"
    lines = ["text,score"] + [f"{text},{n % 9}" for n, (text, _) in enumerate(rows(100))]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = tmp_path / "bad.yaml"
    task.write_text(
        "name: bad\n"
        "target: {kind: ordinal, keep_at_least: 3}\n"
        "sources: [{kind: files, path: bad.csv, columns: {text: text, label: score}}]\n",
        encoding="utf-8",
    )
    outcome = run_warm(tmp_path / "home", "train", "--task", task)
    assert outcome.code == 1
    assert "fail validation" in outcome.err
    assert "usable" in outcome.err
    assert "bad#6 (label 6 is off the scale 0-5)" in outcome.err
    assert "Traceback" not in outcome.err
