import numpy as np
import pytest
from scipy.stats import spearmanr

from tamis.corpus.split import split
from tamis.errors import ConfigError, ModelError
from tamis.models import training
from tamis.models.classifier import digest
from tamis.models.train import TrainingLog, reference_sample, train
from tests.tiny import BINARY, easy_set, labelled, tiny_task


def run(task, data, folder, **more):
    assignment = split(data, task.target, task.split, task.seed)
    return train(task, data, assignment, folder / "checkpoints", **more), assignment


def held_out(trained, assignment, data):
    rows = assignment.rows(data, "test")
    scores = trained.classifier.score([data.texts()[row] for row in rows]).values
    return scores, data.labels[rows]


@pytest.fixture(scope="module")
def ordinal(tiny_bert, tmp_path_factory):
    data = easy_set(120)
    task = tiny_task(tiny_bert, split={"folds": 3})
    trained, assignment = run(task, data, tmp_path_factory.mktemp("train"))
    return task, data, trained, assignment


def test_an_easy_problem_is_learnt(ordinal):
    _, data, trained, assignment = ordinal
    scores, labels = held_out(trained, assignment, data)
    assert len(labels) >= 20
    assert spearmanr(scores, labels).statistic > 0.6


def test_a_binary_problem_is_learnt(tiny_bert, tmp_path):
    data = easy_set(100, BINARY)
    heads = {"heads": ["ridge", "kernel", "mlp"], "layers": [2], "poolings": ["mean", "max"]}
    task = tiny_task(tiny_bert, BINARY, model={"frozen": heads})
    trained, assignment = run(task, data, tmp_path)
    scores, labels = held_out(trained, assignment, data)
    assert ((scores >= trained.log.threshold) == labels).mean() > 0.8
    assert trained.log.metric == "average_precision"
    assert len(trained.log.tried) == 2 * 9
    assert trained.log.held_out is None


def test_the_facts_are_those_of_the_split_and_the_choice(ordinal):
    task, data, trained, assignment = ordinal
    info, log = trained.classifier.info, trained.log
    assert info.task_fingerprint == task.fingerprint()
    assert info.trained_on.fingerprint == assignment.fingerprint
    assert info.trained_on.test == assignment.sides["test"]
    assert log.documents == {side: len(ids) for side, ids in assignment.sides.items()}
    assert {t.layer for t in log.tried} == {1, 2, 3}
    assert [t.figure for t in log.tried] == sorted((t.figure for t in log.tried), reverse=True)
    assert log.threshold == info.threshold
    assert f"layer {info.layer} of 3 tried" in log.chosen
    assert trained.classifier.encoder.depth == info.layer
    assert len(trained.classifier.reference) == len(data) - len(assignment.sides["test"])


def test_every_document_has_one_cross_validated_score(ordinal):
    _, data, trained, assignment = ordinal
    found = trained.log.held_out
    assert list(found.ids) == data.strings("id").tolist()
    assert len(found.scores) == len(found.raw) == len(found.fold) == len(data)
    assert found.scores != found.raw
    assert set(found.fold) == {0, 1, 2}
    assert len(found.thresholds) == 3
    assert spearmanr(found.scores, data.labels).statistic > 0.6
    fold = dict(zip(found.ids, found.fold, strict=True))
    sides = {}
    for name, group in assignment.groups.items():
        sides.setdefault(group, set()).add(fold[name])
    assert all(len(each) == 1 for each in sides.values())


def test_a_log_of_before_calibration_is_read(ordinal):
    old = ordinal[2].log.model_dump()
    del old["calibration"], old["held_out"]["raw"]
    read = TrainingLog.model_validate(old)
    assert read.calibration == ""
    assert read.held_out.raw == ()
    assert "Scores:" not in read.to_html()


def test_scores_are_calibrated_unless_the_task_or_the_documents_say_otherwise(
    ordinal, tiny_bert, tmp_path
):
    _, data, trained, _ = ordinal
    found = trained.classifier.score_map
    seen = trained.log.documents["train"] + trained.log.documents["validation"]
    assert trained.log.calibration == (
        f"isotonic, {len(found.x)} points from {seen} held-out documents"
    )
    assert trained.log.calibration in trained.log.to_html()
    layer = trained.classifier.info.layer
    heads = {"frozen": {"heads": ["ridge"], "layers": [layer]}}
    plain, _ = run(tiny_task(tiny_bert, calibration="none", model=heads), data, tmp_path)
    assert plain.log.calibration == "not calibrated: the task asks for none"
    assert plain.classifier.score_map.is_identity
    texts = data.texts()
    mine, theirs = (t.classifier.score(texts).values for t in (trained, plain))
    np.testing.assert_allclose(mine, found(theirs))
    assert spearmanr(mine, theirs).statistic == pytest.approx(1)
    few, _ = run(tiny_task(tiny_bert, model=heads), easy_set(50), tmp_path)
    assert few.log.calibration.startswith("not calibrated: ")
    assert few.classifier.score_map.is_identity


