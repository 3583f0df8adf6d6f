"""What becomes of a challenger that retraining made."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from deployment import release
from deployment.ledger import Ledger
from deployment.registry import Version
from tamis.decision import Decision, Reason
from tamis.monitoring.retrain_settings import RetrainPolicy
from tests.tiny import tiny_task

PASSED = Decision.of([Reason(check="new_period", passed=True, detail="It gains 0.1.")])
REFUSED = Decision.of(
    [
        Reason(check="old_period", passed=True, detail="It holds the old."),
        Reason(check="new_period", passed=False, detail="It gains 0.01 (-0.05 to 0.07)."),
    ]
)


class FakeRegistry:
    """Versions in memory."""

    def __init__(self):
        self.known = {}
        self.add("1", "champion")

    def add(self, number, *aliases, **tags):
        tags = {"digest": f"d{number}", "gate": "passed"} | tags
        self.known[number] = Version("toy", number, aliases, tags, "", "")

    def with_alias(self, task, alias):
        return next((v for v in self.known.values() if alias in v.aliases), None)

    def set_alias(self, task, alias, version):
        for number, each in self.known.items():
            kept = tuple(name for name in each.aliases if name != alias)
            aliases = (*kept, alias) if number == version else kept
            self.known[number] = replace(each, aliases=aliases)

    def tag(self, version, tags):
        each = self.known[version.version]
        self.known[version.version] = replace(each, tags=each.tags | tags)


@pytest.fixture
def registry(monkeypatch):
    found = FakeRegistry()
    monkeypatch.setattr(release, "Registry", lambda: found)

    def register(registry, made, decision):
        new = "2" not in registry.known
        if new:
            registry.add("2", gate="passed" if decision.passed else "refused")
        return registry.known["2"], new

    monkeypatch.setattr(release, "_register", register)
    return found


def settle(tmp_path, decision, against="1", **policy):
    task = tiny_task("nowhere").model_copy(update={"retrain": RetrainPolicy(**policy)})
    made = SimpleNamespace(task=task, behaviour=None)
    registered = release.settle(made, decision, str(tmp_path), against)
    return registered, Ledger(str(tmp_path), "toy").entries()


def test_by_default_one_that_passed_is_champion_at_once(registry, tmp_path):
    registered, entries = settle(tmp_path, PASSED)
    assert (registered.alias, registered.passed) == ("champion", True)
    assert [(e.action, e.version, e.previous) for e in entries] == [("promoted", "2", "1")]


@pytest.mark.parametrize("strategy", ["shadow", "canary", "blue-green"])
def test_one_that_is_to_be_released_waits_as_challenger(registry, tmp_path, strategy):
    registered, entries = settle(tmp_path, PASSED, release=strategy)
    assert (registered.alias, registered.passed) == ("challenger", True)
    assert registry.with_alias("toy", "champion").version == "1"
    assert registry.known["2"].tags["gate"] == "passed"
    assert entries == []
    assert settle(tmp_path, PASSED, release=strategy)[0].alias == "challenger"


@pytest.mark.parametrize("strategy", ["none", "canary"])
def test_one_that_was_refused_is_kept_with_its_reasons(registry, tmp_path, strategy):
    registered, entries = settle(tmp_path, REFUSED, release=strategy)
    assert (registered.alias, registered.passed) == (None, False)
    assert registry.known["2"].tags["gate"] == "refused"
    assert registry.known["2"].tags["refused"] == "It gains 0.01 (-0.05 to 0.07)."
    assert registry.with_alias("toy", "champion").version == "1"
    assert [(e.action, e.version, e.champion) for e in entries] == [("refused", "2", "1")]
    assert entries[0].reasons == registered.reasons


def test_a_run_that_is_repeated_refuses_once(registry, tmp_path):
    settle(tmp_path, REFUSED)
    assert len(settle(tmp_path, REFUSED)[1]) == 1


def test_a_version_refused_before_may_pass_later_and_the_other_way_round(registry, tmp_path):
    settle(tmp_path, REFUSED)
    registered, _ = settle(tmp_path, PASSED, release="canary")
    assert registered.alias == "challenger"
    assert registry.known["2"].tags["refused"] == ""
    settle(tmp_path, REFUSED)
    assert registry.known["2"].tags["gate"] == "refused"


def test_one_compared_with_a_champion_that_was_replaced_meanwhile_is_refused(registry, tmp_path):
    registry.add("3")
    registry.set_alias("toy", "champion", "3")
    registered, entries = settle(tmp_path, PASSED)
    assert not registered.passed
    assert "compared with version 1; meanwhile version 3 became champion" in registered.reasons[-1]
    assert [e.action for e in entries] == ["refused"]
    assert registry.with_alias("toy", "champion").version == "3"


def test_a_run_cut_short_after_it_promoted_says_so_when_repeated(registry, tmp_path):
    settle(tmp_path, PASSED)
    registered, entries = settle(tmp_path, PASSED)
    assert (registered.alias, registered.passed) == ("champion", True)
    assert len(entries) == 1


def test_very_long_reasons_are_cut_where_the_registry_has_no_room(registry, tmp_path):
    long = Decision.of([Reason(check="x", passed=False, detail="y" * 9_000)])
    _, entries = settle(tmp_path, long)
    assert len(registry.known["2"].tags["refused"]) == release.MOST_TAG
    assert len(entries[0].reasons[0]) > 9_000
