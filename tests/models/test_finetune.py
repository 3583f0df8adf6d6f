import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from tamis.corpus.split import split
from tamis.errors import ConfigError
from tamis.evaluation.metrics import best_f1_threshold, compute
from tamis.models import finetune as module
from tamis.models import score_calibration
from tamis.models.backbone import load_backbone, thin, transformer_layers
from tamis.models.classifier import load_classifier
from tamis.models.score_calibration import fit_score_map
from tamis.models.settings import PathBackbone
from tamis.models.train import train
from tests.tiny import BINARY, ORDINAL, easy_set, tiny_task

FULL = {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "warmup_share": 0.0, "patience": 9}


def task_for(backbone, target=ORDINAL, seed=0, **full):
    return tiny_task(backbone, target, seed=seed, model={"train": "full", "full": FULL | full})


def run(task, data, checkpoints):
    assignment = split(data, task.target, task.split, task.seed)
    return train(task, data, assignment, checkpoints)


def weights(trained):
    state = trained.classifier.encoder.model.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()} | trained.classifier.head.arrays


def assert_same(one, two):
    unpriced = {"cpu_seconds", "wall_seconds"}
    assert one.log.model_dump(exclude=unpriced) == two.log.model_dump(exclude=unpriced)
    mine, theirs = weights(one), weights(two)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def data():
    return easy_set(100)


