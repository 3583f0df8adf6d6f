import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import spearmanr

from tamis.corpus.split import split
from tamis.errors import DataError, ModelError
from tamis.models.classifier import digest, load_classifier
from tamis.models.recurrent import FILE, VOCABULARY, batch, run
from tamis.models.recurrent_training import train_recurrent
from tamis.models.settings import RecurrentSettings
from tamis.models.word_vectors import PAD
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


def settings(**given):
    small = {"family": "recurrent", "vectors": "none", "size": 16, "hidden": 8, "epochs": 6}
    return RecurrentSettings(**(small | {"learning_rate": 1e-2, "batch_size": 16} | given))


def fit(data, target=ORDINAL, seed=0, task=None, **given):
    task = task or tiny_task("unused", target, seed=seed)
    assignment = split(data, task.target, task.split, task.seed)
    return train_recurrent(task, settings(**given), data, assignment)


def on_side(trained, data, side):
    ids = set(getattr(trained.classifier.info.trained_on, side))
    rows = [row for row, name in enumerate(data.strings("id").tolist()) if name in ids]
    return [data.texts()[row] for row in rows], data.labels[rows]


def three_classes(size):
    labels = np.arange(size) % 3
    texts = easy_texts(labels / 2, 3)
    return labelled(texts, labels.astype(float).tolist())


@pytest.fixture(scope="module")
def data():
    return easy_set(300)


@pytest.fixture(scope="module")
def trained(data):
    return fit(data)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recurrent") / "model"
    trained.classifier.save(folder)
    return folder


@pytest.mark.parametrize("network", ["lstm", "average"])
def test_an_easy_problem_is_learnt(data, trained, network):
    found = trained if network == "lstm" else fit(data, network="average")
    texts, labels = on_side(found, data, "test")
    scores = found.classifier.score(texts).values
    assert spearmanr(scores, labels).statistic > 0.7
    assert np.abs(scores - labels).mean() < 1.2


@pytest.mark.parametrize("network", ["lstm", "average"])
def test_binary_and_classes_are_learnt(network):
    for target, given in ((BINARY, easy_set(150, BINARY)), (CLASSES, three_classes(150))):
        found = fit(given, target, network=network, epochs=8)
        texts, labels = on_side(found, given, "test")
        scores = found.classifier.score(texts).values
        assert 0 <= scores.min() <= scores.max() <= 1
        kept = found.classifier.info.target.kept(labels)
        assert (kept == (scores >= found.log.threshold)).mean() > 0.75


def test_the_same_seed_gives_the_same_model_and_leaves_torch_alone(data, tmp_path):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    digests = []
    for number, seed in enumerate((3, 3, 4)):
        torch.rand(number)
        before = torch.get_rng_state()
        found = fit(data, seed=seed, epochs=2)
        assert torch.equal(torch.get_rng_state(), before)
        found.classifier.save(tmp_path / str(number))
        load_classifier(tmp_path / str(number))
        assert torch.equal(torch.get_rng_state(), before)
        digests.append(digest(tmp_path / str(number)))
    assert digests[0] == digests[1] != digests[2]
    assert torch.get_num_threads() == threads
    torch.set_rng_state(state)


def test_the_best_epoch_is_restored_and_training_stops(data, monkeypatch):
    from tamis.models.recurrent_training import _Learner

    seen, figures = [], iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.5])

    def figure(self, network):
        seen.append({name: t.clone() for name, t in network.state_dict().items()})
        return next(figures)

    monkeypatch.setattr(_Learner, "_figure", figure)
    found = fit(data, epochs=6, patience=2)
    assert found.log.epochs == (0.5, 0.9, 0.8, 0.7)
    assert found.log.chosen.startswith("epoch 2 of 4, ")
    state = found.classifier.network.state_dict()
    for name in state:
        if not name.startswith("head"):  # the scale is folded into that
            assert torch.equal(state[name], seen[1][name]), name
    assert not torch.equal(state["embedding.weight"], seen[3]["embedding.weight"])


def test_the_best_epoch_of_an_error_is_the_lowest(data, monkeypatch):
    from tamis.models.recurrent_training import _Learner

    figures = iter([0.5, 0.3, 0.4])
    monkeypatch.setattr(_Learner, "_figure", lambda *_: next(figures))
    gate = {"metric": "mae", "floor": 5.0, "beat": ["median"]}
    task = tiny_task("unused", gate=gate)
    found = fit(data, task=task, epochs=3)
    assert found.log.metric == "mae"
    assert found.log.chosen.startswith("epoch 2 of 3, ")


