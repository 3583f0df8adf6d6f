"""Versions of data: which artifacts are one, how they are named, how they are read and written."""

import json
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from deployment import data_versions
from deployment.data_export import SUFFIXES, check_target, export
from deployment.data_versions import (
    Facts,
    Kept,
    Unreadable,
    assemble,
    described,
    load_artifact,
    present,
)
from deployment.registry import Version
from materializers.dataset import MOST_SOURCES, DatasetMaterializer
from tamis.corpus.sources import ingest
from tamis.errors import DataError, UsageError
from tamis.task import Task
from tests.tiny import BINARY, ORDINAL, labelled

DAY = datetime(2026, 3, 1, tzinfo=UTC)
FIRST, SECOND, THIRD = "abc1" + "0" * 60, "abc2" + "0" * 60, "def0" + "0" * 60


def kept(fingerprint, day, number=0, kind="documents", content="c", task="toy", labels=9):
    return Kept(
        id=f"{number}{day}{kind[0]}-id",
        kind=kind,
        at=DAY + timedelta(days=day),
        content=content,
        uri=f"/nowhere/{fingerprint[:4]}/{day}",
        facts=Facts(task=task, fingerprint=fingerprint, documents=10, labelled=labels,
                    sources={"web": 10}, labels_by="people"),
    )  # fmt: skip


def model(number, fingerprint, *aliases):
    tags = {"data_fingerprint": fingerprint}
    return Version("toy", str(number), aliases, tags, source="", run_id="")


def three():
    artifacts = [kept(THIRD, 3, kind="window", labels=0), kept(SECOND, 2), kept(FIRST, 1),
                 kept(FIRST, 4), kept(SECOND, 0, task="other")]  # fmt: skip
    models = [model(3, "eee" + "0" * 61), model(2, SECOND), model(1, FIRST, "champion")]
    return assemble("toy", artifacts, models)


def test_one_fingerprint_is_one_version_with_its_dates_and_models():
    found = three()
    assert [each.name for each in found.versions] == [
        "def000000000",
        "abc200000000",
        "abc100000000",
    ]
    old = found.versions[-1]
    assert (old.first, old.last) == (DAY + timedelta(days=1), DAY + timedelta(days=4))
    assert len(old.artifacts) == 2 and old.models[0].aliases == ("champion",)
    assert len(found.versions[1].artifacts) == 1, "another task's data are another task's"
    assert list(found.gone) == ["eee" + "0" * 61]


@pytest.mark.parametrize(
    ("given", "fingerprint"),
    [("abc1", FIRST), ("ABC1", FIRST), (SECOND, SECOND), ("d", THIRD), ("champion", FIRST),
     ("latest", SECOND)],
)  # fmt: skip
def test_a_version_is_found(given, fingerprint):
    """Neither a window nor an old version that was trained on again is the latest."""
    assert three().find(given, "--data").fingerprint == fingerprint


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("abc", "several begin; allowed: abc200000000, abc100000000"),
        ("99", "allowed: the beginning of def000000000, abc200000000, abc100000000, or champion"),
        ("", "given ''; allowed"),
        ("eee", "model 3 was trained on these documents, but their artifact was deleted"),
        ("abc1@", "allowed after the @: one of 01d-id, 04d-id"),
        ("abc1@zz", "allowed after the @"),
    ],
)
def test_a_version_that_is_none_gets_one_sentence(given, told):
    with pytest.raises(UsageError, match="^--data: given ") as caught:
        three().find(given, "--data")
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_without_any_version_the_way_to_one_is_told():
    for given in ("champion", "latest", "abc"):
        with pytest.raises(UsageError, match=r"nothing yet; run `python run.py train --task toy`"):
            assemble("toy", [], []).find(given, "V")


def test_one_artifact_of_a_version_can_be_named():
    found = three().find("abc1@01", "--data")
    assert [each.id for each in found.artifacts] == ["01d-id"]


