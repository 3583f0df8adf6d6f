import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.stats import spearmanr

from tamis.corpus.split import Assignment, split
from tamis.errors import DataError, ModelError
from tamis.models.classifier import digest, load_classifier
from tamis.models.linear import FILE, VOCABULARY, count_tokens
from tamis.models.linear_training import train_linear
from tamis.models.settings import LinearSettings
from tests.tiny import BINARY, ORDINAL, easy_set, easy_texts, labelled, tiny_task

ODD = [
    "",
    " \n\t ",
    "🙂👩‍👩‍👧",
    "proof \ud800 sale \udfff",
    "proof, " * 150_000,
    "z" * 1_000_000,
    "\x00",
]
CLASSES = {"kind": "classes", "classes": ["bad", "middling", "good"], "keep": ["good"]}


def fit(data, target=ORDINAL, seed=0, task=None, **given):
    task = task or tiny_task("unused", target, seed=seed)
    assignment = split(data, task.target, task.split, task.seed)
    return train_linear(task, LinearSettings(family="linear", **given), data, assignment)


def on_side(trained, data, side):
    ids = set(getattr(trained.classifier.info.trained_on, side))
    rows = [row for row, name in enumerate(data.strings("id").tolist()) if name in ids]
    return [data.texts()[row] for row in rows], data.labels[rows]


def three_classes(size):
    labels = np.arange(size) % 3
    return labelled(easy_texts(labels / 2, 3), labels.astype(float).tolist())


@pytest.fixture(scope="module")
def data():
    return easy_set(200)


@pytest.fixture(scope="module")
def trained(data):
    return fit(data)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear") / "model"
    trained.classifier.save(folder)
    return folder


def test_an_easy_problem_is_learnt(data, trained):
    texts, labels = on_side(trained, data, "test")
    scores = trained.classifier.score(texts).values
    assert spearmanr(scores, labels).statistic > 0.8
    assert np.abs(scores - labels).mean() < 1
    figures = [each.figure for each in trained.log.tried]
    assert figures == sorted(figures, reverse=True)
    best = trained.log.tried[0].head.removeprefix("penalty ")
    assert trained.classifier.info.head == f"ridge({best})"


@pytest.mark.parametrize(("target", "made"), [(BINARY, None), (CLASSES, three_classes)])
def test_binary_and_classes_are_learnt(target, made):
    given = made(120) if made else easy_set(120, BINARY)
    found = fit(given, target)
    texts, labels = on_side(found, given, "test")
    scores = found.classifier.score(texts).values
    assert 0 <= scores.min() <= scores.max() <= 1
    kept = found.classifier.info.target.kept(labels)
    assert (kept == (scores >= found.log.threshold)).mean() > 0.8
    assert found.classifier.weight.shape[1] == found.classifier.info.target.n_outputs


def test_scores_are_calibrated_unless_the_task_says_otherwise(data, trained):
    plain = fit(data, task=tiny_task("unused", calibration="none")).classifier
    assert plain.score_map.is_identity
    found = trained.classifier.score_map
    seen = trained.log.documents["train"] + trained.log.documents["validation"]
    assert trained.log.calibration == (
        f"isotonic, {len(found.x)} points from {seen} held-out documents"
    )
    texts = data.texts()
    np.testing.assert_allclose(
        trained.classifier.score(texts).values, found(plain.score(texts).values)
    )


def test_words_of_the_test_side_are_never_known(data):
    task = tiny_task("unused")
    assignment = split(data, task.target, task.split, task.seed)
    side = {name: s for s, names in assignment.sides.items() for name in names}
    names = data.strings("id").tolist()
    groups = data.strings("group").tolist()
    texts = [f"{t} only{side[n]}" for t, n in zip(data.texts(), names, strict=True)]
    other = labelled(texts, data.labels.tolist(), groups=groups)
    own = LinearSettings(family="linear", min_documents=1)
    found = train_linear(task, own, other, assignment)
    known = {name for block in found.classifier.terms for name in block.names}
    # The last fit is on training and validation together.
    assert {"onlytrain", "onlyvalidation"} <= known
    assert "onlytest" not in known
    moved = ["click here" if side[n] == "test" else t for t, n in zip(texts, names, strict=True)]
    flipped = [
        5 - y if side[n] == "test" else y for y, n in zip(data.labels.tolist(), names, strict=True)
    ]
    again = train_linear(task, own, labelled(moved, flipped, groups=groups), assignment)
    assert again.log == found.log
    assert again.classifier.terms[0].names == found.classifier.terms[0].names
    np.testing.assert_array_equal(again.classifier.terms[1].idf, found.classifier.terms[1].idf)
    np.testing.assert_array_equal(again.classifier.weight, found.classifier.weight)


