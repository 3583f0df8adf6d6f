import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from tamis.errors import DataError
from tamis.monitoring.state import MonitorState, change_state, read_state, state_file


def test_a_state_is_read_back_as_it_was_made(tmp_path):
    made = change_state(tmp_path, "toy", lambda s: s.model_copy(update={"drift_p": 0.5}))
    assert made == MonitorState(task="toy", drift_p=0.5)
    assert read_state(state_file(tmp_path, "toy")) == made
    kept = change_state(tmp_path, "toy", lambda s: s.model_copy(update={"drift_alarm": True}))
    assert (kept.drift_p, kept.drift_alarm) == (0.5, True)
    assert [file.name for file in state_file(tmp_path, "toy").parent.glob(".tmp*")] == []


def test_changes_at_once_are_all_kept(tmp_path):
    def one_more(state):
        return state.model_copy(update={"retrains": {"done": state.retrains.get("done", 0) + 1}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: change_state(tmp_path, "toy", one_more), range(24)))
    assert read_state(state_file(tmp_path, "toy")).retrains == {"done": 24}


@pytest.mark.parametrize(
    "update", [{"drift_p": float("nan")}, {"drift_p": 2.0}, {"task": "a b"}, {"version": "x" * 99}]
)
def test_what_is_no_state_is_not_written(update, tmp_path):
    change_state(tmp_path, "toy", lambda state: state)
    before = state_file(tmp_path, "toy").read_bytes()
    with pytest.raises(ValidationError):
        change_state(tmp_path, "toy", lambda state: state.model_copy(update=update))
    assert state_file(tmp_path, "toy").read_bytes() == before


def test_a_damaged_file_is_kept_beside_and_a_new_state_begun(tmp_path):
    file = state_file(tmp_path, "toy")
    file.parent.mkdir(parents=True)
    file.write_text('{"torn')
    with pytest.raises(DataError, match="damaged"):
        read_state(file)
    change_state(tmp_path, "toy", lambda state: state.model_copy(update={"drift_p": 0.1}))
    assert read_state(file).drift_p == 0.1
    assert file.with_name("state.json.damaged").read_text() == '{"torn'


def test_another_tasks_state_is_none(tmp_path):
    change_state(tmp_path, "toy", lambda state: state)
    file = state_file(tmp_path, "toy")
    file.write_text(json.dumps({"task": "other"}))
    with pytest.raises(DataError, match="other"):
        read_state(file)
