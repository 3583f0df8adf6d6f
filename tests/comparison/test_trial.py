import numpy as np
import pytest

from tamis.comparison import trial as module
from tamis.comparison.trial import AS_TRAINED, Workplace, task_of, try_fold, try_variant
from tamis.config import validate
from tamis.models.settings import (
    EncoderSettings,
    FrozenSettings,
    LinearSettings,
    PathBackbone,
    RecurrentSettings,
)
from tamis.task import Task
from tests.comparison.examples import documents, folds_of, linear_task, variant
from tests.tiny import labelled, save_tiny_bert

TASK = linear_task()


class Killed(BaseException):
    """What no code in between catches."""


@pytest.fixture(scope="module")
def data():
    return documents()


@pytest.fixture(scope="module")
def folds(data):
    return folds_of(TASK, data, 3)


@pytest.fixture(scope="module")
def found(data, folds, tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("trial"), "code 1")
    return try_variant(TASK, variant(), data, folds, place)


def trained(patch, dies_at=None):
    """Counts trainings, and dies at one of them; what each was of, by its test documents."""
    seen, train = [], module.train

    def watched(task, dataset, assignment, checkpoints):
        if len(seen) == dies_at:
            raise Killed
        seen.append(assignment.sides["test"])
        return train(task, dataset, assignment, checkpoints)

    patch.setattr(module, "train", watched)
    return seen


def scores(trial):
    return [each.scores for fold in (*trial.folds, trial.final) for each in fold.scored]


def test_each_fold_is_scored_by_a_model_that_did_not_see_it(data, folds, found):
    label = dict(zip(data.strings("id").tolist(), data.labels.tolist(), strict=True))
    for fold, assignment in zip(found.folds, folds.folds, strict=True):
        (scored,) = fold.scored
        assert set(scored.ids) == set(assignment.sides["test"])
        truth = np.array([label[name] for name in scored.ids])
        assert np.corrcoef(truth, scored.scores)[0, 1] > 0.6
        assert scored.backend == AS_TRAINED
        assert scored.size > 1_000 and scored.documents_per_second > 0
        assert fold.chosen and fold.cpu_seconds > 0
    assert set(found.final.scored[0].ids) == set(folds.final.sides["test"])


def test_what_the_fold_says_of_its_test_documents_is_not_looked_at(data, folds, found, tmp_path):
    hidden = set(folds.folds[0].sides["test"])
    rows = data.table.to_pylist()
    labels = [
        5 - row["label"] if row["id"] in hidden and row["label"] is not None else row["label"]
        for row in rows
    ]
    other = labelled([row["text"] for row in rows], labels, groups=[row["group"] for row in rows])
    again = try_fold(task_of(TASK, variant()), (), other, folds.folds[0], tmp_path)
    assert again.scored[0].scores == found.folds[0].scored[0].scores
    assert again.scored[0].threshold == found.folds[0].scored[0].threshold


def test_all_variants_are_tried_on_the_same_documents(data, folds, found, tmp_path):
    settings = LinearSettings(family="linear", words=(1, 1))
    again = try_variant(
        TASK, variant("letters", settings), data, folds, Workplace(tmp_path, "code 1")
    )
    ids = [
        [each.ids for fold in (*t.folds, t.final) for each in fold.scored] for t in (found, again)
    ]
    assert ids[0] == ids[1]
    assert scores(again) != scores(found)


def test_a_killed_trial_goes_on_at_the_fold_where_it_was(data, folds, found, tmp_path, monkeypatch):
    place = Workplace(tmp_path, "code 1")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        trained(patch, dies_at=2)
        try_variant(TASK, variant(), data, folds, place)
    assert len(list(tmp_path.rglob("fold-*.json"))) == 2
    seen = trained(monkeypatch)
    again = try_variant(TASK, variant(), data, folds, place)
    assert seen == [folds.folds[2].sides["test"], folds.final.sides["test"]]
    assert scores(again) == scores(found)
    assert not list(tmp_path.iterdir())  # nothing is left of what is done


