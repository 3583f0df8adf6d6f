"""The task files of the project, and that nothing but their names knows them."""

import pytest

from tamis.task import TASKS, load_task
from tests.test_architecture import FILES, name_of

NAMES = sorted(file.stem for file in TASKS.glob("*.yaml"))


def test_they_were_found():
    assert {"edu_quality", "tweet_sentiment", "tweet_negative", "legal_value"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_file_is_right_and_says_what_it_is(name):
    task = load_task(name)
    assert task.name == name
    assert task.description and task.sources


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_code_knows_a_task(file):
    """The demo shows one of them, and the verbs have it as their default."""
    if name_of(file).startswith("cli/"):
        return
    text = file.read_text(encoding="utf-8")
    known = [name for name in NAMES if f'"{name}"' in text or f"'{name}'" in text]
    assert not known