def test_forms_are_counted_by_what_is_known_of_them():
    def forms(*contents):
        artifacts = [kept(FIRST, day, content=each) for day, each in enumerate(contents)]
        return assemble("toy", artifacts, []).versions[0].forms

    assert forms("a", "a") == 1 and forms("a", "b") == 2
    # Older artifacts have the fingerprint there, which says nothing of the order.
    assert forms(FIRST, "a") == 1 and forms(FIRST) == 1


class Saved:
    """A dataset as the materializer leaves it, seen as ZenML shows an artifact."""

    def __init__(self, folder, dataset):
        folder.mkdir(parents=True)
        self.materializer = DatasetMaterializer(str(folder))
        self.materializer.save(dataset)
        self.id, self.uri = "17", str(folder)
        self.created = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        self.run_metadata = self.materializer.extract_metadata(dataset)
        self.content_hash = self.materializer.compute_content_hash(dataset)


@pytest.fixture
def saved(tmp_path):
    texts = [f"text {n}" for n in range(4)]
    return Saved(tmp_path / "artifact", labelled(texts, [1.0, 2.0, None, 3.0]))


def test_the_metadata_say_all_that_a_list_shows(saved):
    saved.uri = "/nowhere"  # nothing but the metadata is looked at
    found = described("documents", saved)
    assert isinstance(found, Kept)
    assert (found.facts.documents, found.facts.labelled) == (4, 3)
    assert found.facts.sources == {"web": 4} and found.facts.labels_by == "a test"
    assert found.at == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_an_artifact_of_before_is_described_by_its_small_file(saved):
    saved.run_metadata = {"fingerprint": "x", "documents": 4}
    assert described("window", saved).facts.task == "toy"


@pytest.mark.parametrize("left", ["", "{", '{"task": 1}', None])
def test_what_cannot_be_read_is_listed_and_breaks_nothing(saved, tmp_path, left):
    info = tmp_path / "artifact" / "info.json"
    info.unlink() if left is None else info.write_text(left)
    saved.run_metadata = {}
    found = described("documents", saved)
    assert isinstance(found, Unreadable) and found.reason
    assert "\n" not in found.reason
    both = assemble("toy", [found, kept(FIRST, 1)], [])
    assert both.unreadable == (found,) and len(both.versions) == 1


def test_very_many_sources_are_counted_together():
    many = [f"s{n}" for n in range(MOST_SOURCES + 50)]
    data = labelled([f"t{n}" for n in range(len(many))], [1.0] * len(many), sources=many)
    sources = DatasetMaterializer.extract_metadata(None, data)["sources"]
    assert len(sources) == MOST_SOURCES + 1 and sum(sources.values()) == len(many)


def test_the_content_hash_sees_what_the_fingerprint_does_not():
    def hashed(**more):
        data = labelled(["a", "b"], [1.0, None], **more)
        return DatasetMaterializer.compute_content_hash(None, data), data.info.fingerprint

    plain, grouped = hashed(), hashed(groups=["g", "g"])
    assert plain[1] == grouped[1] and plain[0] != grouped[0] and hashed() == plain


def test_the_newest_artifact_that_is_there_is_taken(tmp_path):
    artifacts = []
    for day in range(3):
        folder = tmp_path / str(day)
        folder.mkdir()
        artifacts.append(kept(FIRST, day).model_copy(update={"uri": str(folder)}))
    version = assemble("toy", artifacts, []).versions[0]
    with pytest.raises(UsageError, match="its files were deleted from"):
        present(version)
    (tmp_path / "1" / "documents.parquet").touch()
    assert present(version).id == artifacts[1].id


@pytest.fixture
def zenml_has(monkeypatch):
    """What ZenML's client gives for any artifact."""

    def has(load):
        client = SimpleNamespace(get_artifact_version=lambda _: SimpleNamespace(load=load))
        monkeypatch.setattr("zenml.client.Client", lambda: client)

    return has


