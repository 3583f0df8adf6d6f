import json

import pytest
import yaml
from pydantic import ValidationError

from tamis.config import override, read_yaml
from tamis.errors import ConfigError, UsageError
from tamis.task import TASKS, Task, load_task

GOOD = {
    "name": "toy",
    "target": {"kind": "ordinal", "keep_at_least": 3},
    "sources": [{"kind": "packages", "genres": ["news", "licence"]}],
}
BINARY = {"kind": "binary", "negative": "no", "positive": "yes"}


def load(folder, text, settings=()):
    path = folder / "toy.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_task(str(path), settings)


def refused(folder, text, settings=()):
    """The error of a wrong file, of that very class, whose sentence opens with the file."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, settings)
    assert type(caught.value) is ConfigError
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert sentence.startswith(str(folder / "toy.yaml"))
    assert "\n" not in sentence
    return caught.value


WRONG = {
    "unknown key": (
        {"validaton": {}},
        ("validaton", "validaton", "(did you mean 'validation'?)"),
    ),
    "unknown nested key": (
        {"gate": {"flor": 0.5}},
        ("gate.flor", "flor", "(did you mean 'floor'?)"),
    ),
    "unknown key of a union's member": (
        {"sources": [{"kind": "files", "path": "a.csv", "colums": {}}]},
        ("sources.0.colums", "colums", "(did you mean 'columns'?)"),
    ),
    "unknown key of an optional union's member": (
        {"retrain": {"window": {"kind": "packages", "genre": ["news"]}}},
        ("retrain.window.genre", "genre", "(did you mean 'genres'?)"),
    ),
    "text for an integer": ({"seed": "7"}, ("seed", "'7'", "a whole number")),
    "boolean for an integer": ({"seed": True}, ("seed", "True", "a whole number")),
    "fraction for an integer": ({"seed": 1.5}, ("seed", "1.5", "a whole number")),
    "negative seed": ({"seed": -1}, ("seed", "-1", "greater than or equal to 0")),
    "text for a section": ({"target": "ordinal"}, ("target", "'ordinal'", "object")),
    "empty section": ({"split": None}, ("split", "None", "a mapping")),
    "number for a name": (
        {"target": {**BINARY, "positive": 1}},
        ("target.positive", "1", "text"),
    ),
    "not a number": ({"gate": {"floor": float("nan")}}, ("gate.floor", "nan", "finite number")),
    "name": ({"name": "My Task"}, ("name", "'My Task'", "[a-z]")),
    "threshold off the scale": (
        {"threshold": {"kind": "value", "value": 5.5}},
        ("threshold.value", "5.5", "a value above 0 and at most 5"),
    ),
    "threshold at the bottom": (
        {"threshold": {"kind": "value", "value": 0}},
        ("threshold.value", "0.0", "a value above 0 and at most 5"),
    ),
    "threshold off a probability": (
        {"target": BINARY, "threshold": {"kind": "value", "value": 3}},
        ("threshold.value", "3.0", "a value above 0 and at most 1"),
    ),
    "keep_at_least off the scale": (
        {"target": {"kind": "ordinal", "keep_at_least": 9}},
        ("target.keep_at_least", "9.0", "a value above 0 and at most 5"),
    ),
    "upside-down scale": (
        {"target": {"kind": "ordinal", "minimum": 5, "maximum": 1, "keep_at_least": 3}},
        ("target.minimum", "5.0", "a number below the maximum, 1"),
    ),
    "kept class that is none": (
        {"target": {"kind": "classes", "classes": ["a", "b"], "keep": ["c"]}},
        ("target.keep", "['c']", "some, not all, of a, b"),
    ),
    "all classes kept": (
        {"target": {"kind": "classes", "classes": ["a", "b"], "keep": ["a", "b"]}},
        ("target.keep", "['a', 'b']", "some, not all, of a, b"),
    ),
    "repeated class": (
        {"target": {"kind": "classes", "classes": ["a", "a"], "keep": ["a"]}},
        ("target.classes", "['a', 'a']", "differ from one another"),
    ),
    "one label twice": (
        {"target": {**BINARY, "positive": "no"}},
        ("target.positive", "'no'", "other than the negative one"),
    ),
    "unknown source kind": (
        {"sources": [{"kind": "packages"}, {"kind": "s3"}]},
        ("sources.1", "{'kind': 's3'}", "'packages', 'files', 'hub'"),
    ),
    "empty sources": ({"sources": []}, ("sources", "[]", "at least 1 item")),
    "source without its path": (
        {"sources": [{"kind": "files"}]},
        ("sources.0.path", "'nothing'", "required"),
    ),
    "metric of order for a binary target": (
        {"target": BINARY, "gate": {"metric": "spearman"}},
        ("gate.metric", "'spearman'", "not ordinal"),
    ),
    "unknown metric": ({"gate": {"metric": "auc"}}, ("gate.metric", "'auc'", "'spearman'")),
    "unknown head": (
        {"model": {"frozen": {"heads": ["ridge", "svm"]}}},
        ("model.frozen.heads.1", "'svm'", "'kernel'"),
    ),
    "layer 0": (
        {"model": {"frozen": {"layers": [0]}}},
        ("model.frozen.layers.0", "0", "greater than or equal to 1"),
    ),
    "the tail of a text for a linear model": (
        {"model": {"family": "linear"}, "text": {"long": "head_tail"}},
        ("text.long", "'head_tail'", "head with model.family: linear"),
    ),
    "unknown family": (
        {"model": {"family": "forest"}},
        ("model.family", "'forest'", "linear, recurrent or encoder"),
    ),
    "n-grams the wrong way round": (
        {"model": {"family": "linear", "words": [2, 1]}},
        ("model.words", "[2, 1]", "the shorter one first"),
    ),
    "a step of preparation that is none": (
        {"text": {"preparation": ["normalise", "translate"]}},
        ("text.preparation.1", "'translate'", "'lemmatise'"),
    ),
    "nothing left to train on": (
        {"split": {"test": 0.5, "validation": 0.4}},
        ("split.test + validation", "0.5 + 0.4", "at most 0.8"),
    ),
    "more false alarms than windows": (
        {"monitor": {"false_alarms": {"alarms": 100, "days": 1}}},
        ("monitor.false_alarms", "100 in 1 days", "every other window of 24 hours"),
    ),
    "source without a kind": (
        {"sources": [{"genres": ["news"]}]},
        ("sources.0", "{'genres': ['news']}", "the key 'kind'"),
    ),
    "no test documents": ({"split": {"test": 0.0}}, ("split.test", "0.0", "greater than 0")),
}


@pytest.mark.parametrize("change, said", WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_with_key_given_and_allowed(tmp_path, change, said):
    key, given, allowed = said
    error = refused(tmp_path, yaml.safe_dump(GOOD | change))
    assert error.key == key
    assert f": {key}: given " in str(error)
    assert given in str(error).split("; allowed: ")[0]
    assert allowed in str(error).split("; allowed: ")[1]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"threshold": {"kind": "value", "value": "x"}}, "threshold.value"),
        ({"target": {"kind": "classes", "classes": ["a"], "keep": ["a"]}}, "target.classes"),
        ({"model": {"backbone": {"kind": "path", "path": 5}}}, "model.backbone.path"),
    ],
)
def test_a_key_named_like_its_kind_is_named(tmp_path, change, key):
    assert refused(tmp_path, yaml.safe_dump(GOOD | change)).key == key


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"sources": [{"kind": "files", "path": 5}]}, "sources.0.path"),
        ({"split": {"folds": 1}}, "split.folds"),
    ],
)
def test_a_key_of_several_types_is_named_without_them(tmp_path, change, key):
    assert refused(tmp_path, yaml.safe_dump(GOOD | change)).key == key


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    text = yaml.safe_dump(GOOD) + "model: {full: {learning_rate: 5e-5}}\n"
    assert load(tmp_path, text).model.full.learning_rate == 5e-5
    assert load(tmp_path, text, ["gate.floor=1e-1"]).gate.floor == 0.1


@pytest.mark.parametrize("missing", ["name", "target", "sources"])
def test_the_three_keys_without_a_default_are_required(tmp_path, missing):
    text = yaml.safe_dump({key: value for key, value in GOOD.items() if key != missing})
    error = refused(tmp_path, text)
    assert (error.key, error.given) == (missing, "nothing")
    assert "required" in error.allowed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [toy\n", "valid YAML"),
        ("name: toy\n\tseed: 1\n", "line 2"),
        ("name: !!python/object:os.system x\n", "valid YAML"),
        (b"name: \x00\n", "valid YAML"),
        ("- name\n- toy\n", "a mapping"),
        ("toy", "a mapping"),
        ("", "a mapping"),
        (b"name: caf\xe9\n", "UTF-8"),
    ],
)
def test_what_is_no_mapping_in_utf8_yaml_is_refused(tmp_path, text, said):
    assert said in str(refused(tmp_path, text))


@pytest.mark.parametrize(
    "value", ["2024-01-01", "2024-13-45", "!!binary aGVsbG8=", "&a [*a]", "!!set {a, b}"]
)
def test_yaml_values_that_json_does_not_know_are_refused_or_read(tmp_path, value):
    text = yaml.safe_dump(GOOD) + f"description: {value}\n"
    try:
        assert load(tmp_path, text).description == value
    except ConfigError as error:
        assert "toy.yaml" in str(error)


def test_a_file_that_is_not_there_is_refused_with_the_tasks_there_are(tmp_path):
    for name in (str(tmp_path / "none.yaml"), "no_such_task", str(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            load_task(name)
        assert type(caught.value) is ConfigError
        assert str(caught.value).startswith(f"--task: given {name!r}; allowed: a YAML file, or one")
        assert "edu_quality" in caught.value.allowed


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^shown: given .*readable UTF-8 file"):
        read_yaml(tmp_path, "shown")


@pytest.mark.parametrize("path", sorted(TASKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_task_of_the_project_loads(path):
    task = load_task(path.stem)
    assert task.name == path.stem
    assert load_task(str(path)) == task
    low, high = task.target.scale
    assert low < high


def test_a_task_survives_json_and_python_round_trips(tmp_path):
    rich = GOOD | {
        "sources": [
            {"kind": "packages"},
            {"kind": "files", "path": ["/data/a.csv", "/data/b.jsonl"]},
            {"kind": "hub", "dataset": "x/y", "columns": {"text": "body"}, "limit": 5},
        ],
        "model": {"train": "full", "frozen": {"layers": [1, 2], "poolings": ["mean", "max"]}},
        "threshold": {"kind": "value", "value": 2},
        "retrain": {"window": {"kind": "packages", "genres": ["news"]}},
    }
    for data in (GOOD, rich):
        task = load(tmp_path, yaml.safe_dump(data))
        assert Task.model_validate_json(task.model_dump_json()) == task
        assert Task.model_validate(task.model_dump()) == task
        assert Task.model_validate(json.loads(json.dumps(task.model_dump()))) == task


def test_the_fingerprint_follows_the_content(tmp_path):
    text = yaml.safe_dump(GOOD)
    one, same = load(tmp_path, text), load(tmp_path, "# a comment\n" + text)
    other = load(tmp_path, text, ["seed=1"])
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_a_task_is_frozen_through_and_through(tmp_path):
    task = load(tmp_path, yaml.safe_dump(GOOD))
    for model, key in ((task, "seed"), (task.split, "test"), (task.sources[0], "genres")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, key, 1)
    assert isinstance(task.sources, tuple)


def test_relative_paths_are_looked_for_beside_the_task_file_first(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "beside.csv").touch()
    (tmp_path / "many-1.csv").touch()
    paths = ["beside.csv", "many-*.csv", "elsewhere.csv", "/abs.csv", "s3://bucket/a.csv"]
    data = GOOD | {"sources": [{"kind": "files", "path": paths}]}
    found = load(tmp_path, yaml.safe_dump(data)).sources[0].path
    assert found[0] == str(tmp_path / "beside.csv")
    assert found[2:] == (str(work / "elsewhere.csv"), "/abs.csv", "s3://bucket/a.csv")


def test_a_relative_glob_stays_a_glob(tmp_path):
    for name in ("many-1.csv", "many-2.csv"):
        (tmp_path / name).touch()
    data = GOOD | {"sources": [{"kind": "files", "path": "many-*.csv"}]}
    task = load(tmp_path, yaml.safe_dump(data))
    assert task.sources[0].path == (str(tmp_path / "many-*.csv"),)


class TestOverride:
    def test_nested_keys_lists_and_yaml_values(self, tmp_path):
        settings = [
            "sources.0.genres.1=wikipedia",
            "gate.floor=0.5",
            "gate.beat=[tfidf, median]",
            "model.frozen.layers=[1, 2]",
            "description=a = b",
            "threshold={kind: value, value: 2}",
            "seed=1",
            "seed=2",
        ]
        task = load(tmp_path, yaml.safe_dump(GOOD), settings)
        assert task.sources[0].genres == ("news", "wikipedia")
        assert task.gate.floor == 0.5
        assert task.gate.beat == ("tfidf", "median")
        assert task.model.frozen.layers == (1, 2)
        assert task.description == "a = b"
        assert task.threshold.value == 2
        assert task.seed == 2

    def test_the_data_handed_in_stay_as_they_are(self):
        data = {"a": {"b": [1, 2]}}
        assert override(data, ["a.b.0=9", "c.d=x"]) == {"a": {"b": [9, 2]}, "c": {"d": "x"}}
        assert data == {"a": {"b": [1, 2]}}

    @pytest.mark.parametrize("setting", ["seed", "=3", "", "seed 7"])
    def test_no_assignment_is_refused(self, setting):
        with pytest.raises(UsageError, match=r"^--set: given .*allowed: key=value") as caught:
            override({"seed": 1}, [setting])
        assert type(caught.value) is UsageError

    @pytest.mark.parametrize(
        "setting",
        ["sources.5.kind=x", "sources.5=x", "sources.first=x", "name.x=1", "name.x.y=1", "a=[1"],
    )
    def test_a_path_through_nothing_or_a_broken_value_is_refused(self, setting):
        with pytest.raises(UsageError, match=r"^--set: given .*allowed: a path of keys") as caught:
            override({"sources": [{"kind": "hub"}], "name": "toy"}, [setting])
        assert setting in str(caught.value)

    def test_a_wrong_value_is_refused_like_one_of_the_file(self, tmp_path):
        error = refused(tmp_path, yaml.safe_dump(GOOD), ["split.tst=0.1"])
        assert error.key == "split.tst"
        assert "did you mean 'test'?" in error.allowed


@pytest.mark.parametrize("name", ["edu_quality", "edu_quality_fineweb"])
def test_a_task_survives_json(name):
    """As it travels to a step of the orchestrator."""
    task = load_task(name)
    assert Task.model_validate(json.loads(task.model_dump_json())) == task