@pytest.mark.parametrize("changed", ["code", "task", "documents", "folds", "torn file"])
def test_what_something_else_left_is_not_taken_up(data, folds, tmp_path, monkeypatch, changed):
    place = Workplace(tmp_path, "code 1")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        trained(patch, dies_at=2)
        try_variant(TASK, variant(), data, folds, place)
    (second,) = tmp_path.rglob("fold-1.json")
    task, splits, rows = TASK, folds, data
    if changed == "code":
        place = Workplace(tmp_path, "code 2")
    elif changed == "task":
        task = linear_task(text={"max_characters": 200})
    elif changed == "documents":
        info = data.info.model_copy(update={"fingerprint": "f" * 64})
        rows = type(data)(data.table, info)
    elif changed == "folds":
        splits = folds.model_copy(update={"folds": folds.folds[::-1]})
    else:
        second.write_text(second.read_text()[:-9])
    seen = trained(monkeypatch)
    try_variant(task, variant(), rows, splits, place)
    assert len(seen) == (3 if changed == "torn file" else 4)


def test_backends_are_more_rows_of_the_same_training(data, tmp_path, monkeypatch):
    backbone = PathBackbone(kind="path", path=str(save_tiny_bert(tmp_path / "bert", layers=1)))
    settings = EncoderSettings(
        backbone=backbone, frozen=FrozenSettings(layers=(1,), heads=("ridge",))
    )
    own = variant("frozen", backends=("torch-packed",)).model_copy(update={"settings": settings})
    splits = folds_of(TASK, data, 2)
    seen = trained(monkeypatch)
    task = linear_task(text={"max_tokens": 32})
    found = try_variant(task, own, data, splits, Workplace(tmp_path / "trial", ""))
    assert len(seen) == 3
    for fold in (*found.folds, found.final):
        plain, packed = fold.scored
        assert (plain.backend, packed.backend) == (AS_TRAINED, "torch-packed")
        assert plain.ids == packed.ids and plain.threshold == packed.threshold
        assert plain.scores == pytest.approx(packed.scores, abs=1e-3)


def test_texts_are_prepared_as_the_variant_says(data, folds, tmp_path, monkeypatch):
    seen, train = [], module.train

    def watched(task, *others):
        seen.append(train(task, *others).classifier.info.text.preparation)
        raise Killed

    monkeypatch.setattr(module, "train", watched)
    stemmed = variant("stemmed", preparation="stemmed", steps=("normalise", "stem"))
    with pytest.raises(Killed):
        try_variant(TASK, stemmed, data, folds, Workplace(tmp_path, ""))
    assert seen == [("normalise", "stem")]


def test_linear_models_have_no_backends(data, folds, tmp_path):
    with pytest.raises(TypeError, match="LinearClassifier has no backends"):
        try_fold(TASK, ("onnx",), data, folds.folds[0], tmp_path)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (None, False),
        (RecurrentSettings(family="recurrent"), False),
        (EncoderSettings(train="full"), False),
        (EncoderSettings(train="lora"), False),
        (EncoderSettings(), True),
    ],
)
def test_windows_are_for_those_that_can_join_them(settings, kept):
    text = {"long": "windows_mean", "windows": 6, "max_tokens": 64}
    task = linear_task(model={"family": "encoder"}, text=text, split={"folds": 5})
    own = task_of(task, variant(settings=settings, steps=("normalise",)))
    assert (own.text.long, own.text.windows) == (("windows_mean", 6) if kept else ("head", 4))
    assert own.text.preparation == ("normalise",)
    assert own.text.max_tokens == 64 and own.split.folds == 0
    assert validate(Task, own.model_dump(mode="json"), "own") == own


@pytest.mark.parametrize(
    ("settings", "long"),
    [
        (None, "head"),
        (EncoderSettings(train="full"), "head_tail"),
        (EncoderSettings(), "head_tail"),
    ],
)
def test_head_and_tail_are_for_encoders(settings, long):
    task = linear_task(model={"family": "encoder"}, text={"long": "head_tail"})
    assert task_of(task, variant(settings=settings)).text.long == long
