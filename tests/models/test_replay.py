"""Old documents say one thing and new ones the opposite: the weights decide who is believed."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from tamis.corpus.split import Assignment
from tamis.models.heads import candidates, fit
from tamis.models.losses import weighted_divergence, weighted_mean
from tamis.models.replay import replayed, weights_of
from tamis.models.train import train
from tamis.monitoring.retrain_settings import Replay
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget
from tamis.task import Task
from tests.tiny import BINARY, easy_texts, labelled, tiny_task

TARGETS = {
    "ordinal": OrdinalTarget(kind="ordinal", keep_at_least=3.0),
    "binary": BinaryTarget(kind="binary", negative="no", positive="yes"),
    "classes": ClassesTarget(kind="classes", classes=("a", "b", "c"), keep=("c",)),
}
FAMILIES = {
    "frozen": {"frozen": {"heads": ["ridge", "kernel"], "layers": [2], "poolings": ["mean"]}},
    "linear": {"family": "linear", "penalties": [1.0]},
    "recurrent": {
        "family": "recurrent", "vectors": "none", "size": 16, "hidden": 8, "epochs": 4,
        "network": "average", "learning_rate": 0.03, "batch_size": 16,
    },
    "full": {"train": "full", "full": {"epochs": 2, "batch_size": 16, "learning_rate": 2e-3}},
    "distilled": {
        "train": "distilled",
        "distilled": {"epochs": 2, "batch_size": 16, "learning_rate": 2e-3, "layers": 2,
                      "teacher": "frozen"},
    },
}  # fmt: skip


def sides(old, new, others=()):
    """An assignment of so many old and new documents, all trained on but every fourth."""
    ids = [f"old{i}" for i in range(old)] + [f"new{i}" for i in range(new)]
    return Assignment(
        fingerprint="f",
        sides={
            "train": tuple(name for at, name in enumerate(ids) if at % 4),
            "validation": tuple(name for at, name in enumerate(ids) if not at % 4),
            "test": tuple(others),
        },
        groups={name: name for name in (*ids, *others)},
        window=tuple(ids[old:]),
    )


@pytest.mark.parametrize(
    ("given", "old", "new", "ratio"),
    [
        ({"new": 3.0}, 60, 20, 3.0),
        ({"old": 2.0}, 60, 20, 0.5),
        ({"balance": "periods"}, 60, 20, 3.0),
        ({"balance": "periods", "new": 2.0}, 60, 20, 6.0),
        ({"balance": "periods"}, 20, 60, 1 / 3),
        ({"balance": "periods"}, 300, 10, 10.0),
        ({"balance": "periods", "most": 2.0}, 300, 10, 2.0),
    ],
)
def test_weights_have_the_ratio_that_is_asked_for_and_a_mean_of_one(given, old, new, ratio):
    assignment = sides(old, new, others=("t0", "t1"))
    found = replayed(Replay(**given), assignment)
    assert (found.old, found.new) == (old, new)
    assert found.new_weight / found.old_weight == pytest.approx(ratio)
    assert (old * found.old_weight + new * found.new_weight) / (old + new) == pytest.approx(1)
    ids = [name for side in assignment.sides.values() for name in side]
    data = labelled(["x"] * len(ids), [1.0] * len(ids), ids=ids)
    weights = dict(zip(ids, weights_of(Replay(**given), data, assignment), strict=True))
    assert weights["new0"] == found.new_weight
    assert weights["old0"] == weights["t0"] == found.old_weight


@pytest.mark.parametrize(
    ("given", "old", "new"),
    [
        ({}, 60, 20),
        ({"old": 2.0, "new": 2.0}, 60, 20),
        ({"new": 5.0}, 60, 0),
        ({"new": 5.0}, 0, 60),
        ({"balance": "periods"}, 40, 40),
    ],
)
def test_equal_weights_are_no_weights(given, old, new):
    assignment = sides(old, new)
    assert replayed(Replay(**given), assignment) is None
    data = labelled(["x"], [1.0], ids=["old0"])
    assert weights_of(Replay(**given), data, assignment) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    # The landmarks of other kernels are drawn from the rows as they are.
    [("ridge", "ordinal"), ("ridge", "binary"), ("ridge", "classes"), ("kernel", "ordinal")],
)
def test_a_document_of_weight_two_is_two_documents(kind, name):
    target = TARGETS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)).astype(np.float32)
    y = rng.integers(0, target.n_outputs if target.kind != "ordinal" else 6, 90).astype(float)
    candidate = next(iter(candidates((kind,))))
    weights = np.where(np.arange(90) < 30, 2.0, 1.0)
    twice = np.concatenate([np.arange(90), np.arange(30)])
    weighted = fit(candidate, target, x, y, 0, weights).outputs(x)
    repeated = fit(candidate, target, x[twice], y[twice], 0).outputs(x)
    np.testing.assert_allclose(weighted, repeated, atol=0.02)
    assert np.abs(weighted - fit(candidate, target, x, y, 0).outputs(x)).max() > 0.05


def test_losses_of_a_batch_weigh_its_examples():
    rng = torch.Generator().manual_seed(0)
    outputs, wanted = (torch.randn(4, 3, generator=rng) for _ in range(2))
    labels, weights = torch.tensor([0, 2, 1, 1]), torch.tensor([2.0, 0.0, 1.0, 1.0])
    rows = torch.tensor([0, 0, 2, 3])
    for loss, of in ((functional.cross_entropy, labels), (functional.mse_loss, wanted)):
        torch.testing.assert_close(
            weighted_mean(loss, outputs, of, weights), loss(outputs[rows], of[rows])
        )
    torch.testing.assert_close(
        weighted_divergence(outputs, wanted, weights),
        weighted_divergence(outputs[rows], wanted[rows], None),
    )
    light = weighted_mean(functional.mse_loss, outputs, wanted, torch.full((4,), 0.1))
    torch.testing.assert_close(light, 0.1 * functional.mse_loss(outputs, wanted))


@pytest.fixture(scope="module")
def opposed():
    """80 old documents in which good words are good, 40 new ones in which they are bad."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 120).astype(float)
    shown = np.where(np.arange(120) < 80, labels, 1 - labels)
    ids = [f"old{i}" for i in range(80)] + [f"new{i}" for i in range(40)]
    return labelled(easy_texts(0.1 + 0.8 * shown), labels.tolist(), ids=ids), shown


