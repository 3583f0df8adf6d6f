from dataclasses import dataclass, field
from itertools import count

import fsspec
import pytest

from deployment.ledger import (
    Entry,
    Ledger,
    previous_champion,
    promote,
    reasons_of,
    refuse,
    rollback,
)
from tamis.decision import Decision, Reason
from tamis.errors import UsageError

names = count()


@dataclass
class FakeVersion:
    version: str


@dataclass
class FakeRegistry:
    """Aliases of the versions 1 to 9; notes whether the ledger was written first."""

    aliases: dict[str, str] = field(default_factory=dict)
    moves: list[tuple[str, str | None]] = field(default_factory=list)
    broken: bool = False

    def with_alias(self, task, alias):
        return FakeVersion(self.aliases[alias]) if alias in self.aliases else None

    def champion(self, task):
        if "champion" not in self.aliases:
            raise UsageError(f"{task}: no champion is registered")
        return FakeVersion(self.aliases["champion"])

    def get(self, task, version):
        if version not in "123456789":
            raise UsageError(f"{task}: given version {version!r}")
        return FakeVersion(version)

    def set_alias(self, task, alias, version):
        if self.broken:
            raise OSError("the registry is gone")
        self.moves.append((alias, version))
        self.aliases.pop(alias, None)
        if version is not None:
            self.aliases[alias] = version


@pytest.fixture(params=["folder", "memory"])
def ledger(request, tmp_path):
    url = str(tmp_path / "ledger") if request.param == "folder" else f"memory://l{next(names)}"
    return Ledger(url, "toy")


@pytest.fixture
def registry():
    return FakeRegistry()


def promoted(registry, ledger, *versions):
    for version in versions:
        promote(registry, ledger, "toy", version, ("good",), "me")


def back(registry, ledger):
    rollback(registry, ledger, "toy", "me")
    return registry.aliases["champion"]


def test_entries_come_back_in_the_order_they_were_made(ledger):
    assert ledger.entries() == []
    made = [
        ledger.append("promoted", str(i), None, str(i), (f"reason {i}", "é"), "me")
        for i in range(12)
    ]
    assert [entry.number for entry in made] == list(range(1, 13))
    assert ledger.entries() == made
    assert made[0].reasons == ("reason 0", "é")
    assert made[0].at.endswith("+00:00")


def test_tasks_have_ledgers_of_their_own(ledger):
    other = Ledger(ledger.folder.removesuffix("/toy"), "other")
    other.fs, other.folder = ledger.fs, ledger.folder.removesuffix("toy") + "other"
    ledger.append("promoted", "1", None, "1", (), "me")
    assert other.entries() == []
    assert other.append("promoted", "7", None, "7", (), "me").number == 1
    assert [entry.version for entry in ledger.entries()] == ["1"]


def test_what_another_process_wrote_is_seen(tmp_path):
    one, two = (Ledger(str(tmp_path), "toy") for _ in range(2))
    one.append("promoted", "1", None, "1", (), "me")
    assert two.append("refused", "2", "1", "1", (), "you").number == 2
    assert len(one.entries()) == 2


def test_a_half_written_entry_is_none(tmp_path):
    ledger = Ledger(str(tmp_path), "toy")
    ledger.append("promoted", "1", None, "1", (), "me")
    (tmp_path / "toy" / "000002.json.partial").write_text('{"number": 2, "at"')
    assert len(ledger.entries()) == 1
    assert ledger.append("promoted", "2", "1", "2", (), "me").number == 2
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        "000001.json",
        "000002.json",
    ]


def test_memory_ledgers_leave_no_partial_file(ledger):
    ledger.append("promoted", "1", None, "1", (), "me")
    assert [str(name).rsplit("/", 1)[-1] for name in ledger.fs.ls(ledger.folder, detail=False)] == [
        "000001.json"
    ]
    assert isinstance(ledger.fs, fsspec.AbstractFileSystem)


