import pytest

from tamis.config import validate
from tamis.errors import ConfigError, UsageError
from tamis.task import Task
from tamis.tuning.search import check_space
from tamis.tuning.settings import TuneSettings, usual_space
from tests.comparison.examples import LINEAR, linear_task

MODELS = (
    {"family": "linear"},
    {"family": "recurrent"},
    *({"family": "encoder", "train": train} for train in ("frozen", "full", "lora", "distilled")),
)


def with_space(space, **more):
    data = linear_task().model_dump(mode="json") | {"tune": {"space": space}} | more
    return validate(Task, data, "toy.yaml")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: "-".join(model.values()))
def test_what_is_usual_for_a_family_is_allowed(model):
    task = linear_task(model=model)
    assert len(usual_space(task.model)) >= 3
    assert task.tune.space == {}
    check_space(task)


def test_a_space_is_read():
    space = {
        "model.words": {"kind": "choices", "values": [[1, 1], [1, 2]]},
        "model.min_documents": {"kind": "range", "low": 1, "high": 9, "whole": True, "log": True},
        "text.max_characters": {"kind": "choices", "values": [200, 2_000]},
    }
    task = with_space(space)
    assert task.tune.model_dump(mode="json")["space"]["model.words"] == space["model.words"]
    assert task.tune.space["model.min_documents"].high == 9
    check_space(task)


def ranged(**more):
    return {"model.min_documents": {"kind": "range"} | more}


def chosen(*values, key="model.words", kind="choices"):
    return {key: {"kind": kind, "values": list(values)}}


@pytest.mark.parametrize(
    ("space", "key", "allowed"),
    [
        (ranged(low=2, high=1), "model.min_documents.low", "a number below high, 1"),
        (ranged(low=1, high=1), "model.min_documents.low", "a number below high, 1"),
        (ranged(low=0, high=1, log=True), "model.min_documents.low", "above 0, since log is true"),
        (
            ranged(low=1, high=2.5, whole=True),
            "model.min_documents.low and high",
            "whole numbers, since whole is true",
        ),
        (ranged(low=1), "model.min_documents.high", "this key is required"),
        (chosen([1, 1]), "model.words.values", "at least 2 items"),
        (chosen(1, 2, kind="grid"), "model.words", "'range', 'choices'"),
        (chosen(1, 2, key="seed"), "seed.[key]", "such as model.words"),
        (chosen(1, 2, key="model"), "model.[key]", "such as model.words"),
        (chosen(1, 2, key="split.test"), "split.test.[key]", "such as model.words"),
    ],
)
def test_a_wrong_space_is_told_when_the_task_is_read(space, key, allowed):
    with pytest.raises(ConfigError) as caught:
        with_space(space)
    assert str(caught.value).startswith(f"toy.yaml: tune.space.{key}: given ")
    assert allowed in caught.value.allowed and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (chosen(1, 2, key="model.wordz"), "model.wordz: given 'wordz'; allowed: one of the keys"),
        (chosen(32, 64, key="model.hidden"), "model.hidden: given 'hidden'; allowed: one of"),
        (chosen([2, 1], [1, 1]), "model.words: given [2, 1]; allowed: two lengths from 1"),
        (chosen([1, 1], [2, 1]), "model.words: given [2, 1]; allowed: two lengths from 1"),
        (ranged(low=0, high=3, whole=True), "model.min_documents: given 0; allowed: "),
        (ranged(low=1, high=3), "model.min_documents: given 1.0; allowed: a whole number"),
        (
            {"model.max_features": {"kind": "range", "low": 100, "high": 1e8, "whole": True}},
            "model.max_features: given 100000000; allowed: input should be less than",
        ),
        (chosen("head", "windows_max", key="text.long"), "text.long: given 'windows_max'; allowed"),
    ],
)
def test_a_value_that_the_model_does_not_take_is_told_before_any_work(space, told):
    with pytest.raises(ConfigError) as caught:
        check_space(with_space(space))
    assert str(caught.value).startswith(f"toy: tune.space: {told}")
    assert "\n" not in str(caught.value)


def test_a_path_through_a_list_is_told():
    with pytest.raises(UsageError, match=r"given 'model\.words\.x=1'"):
        check_space(with_space(chosen(1, 2, key="model.words.x"), model=LINEAR))


def test_folds_and_warm_up_are_limited():
    for wrong in ({"folds": 1}, {"folds": 11}, {"warm_up": 0}, {"trials": 5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TuneSettings.model_validate(wrong)
