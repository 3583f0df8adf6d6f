import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.corpus import packages, sources
from tamis.corpus.packages import PackageDocument
from tamis.corpus.sources import ingest, ingest_window, stamp
from tamis.errors import ConfigError, DataError, UsageError
from tamis.target import ClassesTarget, OrdinalTarget
from tamis.task import Columns, FilesSource, HubSource, PackagesSource, RetrainPolicy, Task

ORDINAL = OrdinalTarget(kind="ordinal", keep_at_least=3.0)
MAPPED = Columns(text="body", label="score", id="key", source="site", group="page")


def task(*given, target=ORDINAL, **more):
    return Task(name="toy", target=target, sources=given, **more)


def files(*paths, columns=None, **more):
    return FilesSource(
        kind="files",
        path=tuple(map(str, paths)),
        columns=columns or Columns(label="label"),
        **more,
    )


def jsonl(path, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def left_out(data):
    return [(item.origin, item.reason) for item in data.info.left_out]


ROWS = [
    {"body": "First  \r\n\r\n\r\n\r\ntext", "score": 4, "key": "a", "site": "x.org", "page": "p"},
    {"body": "second", "score": 0.5, "key": "b", "site": "y.org", "page": "p"},
    {"body": "unlabelled", "score": None, "key": "c", "site": "x.org", "page": "q"},
]


class TestFiles:
    def write(self, folder, kind):
        if kind == "csv":
            path = folder / "docs.csv"
            lines = ["key,body,score,site,page", 'a,"First  \n\n\n\ntext",4,x.org,p']
            lines += ["b,second,0.5,y.org,p", "c,unlabelled,,x.org,q"]
            path.write_text("\n".join(lines) + "\n")
        elif kind == "jsonl.gz":
            path = jsonl(folder / "docs.jsonl.gz", ROWS)
        else:
            path = folder / "docs.parquet"
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path

    @pytest.mark.parametrize("kind", ["csv", "jsonl.gz", "parquet"])
    def test_mapped_columns_give_the_same_documents(self, tmp_path, kind):
        source = files(self.write(tmp_path, kind), columns=MAPPED, licence="CC0")
        data = ingest(task(source))
        rows = data.table.select(["id", "text", "label", "source", "group"]).to_pylist()
        assert [tuple(row.values()) for row in rows] == [
            ("docs#a", "First\n\ntext", 4.0, "x.org", "p"),
            ("docs#b", "second", 0.5, "y.org", "p"),
            ("docs#c", "unlabelled", None, "x.org", "q"),
        ]
        assert data.strings("origin").tolist() == ["docs#0", "docs#1", "docs#2"]
        assert data.info.labelled == 2
        assert data.info.sources == {"x.org": 2, "y.org": 1}
        assert data.info.licences == {"x.org": "CC0", "y.org": "CC0"}
        assert data.info.labels_by == "as given in the files"
        assert data.info.left_out == ()

    def test_rows_that_cannot_be_used_are_left_out_named_and_counted(self, tmp_path):
        rows = [
            {"text": "good", "label": 3},
            {"text": "bad label", "label": "excellent"},
            {"text": "off the scale", "label": 7},
            {"text": "a boolean", "label": True},
            {"label": 2},
            {"text": 5, "label": 2},
            {"text": "  ", "label": 2},
            {"text": "good too", "label": "2.5"},
        ]
        path = jsonl(tmp_path / "docs.jsonl", rows)
        path.write_bytes(path.read_bytes() + b"{broken\n")
        data = ingest(task(files(path)))
        assert data.texts() == ["good", "good too"]
        assert data.labels.tolist() == [3, 2.5]
        assert left_out(data) == [
            ("docs#1", "bad_label"),
            ("docs#2", "bad_label"),
            ("docs#3", "bad_label"),
            ("docs#line 5", "missing_text"),
            ("docs#line 6", "text_not_string"),
            ("docs#line 7", "empty_text"),
            ("docs#line 9", "invalid_json"),
        ]
        details = [item.detail for item in data.info.left_out]
        assert details[0] == "label 'excellent' is not a number"
        assert details[1] == "label 7 is off the scale 0-5"

    def test_classes_named_by_numbers(self, tmp_path):
        target = ClassesTarget(kind="classes", classes=("0", "1", "2"), keep=("2",))
        pq.write_table(
            pa.table({"text": ["a", "b", "c", "d"], "label": [2.0, 0.0, None, 9.0]}),
            tmp_path / "docs.parquet",
        )
        data = ingest(task(files(tmp_path / "docs.parquet"), target=target))
        assert data.table["label"].to_pylist() == [2.0, 0.0, None]
        assert left_out(data) == [("docs#3", "bad_label")]

    def test_an_unknown_label_column_is_refused(self, tmp_path):
        path = jsonl(tmp_path / "docs.jsonl", [{"text": "a", "score": 3}] * 2)
        with pytest.raises(ConfigError) as caught:
            ingest(task(files(path, columns=Columns(label="quality"))))
        assert type(caught.value) is ConfigError
        assert (caught.value.key, caught.value.given) == ("columns.label", "quality")

    def test_no_label_column_asked_for_leaves_documents_unlabelled(self, tmp_path):
        path = jsonl(tmp_path / "docs.jsonl", [{"text": "a", "label": 3}])
        data = ingest(task(files(path, columns=Columns(label=None))))
        assert data.info.labelled == 0
        assert data.table["label"].to_pylist() == [None]

    def test_nothing_usable_is_refused_with_the_reasons(self, tmp_path):
        path = jsonl(tmp_path / "docs.jsonl", [{"text": "a", "label": "x"}])
        with pytest.raises(DataError, match=r"^toy: no usable document \(bad_label\)$"):
            ingest(task(files(path)))

    def test_a_wrong_text_column_is_not_blamed_on_the_label_column(self, tmp_path):
        path = jsonl(tmp_path / "docs.jsonl", [{"body": "a", "label": 3}])
        with pytest.raises(DataError, match="missing_text"):
            ingest(task(files(path)))

    def test_an_id_column_is_found_unasked(self, tmp_path):
        path = jsonl(tmp_path / "docs.jsonl", [{"id": "a1", "text": "a", "label": 3}])
        assert ingest(task(files(path))).strings("id").tolist() == ["docs#a1"]

    def test_without_ids_place_and_content_make_one(self, tmp_path):
        path = jsonl(tmp_path / "docs.jsonl", [{"text": "same", "label": 3}] * 2)
        one, two = ingest(task(files(path))).strings("id").tolist()
        assert one != two
        assert one.startswith("docs#0@")
        assert one.split("@")[1] == two.split("@")[1]

    def test_several_sources_come_in_their_order(self, tmp_path):
        one = jsonl(tmp_path / "b.jsonl", [{"text": "one", "label": 1}])
        two = jsonl(tmp_path / "a.jsonl", [{"text": "two", "label": 2}])
        data = ingest(task(files(one), files(two, licence="MIT")))
        assert data.texts() == ["one", "two"]
        assert data.info.licences == {"a": "MIT", "b": "unknown"}
        assert data.info.labels_by == "as given in the files"

    def test_a_path_that_matches_nothing_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match="matches no file"):
            ingest(task(files(tmp_path / "none.csv")))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True, raising=False)
    folder = tmp_path / "laid out"
    folder.mkdir()
    return folder


