import random

import numpy as np
import pytest

from tamis.corpus.split import SIDES, leak_groups, split, split_keeping
from tamis.errors import DataError
from tamis.target import BinaryTarget, OrdinalTarget
from tamis.task import Split
from tests.tiny import labelled

TARGET = OrdinalTarget(kind="ordinal", keep_at_least=3.0)


def random_set(seed, size=160, per_group=3, duplicates=0.15):
    """Texts in groups, some of them near-duplicates of texts of other groups."""
    chance = random.Random(seed)
    texts = []
    for i in range(size):
        if i and chance.random() < duplicates:
            texts.append(texts[chance.randrange(i)] + f" tail{i}")
        else:
            texts.append(" ".join(f"v{chance.randrange(5_000)}" for _ in range(60)))
    groups = [f"page{chance.randrange(size // per_group)}" for _ in range(size)]
    labels = [float(chance.randrange(6)) for _ in range(size)]
    for i in chance.sample(range(size), 5):
        labels[i] = None
    return labelled(texts, labels, groups)


def side_of(assignment):
    return {name: side for side, ids in assignment.sides.items() for name in ids}


def assert_no_leak(data, assignment):
    side = side_of(assignment)
    for column in (data.strings("group"), leak_groups(data)):
        sides = {}
        for name, group in zip(data.strings("id").tolist(), column.tolist(), strict=True):
            sides.setdefault(group, set()).add(side[name])
        assert all(len(each) == 1 for each in sides.values())


@pytest.mark.parametrize("seed", range(6))
def test_every_labelled_document_stands_on_one_side_and_no_group_straddles(seed):
    data = random_set(seed)
    assignment = split(data, TARGET, Split(), seed)
    known = data.take(~np.isnan(data.labels))
    everyone = [name for side in SIDES for name in assignment.sides[side]]
    assert sorted(everyone) == sorted(known.strings("id").tolist())
    assert assignment.fingerprint == known.info.fingerprint
    assert_no_leak(known, assignment)


@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_never_straddle(seed):
    chance = random.Random(seed)
    base = [" ".join(f"v{chance.randrange(5_000)}" for _ in range(60)) for _ in range(80)]
    twins = [f"{text} tail" for text in base[:25]]
    labels = [float(i % 6) for i in range(105)]
    side = side_of(split(labelled(base + twins, labels), TARGET, Split(), seed))
    assert all(side[f"doc{i}"] == side[f"doc{80 + i}"] for i in range(25))


def test_groups_chain_through_pages_and_near_duplicates():
    words = [" ".join(f"v{50 * i + k}" for k in range(50)) for i in range(4)]
    texts = [words[0], words[1], words[1] + " tail", words[2], words[3]]
    data = labelled(texts, [1.0] * 5, ["b", "b", "c", "c", "d"])
    assert leak_groups(data).tolist() == ["b", "b", "b", "b", "d"]
    order = np.array([4, 3, 2, 1, 0])
    assert leak_groups(data.take(order)).tolist() == ["d", "b", "b", "b", "b"]


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    data = random_set(1)
    assert split(data, TARGET, Split(), 4) == split(data, TARGET, Split(), 4)
    assert split(data, TARGET, Split(), 4).sides != split(data, TARGET, Split(), 5).sides


@pytest.mark.parametrize(("test", "validation"), [(0.2, 0.2), (0.25, 0.25), (0.1, 0.1), (0.5, 0.1)])
def test_shares_are_about_right_and_classes_spread(test, validation):
    data = random_set(2, size=300, per_group=1, duplicates=0.0)
    assignment = split(data, TARGET, Split(test=test, validation=validation), 0)
    count = {side: len(ids) for side, ids in assignment.sides.items()}
    total = sum(count.values())
    assert count["test"] / total == pytest.approx(test, abs=0.05)
    assert count["validation"] / total == pytest.approx(validation, abs=0.05)
    label = dict(zip(data.strings("id").tolist(), data.labels.tolist(), strict=True))
    means = [np.mean([label[name] for name in assignment.sides[side]]) for side in SIDES]
    assert np.ptp(means) < 0.35


@pytest.mark.parametrize("test", [0.4, 0.7])
def test_large_shares_are_about_right(test):
    data = random_set(2, size=300, per_group=1, duplicates=0.0)
    assignment = split(data, TARGET, Split(test=test, validation=0.1), 0)
    share = len(assignment.sides["test"]) / sum(map(len, assignment.sides.values()))
    assert share == pytest.approx(test, abs=0.05)