def test_words_of_validation_do_not_choose_the_penalty(data, monkeypatch):
    from tamis.models import linear_training as module

    task = tiny_task("unused")
    assignment = split(data, task.target, task.split, task.seed)
    side = {name: s for s, names in assignment.sides.items() for name in names}
    names = data.strings("id").tolist()
    texts = [f"{t} only{side[n]}" for t, n in zip(data.texts(), names, strict=True)]
    groups = data.strings("group").tolist()
    other, seen = labelled(texts, data.labels.tolist(), groups=groups), []
    figures = module._Learner.figures

    def watched(self, train, validation):
        seen.append({name for block in self._features(train).terms for name in block.names})
        assert not set(train) & set(validation)
        return figures(self, train, validation)

    monkeypatch.setattr(module._Learner, "figures", watched)
    train_linear(task, LinearSettings(family="linear", min_documents=1), other, assignment)
    assert len(seen) == 1
    assert "onlytrain" in seen[0]
    assert not {"onlyvalidation", "onlytest"} & seen[0]


def test_a_saved_classifier_scores_the_same_when_loaded(data, trained, saved):
    loaded = load_classifier(saved)
    assert loaded.info == trained.classifier.info
    texts = [*data.texts()[:40], *ODD]
    before, after = trained.classifier.score(texts), loaded.score(texts)
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(before.tokens, after.tokens)
    vectors = trained.classifier.embed(texts)[0]
    np.testing.assert_array_equal(loaded.embed(texts)[0], vectors)
    np.testing.assert_array_equal(loaded.reference, trained.classifier.reference)
    np.testing.assert_array_equal(loaded.reference_scores, trained.classifier.reference_scores)
    assert {path.suffix for path in saved.iterdir()} == {".safetensors", ".json"}


def test_trained_weights_give_the_scores_that_training_saw(data, trained):
    classifier = trained.classifier
    texts = on_side(trained, data, "train")[0] + on_side(trained, data, "validation")[0]
    vectors, scores = classifier.embed_and_score(texts)
    np.testing.assert_allclose(classifier.reference, vectors, atol=1e-5)
    np.testing.assert_allclose(classifier.reference_scores, scores, atol=1e-4)


def test_the_same_seed_gives_the_same_files(data, tmp_path):
    digests = []
    for number, seed in enumerate((3, 3, 4)):
        fit(data, seed=seed).classifier.save(tmp_path / str(number))
        digests.append(digest(tmp_path / str(number)))
    assert digests[0] == digests[1] != digests[2]


def test_odd_texts_are_scored_and_embedded(trained):
    low, high = trained.classifier.info.target.scale
    scores, (vectors, tokens) = trained.classifier.score(ODD), trained.classifier.embed(ODD)
    assert ((low <= scores.values) & (scores.values <= high)).all()
    assert scores.tokens.tolist() == tokens.tolist()
    assert vectors.shape == (len(ODD), 256)
    assert np.isfinite(vectors).all()
    norms = np.linalg.norm(vectors, axis=1)
    assert all(norm == pytest.approx(1, abs=1e-5) or norm == 0 for norm in norms)
    assert trained.classifier.score([]).values.shape == (0,)
    assert trained.classifier.embed([])[0].shape == (0, 256)


def test_vectors_are_near_where_texts_are(trained):
    good, like, bad = "proof theorem lemma axiom", "proof theorem lemma matrix", "sale cheap buy"
    one, two, three = trained.classifier.embed([good, like, bad])[0]
    assert one @ two > one @ three + 0.2


def test_tokens_are_words_and_marks_and_extrapolated():
    counts = count_tokens(["a b, c!", "", "word " * 100], 250)
    assert counts.tolist() == [5, 1, 100]


@pytest.mark.parametrize("given", [{"characters": None}, {"words": (1, 1), "min_documents": 9_999}])
def test_tiny_vocabularies_do(given, tmp_path):
    texts = ["proof" if i % 2 else "sale" for i in range(80)]
    data = labelled(texts, [4.0 if i % 2 else 1.0 for i in range(80)])
    ids = tuple(data.strings("id").tolist())
    sides = {"train": ids[:50], "validation": ids[50:70], "test": ids[70:]}
    assignment = Assignment(fingerprint="", sides=sides, groups={name: name for name in ids})
    settings = LinearSettings(family="linear", **given)
    found = train_linear(tiny_task("unused"), settings, data, assignment)
    scores = found.classifier.score(["proof", "sale", "unheard"]).values
    assert scores[0] > scores[1]
    found.classifier.save(tmp_path / "model")
    again = load_classifier(tmp_path / "model").score(["proof", "sale", "unheard"]).values
    np.testing.assert_array_equal(again, scores)