class TestHub:
    def source(self, folder, **more):
        return HubSource(kind="hub", dataset=str(folder), **more)

    def test_a_dataset_on_disk_is_read_by_its_columns(self, offline):
        jsonl(offline / "train.jsonl", [*ROWS, {**ROWS[0], "key": "d", "score": 9}])
        jsonl(offline / "test.jsonl", [{**ROWS[0], "key": "t"}])
        source = self.source(offline, columns=MAPPED, licence="MIT")
        data = ingest(task(source))
        assert data.strings("id").tolist() == ["a", "b", "c"]
        assert data.texts()[0] == "First\n\ntext"
        assert data.table["label"].to_pylist() == [4.0, 0.5, None]
        assert data.strings("group").tolist() == ["p", "p", "q"]
        assert left_out(data) == [(f"{offline}@main#3", "bad_label")]
        assert data.info.licences == {"x.org": "MIT", "y.org": "MIT"}
        test = self.source(offline, columns=MAPPED, split="test")
        assert ingest(task(test)).strings("id").tolist() == ["t"]

    def test_limit_and_parquet(self, offline):
        table = pa.table({"text": [f"t{i}" for i in range(9)], "label": [3] * 9})
        pq.write_table(table, offline / "train.parquet")
        for limit, count in ((4, 4), (99, 9)):
            data = ingest(task(self.source(offline, limit=limit)))
            assert data.texts() == [f"t{i}" for i in range(count)]
            assert data.info.sources == {str(offline): count}

    def test_unknown_columns_are_refused_with_those_there_are(self, offline):
        jsonl(offline / "train.jsonl", ROWS)
        with pytest.raises(ConfigError) as caught:
            ingest(task(self.source(offline)))
        assert caught.value.given == "text"
        assert "body" in caught.value.allowed

    def test_documents_without_an_id_get_one_of_their_own(self, offline):
        jsonl(offline / "train.jsonl", [{**row, "key": None} for row in ROWS] + ROWS[:1])
        data = ingest(task(self.source(offline, columns=MAPPED)))
        assert len(set(data.strings("id"))) == 4

    @pytest.mark.parametrize("change", [{"dataset": "gone"}, {"split": "nothing"}])
    def test_what_is_not_there_is_one_sentence(self, offline, change):
        jsonl(offline / "train.jsonl", ROWS)
        given = {"dataset": str(offline), "columns": MAPPED} | change
        if "dataset" in change:
            given["dataset"] = str(offline / "gone")
        with pytest.raises(DataError, match=r"^hub source ") as caught:
            ingest(task(HubSource(kind="hub", **given)))
        assert "\n" not in str(caught.value)


