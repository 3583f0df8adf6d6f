"""What filters and looks leave behind for Prometheus, and what `monitor` refuses at once."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli.app import app, cause
from cli.filter import leave_recall
from tamis.monitoring.state import read_state, state_file


def test_the_audit_of_a_cascade_is_left_for_prometheus(tmp_path):
    promise = SimpleNamespace(recall=0.95)
    audit = SimpleNamespace(recall=object(), recall_at_most=0.91, promise=promise)
    leave_recall(tmp_path, "toy", SimpleNamespace(audit=audit))
    state = read_state(state_file(tmp_path, "toy"))
    assert (state.cascade_recall, state.cascade_recall_promised) == (0.91, 0.95)


@pytest.mark.parametrize("audit", [None, SimpleNamespace(recall=None)])
def test_a_filter_without_an_audit_leaves_nothing(tmp_path, audit):
    leave_recall(tmp_path, "toy", SimpleNamespace(audit=audit))
    assert not state_file(tmp_path, "toy").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--calibrate", "--accept"], "monitor: given --calibrate and --accept; allowed: one"),
        (["--trigger", "moon"], "--trigger: given 'moon'; allowed: hand, cron"),
        (["--from", "1h", "--to", "2h"], "--from: given '1h'; allowed: a time before --to '2h'"),
        (["--set", "monitor.false_alarms.alarms=0"], "monitor.false_alarms.alarms"),
    ],
)
def test_a_mistake_is_told_before_any_work(arguments, said):
    found = CliRunner().invoke(app, ["monitor", "--task", "edu_quality", *arguments])
    assert said in str(cause(found.exception))
