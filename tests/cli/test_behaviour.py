"""The verb ``behaviour`` where nothing has to be trained: plans, refusals."""

import pytest

from cli.app import app
from cli.behaviour import check_page
from tamis.errors import UsageError
from tests.program import run, small_task


def test_the_verb_is_there():
    assert "behaviour" in {command.name for command in app.registered_commands}


def test_a_page_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    check_page(None)
    check_page(tmp_path / "report.html")
    for place in (tmp_path, tmp_path / "none" / "report.html"):
        with pytest.raises(UsageError, match=r"^--html: given"):
            check_page(place)


def test_cases_that_are_not_there_are_named(tmp_path):
    task = small_task(tmp_path)
    done = run(tmp_path, "behaviour", "--task", task, "--set", "behaviour.cases=gone.yaml")
    assert done.code == 2
    assert "gone.yaml" in done.err
    assert "Traceback" not in done.err