@pytest.fixture
def annotated(monkeypatch, tmp_path):
    """A pool of four documents, and annotations of some of them."""
    documents = [
        PackageDocument("news", "gensim==1:lee_background.cor#0", "Story one."),
        PackageDocument("news", "gensim==1:lee_background.cor#1", "Story two."),
        PackageDocument("news", "gensim==1:lee_background.cor#2", "Nobody labelled this."),
        PackageDocument("docstring/scipy", "scipy==1:scipy/a.py#f", "Compute f."),
    ]
    annotations = [
        {"origin": document.origin, "sha256": document.sha256, "score": score, "second_score": two}
        for document, score, two in zip(documents, (1, 2, 0, 4), (None, 3, None, 4), strict=True)
    ]
    del annotations[2]
    path = tmp_path / "annotations.jsonl"
    monkeypatch.setattr(sources, "ANNOTATIONS", path)

    def read_pool(patterns=("*",), files=None, workers=1):
        from fnmatch import fnmatchcase

        for document in documents:
            if any(fnmatchcase(document.genre, pattern) for pattern in patterns):
                yield document

    monkeypatch.setattr(packages, "read_pool", read_pool)

    def write(change=None):
        for annotation in annotations:
            annotation.update((change or {}).get(annotation["origin"][-1], {}))
        return jsonl(path, annotations)

    write()
    return write


class TestPackages:
    def source(self, *genres):
        return PackagesSource(kind="packages", genres=genres or ("*",))

    def test_the_annotated_documents_and_no_others(self, annotated):
        data = ingest(task(self.source()))
        assert data.texts() == ["Story one.", "Story two.", "Compute f."]
        assert data.labels.tolist() == [1, 2, 4]
        assert data.table["second_label"].to_pylist() == [None, 3, 4]
        assert data.strings("id").tolist() == data.strings("origin").tolist()
        assert data.info.sources == {"docstring/scipy": 1, "news": 2}
        assert set(data.info.licences) == {"docstring/scipy", "news"}
        assert "not people" in data.info.labels_by
        assert data.strings("group")[2] == "scipy==1:scipy/a.py"

    def test_a_tampered_hash_is_left_out_and_counted(self, annotated):
        annotated({"1": {"sha256": "0" * 64}})
        data = ingest(task(self.source()))
        assert data.texts() == ["Story one.", "Compute f."]
        assert left_out(data) == [("gensim==1:lee_background.cor#1", "hash_mismatch")]
        assert "not the one that was annotated" in data.info.left_out[0].detail

    def test_what_the_packages_do_not_carry_is_named(self, annotated):
        annotated({"1": {"origin": "gensim==0:lee_background.cor#7"}})
        data = ingest(task(self.source("news")))
        assert data.texts() == ["Story one."]
        assert left_out(data) == [("gensim==0:lee_background.cor#7", "not_installed")]

    def test_genres_choose(self, annotated):
        data = ingest(task(self.source("docstring/*")))
        assert data.texts() == ["Compute f."]
        assert left_out(data) == []

    def test_a_bad_score_is_left_out(self, annotated):
        annotated({"0": {"score": 11}})
        data = ingest(task(self.source("news")))
        assert left_out(data) == [("gensim==1:lee_background.cor#0", "bad_label")]

    def test_an_unknown_genre_is_refused_with_those_there_are(self, annotated):
        with pytest.raises(ConfigError) as caught:
            ingest(task(self.source("news", "novels")))
        assert (caught.value.key, caught.value.given) == ("genres", "novels")
        assert "docstring/scipy" in caught.value.allowed

    def test_the_installed_packages_rebuild_annotated_news(self, monkeypatch, tmp_path):
        story = next(iter(packages.read_pool(("news",))))
        row = {"origin": story.origin, "score": 2, "second_score": None, "sha256": story.sha256}
        monkeypatch.setattr(sources, "ANNOTATIONS", jsonl(tmp_path / "a.jsonl", [row]))
        data = ingest(task(self.source("news")))
        assert data.texts() == [story.text]
        row["sha256"] = story.sha256[::-1]
        jsonl(tmp_path / "a.jsonl", [row])
        with pytest.raises(DataError, match=r"no usable document \(hash_mismatch\)"):
            ingest(task(self.source("news")))


