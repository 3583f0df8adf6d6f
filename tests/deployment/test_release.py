"""Whether behaviour tests count, and what becomes of what they found."""

import pytest

from deployment.release import behaviour_files, with_behaviour
from tamis.decision import Decision, Reason
from tamis.evaluation.behaviour_figures import BehaviourReport, BehaviourTest
from tamis.evaluation.behaviour_settings import BehaviourSettings
from tests.tiny import tiny_task

PASSED = Decision.of([Reason(check="floor", passed=True, detail="It is reached.")])


def task(gate):
    return tiny_task("nowhere").model_copy(update={"behaviour": BehaviourSettings(gate=gate)})


def report(*passed):
    tests = tuple(
        BehaviourTest(
            kind="invariance", name=f"t{n}", passed=each, n=9, figures={}, limits={}, detail="It."
        )
        for n, each in enumerate(passed)
    )
    return BehaviourReport(
        task="toy", family="linear", low=0, high=5, threshold=2, documents=9, groups=9, seed=0,
        tests=tests,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "found", "passes"),
    [
        ("require", report(True, True), True),
        ("require", report(True, False), False),
        ("require", report(), False),
        ("require", None, False),
        ("report", report(True, False), True),
        ("off", None, True),
    ],
)
def test_only_a_task_that_requires_them_is_judged_by_behaviours(gate, found, passes):
    decision = with_behaviour(task(gate), PASSED, found)
    assert decision.passed is passes
    assert decision.reasons[0] == PASSED.reasons[0]
    assert (len(decision.reasons) > 1) == (gate == "require")


def test_they_never_mend_a_decision():
    refused = Decision.of([Reason(check="floor", passed=False, detail="It is not reached.")])
    assert not with_behaviour(task("require"), refused, report(True)).passed


def test_the_files_hold_the_whole_report():
    files = behaviour_files(report(True, False))
    assert set(files) == {"behaviour.html", "behaviour.json"}
    again = BehaviourReport.model_validate_json(files["behaviour.json"])
    assert again == report(True, False)