def test_known_sides_are_kept_and_their_groups_follow():
    data = random_set(3, size=220, duplicates=0.05)
    first = data.take(np.arange(90))
    before = side_of(split(first, TARGET, Split(), 0))
    assignment = split_keeping(data, Split(), 9, before)
    after = side_of(assignment)
    assert_no_leak(data.take(~np.isnan(data.labels)), assignment)
    group = assignment.groups
    for name, side in before.items():
        # A group that new documents tie together goes to its most protected side.
        tied = {before[other] for other in before if group[other] == group[name]}
        assert after[name] == max(tied, key=SIDES.index)
        assert SIDES.index(after[name]) >= SIDES.index(side)
    by_group = {group[name]: after[name] for name in before}
    new = [name for name in after if name not in before]
    assert any(group[name] in by_group for name in new)
    assert all(after[name] == by_group[group[name]] for name in new if group[name] in by_group)
    assert {after[name] for name in new} == set(SIDES)


def test_a_document_tied_to_tested_and_trained_ones_is_tested():
    size = 40
    texts = [" ".join(f"v{60 * i + k}" for k in range(60)) for i in range(size)]
    groups = [f"page{i}" for i in range(size)]
    groups[0] = groups[1] = groups[2] = "one page"
    data = labelled(texts, [float(i % 4) for i in range(size)], groups)
    known = {"doc0": "train", "doc1": "test", "nobody": "test"}
    side = side_of(split_keeping(data, Split(), 0, known))
    assert [side[f"doc{i}"] for i in range(3)] == ["test"] * 3


def test_all_documents_known_need_no_draw():
    data = random_set(4, size=60, per_group=1, duplicates=0.0)
    before = side_of(split(data, TARGET, Split(), 0))
    assert side_of(split_keeping(data, Split(), 77, before)) == before


def test_too_few_groups_are_refused():
    texts = [" ".join(f"v{60 * i + k}" for k in range(60)) for i in range(40)]
    labels = [float(i % 2) for i in range(40)]
    for pages in (1, 4):
        data = labelled(texts, labels, [f"page{i % pages}" for i in range(40)])
        with pytest.raises(DataError, match=f"^split: {pages} groups .*too few"):
            split(data, TARGET, Split(), 0)
    alone = labelled(texts, labels)
    known = {f"doc{i}": "train" for i in range(40)}
    with pytest.raises(DataError, match=r"no document left for validation; 40 groups"):
        split_keeping(alone, Split(), 0, known)


def test_too_few_documents_of_every_class_for_a_small_share_are_refused():
    texts = [" ".join(f"v{60 * i + k}" for k in range(60)) for i in range(60)]
    data = labelled(texts, [float(i % 6) for i in range(60)])
    try:
        split(data, TARGET, Split(test=0.05), 0)
    except DataError as error:
        assert str(error).startswith("split: ")


def test_too_few_new_documents_beside_known_ones_need_no_side_of_their_own():
    texts = [" ".join(f"v{60 * i + k}" for k in range(60)) for i in range(40)]
    data = labelled(texts, [float(i % 4) for i in range(40)])
    known = {f"doc{i}": SIDES[i % 3] for i in range(39)}
    side = side_of(split_keeping(data, Split(), 0, known))
    assert {name: side[name] for name in known} == known
    assert side["doc39"] in SIDES


def plain(count, start=0):
    return [" ".join(f"v{60 * i + k}" for k in range(60)) for i in range(start, start + count)]


def of_files(texts, name, seed=0):
    """A window of a file: ids and origins hold the file's name and the row, no groups."""
    origins = [f"{name}#{row}" for row in range(len(texts))]
    labels = [float(row % 6) for row in range(len(texts))]
    return labelled(texts, labels, origins, ids=[f"{each}@id" for each in origins], origins=origins)