def test_an_artifact_is_loaded_as_it_was(saved, zenml_has):
    zenml_has(lambda disable_cache: saved.materializer.load(object))
    assert load_artifact("17").info.documents == 4


def fails(error):
    def load(disable_cache):
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (fails(KeyError("no such artifact")), "it was deleted or cannot be read"),
        (fails(FileNotFoundError(2, "gone\nfor good")), "it was deleted or cannot be read"),
        (lambda disable_cache: "text", "it holds no labelled documents"),
    ],
)
def test_an_artifact_that_cannot_be_had_is_told_in_one_sentence(zenml_has, load, told):
    zenml_has(load)
    with pytest.raises(DataError, match=f"data artifact 17: {told}") as caught:
        load_artifact("17")
    assert "\n" not in str(caught.value)


def test_documents_that_are_not_those_of_then_are_refused(zenml_has):
    one, other = labelled(["a"], [1.0]), labelled(["b"], [1.0])
    zenml_has(lambda disable_cache: data_versions.Dataset(table=one.table, info=other.info))
    with pytest.raises(DataError, match="not those that were ingested"):
        load_artifact("17")


HARD = ["plain text", 'a "quoted", one', "two\nlines", "=1+1", "naïve 漢字 🙂", "a\ttab; a\rreturn"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("target", "labels"),
    [(ORDINAL, [0.0, 2.5, None, 5.0, 1.0, 3.0]), (BINARY, [0.0, 1.0, None, 1.0, 0.0, 1.0])],
    ids=["ordinal", "binary"],
)
def test_an_export_is_read_again_by_a_files_source(tmp_path, suffix, target, labels):
    path = tmp_path / f"data{suffix}"
    columns = {"text": "text", "label": "label", "source": "source", "group": "group"}
    task = Task.model_validate(
        {
            "name": "toy",
            "target": target,
            "sources": [{"kind": "files", "path": str(path), "columns": columns}],
        }
    )
    data = labelled(HARD, labels, groups=[f"g{n // 2}" for n in range(6)], sources=["web"] * 6)
    export(data, path, task.target)
    again = ingest(task)
    assert again.info.left_out == ()
    for column in ("text", "source", "group", "sha256"):
        assert again.table[column].to_pylist() == data.table[column].to_pylist()
    assert repr(again.labels.tolist()) == repr(data.labels.tolist())
    assert [path] == list(tmp_path.iterdir())


def test_labels_are_exported_as_the_task_has_them(tmp_path):
    target = Task.model_validate(
        {"name": "toy", "target": BINARY, "sources": [{"kind": "packages"}]}
    ).target
    path = tmp_path / "d.jsonl"
    export(labelled(["a", "b"], [1.0, None]), path, target)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["label"] for row in rows] == ["good", None]
    assert list(rows[0]) == ["id", "text", "label", "source", "origin", "group", "sha256"]


def test_a_file_that_is_there_is_replaced_by_force_only(tmp_path):
    path = tmp_path / "data.csv"
    check_target(path, force=False)
    path.write_text("mine")
    with pytest.raises(UsageError, match="which is there; allowed: another name, or --force"):
        check_target(path, force=False)
    check_target(path, force=True)


@pytest.mark.parametrize(
    ("name", "told"),
    [("data.txt", "ends in .parquet, .jsonl, .csv"), ("data", "ends in"),
     ("none/data.csv", "a file that can be written"), ("folder.csv", "a file that can be written")],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused_before_the_work(tmp_path, name, told):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=told):
        check_target(tmp_path / name, force=True)


def test_an_export_that_fails_leaves_what_was_there(tmp_path):
    target = Task.model_validate(
        {"name": "toy", "target": BINARY, "sources": [{"kind": "packages"}]}
    ).target
    path = tmp_path / "d.csv"
    path.write_text("mine")
    with pytest.raises(DataError):
        export(labelled(["a"], [4.0]), path, target)
    assert path.read_text() == "mine" and [path] == list(tmp_path.iterdir())