@pytest.fixture(scope="module")
def uninterrupted(tiny_bert, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune") / "checkpoints"
    trained = run(task_for(tiny_bert), data, folder)
    assert not folder.exists()
    return trained


def test_an_easy_problem_is_learnt_and_the_loss_goes_down(
    tiny_bert, data, tmp_path, monkeypatch, uninterrupted
):
    losses = []

    class Watching(module.EarlyStoppingCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

    monkeypatch.setattr(module, "EarlyStoppingCallback", disguised(Watching))
    trained = run(task_for(tiny_bert), data, tmp_path / "checkpoints")
    assert len(losses) == 3
    assert losses[-1] < 0.7 * losses[0]
    ids = set(trained.classifier.info.trained_on.test)
    rows = [i for i, name in enumerate(data.strings("id").tolist()) if name in ids]
    scores = trained.classifier.score([data.texts()[row] for row in rows]).values
    assert spearmanr(scores, data.labels[rows]).statistic > 0.6
    assert_same(trained, uninterrupted)


def test_a_binary_problem_is_learnt(tiny_bert, tmp_path):
    data = easy_set(80, BINARY)
    trained = run(task_for(tiny_bert, BINARY, epochs=2), data, tmp_path / "checkpoints")
    assert trained.log.epochs[-1] > 0.85
    scores = trained.classifier.score(data.texts()).values
    kept = scores >= trained.log.threshold
    assert (kept == (data.labels == 1)).mean() > 0.8


def test_the_log_tells_the_epochs_and_the_best_one_is_taken(data, uninterrupted):
    log, info = uninterrupted.log, uninterrupted.classifier.info
    assert log.train == info.train == "full"
    assert len(log.epochs) == 3
    best = int(np.argmax(log.epochs))
    assert log.chosen == f"epoch {best + 1} of 3, fine-tuned"
    assert (info.layer, info.pooling, info.formula) == (3, "mean", "linear")
    assert log.threshold == info.threshold
    assert log.held_out is None
    ids = set(info.trained_on.validation)
    rows = [i for i, name in enumerate(data.strings("id").tolist()) if name in ids]
    scores = uninterrupted.classifier.score([data.texts()[row] for row in rows]).values
    figures = compute(info.target, data.labels[rows], scores, 2.5)
    # The folded head on the scale, so that the saved model is the one that was validated.
    assert figures["spearman"] == pytest.approx(log.epochs[best], abs=0.01)
    assert figures["mae"] < 1.5


def test_validation_documents_calibrate_where_they_are_enough(
    tiny_bert, data, tmp_path, monkeypatch, uninterrupted
):
    assert uninterrupted.classifier.score_map.is_identity
    assert uninterrupted.log.calibration == (
        "not calibrated: 20 held-out documents, at least 50 needed"
    )
    monkeypatch.setattr(score_calibration, "MIN_DOCUMENTS", 20)
    trained = run(task_for(tiny_bert), data, tmp_path / "checkpoints")
    found = trained.classifier.score_map
    assert trained.log.calibration == f"isotonic, {len(found.x)} points from 20 held-out documents"
    texts, labels = data.texts(), data.labels
    sides = trained.classifier.info.trained_on.known()
    rows = [i for i, n in enumerate(data.strings("id").tolist()) if sides[n] == "validation"]
    raw = uninterrupted.classifier.score([texts[row] for row in rows]).values
    expected = fit_score_map(raw, labels[rows], (0.0, 5.0)).score_map
    np.testing.assert_allclose(found.y, expected.y, atol=1e-4)
    kept = ORDINAL["keep_at_least"] <= labels[rows]
    assert trained.log.threshold == pytest.approx(best_f1_threshold(kept, found(raw)), abs=1e-3)


def test_another_seed_gives_another_model(tiny_bert, data, tmp_path, uninterrupted):
    other = run(task_for(tiny_bert, seed=1, epochs=1), data, tmp_path / "checkpoints")
    mine, theirs = weights(uninterrupted), weights(other)
    assert any(not np.array_equal(mine[name], theirs[name]) for name in mine)


class Killed(BaseException):
    pass


def disguised(callback):
    """The trainer keeps what callbacks remember in checkpoints, by the name of their class."""
    callback.__name__ = "EarlyStoppingCallback"
    return callback


def killed_after(epoch):
    """A callback that ends the run as a kill would, once that epoch's checkpoint is written."""

    class Killer(module.EarlyStoppingCallback):
        def on_save(self, args, state, control, **kwargs):
            if round(state.epoch) == epoch:
                raise Killed

    return disguised(Killer)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_killed_after_an_epoch_resumes_to_the_same_model(
    tiny_bert, data, tmp_path, monkeypatch, uninterrupted, epoch
):
    checkpoints = tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(module, "EarlyStoppingCallback", killed_after(epoch))
        with pytest.raises(Killed):
            run(task_for(tiny_bert), data, checkpoints)
    assert len(list(checkpoints.glob("checkpoint-*"))) == min(epoch, 2)
    trained = run(task_for(tiny_bert), data, checkpoints)
    assert_same(trained, uninterrupted)
    assert not checkpoints.exists()


def test_it_resumes_rather_than_starts_over(tiny_bert, data, tmp_path, monkeypatch):
    checkpoints = tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(module, "EarlyStoppingCallback", killed_after(2))
        with pytest.raises(Killed):
            run(task_for(tiny_bert), data, checkpoints)
    begun = []

    class Counting(module.EarlyStoppingCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            begun.append(round(state.epoch))

    monkeypatch.setattr(module, "EarlyStoppingCallback", disguised(Counting))
    run(task_for(tiny_bert), data, checkpoints)
    assert begun == [2]


def test_a_run_killed_while_it_wrote_a_checkpoint_resumes(
    tiny_bert, data, tmp_path, monkeypatch, uninterrupted
):
    checkpoints = tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(module, "EarlyStoppingCallback", killed_after(2))
        with pytest.raises(Killed):
            run(task_for(tiny_bert), data, checkpoints)
    newest = max(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (newest / "trainer_state.json").unlink()
    assert_same(run(task_for(tiny_bert), data, checkpoints), uninterrupted)


@pytest.fixture
def declining(monkeypatch):
    """Validation figures that never get better after the first epoch."""
    figures = iter([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(module._Metrics, "__call__", lambda *_: {"spearman": next(figures)})


def test_training_stops_when_patience_ends_and_takes_the_best(tiny_bert, data, tmp_path, declining):
    trained = run(task_for(tiny_bert, epochs=5, patience=2), data, tmp_path / "checkpoints")
    assert trained.log.epochs == (0.9, 0.5, 0.4)
    assert trained.log.chosen == "epoch 1 of 3, fine-tuned"


def test_a_resumed_run_stops_where_the_uninterrupted_would(
    tiny_bert, data, tmp_path, monkeypatch, declining
):
    checkpoints = tmp_path / "checkpoints"
    task = task_for(tiny_bert, epochs=5, patience=2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "EarlyStoppingCallback", killed_after(2))
        with pytest.raises(Killed):
            run(task, data, checkpoints)
    assert run(task, data, checkpoints).log.epochs == (0.9, 0.5, 0.4)


def test_a_fine_tuned_classifier_survives_saving(data, tmp_path, uninterrupted):
    uninterrupted.classifier.save(tmp_path / "model")
    loaded = load_classifier(tmp_path / "model")
    texts = data.texts()[:20]
    expected = uninterrupted.classifier.score(texts).values
    np.testing.assert_array_equal(loaded.score(texts).values, expected)


def adapted_task(backbone, **lora):
    return tiny_task(backbone, model={"train": "lora", "lora": FULL | {"rank": 4} | lora})


def test_adapters_are_merged_into_the_weights(tiny_bert, data, tmp_path):
    trained = run(adapted_task(tiny_bert), data, tmp_path / "checkpoints")
    assert trained.classifier.info.train == trained.log.train == "lora"
    assert trained.log.chosen.endswith("low-rank adapters, merged")
    trained.classifier.save(tmp_path / "model")
    saved = load_file(tmp_path / "model" / "backbone" / "model.safetensors")
    before = load_file(tiny_bert / "model.safetensors")
    assert saved.keys() == before.keys()
    changed = {name for name in saved if not np.array_equal(saved[name], before[name])}
    # Adapters are of the layers' matrices; words' vectors and norms stay as they were.
    assert len(changed) == 3 * 6
    assert all(name.endswith("weight") and saved[name].ndim == 2 for name in changed)
    assert not any("embeddings" in name for name in changed)
    for name in changed:
        assert np.linalg.matrix_rank(saved[name] - before[name], tol=1e-5) <= 4
    texts = data.texts()[:20]
    scores = load_classifier(tmp_path / "model").score(texts).values
    np.testing.assert_array_equal(scores, trained.classifier.score(texts).values)
    assert trained.log.epochs[-1] > 0.6


def test_adapters_are_the_same_for_the_same_seed(tiny_bert, data, tmp_path):
    one, two = (run(adapted_task(tiny_bert, epochs=1), data, tmp_path / "c") for _ in range(2))
    assert_same(one, two)


@pytest.mark.parametrize("teacher", ["frozen", "full"])
def test_a_smaller_network_imitates_a_larger_one(tiny_bert, data, tmp_path, monkeypatch, teacher):
    taught = []
    outputs = module._outputs
    monkeypatch.setattr(
        module, "_outputs", lambda given, texts: taught.append(given) or outputs(given, texts)
    )
    distilled = FULL | {"layers": 2, "teacher": teacher, "weight": 1.0}
    model = {"train": "distilled", "distilled": distilled, "full": FULL}
    trained = run(tiny_task(tiny_bert, model=model), data, tmp_path / "checkpoints")
    larger, smaller = taught[0], trained.classifier
    assert larger.info.train == teacher
    assert smaller.info.train == "distilled"
    assert smaller.info.layer == smaller.encoder.depth == 2
    if teacher == "full":
        assert larger.encoder.depth == 3
    ids = set(smaller.info.trained_on.test)
    texts = [t for t, n in zip(data.texts(), data.strings("id").tolist(), strict=True) if n in ids]
    wanted = larger.score(texts).values
    untrained = model | {"distilled": distilled | {"epochs": 1, "learning_rate": 1e-12}}
    still = run(tiny_task(tiny_bert, model=untrained), data, tmp_path / "checkpoints").classifier
    learnt, nothing = (
        np.abs(each.score(texts).values - wanted).mean() for each in (smaller, still)
    )
    assert learnt < 0.9 * nothing
    assert spearmanr(smaller.score(texts).values, wanted).statistic > 0.7
    smaller.save(tmp_path / "model")
    scores = load_classifier(tmp_path / "model").score(texts).values
    np.testing.assert_array_equal(scores, smaller.score(texts).values)
    assert not list(tmp_path.glob("checkpoints*"))


def test_a_binary_student_imitates_probabilities(tiny_bert, tmp_path):
    data = easy_set(80, BINARY)
    model = {"train": "distilled", "distilled": FULL | {"layers": 1}, "full": FULL}
    trained = run(tiny_task(tiny_bert, BINARY, model=model), data, tmp_path / "checkpoints")
    assert trained.log.epochs[-1] > 0.8
    assert trained.classifier.encoder.depth == 1


def test_more_layers_than_the_backbone_has_are_refused(tiny_bert, data, tmp_path):
    distilled = FULL | {"layers": 4, "teacher": "frozen"}
    task = tiny_task(tiny_bert, model={"train": "distilled", "distilled": distilled})
    with pytest.raises(ConfigError, match=r"model\.distilled\.layers: given 4; allowed: at most 3"):
        run(task, data, tmp_path / "checkpoints")


@pytest.mark.parametrize(("layers", "kept"), [(1, [0]), (2, [0, 2]), (3, [0, 1, 2])])
def test_the_layers_that_are_kept_are_spread_evenly(tiny_bert, layers, kept):
    whole, _ = load_backbone(PathBackbone(kind="path", path=str(tiny_bert)))
    found = list(transformer_layers(whole))
    thinned = thin(whole, layers)
    assert list(transformer_layers(thinned)) == [found[at] for at in kept]
    assert thinned.config.num_hidden_layers == layers