def leaning(opposed, backbone, family, folder, **replay):
    """How the scores of all documents go with the words that were good in the old period."""
    data, shown = opposed
    more = {"calibration": "none", "retrain": {"replay": replay}}
    model, own = FAMILIES[family], "family" not in FAMILIES[family]
    task = tiny_task(backbone, BINARY, model=model if own else {}, **more)
    if not own:
        task = Task.model_validate(task.model_dump() | {"model": model})
    trained = train(task, data, sides(80, 40), folder / "checkpoints")
    return spearmanr(trained.classifier.score(data.texts()).values, shown).statistic, trained


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_from_what_weighs_more(family, opposed, tiny_bert, tmp_path):
    # Without weights the old documents, twice as many, are believed.
    leans, trained = leaning(opposed, tiny_bert, family, tmp_path, new=50.0)
    assert leans < -0.3
    said = trained.classifier.info.replay
    assert said == trained.log.replay
    assert (said.old, said.new) == (80, 40)
    assert "40 new ones of 2.88" in trained.log.to_html()


def test_equal_weights_give_the_very_model_without_any(opposed, tiny_bert, tmp_path):
    leans, plain = leaning(opposed, tiny_bert, "linear", tmp_path)
    assert leans > 0.3
    _, same = leaning(opposed, tiny_bert, "linear", tmp_path, old=3.0, new=3.0)
    np.testing.assert_array_equal(plain.classifier.weight, same.classifier.weight)
    assert same.classifier.info.replay is None
