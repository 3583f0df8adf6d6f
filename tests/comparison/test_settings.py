import pytest

from tamis.comparison.settings import CompareSettings
from tamis.comparison.trial import task_of
from tamis.config import validate
from tamis.errors import ConfigError
from tamis.models.settings import EncoderSettings, LinearSettings, PathBackbone
from tamis.task import TASKS, Task, load_task
from tests.comparison.examples import LINEAR, linear_task

MINE = PathBackbone(kind="path", path="/models/mine")
THEIRS = {"kind": "path", "path": "/models/theirs"}


def compared(**more):
    return CompareSettings.model_validate(more)


def test_families_and_preparations_stand_side_by_side():
    variants = CompareSettings().variants(EncoderSettings())
    assert {each.settings.family for each in variants} == {"linear", "recurrent", "encoder"}
    by_name = {each.name: each for each in variants}
    assert len(by_name) == len(variants)
    assert by_name["tfidf"].steps == ()
    assert by_name["tfidf_stemmed"].preparation == "stemmed"
    assert by_name["tfidf_stemmed"].steps == ("normalise", "stem")
    assert by_name["tfidf_stemmed"].settings == by_name["tfidf"].settings
    assert by_name["finetuned"].backends == ("onnx-int8",)
    assert by_name["tfidf_words"].settings.characters is None


def test_encoders_take_the_backbone_of_the_task_unless_they_name_one():
    encoder = {"settings": {"family": "encoder", "train": "lora"}}
    named = {"settings": encoder["settings"] | {"backbone": THEIRS}}
    settings = compared(models={"a": encoder, "b": named, "c": {"settings": LINEAR}})
    mine, theirs, linear = settings.variants(EncoderSettings(backbone=MINE))
    assert mine.settings == EncoderSettings(backbone=MINE, train="lora")
    assert theirs.settings.backbone == PathBackbone.model_validate(THEIRS)
    assert linear.settings == LinearSettings.model_validate(LINEAR)
    alone, *_ = settings.variants(LinearSettings(family="linear"))
    assert alone.settings == EncoderSettings(train="lora")


@pytest.mark.parametrize("path", sorted(TASKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_variant_of_each_task_is_a_task(path):
    task = load_task(path.stem)
    variants = task.compare.variants(task.model)
    assert len({each.name for each in variants}) == len(variants) >= 3
    for each in variants:
        own = task_of(task, each)
        assert validate(Task, own.model_dump(mode="json"), each.name) == own


def model(**more):
    return {"models": {"a": {"settings": LINEAR} | more}}


SAME_NAME = {
    "preparations": {"raw": [], "b": ["stem"]},
    "models": {"a": {"settings": LINEAR, "preparations": ["b"]}, "a_b": {"settings": LINEAR}},
}


@pytest.mark.parametrize(
    ("given", "key", "allowed"),
    [
        (model(preparations=["nope"]), "models.a.preparations", "one of raw, normalised, stemmed"),
        (model(preparations=[]), "models.a.preparations", "at least 1 item"),
        (model(preparations=["raw", "raw"]), "models.a.preparations", "no two rows"),
        (SAME_NAME, "models.a_b.preparations", "no two rows of the table are both called a_b"),
        (model(backends=["onnx"]), "models.a.backends", "none: only encoders have backends"),
        (model(backends=["fast"]), "models.a.backends.0", "'torch-packed'"),
        (
            model(settings={"train": "full"}, backends=["onnx", "onnx"]),
            "models.a.backends",
            "each of them once",
        ),
        (model(settings={"family": "forest"}), "models.a.settings.family", "linear, recurrent"),
        (model(settings=LINEAR | {"word": 1}), "models.a.settings.word", "did you mean 'words'?"),
        ({"models": {}}, "models", "at least 1 item"),
        ({"models": {"A b": {"settings": LINEAR}}}, "models.A b.[key]", "[a-z]"),
        ({"preparations": {"raw": ["shout"]}}, "preparations.raw.0", "'normalise', 'stem'"),
        ({"folds": 1}, "folds", "greater than or equal to 2"),
        ({"policy": {"prefer": "cheapest"}}, "policy.prefer", "'best' or 'fastest'"),
        ({"policy": {"within": 1.0}}, "policy.within", "less than 1"),
        ({"policy": {"documents_per_second": -1}}, "policy.documents_per_second", "equal to 0"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(given, key, allowed):
    data = linear_task().model_dump(mode="json") | {"compare": given}
    with pytest.raises(ConfigError) as caught:
        validate(Task, data, "toy.yaml")
    assert str(caught.value).startswith(f"toy.yaml: compare.{key}: given ")
    assert allowed in caught.value.allowed and "\n" not in str(caught.value)
