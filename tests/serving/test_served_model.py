import numpy as np
import pytest
from pydantic import ValidationError

from tamis.errors import ModelError
from tamis.models.classifier import Scores
from tamis.serving.model import (
    FILE,
    PROBES,
    Probe,
    ReferenceScores,
    ServedModel,
    load_served,
    read_served,
    reference_scores,
    score_edges,
    self_test,
)

SERVED = ServedModel(
    task="toy",
    version="7",
    digest="0" * 64,
    backend="torch",
    threshold=2.5,
    scale=(0.0, 5.0),
    created="2026-01-01T00:00:00+00:00",
    probes=tuple(Probe(text=text, score=1.0) for text in PROBES),
)


class Says:
    """Scores every text alike."""

    def __init__(self, value):
        self.value = value

    def score(self, texts):
        return Scores(np.full(len(texts), self.value), np.ones(len(texts), np.int64))


def test_a_description_is_read_back(tmp_path):
    (tmp_path / FILE).write_text(SERVED.model_dump_json(), "utf-8")
    assert read_served(tmp_path) == SERVED
    assert SERVED.name == "toy/7"


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": 2}', "\x00"])
def test_another_folder_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_text(content, "utf-8")
    with pytest.raises(ModelError, match=FILE):
        load_served(tmp_path)


@pytest.mark.parametrize(
    ("value", "wrong"), [(1.0, None), (1.09, None), (1.11, "scored 1.0000"), (np.nan, "nan")]
)
def test_the_self_test_wants_the_scores_of_the_probes(value, wrong):
    found = self_test(Says(value), SERVED)
    assert found is None if wrong is None else wrong in found


def test_nothing_to_probe_is_no_failure():
    assert self_test(Says(9.0), SERVED.model_copy(update={"probes": ()})) is None


def test_reference_scores_are_counted_as_a_service_counts_its_own():
    edges = score_edges((0.0, 5.0))
    assert (len(edges), edges[0], edges[-1]) == (20, 0.25, 5.0)
    scores = np.array([0.0, 0.25, 0.2500004, 0.26, 2.5, 5.0, 7.0, np.nan])
    found = reference_scores(scores, 2.5, (0.0, 5.0))
    assert (found.documents, found.kept) == (7, 3)
    assert found.at_most[:2] == (3, 4), "what is rounded to an edge is at it"
    assert found.at_most[8:10] == (4, 5)
    assert found.at_most[-1] == 6, "what is above the scale is in no bucket but the last"
    known = SERVED.model_copy(update={"reference": found})
    assert ServedModel.model_validate_json(known.model_dump_json()) == known
    assert reference_scores(np.array([np.nan]), 2.5, (0.0, 5.0)) is None


@pytest.mark.parametrize(
    "wrong", [{"at_most": (1,) * 19}, {"at_most": (2, *(1,) * 19)}, {"at_most": (9,) * 20},
              {"kept": 9}, {"documents": 0}],
)  # fmt: skip
def test_counts_that_cannot_be_are_refused(wrong):
    given = {"documents": 8, "kept": 3, "at_most": (1,) * 20} | wrong
    with pytest.raises(ValidationError):
        ReferenceScores(**given)