class TestWindow:
    def test_the_window_is_read_instead_of_the_sources(self, tmp_path):
        old = jsonl(tmp_path / "old.jsonl", [{"text": "old", "label": 1}])
        new = jsonl(tmp_path / "new.jsonl", [{"text": "new", "label": 2}])
        given = task(files(old), retrain=RetrainPolicy(window=files(new)))
        assert ingest(given).texts() == ["old"]
        assert ingest_window(given).texts() == ["new"]

    def test_a_window_need_not_be_labelled(self, tmp_path):
        new = jsonl(tmp_path / "new.jsonl", [{"text": "new"}])
        data = ingest_window(task(files(new), retrain=RetrainPolicy(window=files(new))))
        assert data.texts() == ["new"]
        assert data.info.labelled == 0
        with pytest.raises(ConfigError, match=r"columns\.label"):
            ingest(task(files(new)))

    def test_a_window_of_the_hub_need_not_be_labelled_either(self, offline):
        jsonl(offline / "train.jsonl", [{"text": "new"}])
        window = HubSource(kind="hub", dataset=str(offline))
        data = ingest_window(task(window, retrain=RetrainPolicy(window=window)))
        assert (data.texts(), data.info.labelled) == (["new"], 0)
        with pytest.raises(ConfigError, match="'label'"):
            ingest(task(window))

    def test_a_task_without_a_window_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"^toy: retrain\.window: given None"):
            ingest_window(task(files(tmp_path / "old.jsonl")))


class TestStamp:
    def test_it_changes_with_a_file_and_only_then(self, tmp_path):
        path = jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": 1}])
        given = (files(path),)
        before = stamp(given)
        assert stamp(given) == before
        jsonl(path, [{"text": "ab", "label": 1}])
        longer = stamp(given)
        assert longer != before
        os.utime(path, (1, 1))
        assert stamp(given) not in (before, longer)

    def test_it_changes_with_a_new_file_under_the_same_glob(self, tmp_path):
        jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
        given = (files(tmp_path / "*.jsonl"),)
        before = stamp(given)
        jsonl(tmp_path / "b.jsonl", [{"text": "b"}])
        assert stamp(given) != before

    def test_it_changes_with_the_source_and_the_installed_packages(self, tmp_path, monkeypatch):
        path = jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
        assert stamp((files(path),)) != stamp((files(path, columns=Columns(label="x")),))
        given = (PackagesSource(kind="packages"),)
        before = stamp(given)
        monkeypatch.setattr(packages, "version", lambda: "other")
        assert stamp(given) != before

    def test_it_changes_with_a_dataset_on_disk(self, tmp_path):
        given = (HubSource(kind="hub", dataset=str(tmp_path)),)
        before = stamp(given)
        jsonl(tmp_path / "train.jsonl", [{"text": "a", "label": 1}])
        assert stamp(given) != before

    def test_an_unknown_genre_is_refused_before_it_is_read(self):
        with pytest.raises(ConfigError, match="'novels'"):
            stamp((PackagesSource(kind="packages", genres=("novels",)),))

    def test_a_path_that_matches_nothing_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match="matches no file"):
            stamp((files(tmp_path / "none.csv"),))
