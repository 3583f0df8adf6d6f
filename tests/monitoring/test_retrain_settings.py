"""The section ``retrain`` as people write it."""

import pytest

from tamis.config import parse_yaml, validate
from tamis.errors import ConfigError
from tamis.monitoring.retrain_settings import RetrainPolicy


def read(text):
    return validate(RetrainPolicy, parse_yaml(text), "task.yaml")


def test_every_key_can_be_written_in_yaml():
    policy = read(
        """
        when: [schedule, drift]
        min_hours_between: 24
        max_runs: 2
        per_days: 7
        annotate: {documents: 50, uncertain: 0.5, drifted: 0.25, random: 0.25}
        replay: {old: 0.5, new: 2, balance: periods, most: 5}
        new_test: 0.5
        new_gain: 0.01
        release: blue-green
        """
    )
    assert policy.when == ("schedule", "drift")
    assert policy.annotate.documents == 50
    assert policy.annotate.documents_per_month == 1_000
    assert (policy.replay.balance, policy.replay.most) == ("periods", 5)
    assert policy.release == "blue-green"


def test_by_default_nothing_is_weighed_released_or_annotated():
    policy = read("{}")
    assert policy.when == ("drift", "performance")
    assert policy.annotate is None
    assert (policy.replay.old, policy.replay.new, policy.replay.balance) == (1, 1, "none")
    assert policy.release == "none"
    assert read("when: []").when == ()


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("when: [rain]", "when.0", "performance"),
        ("when: [drift, drift]", "when", "each occasion once"),
        ("annotate: {random: 0.5}", "uncertain + drifted + random", "make 1"),
        ("annotate: {documents: 2000}", "documents", "at most documents_per_month"),
        ("annotate: {documents: 5}", "annotate.documents", "10"),
        ("replay: {old: 0}", "replay.old", "0.001"),
        ("replay: {new: .inf}", "replay.new", ""),
        ("replay: {balance: window}", "replay.balance", "periods"),
        ("new_test: 1", "new_test", ""),
        ("new_gain: -0.1", "new_gain", ""),
        ("release: rolling", "release", "canary"),
        ("max_runs: 0", "max_runs", ""),
        ("per_days: 0", "per_days", ""),
        ("min_hours_between: -1", "min_hours_between", ""),
        ("on: drift", "true", "when"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, key, allowed):
    with pytest.raises(ConfigError) as error:
        read(text)
    assert key in str(error.value)
    assert allowed in str(error.value)
