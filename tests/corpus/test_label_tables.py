"""Labelled tables of other forms than CSV: tabs, no header, no quotes, old encodings."""

import pytest

from tamis.config import validate
from tamis.corpus.sources import ingest
from tamis.errors import ConfigError
from tamis.task import Task
from tests.tiny import tiny_task

TARGET = {"kind": "binary", "negative": "negative", "positive": "positive"}
SENTIMENT140 = {
    "table": {"header": ["target", "ids", "date", "flag", "user", "text"], "encoding": "latin-1"},
    "columns": {"text": "text", "label": "target", "id": "ids", "group": "user"},
    "labels": {"kind": "values", "values": {"0": "negative", "4": "positive"}},
}


def made(tmp_path, name, content, **source):
    (tmp_path / name).write_bytes(content)
    files = {"kind": "files", "path": str(tmp_path / name), **source}
    return tiny_task(tmp_path, target=TARGET, sources=[files])


def test_no_header_an_old_encoding_and_labels_by_number(tmp_path):
    content = (
        '"0","7","Mon Apr 06","NO_QUERY","ann","caf\xe9 is shut, again"\n'
        '"4","8","Mon Apr 06","NO_QUERY","bob","yay"\n'
        '"2","9","Mon Apr 06","NO_QUERY","bob","so so"\n'
        '"4","9"\n'
    ).encode("latin-1")
    found = ingest(made(tmp_path, "training.1600000.csv", content, **SENTIMENT140))
    assert found.texts() == ["caf\xe9 is shut, again", "yay"]
    assert found.labels.tolist() == [0.0, 1.0]
    assert found.strings("group").tolist() == ["ann", "bob"]
    assert [left.reason for left in found.info.left_out] == ["bad_label", "wrong_field_count"]
    assert found.info.left_out[0].detail == "label '2' is not one of 0, 4"


def test_named_labels_of_a_csv_with_a_header(tmp_path):
    content = b"airline_sentiment,text\nnegative,late\nneutral,on time\npositive,early\n"
    labels = {"negative": "negative", "neutral": "positive", "positive": "positive"}
    task = made(
        tmp_path, "Tweets.csv", content,
        columns={"text": "text", "label": "airline_sentiment"},
        labels={"kind": "values", "values": labels},
    )  # fmt: skip
    assert ingest(task).labels.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["t.tsv", "t.TSV"])
def test_tabs_by_the_name_of_the_file(tmp_path, name):
    content = b"label\ttext\nnegative\ta, b\npositive\tc\n"
    found = ingest(made(tmp_path, name, content, columns={"text": "text", "label": "label"}))
    assert found.texts() == ["a, b", "c"]


def test_a_text_file_that_is_a_table_with_quotes_as_characters(tmp_path):
    content = b'negative|he said "no\npositive|"yes" she said\n'
    table = {"delimiter": "|", "header": ["label", "text"], "quoted": False}
    found = ingest(made(tmp_path, "t.txt", content, table=table))
    assert found.texts() == ['he said "no', '"yes" she said']


def test_a_header_without_the_column_of_texts(tmp_path):
    task = made(tmp_path, "t.csv", b"negative,a\n", table={"header": ["label", "words"]})
    with pytest.raises(Exception, match="no usable document") as caught:
        ingest(task)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("table", "key", "allowed"),
    [
        ({"header": ["a", "a"]}, "table.header", "names that differ"),
        ({"delimiter": "::"}, "table.delimiter", "','"),
        ({"encoding": "utf-16"}, "table.encoding", "'latin-1'"),
        ({"headers": []}, "table.headers", "did you mean 'header'?"),
    ],
)
def test_a_wrong_form_is_refused(table, key, allowed):
    source = {"kind": "files", "path": "t.csv", "table": table}
    with pytest.raises(ConfigError) as caught:
        validate(Task, {"name": "toy", "target": TARGET, "sources": [source]}, "toy.yaml")
    assert caught.value.key == f"sources.0.{key}" and allowed in caught.value.allowed
