"""The policy as a table: what was found and done before, and whether it is retrained."""

from datetime import timedelta

import pytest

from deployment.retraining.policy import Past, decide, runs_left
from deployment.retraining.request import Trigger
from tamis.errors import UsageError
from tests.deployment.retraining.fakes import ANNOTATE, NOW, facts, policy, request


def past(hours=1000.0, **given):
    return Past(**({"run": "000001", "at": NOW - timedelta(hours=hours), "fingerprint": "f0",
                    "end": "promoted"} | given))  # fmt: skip


FEW = facts(labelled=5)
QUIET = facts(rings=False, drifted=False)
# policy, history, facts, request -> checks that fail, documents to annotate
TABLE = {
    "drift": ({}, [], facts(), {}, set(), 0),
    "no drift": ({}, [], QUIET, {}, {"cause"}, 0),
    "drift that does not ring yet": ({}, [], facts(rings=False), {}, {"cause"}, 0),
    "drift, but on performance only": ({"when": ["performance"]}, [], facts(), {}, {"cause"}, 0),
    "worse": ({}, [], facts(rings=False, worse=True), {}, set(), 0),
    "worse, but on drift only": (
        {"when": ["drift"]}, [], facts(rings=False, worse=True), {}, {"cause"}, 0),
    "on schedule": ({"when": ["schedule"]}, [], QUIET, {}, set(), 0),
    "an alert is no schedule": (
        {"when": ["schedule"]}, [], QUIET, {"kind": "alertmanager"}, {"cause"}, 0),
    "left to people": ({"when": []}, [], facts(), {}, {"cause"}, 0),
    "by hand": ({"when": []}, [past(1)], QUIET, {"insist": True, "kind": "hand"}, set(), 0),
    "by hand, too often": (
        {"max_runs": 1}, [past(1)], QUIET, {"insist": True}, {"rate"}, 0),
    "cooling down": ({}, [past(167.9)], facts(), {}, {"pause"}, 0),
    "cooled down": ({}, [past(168)], facts(), {}, set(), 0),
    "rate": ({"max_runs": 2, "min_hours_between": 1}, [past(300), past(200)], facts(), {},
             {"rate"}, 0),
    "rate of another month": (
        {"max_runs": 2, "min_hours_between": 1}, [past(721), past(200)], facts(), {}, set(), 0),
    "the same window": ({}, [past(fingerprint="f1")], facts(), {}, {"window"}, 0),
    "the same window by hand": (
        {}, [past(fingerprint="f1")], facts(), {"insist": True}, {"window"}, 0),
    "the same window that failed": (
        {}, [past(fingerprint="f1", end="failed")], facts(), {}, {"window"}, 0),
    "the same window that failed, by hand": (
        {}, [past(fingerprint="f1", end="failed")], facts(), {"insist": True}, set(), 0),
    "few labels": ({}, [], FEW, {}, {"labels"}, 0),
    "few labels, annotated first": ({"annotate": ANNOTATE}, [], FEW, {}, set(), 20),
    "labels and annotation": ({"annotate": ANNOTATE}, [], facts(), {}, set(), 20),
    "a small window": (
        {"annotate": ANNOTATE}, [], facts(labelled=0, documents=9), {}, {"labels"}, 0),
    "part of the budget": (
        {"annotate": ANNOTATE}, [past(700, annotate=38)], FEW, {}, set(), 12),
    "the budget is spent": (
        {"annotate": ANNOTATE}, [past(700, annotate=50)], FEW, {}, {"labels", "budget"}, 0),
    "the budget is spent, but labels came": (
        {"annotate": ANNOTATE}, [past(700, annotate=50)], facts(), {}, set(), 0),
    "the budget of another month": (
        {"annotate": ANNOTATE}, [past(720, annotate=50)], FEW, {}, set(), 20),
    "all at once": ({"max_runs": 1}, [past(1, fingerprint="f1")], facts(labelled=0, rings=False),
                    {}, {"cause", "window", "pause", "rate", "labels"}, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_policy(case):
    given, history, found, asked, failing, annotate = TABLE[case]
    verdict = decide(policy(**given), history, found, request(**asked), NOW)
    failed = {reason.check for reason in verdict.decision.reasons if not reason.passed}
    assert failed == failing
    assert verdict.decision.passed == (not failing)
    assert verdict.annotate == annotate


@pytest.mark.parametrize(
    ("given", "found", "asked", "cause"),
    [({}, {}, {}, "drift"), ({}, {"rings": False, "worse": True}, {}, "performance"),
     ({"when": ["schedule", "drift"]}, {"rings": False}, {}, "schedule"),
     ({}, {}, {"insist": True}, "hand"), ({}, {"rings": False}, {}, None)],
)  # fmt: skip
def test_the_cause_is_told(given, found, asked, cause):
    assert decide(policy(**given), [], facts(**found), request(**asked), NOW).cause == cause


def test_reasons_say_the_figures():
    verdict = decide(policy(annotate=ANNOTATE), [past(5, annotate=50)], FEW, request(), NOW)
    told = " ".join(reason.detail for reason in verdict.decision.reasons)
    for part in ("5.0 h ago", "168 h", "cooling down", "5 documents", "50 of 50", "is spent"):
        assert part in told


def test_runs_left():
    limits = policy(max_runs=3)
    assert runs_left(limits, [past(1), past(2), past(1000)], NOW) == 1
    assert runs_left(limits, [past(1)] * 9, NOW) == 0


@pytest.mark.parametrize("given", ["cron", "alertmanager:0a1b", "github:nightly-7"])
def test_triggers_are_parsed_and_shown(given):
    assert str(Trigger.parse(given)) == given


@pytest.mark.parametrize(
    "given", ["", "nobody", "cron:", "cron:a b", "cron:../x", "cron:" + "a" * 129]
)
def test_other_triggers_are_refused(given):
    with pytest.raises(UsageError, match="--trigger"):
        Trigger.parse(given)
