"""A run that is made again waits for the lock of the one that was lost."""

import pytest

from tamis.corpus import output
from tamis.corpus.output import open_output
from tamis.errors import OutputBusy


def test_a_lock_that_is_given_back_meanwhile_is_waited_for(tmp_path, monkeypatch):
    held = open_output(str(tmp_path / "out"), {"a": "1"})
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            held.close()

    monkeypatch.setattr(output.time, "sleep", sleep)
    with open_output(str(tmp_path / "out"), {"a": "1"}, wait_seconds=900):
        assert len(waits) == 3 and max(waits) <= 10


def test_the_wait_has_an_end_and_there_is_none_unless_asked_for(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(
        output.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    )
    with open_output(str(tmp_path / "out"), {"a": "1"}):
        with pytest.raises(OutputBusy, match="another run is writing"):
            open_output(str(tmp_path / "out"), {"a": "1"})
        assert clock[0] == 0
        with pytest.raises(OutputBusy):
            open_output(str(tmp_path / "out"), {"a": "1"}, wait_seconds=60)
        assert 60 <= clock[0] <= 70