def test_at_most_so_many_features_of_each_kind(data):
    found = fit(data, max_features=100).classifier
    assert [len(block.names) for block in found.terms] == [100, 100]
    assert found.weight.shape == (200, 1)
    assert "proof" in found.terms[0].names


def test_documents_without_words_are_refused(data):
    empty = labelled([" " * i for i in range(60)], data.labels[:60].tolist())
    with pytest.raises(DataError, match="no words"):
        fit(empty)


def test_sides_without_words_are_refused():
    # Only test documents have words, so that training has no feature at all.
    data = easy_set(60)
    task = tiny_task("unused")
    assignment = split(data, task.target, task.split, task.seed)
    test = set(assignment.sides["test"])
    texts = [
        f"proof {i}" if name in test else "" for i, name in enumerate(data.strings("id").tolist())
    ]
    with pytest.raises(DataError, match="no words"):
        train_linear(
            task,
            LinearSettings(family="linear"),
            labelled(texts, data.labels.tolist()),
            assignment,
        )


def test_every_document_has_one_held_out_score(data):
    found = fit(data, task=tiny_task("unused", split={"folds": 3}), characters=None).log.held_out
    assert list(found.ids) == data.strings("id").tolist()
    assert len(found.scores) == len(found.raw) == len(data)
    assert found.scores != found.raw
    assert set(found.fold) == {0, 1, 2}
    assert len(found.thresholds) == 3
    assert spearmanr(found.scores, data.labels).statistic > 0.7
    fold = {}
    for group, number in zip(data.strings("group").tolist(), found.fold, strict=True):
        fold.setdefault(group, set()).add(number)
    assert all(len(each) == 1 for each in fold.values())


def test_held_out_scores_see_nothing_of_their_fold():
    rng = np.random.default_rng(0)
    data = easy_set(90)
    labels = rng.integers(0, 6, 90).astype(float).tolist()
    # Each text says its own label in a word of its own: known by heart, unknown held out.
    texts = [f"{t} secret{i}" for i, t in enumerate(easy_texts(np.full(90, 0.5)))]
    noise = labelled(texts, labels, groups=data.strings("group").tolist())
    task = tiny_task("unused", split={"folds": 3})
    held = fit(noise, task=task, characters=None, min_documents=1).log.held_out
    assert abs(spearmanr(held.raw, labels).statistic) < 0.35


def damage_vocabulary(folder):
    names = json.loads((folder / VOCABULARY).read_text())
    (folder / VOCABULARY).write_text(json.dumps(names | {"words": names["words"][:-1]}))


def repeat_a_word(folder):
    names = json.loads((folder / VOCABULARY).read_text())
    words = [names["words"][1], *names["words"][1:]]
    (folder / VOCABULARY).write_text(json.dumps(names | {"words": words}))


def change(name, function):
    def damage(folder):
        arrays = load_file(folder / FILE)
        arrays[name] = function(arrays[name])
        save_file({k: v for k, v in arrays.items() if v is not None}, folder / FILE)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damage_vocabulary,
        change("weight", lambda _: None),
        change("weight", lambda a: a[:-1].copy()),
        change("weight", lambda a: a[:, 0].copy()),
        change("bias", lambda a: np.zeros(3, dtype=np.float32)),
        change("bias", lambda a: a * np.float32("nan")),
        change("idf_words", lambda a: a[:-1].copy()),
        change("idf_characters", lambda _: None),
        change("score_map_x", lambda _: None),
        change("reference_scores", lambda _: None),
        repeat_a_word,
        lambda folder: (folder / VOCABULARY).write_text("[]"),
        lambda folder: (folder / VOCABULARY).write_text('{"words": 3, "characters": 4}'),
        lambda folder: (folder / VOCABULARY).unlink(),
        lambda folder: (folder / FILE).write_bytes((folder / FILE).read_bytes()[:200]),
        lambda folder: (folder / FILE).unlink(),
        lambda folder: (folder / "reference.safetensors").write_bytes(b"\0" * 50),
    ],
)
def test_a_damaged_folder_is_told_in_a_line(saved, tmp_path, damage):
    copy = shutil.copytree(saved, tmp_path / "copy")
    damage(copy)
    with pytest.raises(ModelError) as caught:
        load_classifier(copy)
    assert "\n" not in str(caught.value)


def test_progress_covers_every_text(trained):
    told = []
    trained.classifier.score(["proof"] * 1_030, lambda *n: told.append(n))
    assert told[-1] == (1_030, 1_030)
    trained.classifier.use_threads(3)