class TestPromote:
    def test_the_alias_moves_and_the_ledger_says_from_whom(self, registry, ledger):
        promoted(registry, ledger, "1", "2")
        one, two = ledger.entries()
        assert (one.action, one.previous, one.champion) == ("promoted", None, "1")
        assert (two.version, two.previous, two.champion) == ("2", "1", "2")
        assert registry.aliases == {"champion": "2"}

    def test_a_promoted_challenger_is_one_no_longer_and_another_stays(self, registry, ledger):
        registry.aliases["challenger"] = "2"
        promoted(registry, ledger, "1")
        assert registry.aliases == {"champion": "1", "challenger": "2"}
        promoted(registry, ledger, "2")
        assert registry.aliases == {"champion": "2"}

    def test_a_failing_registry_leaves_the_entry_and_promoting_again_mends(self, registry, ledger):
        promoted(registry, ledger, "1")
        registry.broken = True
        with pytest.raises(OSError):
            promoted(registry, ledger, "2")
        assert ledger.entries()[-1].champion == "2"
        assert registry.aliases["champion"] == "1"
        registry.broken = False
        promoted(registry, ledger, "2")
        assert registry.aliases["champion"] == "2"
        assert back(registry, ledger) == "1"

    def test_a_refusal_moves_nothing(self, registry, ledger):
        refuse(registry, ledger, "toy", "3", ("floor",), "me")
        promoted(registry, ledger, "1")
        moves = list(registry.moves)
        entry = refuse(registry, ledger, "toy", "2", ("floor",), "me")
        assert (entry.action, entry.version, entry.champion) == ("refused", "2", "1")
        assert ledger.entries()[0].champion is None
        assert registry.moves == moves


class TestRollback:
    def test_two_rollbacks_go_back_two_champions(self, registry, ledger):
        promoted(registry, ledger, "1", "2", "3")
        assert [back(registry, ledger), back(registry, ledger)] == ["2", "1"]
        last = ledger.entries()[-1]
        assert (last.action, last.version, last.previous, last.champion) == (
            "rolled_back", "1", "2", "1",
        )  # fmt: skip
        assert "from version 2 to version 1" in last.reasons[0]
        with pytest.raises(UsageError, match="version 1 has no champion before it"):
            rollback(registry, ledger, "toy", "me")
        assert len(ledger.entries()) == 5

    def test_after_a_rollback_a_promotion_stands_on_the_restored_one(self, registry, ledger):
        promoted(registry, ledger, "1", "2")
        back(registry, ledger)
        promoted(registry, ledger, "3")
        assert ledger.entries()[-1].previous == "1"
        assert back(registry, ledger) == "1"

    def test_promoting_the_one_that_was_rolled_back(self, registry, ledger):
        promoted(registry, ledger, "1", "2")
        back(registry, ledger)
        promoted(registry, ledger, "2", "2", "3")
        assert [back(registry, ledger), back(registry, ledger)] == ["2", "1"]

    def test_an_older_version_promoted_again(self, registry, ledger):
        promoted(registry, ledger, "1", "2", "1")
        assert [back(registry, ledger), back(registry, ledger)] == ["2", "1"]

    def test_refusals_do_not_count(self, registry, ledger):
        promoted(registry, ledger, "1", "2")
        refuse(registry, ledger, "toy", "3", (), "me")
        assert back(registry, ledger) == "1"

    def test_without_a_champion_it_is_refused(self, registry, ledger):
        with pytest.raises(UsageError, match="no champion"):
            rollback(registry, ledger, "toy", "me")
        assert ledger.entries() == []

    def test_a_version_that_is_gone_is_refused_before_anything_moves(self, registry, ledger):
        promoted(registry, ledger, "x", "2")
        moves = list(registry.moves)
        with pytest.raises(UsageError, match="'x'"):
            rollback(registry, ledger, "toy", "me")
        assert registry.moves == moves
        assert len(ledger.entries()) == 2

    def test_a_champion_that_the_ledger_does_not_know_has_none_before(self, registry, ledger):
        promoted(registry, ledger, "1", "2")
        registry.aliases["champion"] = "7"
        with pytest.raises(UsageError, match="version 7 has no champion before it"):
            rollback(registry, ledger, "toy", "me")


def test_previous_champion_of_nothing_is_none():
    assert previous_champion([], "1") is None
    entry = Entry(
        number=1, at="", action="rolled_back", version="1", previous=None, champion="1",
        reasons=(), by="",
    )  # fmt: skip
    assert previous_champion([entry], "1") is None


def test_reasons_are_sentences():
    decision = Decision.of(
        [
            Reason(check="floor", passed=True, detail="0.7 of 0.6"),
            Reason(check="champion", passed=False, detail="worse"),
        ]
    )
    assert reasons_of(decision) == ("passed: floor: 0.7 of 0.6", "failed: champion: worse")
