import csv
import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.corpus.decontamination import Decontaminator, fingerprint
from tamis.corpus.settings import DecontaminationSettings
from tamis.errors import UsageError

WORDS = [f"{a}{b}{c}" for a in "bcdfg" for b in ("ar", "el", "in") for c in ("na", "to", "mi", "")]


def run(count, seed=0):
    return " ".join(random.Random(seed).choices(WORDS, k=count))


QUESTION = run(20, seed=1)
PROSE = run(400, seed=2)


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def against(*files, **settings):
    return Decontaminator(DecontaminationSettings(files=tuple(map(str, files)), **settings))


def part(text, first, last):
    return " ".join(text.split()[first:last])


@pytest.fixture
def evaluation(tmp_path):
    return jsonl(tmp_path / "eval.jsonl", {"question": QUESTION, "id": 7})


def test_thirteen_words_in_a_row_and_no_fewer(evaluation):
    index = against(evaluation)
    assert index.runs == 8 and index.too_short == 0
    for first in range(8):
        found = f"{PROSE} {part(QUESTION, first, first + 13)} {PROSE}"
        assert index.reason(found) == "contaminated:eval.jsonl"
    assert index.reason(f"{PROSE} {part(QUESTION, 0, 12)} and {part(QUESTION, 12, 20)}") is None
    assert index.reason(PROSE) is None
    assert against(evaluation, ngram=8).reason(part(QUESTION, 3, 11)) == "contaminated:eval.jsonl"


def test_case_punctuation_and_blanks_do_not_count(evaluation):
    index = against(evaluation)
    words = part(QUESTION, 2, 16).split()
    for text in (" ".join(words).upper(), ", ".join(words), "\n- ".join(words), "_".join(words)):
        assert index.reason(f"“{text}”!") == "contaminated:eval.jsonl"
    assert index.reason("".join(words)) is None


def test_every_string_of_a_row_counts_by_itself(tmp_path):
    file = jsonl(
        tmp_path / "e.jsonl",
        {"q": run(14, 3), "a": {"choices": [run(15, 4), run(9, 5)], "n": 3}, "none": None},
    )
    index = against(file)
    for seed, count in ((3, 14), (4, 15), (5, 9)):
        assert index.reason(f"x {run(count, seed)} y") == "contaminated:e.jsonl"
    across = f"{part(run(14, 3), 4, 14)} {part(run(15, 4), 0, 10)}"
    assert index.reason(across) is None


def test_short_texts_count_as_a_whole(tmp_path):
    rows = [
        {"q": run(8, 6)},
        {"q": run(7, 7)},
        {"q": "", "a": 4},
        {"q": run(3, 8), "a": run(12, 9)},
    ]
    index = against(jsonl(tmp_path / "e.jsonl", *rows))
    assert (index.runs, index.too_short) == (2, 2)
    assert index.reason(f"a {run(8, 6)} b") and index.reason(f"a {run(12, 9)} b")
    assert index.reason(f"a {run(7, 7)} b") is None
    assert index.reason(f"a {part(run(12, 9), 0, 11)} b") is None
    few = against(jsonl(tmp_path / "f.jsonl", {"q": run(4, 6)}), ngram=4)
    assert few.reason(f"a {run(4, 6)} b")


def test_least_number_of_different_runs(evaluation):
    index = against(evaluation, min_matches=3)
    assert index.reason(f"{part(QUESTION, 0, 13)} x " * 3) is None
    assert index.reason(part(QUESTION, 0, 14)) is None
    assert index.reason(part(QUESTION, 0, 15)) == "contaminated:eval.jsonl"


def test_the_file_of_the_run_found_first(tmp_path):
    one = jsonl(tmp_path / "one.jsonl", {"q": run(13, 1)}, {"q": run(13, 3)})
    two = jsonl(tmp_path / "two.jsonl", {"q": run(13, 2)}, {"q": run(13, 3)})
    assert against(one, two).reason(f"{run(13, 2)} x {run(13, 1)}") == "contaminated:two.jsonl"
    assert against(two, one).reason(run(13, 3)) == "contaminated:two.jsonl"


def test_every_format(tmp_path):
    rows = [{"q": run(13, 10 + i), "n": i} for i in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    files = [jsonl(tmp_path / "a.jsonl", *rows)]
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.json").write_text(json.dumps(rows))
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("q", "n"), *(row.values() for row in rows)])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    (tmp_path / "f.txt").write_text("\ufeff" + "\n\n".join(row["q"] for row in rows))
    files += [tmp_path / n for n in ("b.jsonl.gz", "c.json", "d.csv", "e.parquet", "f.txt")]
    for file in files:
        index = against(file)
        assert (index.runs, index.too_short) == (3, 0), file
        assert index.reason(run(13, 12)) == f"contaminated:{file.name}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.jsonl", None),
        ("a.jsonl", b"{broken\n"),
        ("a.jsonl", b"\xff\xfe\n"),
        ("a.jsonl", b'{"q": 1}\n'),
        ("a.jsonl", b'{"q": "only a few words"}\n'),
        ("a.jsonl", b""),
        ("a.jsonl", b"[" * 100_000),
        ("a.jsonl.gz", b"no gzip"),
        ("a.csv", b'q\n"open'),
        ("a.parquet", b"PAR1 no"),
        ("a.docx", b"x"),
        ("noformat", b"x"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, name, content):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"filter.decontamination.files: .*{name}"):
        against(file)


def test_many_rows_are_indexed_in_batches(tmp_path):
    rows = [{"q": f"{run(12, i)} row{i}"} for i in range(9_000)]
    index = against(jsonl(tmp_path / "e.jsonl", *rows))
    assert (index.runs, index.too_short) == (9_000, 0)
    for i in (0, 4_321, 8_999):
        assert index.reason(rows[i]["q"])
    assert not any(index.reason(f"{run(12, i)} row{i + 1}") for i in range(100))


def test_runs_at_any_place_of_a_long_text(evaluation):
    index = against(evaluation)
    filler = "word " * 250_000
    for cut in (999_900, 999_980, 1_009_950, 1_010_000):
        text = f"{filler[:cut]} {QUESTION} {filler}"
        assert index.reason(text) == "contaminated:eval.jsonl", cut


def test_nothing_given_finds_nothing():
    assert Decontaminator(DecontaminationSettings()).reason(QUESTION) is None


def test_fingerprint_follows_names_and_content(tmp_path, evaluation):
    def of(*files):
        return fingerprint(DecontaminationSettings(files=tuple(map(str, files))))

    first = of(evaluation)
    assert first == of(evaluation) != of() != of(evaluation, evaluation)
    other = tmp_path / "other.jsonl"
    other.write_bytes(evaluation.read_bytes())
    assert of(other) != first
    evaluation.write_text(evaluation.read_text() + " ")
    assert of(evaluation) != first
    with pytest.raises(UsageError, match="filter.decontamination.files"):
        of(tmp_path / "missing.jsonl")


HOSTILE = {
    "one character": "a" * 20_000_000,
    "line feeds": "\n" * 1_000_000,
    "surrogates": "\ud800" * 1_000_000,
    "NULs": "\x00 a " * 300_000,
    "emoji": "😀 " * 500_000,
    "right to left": "\u202eשלום " * 100_000,
    "growing in lower case": "İ" * 1_000_000,
    "empty": "",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_pass(evaluation, name):
    assert against(evaluation).reason(HOSTILE[name]) is None
