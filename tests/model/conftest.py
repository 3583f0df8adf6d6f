import pytest

from tamis.corpus.split import split
from tamis.models.settings import LinearSettings
from tamis.models.train import train
from tests.model.models import pages
from tests.tiny import labelled, tiny_task

LINEAR = LinearSettings(family="linear")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A linear model, trained for real on pages that explain or sell."""
    texts, labels = pages(160)
    data = labelled(texts, labels, groups=[f"page{row // 2}" for row in range(160)])
    task = tiny_task("nowhere").model_copy(update={"model": LINEAR})
    assignment = split(data, task.target, task.split, task.seed)
    return train(task, data, assignment, tmp_path_factory.mktemp("checkpoints")).classifier