def test_validation_documents_calibrate(data, trained):
    texts, labels = on_side(trained, data, "validation")
    classifier = trained.classifier
    assert trained.log.calibration.endswith(f"from {len(texts)} held-out documents")
    assert trained.log.held_out is None
    scores = classifier.score(texts).values
    assert scores.mean() == pytest.approx(labels.mean(), abs=0.15)
    raw = classifier.info.target.score(run(classifier.network, classifier.word_ids(texts))[1])
    np.testing.assert_array_equal(classifier.score_map(raw), scores)
    # The head is on the scale of the labels before any calibration.
    assert np.abs(raw - labels).mean() < 1.2
    best = max(trained.log.epochs)
    assert spearmanr(raw, labels).statistic == pytest.approx(best, abs=1e-6)


def test_words_of_other_sides_are_never_known(data):
    task = tiny_task("unused")
    assignment = split(data, task.target, task.split, task.seed)
    side = {name: s for s, names in assignment.sides.items() for name in names}
    texts = [
        f"{text} only{side[name]} only{side[name]}"
        for text, name in zip(data.texts(), data.strings("id").tolist(), strict=True)
    ]
    other = labelled(texts, data.labels.tolist(), groups=data.strings("group").tolist())
    own = settings(epochs=1, min_documents=1)
    found = train_recurrent(task, own, other, assignment)
    assert "onlytrain" in found.classifier.vocabulary.words
    assert not {"onlyvalidation", "onlytest"} & set(found.classifier.vocabulary.words)
    moved = [
        "click here" if side[name] == "test" else text
        for text, name in zip(texts, data.strings("id").tolist(), strict=True)
    ]
    labels = [
        5 - label if side[name] == "test" else label
        for label, name in zip(data.labels, data.strings("id").tolist(), strict=True)
    ]
    changed = labelled(moved, labels, groups=data.strings("group").tolist())
    again = train_recurrent(task, own, changed, assignment)
    assert again.log == found.log
    for name, tensor in found.classifier.network.state_dict().items():
        assert torch.equal(tensor, again.classifier.network.state_dict()[name])


def test_a_saved_classifier_scores_the_same_when_loaded(data, trained, saved):
    loaded = load_classifier(saved)
    assert loaded.info == trained.classifier.info
    texts = [*data.texts()[:40], *ODD]
    before, after = trained.classifier.score(texts), loaded.score(texts)
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(before.tokens, after.tokens)
    np.testing.assert_array_equal(trained.classifier.reference, loaded.reference)
    np.testing.assert_array_equal(loaded.reference_scores, trained.classifier.reference_scores)
    assert {path.suffix for path in saved.iterdir()} == {".safetensors", ".json"}


def test_the_reference_is_of_the_documents_it_learnt_from(data, trained):
    classifier = trained.classifier
    texts = on_side(trained, data, "train")[0] + on_side(trained, data, "validation")[0]
    vectors, scores = classifier.embed_and_score(texts)
    np.testing.assert_allclose(classifier.reference, vectors, atol=1e-5)
    np.testing.assert_allclose(classifier.reference_scores, scores, atol=1e-4)


@pytest.mark.parametrize("network", ["lstm", "average"])
def test_odd_texts_are_scored_and_embedded(data, trained, network):
    found = (trained if network == "lstm" else fit(data, network="average", epochs=1)).classifier
    low, high = found.info.target.scale
    scores, (vectors, tokens) = found.score(ODD), found.embed(ODD)
    assert ((low <= scores.values) & (scores.values <= high)).all()
    assert scores.tokens.tolist() == tokens.tolist()
    assert (tokens >= 1).all()
    assert vectors.shape == (len(ODD), {"lstm": 32, "average": 16}[network])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert found.score([]).values.shape == (0,)
    assert found.embed([])[0].shape == (0, vectors.shape[1])


