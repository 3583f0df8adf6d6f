import numpy as np
import pytest

from tamis.comparison.rank import choose, rank
from tamis.comparison.report import Row
from tamis.comparison.settings import DeployPolicy
from tamis.errors import DataError
from tamis.evaluation.bootstrap import Interval
from tests.comparison.examples import documents, folds_of, linear_task, made_trial

TASK = linear_task()


@pytest.fixture(scope="module")
def data():
    return documents()


@pytest.fixture(scope="module")
def folds(data):
    return folds_of(TASK, data)


def noisy(amount, seed=0):
    def score(labels, number):
        rng = np.random.default_rng([seed, number + 1])
        return np.clip(labels + rng.normal(0, amount, len(labels)), 0, 5)

    return score


def shifted(by):
    return lambda labels, number: labels + by


def test_the_best_comes_first_and_the_trivial_last(data, folds):
    given = {"poor": 3.0, "good": 0.4, "fair": 1.2}
    trials = [made_trial(data, folds, noisy(a), name) for name, a in given.items()]
    found = rank(TASK, data, folds, trials)
    assert [row.name for row in found.rows] == [
        "good", "fair", "poor", "median", "length", "source",
    ]  # fmt: skip
    best, second, third, *trivial = found.rows
    assert best.behind is None
    assert 0 > second.behind.value > third.behind.value
    assert second.behind.value == pytest.approx(second.figure.value - best.figure.value)
    assert {row.family for row in trivial} == {"baseline"}
    assert all(row.behind.value < 0 for row in trivial)
    assert (found.metric, found.second_metric, found.folds) == ("spearman", "f1", 3)
    developed = len(folds.final.sides["train"]) + len(folds.final.sides["validation"])
    assert (found.documents, best.figure.n) == (developed, developed)
    assert found.test_documents == best.test.n == len(folds.final.sides["test"])
    assert found.machine == "a test machine" and best.train_seconds == 2.0
    assert best.chosen == "fold -1"


def test_where_lower_is_better_the_lowest_comes_first(data, folds):
    task = linear_task(gate={"metric": "mae"})
    far, near = (made_trial(data, folds, shifted(by), f"by{by}") for by in (2, 1))
    found = rank(task, data, folds, [far, near])
    assert [row.name for row in found.rows[:2]] == ["by1", "by2"]
    behind = found.rows[1].behind
    # The same error more for each document: it is known exactly, whatever was drawn.
    assert (behind.value, behind.low, behind.high) == pytest.approx((-1, -1, -1))
    assert found.cells(found.rows[1])[3] == "-1.000 (-1.000 to -1.000)"
    assert found.deploy == "by1"


def test_two_that_score_the_same_differ_by_nothing(data, folds):
    twins = [made_trial(data, folds, noisy(0.5), name) for name in ("one", "other")]
    found = rank(TASK, data, folds, twins)
    behind = found.rows[1].behind
    assert found.rows[1].name == "other"
    assert (behind.value, behind.low, behind.high) == (0, 0, 0)
    assert found.cells(found.rows[1])[3] == "+0.000 (+0.000 to +0.000)"
    assert found.rows[0].figure.high > found.rows[0].figure.low


def test_backends_are_rows_of_their_own(data, folds):
    trial = made_trial(data, folds, noisy(0.5), "frozen", speeds=(40.0, 300.0))
    found = rank(TASK, data, folds, [trial])
    plain, packed = found.rows[:2]
    assert (plain.name, packed.name) == ("frozen", "frozen torch-packed")
    assert (plain.backend, packed.backend) == ("", "torch-packed")
    assert (plain.documents_per_second, packed.documents_per_second) == (40, 300)
    assert (plain.size, packed.size) == (1_000_000, 2_000_000)
    assert plain.train_seconds == packed.train_seconds
    assert found.deploy == "frozen torch-packed"


def test_the_test_column_is_of_the_test_documents_alone(data, folds):
    right_there = made_trial(
        data, folds, lambda labels, number: labels if number < 0 else -labels, "late"
    )
    right_before = made_trial(
        data, folds, lambda labels, number: -labels if number < 0 else labels, "early"
    )
    found = rank(TASK, data, folds, [right_there, right_before])
    early, late = found.rows[0], next(row for row in found.rows if row.name == "late")
    assert (early.name, early.test.value) == ("early", pytest.approx(-1))
    assert (late.figure.value, late.test.value) == pytest.approx((-1, 1))
    assert found.deploy == "early"  # the test documents choose nothing


def test_each_fold_is_decided_by_the_threshold_of_its_own_model(data, folds):
    def score(labels, number):
        return labels + 10 * number

    own = made_trial(data, folds, score, "own", threshold=lambda number: 3 + 10 * number)
    one = made_trial(data, folds, score, "one", threshold=3.0)
    rows = {row.name: row for row in rank(TASK, data, folds, [own, one]).rows}
    assert rows["own"].second.value == 1
    assert rows["one"].second.value < 0.9


def test_nothing_to_compare_is_told(data, folds):
    with pytest.raises(DataError, match="nothing to compare"):
        rank(TASK, data, folds, [])


def row(name, figure, speed):
    interval = Interval(value=figure, low=figure, high=figure, n=9, groups=9)
    return Row(
        name=name, family="linear", variant="", preparation="raw", backend="", figure=interval,
        second=interval, behind=None, test=interval, train_seconds=1, documents_per_second=speed,
        size=1, chosen="",
    )  # fmt: skip


ROWS = [
    row("top", 0.9, 20),
    row("near", 0.895, 150),
    row("close", 0.892, 900),
    row("far", 0.8, 5e3),
]
ERRORS = [row("top", 0.500, 20), row("near", 0.504, 150), row("far", 0.6, 5e3)]


@pytest.mark.parametrize(
    ("rows", "metric", "policy", "taken"),
    [
        (ROWS, "spearman", {}, "near"),
        (ROWS, "spearman", {"prefer": "fastest"}, "close"),
        (ROWS, "spearman", {"documents_per_second": 0.0}, "top"),
        (ROWS, "spearman", {"documents_per_second": 150.0}, "near"),
        (ROWS, "spearman", {"documents_per_second": 151.0}, "close"),
        (ROWS, "spearman", {"documents_per_second": 1_000.0}, ""),
        (ROWS, "spearman", {"documents_per_second": 1_000.0, "within": 0.2}, "far"),
        (ROWS, "spearman", {"within": 0.0}, ""),
        (ERRORS, "mae", {}, "near"),
        (ERRORS, "mae", {"prefer": "fastest", "within": 0.5}, "far"),
        (ERRORS, "mae", {"within": 0.005}, ""),
    ],
)
def test_the_policy_says_which_to_deploy(rows, metric, policy, taken):
    name, reason = choose(rows, metric, DeployPolicy.model_validate(policy))
    assert name == taken
    if taken:
        assert reason.startswith(f"To deploy: {taken}, the ")
    else:
        assert reason.startswith("None is within ")
        fastest = "top" if policy.get("within") in (0.0, 0.005) else "close"
        assert f"The fastest of the near ones is {fastest}," in reason