def test_the_same_seed_gives_the_same_files(tiny_bert, tmp_path):
    data = easy_set(60)
    digests = []
    for number, seed in enumerate((3, 3, 4)):
        task = tiny_task(tiny_bert, seed=seed)
        trained, _ = run(task, data, tmp_path)
        trained.classifier.save(tmp_path / str(number))
        digests.append(digest(tmp_path / str(number)))
    assert digests[0] == digests[1] != digests[2]


def test_test_documents_do_not_change_the_model(tiny_bert, tmp_path):
    task, data = tiny_task(tiny_bert), easy_set(60)
    assignment = split(data, task.target, task.split, task.seed)
    rows = set(assignment.rows(data, "test").tolist())
    labels = [5 - label if i in rows else label for i, label in enumerate(data.labels.tolist())]
    texts = ["click here" if i in rows else text for i, text in enumerate(data.texts())]
    other = labelled(texts, labels, groups=data.strings("group").tolist())
    one, two = (train(task, each, assignment, tmp_path) for each in (data, other))
    assert one.log.tried == two.log.tried
    assert one.log.threshold == pytest.approx(two.log.threshold, abs=1e-4)
    assert one.log.calibration == two.log.calibration
    for name, array in one.classifier.head.arrays.items():
        np.testing.assert_allclose(array, two.classifier.head.arrays[name], atol=1e-4)


def test_unlabelled_documents_are_left_aside(tiny_bert, tmp_path):
    task, data = tiny_task(tiny_bert), easy_set(60)
    labels = [None if i in (3, 40) else label for i, label in enumerate(data.labels.tolist())]
    some = labelled(data.texts(), labels, groups=data.strings("group").tolist())
    trained, _ = run(task, some, tmp_path)
    assert sum(trained.log.documents.values()) == 58


@pytest.mark.parametrize("layers", [[4], [1, 9]])
def test_a_layer_that_the_backbone_has_not_is_refused(tiny_bert, tmp_path, layers):
    task = tiny_task(tiny_bert, model={"frozen": {"layers": layers}})
    with pytest.raises(ConfigError) as caught:
        run(task, easy_set(60), tmp_path)
    assert type(caught.value) is ConfigError
    expected = f"toy: model.frozen.layers: given {max(layers)}; allowed: layers from 1 to 3"
    assert str(caught.value) == expected


@pytest.mark.parametrize("how", ["frozen", "full"])
def test_more_tokens_than_the_backbone_reads_are_refused(tiny_bert, tmp_path, how):
    task = tiny_task(tiny_bert, text={"max_tokens": 129}, model={"train": how})
    with pytest.raises(ConfigError, match=r"^toy: text\.max_tokens: given 129; allowed: .* 128"):
        run(task, easy_set(60), tmp_path)


def test_a_backbone_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="a model folder"):
        run(tiny_task(tmp_path / "none"), easy_set(60), tmp_path)


def test_progress_covers_every_document(tiny_bert, tmp_path):
    told = []
    run(tiny_task(tiny_bert), easy_set(60), tmp_path, progress=lambda *n: told.append(n))
    assert told[-1] == (60, 60)


def test_the_reference_is_a_seeded_sample(monkeypatch):
    monkeypatch.setattr(training, "REFERENCE_SIZE", 10)
    vectors = np.arange(60, dtype=np.float32).reshape(30, 2)
    sample = reference_sample(vectors, 1)
    assert sample.shape == (10, 2)
    assert sorted(sample[:, 0].tolist()) == sample[:, 0].tolist()
    assert len(set(sample[:, 0].tolist())) == 10
    np.testing.assert_array_equal(sample, reference_sample(vectors, 1))
    assert not np.array_equal(sample, reference_sample(vectors, 2))
    np.testing.assert_array_equal(reference_sample(vectors[:10], 1), vectors[:10])


def log(**change):
    given = {"task": "toy", "train": "full", "metric": "f1", "documents": {}, "threshold": 0.5}
    return TrainingLog(**(given | {"chosen": "<b>epoch</b>", "epochs": (0.25, 0.5)} | change))


def test_the_log_survives_json_and_its_page_escapes(ordinal):
    trained = ordinal[2]
    assert TrainingLog.model_validate_json(trained.log.model_dump_json()) == trained.log
    page = log(task="<script>x</script>").to_html()
    assert "<b>epoch" not in page
    assert "<script" not in page
    assert "0.2500" in page


def test_the_page_has_its_table_as_markup():
    page = log().to_html()
    assert "<table>" in page
    assert "&lt;b&gt;epoch" in page