def test_a_document_that_comes_again_falls_on_the_same_side_whatever_else_comes():
    texts = plain(200)
    first = split_keeping(of_files(texts[:120], "monday.jsonl"), Split(), 3, {}, (), 0.4)
    second = split_keeping(of_files(texts[80:][::-1], "tuesday.jsonl"), Split(), 3, {}, (), 0.4)
    one, other = side_of(first), side_of(second)
    overlap = range(80, 120)
    sides = [(one[f"monday.jsonl#{i}@id"], other[f"tuesday.jsonl#{199 - i}@id"]) for i in overlap]
    assert all(before == after for before, after in sides)
    assert {before for before, _ in sides} == set(SIDES)
    third = side_of(split_keeping(of_files(texts[:120], "monday.jsonl"), Split(), 4, {}))
    assert third != one


def test_a_given_group_stays_on_one_side_in_every_window():
    texts = plain(120)
    users = [f"user{i % 30}" for i in range(120)]
    labels = [float(i % 6) for i in range(120)]
    early, late = (
        labelled(texts[part], labels[part], users[part], ids=[f"{n}{i}" for i in range(60)])
        for n, part in (("a", slice(60)), ("b", slice(60, 120)))
    )
    side_of_user = []
    for data in (early, late):
        side = side_of(split_keeping(data, Split(), 0, {}))
        names = zip(data.strings("group").tolist(), data.strings("id").tolist(), strict=True)
        side_of_user.append({user: side[name] for user, name in names})
    assert side_of_user[0] == side_of_user[1]


def test_near_duplicates_of_test_documents_in_a_later_window_are_tested_too():
    texts = plain(150)
    early = of_files(texts, "early")
    before = side_of(split_keeping(early, Split(), 0, {}))
    near = [f"{text} tail" for text in texts[:50]]
    ids = early.strings("id").tolist() + [f"late{i}" for i in range(50)]
    both = labelled(texts + near, [float(i % 6) for i in range(200)], ids=ids)
    after = side_of(split_keeping(both, Split(), 8, before, [f"late{i}" for i in range(50)], 0.4))
    assert all(after[f"late{i}"] == before[ids[i]] for i in range(50))
    assert all(after[name] == side for name, side in before.items())


def test_what_once_tested_is_never_trained_on_when_a_near_duplicate_joins_it():
    texts = plain(100)
    alone = side_of(split_keeping(of_files(texts, "w"), Split(), 0, {}))
    joined = of_files([*texts, *(f"{text} more" for text in texts)], "w")
    later = side_of(split_keeping(joined, Split(), 0, {}))
    tested = [name for name, side in alone.items() if side == "test"]
    assert len(tested) > 10
    assert all(later[name] == "test" for name in tested)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_of_the_window_tests_and_the_rest_validates_as_ever(share):
    data = of_files(plain(600), "w")
    ids = data.strings("id").tolist()
    assignment = split_keeping(data, Split(), 0, {}, ids[:400], share)
    assert set(assignment.window) == set(ids[:400])
    side = side_of(assignment)
    new = [side[name] for name in ids[:400]]
    assert new.count("test") / 400 == pytest.approx(share, abs=0.06)
    assert new.count("validation") / 400 == pytest.approx((1 - share) / 4, abs=0.06)
    old = [side[name] for name in ids[400:]]
    assert old.count("test") / 200 == pytest.approx(0.2, abs=0.08)


def test_a_larger_share_of_tests_never_makes_a_test_document_train():
    data = of_files(plain(200), "w")
    ids = data.strings("id").tolist()
    small, large = (
        set(split_keeping(data, Split(), 0, {}, ids, share).sides["test"]) for share in (0.2, 0.5)
    )
    assert small < large


def test_positions_and_groups_are_those_of_the_dataset():
    data = random_set(5)
    known = data.take(~np.isnan(data.labels))
    assignment = split(data, TARGET, Split(), 0)
    rows = {side: assignment.rows(known, side) for side in SIDES}
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(known)))
    for side in SIDES:
        assert known.strings("id")[rows[side]].tolist() == list(assignment.sides[side])
    assert assignment.leak_groups(known).tolist() == leak_groups(known).tolist()


def test_a_binary_target_splits_alike():
    data = random_set(6, size=120, per_group=1)
    labels = [None if np.isnan(label) else float(label > 4) for label in data.labels]
    data = labelled(data.texts(), labels)
    target = BinaryTarget(kind="binary", negative="no", positive="yes")
    assignment = split(data, target, Split(), 0)
    label = dict(zip(data.strings("id").tolist(), labels, strict=True))
    shares = [np.mean([label[name] for name in assignment.sides[side]]) for side in SIDES]
    assert np.ptp(shares) < 0.12
