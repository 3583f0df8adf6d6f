import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from tamis.evaluation.metrics import best_f1_threshold
from tamis.models.score_calibration import (
    IDENTITY,
    LEAST_SLOPE,
    MIN_DOCUMENTS,
    ScoreMap,
    fit_score_map,
    meant,
    take_score_map,
)
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget

ORDINAL = OrdinalTarget(kind="ordinal", keep_at_least=3.0)
BINARY = BinaryTarget(kind="binary", negative="no", positive="yes")
SCALES = [(0.0, 5.0), (0.0, 1.0), (-2.0, 10.0)]


def skewed(n, seed, scale=(0.0, 5.0)):
    """Scores, and labels that rise with them along a bent line."""
    rng = np.random.default_rng(seed)
    low, high = scale
    share = rng.uniform(0, 1, n)
    truth = np.clip(share**3 + rng.normal(0, 0.1, n), 0, 1)
    return low + share * (high - low), np.round(low + truth * (high - low), 1)


def odds(n, seed):
    """Overconfident probabilities, and outcomes."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float)
    return 1 / (1 + np.exp(-5 * logit - 2)), labels


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(3))
def test_the_map_rises_strictly_from_end_to_end_and_stays_on_the_scale(scale, seed):
    found, note = fit_score_map(*skewed(200, seed, scale), scale)
    low, high = scale
    assert note == f"isotonic, {len(found.x)} points from 200 held-out documents"
    assert (found.x[0], found.x[-1]) == scale
    dense = np.linspace(low, high, 20_001)
    values = found(dense)
    assert (np.diff(values) >= 0.99 * LEAST_SLOPE * np.diff(dense)).all()
    assert values.min() >= low
    assert values.max() <= high


def flat_in_the_middle():
    scores = np.linspace(0.5, 4.5, 90)
    return scores, np.repeat([1.0, 3.0, 2.0, 3.0], [30, 15, 15, 30])


HARD = {
    "steps": flat_in_the_middle(),
    "separated": (np.linspace(0, 5, 80), np.repeat([0.0, 5.0], 40)),
    "ties": (np.repeat([1.0, 2.0, 4.0], 30), np.repeat([0.0, 3.0, 5.0], 30)),
    "ends": (np.repeat([0.0, 0.2, 5.0], 30), np.repeat([0.0, 1.0, 5.0], 30)),
    "neighbours": (
        np.sort(np.concatenate([np.full(30, 2.0), np.full(30, np.nextafter(2.0, 3.0)), [1, 4]])),
        np.repeat([0.0, 1.0, 4.0, 5.0], [1, 30, 30, 1]),
    ),
    "neighbours at the end": (
        np.repeat([1.0, 4.0, np.nextafter(4.0, 5.0)], 30), np.repeat([1.0, 5.0, 5.0], 30)
    ),
    "skewed": skewed(300, 5),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_ranks_are_as_they_were(name):
    scores, truth = HARD[name]
    found, _ = fit_score_map(scores, truth, (0.0, 5.0))
    assert not found.is_identity
    rng = np.random.default_rng(0)
    anew = np.concatenate([rng.uniform(0, 5, 3_000), scores[np.diff(scores, append=9) > 1e-12]])
    np.testing.assert_array_equal(rankdata(anew), rankdata(found(anew)))
    apart = np.where(np.abs(scores - 4) < 1e-9, 4, scores)
    assert spearmanr(truth, apart).statistic == spearmanr(truth, found(apart)).statistic
    np.testing.assert_allclose(found.raw(found(anew)), anew, atol=1e-9)
    again = take_score_map(found.arrays())
    np.testing.assert_array_equal(again(anew), found(anew))


def test_blocks_become_points_at_their_centres():
    scores, truth = flat_in_the_middle()
    found, _ = fit_score_map(scores, truth, (0.0, 5.0))
    centres = [scores[truth == 1].mean(), scores[30:60].mean(), scores[60:].mean()]
    np.testing.assert_allclose(found.x[1:-1], centres)
    expected = (1 - LEAST_SLOPE) * np.array([1.0, 2.5, 3.0]) + LEAST_SLOPE * np.array(centres)
    np.testing.assert_allclose(found.y[1:-1], expected)
    # Beyond the last points it goes on as steeply as from the first to the last.
    slope = (1 - LEAST_SLOPE) * (3 - 1) / (centres[-1] - centres[0]) + LEAST_SLOPE
    for end in (0, -1):
        inner = 1 if end == 0 else -2
        step = (found.y[end] - found.y[inner]) / (found.x[end] - found.x[inner])
        assert step == pytest.approx(slope)


def test_a_block_at_the_end_of_the_scale_stays_there():
    """What was always dropped is not lifted towards the kept by a line between centres."""
    scores = np.linspace(0, 1, 100)
    found, _ = fit_score_map(scores, (scores > 0.5).astype(float), (0.0, 1.0))
    assert found(np.array([0.45]))[0] < 0.01
    assert found(np.array([0.55]))[0] > 0.99


@pytest.mark.parametrize("seed", range(4))
def test_skewed_scores_mean_labels_on_documents_it_was_not_fitted_on(seed):
    found, _ = fit_score_map(*skewed(300, seed), (0.0, 5.0))
    scores, truth = skewed(5_000, 100 + seed)
    expected = np.array([truth[np.abs(scores - s) < 0.1].mean() for s in (1.0, 2.5, 3.5, 4.5)])
    given = found(np.array([1.0, 2.5, 3.5, 4.5]))
    assert np.abs(given - expected).max() < 0.35
    assert np.abs(truth - found(scores)).mean() < 0.6 * np.abs(truth - scores).mean()


def test_probabilities_become_honest():
    found, _ = fit_score_map(*odds(500, 0), (0.0, 1.0))
    scores, labels = odds(20_000, 1)
    brier = [((p - labels) ** 2).mean() for p in (scores, found(scores))]
    assert brier[1] < brier[0] - 0.05
    middle = np.abs(found(scores) - 0.5) < 0.1
    assert labels[middle].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("scores", "truth", "why"),
    [
        (*skewed(MIN_DOCUMENTS - 1, 0), "49 held-out documents, at least 50 needed"),
        (np.empty(0), np.empty(0), "0 held-out documents"),
        (np.linspace(0, 5, 80), np.full(80, 3.0), "all 80 held-out labels are the same"),
        (np.full(80, 2.0), np.arange(80) % 5.0, "labels do not rise with the score"),
        (np.linspace(0, 5, 80), np.linspace(5, 0, 80), "labels do not rise with the score"),
    ],
)
def test_where_nothing_can_be_learnt_scores_stay(scores, truth, why):
    found, note = fit_score_map(scores, truth, (0.0, 5.0))
    assert found.is_identity
    assert note.startswith("not calibrated: ")
    assert why in note
    anew = np.array([0.0, 2.2, 5.0])
    np.testing.assert_array_equal(found(anew), anew)
    np.testing.assert_array_equal(found.raw(anew), anew)


def test_just_enough_documents_are_enough():
    assert not fit_score_map(*skewed(MIN_DOCUMENTS, 0), (0.0, 5.0)).score_map.is_identity


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_keeps_the_same_documents(seed):
    scores, truth = skewed(150, seed)
    found, _ = fit_score_map(scores, truth, (0.0, 5.0))
    kept = truth >= 3
    before = scores >= best_f1_threshold(kept, scores)
    after = found(scores) >= best_f1_threshold(kept, found(scores))
    np.testing.assert_array_equal(before, after)


def test_what_a_score_is_to_mean():
    assert meant(ORDINAL, np.array([0.0, 2.5])).tolist() == [0.0, 2.5]
    assert meant(BINARY, np.array([0.0, 1.0])).tolist() == [0.0, 1.0]
    classes = ClassesTarget(kind="classes", classes=("a", "b", "c"), keep=("c", "a"))
    assert meant(classes, np.array([0.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 1.0]


class TestArrays:
    def test_the_identity_leaves_no_arrays_and_comes_from_none(self):
        assert IDENTITY.arrays() == {}
        head = {"weight": np.ones(2)}
        assert take_score_map(head).is_identity
        assert set(head) == {"weight"}

    def test_they_are_taken_out_of_those_of_the_head(self):
        given = ScoreMap(np.array([0.0, 5.0]), np.array([1.0, 4.0]))
        arrays = {"weight": np.ones(2)} | given.arrays()
        assert take_score_map(arrays)(np.array([2.5])).tolist() == [2.5]
        assert set(arrays) == {"weight"}

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            ([0.0, 5.0], [1.0, 1.0]),
            ([0.0, 5.0], [4.0, 1.0]),
            ([0.0, 0.0], [1.0, 4.0]),
            ([0.0, 5.0], [1.0, np.nan]),
            ([0.0, 5.0], [1.0, np.inf]),
            ([0.0, 1.0, 5.0], [1.0, 2.0]),
            ([0.0], [1.0]),
            ([], []),
            ([[0.0, 5.0]], [[1.0, 4.0]]),
        ],
    )
    def test_what_is_no_rising_line_is_refused(self, x, y):
        with pytest.raises(ValueError, match="not a rising line"):
            take_score_map({"score_map_x": np.array(x), "score_map_y": np.array(y)})

    def test_half_a_map_is_refused(self):
        for name in ("score_map_x", "score_map_y"):
            with pytest.raises(ValueError, match="lacks the array score_map_"):
                take_score_map({name: np.arange(3.0)})
