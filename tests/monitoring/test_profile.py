"""What a registered model keeps of the documents behind it."""

import numpy as np
import pytest

from tamis.corpus.split import split
from tamis.errors import DataError, ModelError
from tamis.evaluation.assess import assess
from tamis.models.train import train
from tamis.monitoring.profile import (
    accepting,
    fingerprint,
    load_profile,
    profile_of,
    profile_of_classifier,
)
from tests.tiny import easy_set, labelled, save_tiny_bert, tiny_task


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    task = tiny_task(save_tiny_bert(folder / "bert"), split={"folds": 2})
    known = easy_set(60)
    rows = known.table.to_pylist()
    texts = [row["text"] for row in rows] + ["proof lemma", "cheap offer buy"]
    documents = labelled(
        texts, [row["label"] for row in rows] + [None, None],
        groups=[row["group"] for row in rows] + ["new", "new"],
    )  # fmt: skip
    sides = split(documents, task.target, task.split, task.seed)
    trained = train(task, documents, sides, folder / "checkpoints")
    evaluation = assess(task, trained.classifier, trained.log, documents, sides)
    given = (trained.classifier, documents, sides, evaluation, trained.log, task.metric)
    return given, profile_of(*given)


def test_scores_are_those_that_a_document_had_no_part_in(made):
    (model, _, sides, evaluation, log, _), profile = made
    of = dict(zip(profile.sample.ids.tolist(), profile.sample.scores.tolist(), strict=True))
    for each in evaluation.predictions:
        assert of[each.id] == each.score
    folds = dict(zip(log.held_out.ids, log.held_out.scores, strict=True))
    assert all(of[name] == folds[name] for name in sides.sides["train"])
    fresh = model.score(["proof lemma", "cheap offer buy"]).values
    np.testing.assert_allclose([of["doc60"], of["doc61"]], fresh, rtol=1e-6)
    test = set(sides.sides["test"]) | {"doc60", "doc61"}
    assert set(profile.sample.ids[profile.held_out].tolist()) == test


def test_a_saved_profile_is_the_same_and_holds_no_text(made, tmp_path):
    profile = made[1]
    profile.save(tmp_path / "one")
    profile.save(tmp_path / "two")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    read = load_profile(tmp_path / "one")
    assert read.facts == profile.facts and read.words == dict(profile.words)
    for name in ("ids", "scores", "characters", "languages", "sources", "groups", "vectors"):
        np.testing.assert_array_equal(getattr(read.sample, name), getattr(profile.sample, name))
    assert (read.sample.words != profile.sample.words).nnz == 0
    np.testing.assert_array_equal(read.labels, profile.labels)
    for file in (tmp_path / "one").iterdir():
        assert b"cheap offer buy" not in file.read_bytes()


def test_words_are_counted_by_document(made):
    documents, profile = made[0][1], made[1]
    held = sum("proof" in text.split() for text in documents.texts())
    assert profile.words["proof"] == held


@pytest.mark.parametrize("name", ["profile.json", "documents.parquet", "arrays.safetensors"])
def test_a_damaged_profile_is_told(made, tmp_path, name):
    made[1].save(tmp_path)
    (tmp_path / name).write_bytes(b"no")
    with pytest.raises(ModelError, match="reference profile"):
        load_profile(tmp_path)


def test_a_model_without_a_profile_has_vectors_and_scores(made):
    model = made[0][0]
    profile = profile_of_classifier(model, "spearman")
    np.testing.assert_array_equal(profile.sample.vectors, model.reference)
    assert not profile.held_out.any() and not profile.performance


def test_windows_are_compared_with_the_newest_window_if_it_is_large_enough(made, monkeypatch):
    given = made[0]
    new = [f"doc{row}" for row in range(40, 60)]
    profile = profile_of(*given, window=new)
    assert sorted(profile.sample.ids[profile.fresh].tolist()) == sorted(new)
    assert len(profile.current()) == len(profile.sample)
    monkeypatch.setattr("tamis.monitoring.profile.LEAST_FRESH", 20)
    assert sorted(profile.current().ids.tolist()) == sorted(new)


def test_a_sample_of_many_holds_both_periods_and_knows_no_order(made, monkeypatch):
    model, documents, *rest = made[0]
    monkeypatch.setattr("tamis.monitoring.profile.MOST", 20)
    new = [f"doc{row}" for row in range(45)]
    profile = profile_of(model, documents, *rest, window=new)
    assert (len(profile.sample), int(profile.fresh.sum())) == (20, 10)
    turned = documents.take(np.arange(len(documents))[::-1])
    again = profile_of(model, turned, *rest, window=new)
    assert sorted(again.sample.ids.tolist()) == sorted(profile.sample.ids.tolist())


def test_an_accepted_window_takes_the_place_of_the_one_before(made, monkeypatch):
    monkeypatch.setattr("tamis.monitoring.profile.LEAST_FRESH", 10)
    profile = made[1]
    first, second = (profile.sample.take(np.arange(*span)) for span in ((0, 12), (20, 35)))
    once = accepting(profile, first, ["strange new words"])
    assert once.words["strange"] == 1 and once.facts == profile.facts
    twice = accepting(once, second, None)
    assert twice.current().ids.tolist() == second.ids.tolist()
    assert len(twice.sample) == len(profile.sample) + 15
    assert np.isfinite(twice.labels).sum() == np.isfinite(profile.labels).sum()
    with pytest.raises(DataError, match="at least 10"):
        accepting(profile, profile.sample.take(np.arange(9)), None)