def test_a_score_does_not_depend_on_the_other_texts(data, trained):
    texts = [*data.texts()[:30], "proof", ""]
    told = []
    together = trained.classifier.score(texts, lambda *n: told.append(n)).values
    alone = [trained.classifier.score([text]).values[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert told[-1] == (len(texts), len(texts))
    assert np.ptp(together) > 1


def test_the_lstm_reads_in_order_and_the_average_does_not(data, trained):
    average = fit(data, network="average", epochs=2).classifier
    text = data.texts()[0].split()
    back = " ".join(reversed(text))
    one, other = trained.classifier.embed([" ".join(text), back])[0]
    assert np.abs(one - other).max() > 0.01
    one, other = average.embed([" ".join(text), back])[0]
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_filling_up_changes_nothing(trained):
    network = trained.classifier.network
    ids, lengths = batch([[2, 3, 4], [5, 6, 7, 8, 9, 10], [2]])
    with torch.inference_mode():
        together = network(ids, lengths)
        alone = [network(*batch([row])) for row in ([2, 3, 4], [5, 6, 7, 8, 9, 10], [2])]
    torch.testing.assert_close(together, torch.cat(alone))
    assert torch.equal(network.embedding.weight[PAD], torch.zeros(16))


def test_texts_are_prepared_and_cut(data):
    text = {"max_tokens": 16, "preparation": ["users"]}
    found = fit(data, task=tiny_task("unused", text=text), epochs=1).classifier
    ids = found.word_ids(["@someone proof", "user proof", "proof " * 50, ""])
    assert ids[0] == ids[1]
    assert [len(each) for each in ids] == [2, 2, 16, 1]


def test_threads_are_as_asked_and_restored(trained, monkeypatch):
    used, network = [], trained.classifier.network
    before = torch.get_num_threads()
    pooled = network.pooled
    monkeypatch.setattr(
        network, "pooled", lambda *given: used.append(torch.get_num_threads()) or pooled(*given)
    )
    for threads in (2, 0):
        trained.classifier.use_threads(threads)
        trained.classifier.score(["proof"])
    assert used == [2, 1]
    assert torch.get_num_threads() == before


def damage_vocabulary(folder):
    words = json.loads((folder / VOCABULARY).read_text())
    (folder / VOCABULARY).write_text(json.dumps(words[:-1]))


def damage_words(folder):
    (folder / VOCABULARY).write_text('{"proof": [1]}')


def cut_file(folder):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:200])


def change(name, function):
    def damage(folder):
        arrays = load_file(folder / FILE)
        arrays[name] = function(arrays[name])
        save_file({k: v for k, v in arrays.items() if v is not None}, folder / FILE)

    return damage


def other_info(**changed):
    def damage(folder):
        info = json.loads((folder / "classifier.json").read_text())
        (folder / "classifier.json").write_text(json.dumps(info | changed))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damage_vocabulary,
        damage_words,
        cut_file,
        change("head.bias", lambda _: None),
        change("head.bias", lambda a: a * np.float32("nan")),
        change("head.weight", lambda a: a[:, :-1].copy()),
        change("embedding.weight", lambda a: a.astype(np.float16)),
        change("reference_scores", lambda _: None),
        change("score_map_x", lambda _: None),
        other_info(hidden=9),
        other_info(hidden=10**9),
        other_info(network="average"),
        lambda folder: (folder / VOCABULARY).unlink(),
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


def test_loading_needs_no_training_code(saved):
    code = (
        "import sys; from tamis.models.classifier import load_classifier;"
        f"load_classifier({str(saved)!r}).score(['proof']);"
        "print([m for m in ('gensim', 'sklearn', 'transformers', "
        "'tamis.models.recurrent_training') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_documents_without_words_are_refused(data):
    empty = labelled([" " * i for i in range(60)], data.labels[:60].tolist())
    task = tiny_task("unused")
    assignment = split(empty, task.target, task.split, task.seed)
    with pytest.raises(DataError, match="no words"):
        train_recurrent(task, settings(), empty, assignment)


@pytest.mark.parametrize("kind", ["glove", "word2vec", "fasttext"])
def test_every_kind_of_vectors_trains_and_comes_back(data, tmp_path, kind):
    found = fit(data, vectors=kind, epochs=1)
    info = found.classifier.info
    assert info.size == (50 if kind == "glove" else 16)
    assert info.variant == found.log.train == f"lstm, {kind}"
    found.classifier.save(tmp_path / "model")
    texts = data.texts()[:5]
    expected = found.classifier.score(texts).values
    np.testing.assert_array_equal(load_classifier(tmp_path / "model").score(texts).values, expected)
