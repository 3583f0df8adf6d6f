import numpy as np
import pytest
from scipy.stats import spearmanr

from tamis.errors import DataError
from tamis.models.heads import Candidate, fit
from tamis.models.selection import (
    Problem,
    calibrate,
    choose,
    cross_validate,
    fit_frozen,
    grouped_folds,
    held_out_scores,
    set_threshold,
)
from tamis.models.settings import FrozenSettings
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget
from tamis.task import BestF1Threshold, ValueThreshold

ORDINAL = OrdinalTarget(kind="ordinal", keep_at_least=3.0)
BINARY = BinaryTarget(kind="binary", negative="no", positive="yes")
SIZE = 200


def vectors(labels, noise, seed, d=16):
    """Unit vectors that say the label up to noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (len(labels), d))
    spread = labels.std() or 1.0
    x[:, 0] = 3 * ((labels - labels.mean()) / spread + rng.normal(0, noise, len(labels)))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def labels(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 6, size).astype(float)


def problem(y, **changes):
    given = {
        "target": ORDINAL,
        "metric": "spearman",
        "labels": y,
        "groups": np.array([f"page{i // 2}" for i in range(len(y))]),
        "settings": FrozenSettings(heads=("ridge",), tolerance=0.0),
        "threshold": BestF1Threshold(kind="best_f1"),
        "calibration": "isotonic",
        "validation": 0.2,
        "seed": 0,
    }
    return Problem(**(given | changes))


TRAIN, VALIDATION = np.arange(120), np.arange(120, SIZE)


def chosen(features, y, **changes):
    return choose(problem(y, **changes), features, TRAIN, VALIDATION)


class TestChoose:
    def features(self, y, noises):
        return {
            (layer, "mean"): vectors(y, noise, seed=layer)
            for layer, noise in enumerate(noises, start=1)
        }

    def test_the_best_layer_is_taken_and_all_trials_are_ranked(self):
        y = labels()
        choice = chosen(self.features(y, [2.0, 0.1, 1.0]), y)
        assert choice.best.layer == 2
        figures = [trial.figure for trial in choice.trials]
        assert len(figures) == 3 * 4
        assert figures == sorted(figures, reverse=True)
        assert choice.best == choice.trials[0]

    def test_within_the_tolerance_the_lowest_layer_is_taken(self):
        y = labels()
        features = self.features(y, [0.7, 0.35, 0.3, 0.05])
        best = {}
        for trial in chosen(features, y).trials:
            best.setdefault(trial.layer, trial)
        assert best[4].figure > best[2].figure > best[1].figure
        gap = best[4].figure - best[2].figure
        lower = best[4].figure - best[1].figure

        def taken(tolerance):
            settings = FrozenSettings(heads=("ridge",), tolerance=tolerance)
            return chosen(features, y, settings=settings).best

        assert taken(0.0).layer == 4
        assert taken(gap + 1e-9) == best[2]
        assert taken(gap - 1e-9).layer in (3, 4)
        assert gap + 1e-9 < lower
        assert taken(min(0.5, lower + 1e-9)) == best[1]

    def test_an_error_is_compared_the_other_way_round(self):
        y = labels()
        choice = chosen(self.features(y, [2.0, 0.1]), y, metric="mae")
        assert choice.best.layer == 2
        figures = [trial.figure for trial in choice.trials]
        assert figures == sorted(figures)

    def test_validation_documents_are_not_fitted_on(self):
        y = labels()
        features = self.features(y, [0.3])
        spoilt = y.copy()
        spoilt[TRAIN] = np.random.default_rng(1).permutation(y[TRAIN])
        assert abs(chosen(features, spoilt).best.figure) < 0.5
        assert chosen(features, y).best.figure > 0.8


class TestFolds:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("folds", [2, 5])
    def test_no_group_stands_in_two_folds(self, seed, folds):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, 40, SIZE).astype(str)
        rows = rng.permutation(SIZE)[:150]
        given = problem(labels(seed), groups=groups, seed=seed)
        fold = grouped_folds(given, rows, folds)
        assert set(fold.tolist()) == set(range(folds))
        for group in np.unique(groups[rows]):
            assert len(np.unique(fold[groups[rows] == group])) == 1
        assert np.bincount(fold).min() > 150 / folds / 2

    def test_classes_spread(self):
        y = (np.arange(SIZE) < 40).astype(float)
        fold = grouped_folds(problem(y, target=BINARY), np.arange(SIZE), 5)
        shares = [y[fold == number].mean() for number in range(5)]
        assert shares == pytest.approx([0.2] * 5, abs=0.06)

    def test_the_same_seed_gives_the_same_folds(self):
        rows = np.arange(SIZE)
        y = labels()
        one, two, other = (grouped_folds(problem(y, seed=s), rows, 5) for s in (1, 1, 2))
        assert one.tolist() == two.tolist() != other.tolist()


class TestHeldOut:
    """With random labels and room to memorise, only leaks can correlate."""

    def given(self, seed):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(SIZE, 300)).astype(np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = labels(seed)
        # The twin of a document stands in its group: whoever saw the one knows the other.
        x[1::2], y[1::2] = x[::2], y[::2]
        return x, y

    def test_scores_never_come_from_a_head_that_saw_the_group(self):
        found, seen = [], []
        for seed in range(6):
            x, y = self.given(seed)
            candidate = Candidate("ridge", (("alpha", 0.1),))
            trial = choose(problem(y), {(1, "mean"): x}, TRAIN, VALIDATION).best
            scores = held_out_scores(problem(y), x, np.arange(SIZE), trial, folds=5)
            found.append(spearmanr(scores, y).statistic)
            seen.append(spearmanr(fit(candidate, ORDINAL, x, y, 0).outputs(x)[:, 0], y).statistic)
        assert min(seen) > 0.9
        assert abs(np.mean(found)) < 0.12
        assert max(map(abs, found)) < 0.35

    def test_nested_cross_validation_does_not_leak_either(self):
        found = []
        for seed in range(4):
            x, y = self.given(seed)
            result = cross_validate(problem(y), {(1, "mean"): x, (2, "mean"): x**3}, 5)
            assert result.thresholds.shape == (5,)
            assert np.bincount(result.fold).shape == (5,)
            found.append(spearmanr(result.scores, y).statistic)
        assert abs(np.mean(found)) < 0.15

    def test_with_real_labels_held_out_scores_are_good(self):
        y = labels()
        features = {(1, "mean"): vectors(y, 0.2, 1)}
        result = cross_validate(problem(y), features, 4)
        assert spearmanr(result.scores, y).statistic > 0.8
        again = cross_validate(problem(y), features, 4)
        assert result.scores.tolist() == again.scores.tolist()

    def test_rows_left_out_are_left_alone(self):
        y = labels()
        x = vectors(y, 0.2, 1)
        rows = np.arange(0, SIZE, 2)
        trial = choose(problem(y), {(1, "mean"): x}, TRAIN, VALIDATION).best
        scores = held_out_scores(problem(y), x, rows, trial, folds=5)
        assert scores.shape == (100,)
        spoilt = x.copy()
        spoilt[1::2] = 1e3
        again = held_out_scores(problem(y), spoilt, rows, trial, folds=5)
        assert scores.tolist() == again.tolist()


class TestFrozenFit:
    def test_test_documents_are_not_looked_at(self):
        y = labels()
        x = vectors(y, 0.3, 1)
        train, validation = np.arange(100), np.arange(100, 150)
        spoilt_x, spoilt_y = x.copy(), y.copy()
        spoilt_x[150:], spoilt_y[150:] = np.nan, np.nan
        one = fit_frozen(problem(y), {(1, "mean"): x}, train, validation)
        two = fit_frozen(problem(spoilt_y), {(1, "mean"): spoilt_x}, train, validation)
        assert one.threshold == two.threshold
        for name, array in one.head.arrays.items():
            np.testing.assert_array_equal(array, two.head.arrays[name])

    def test_the_head_is_fitted_on_training_and_validation_together(self):
        y = labels()
        x = vectors(y, 0.3, 1)
        found = fit_frozen(problem(y), {(1, "mean"): x}, TRAIN, VALIDATION)
        whole = fit(found.choice.best.candidate, ORDINAL, x, y, 0)
        np.testing.assert_array_equal(found.head.arrays["weight"], whole.arrays["weight"])

    def test_the_threshold_follows_the_policy(self):
        y = labels()
        fixed = problem(y, threshold=ValueThreshold(kind="value", value=2.25))
        assert set_threshold(fixed.threshold, ORDINAL, y, y) == 2.25
        assert 2 < set_threshold(problem(y).threshold, ORDINAL, y, y) <= 3
        found = fit_frozen(fixed, {(1, "mean"): vectors(y, 0.3, 1)}, TRAIN, VALIDATION)
        assert found.threshold == 2.25


class TestCalibration:
    def test_a_straight_head_on_bent_labels_is_bent(self):
        value = np.random.default_rng(0).uniform(0, 1, 400)
        y = np.round(5 * value**3, 1)
        x = vectors(value, 0.2, 1)
        train, validation, test = np.arange(160), np.arange(160, 200), np.arange(200, 400)
        found = fit_frozen(problem(y), {(1, "mean"): x}, train, validation)
        scores, raw = found.scores(ORDINAL, {(1, "mean"): x}, test)
        assert found.calibration.note.endswith("points from 200 held-out documents")
        assert spearmanr(scores, y[test]).statistic == spearmanr(raw, y[test]).statistic
        parts = np.array_split(np.argsort(raw), 5)

        def gap(given):
            return np.mean([abs(y[test][part].mean() - given[part].mean()) for part in parts])

        assert gap(scores) < 0.5 * gap(raw)

    @pytest.mark.parametrize("target", [ORDINAL, BINARY])
    def test_the_threshold_is_on_calibrated_scores_and_decides_the_same(self, target):
        y = labels() if target is ORDINAL else (labels() >= 3).astype(float)
        x = vectors(y, 0.5, 1)
        metric = "spearman" if target is ORDINAL else "average_precision"
        features = {(1, "mean"): x}
        one, two = (
            fit_frozen(
                problem(y, target=target, metric=metric, calibration=calibration),
                features,
                TRAIN,
                VALIDATION,
            )
            for calibration in ("isotonic", "none")
        )
        assert not one.calibration.score_map.is_identity
        assert two.calibration.score_map.is_identity
        assert two.calibration.note == "not calibrated: the task asks for none"
        rows = np.arange(SIZE)
        held = held_out_scores(problem(y, target=target), x, rows, one.choice.best, folds=5)
        np.testing.assert_array_equal(
            one.calibration.score_map(held) >= one.threshold, held >= two.threshold
        )
        assert one.threshold != two.threshold

    def test_a_value_is_one_of_calibrated_scores(self):
        y = labels()
        fixed = problem(y, threshold=ValueThreshold(kind="value", value=3.0))
        found = fit_frozen(fixed, {(1, "mean"): vectors(y, 0.3, 1)}, TRAIN, VALIDATION)
        assert found.threshold == 3.0

    def test_the_map_is_fitted_on_scores_of_heads_that_did_not_see_the_document(self):
        """With random labels scores mean nothing, however well the head recalls what it saw."""
        rises = []
        for seed in range(6):
            x, y = TestHeldOut().given(seed)
            found = fit_frozen(problem(y), {(1, "mean"): x}, TRAIN, VALIDATION)
            if not found.calibration.score_map.is_identity:
                rises.append(np.ptp(found.calibration.score_map(np.array([2.0, 3.0]))))
        assert len(rises) >= 3
        assert np.mean(rises) < 0.75

    def test_no_fold_has_a_say_in_its_own_scores(self):
        """Labels of a fold change, within the same strata: its scores and threshold do not."""
        y = labels()
        features = {(1, "mean"): vectors(y, 0.5, 1)}
        before = cross_validate(problem(y), features, 4)
        for number in range(4):
            inside = before.fold == number
            other = np.where(inside, np.clip(y + 0.4 * np.where(y < 3, -1, 1), 0, 5), y)
            after = cross_validate(problem(other), features, 4)
            assert after.fold.tolist() == before.fold.tolist()
            np.testing.assert_array_equal(after.scores[inside], before.scores[inside])
            assert after.thresholds[number] == before.thresholds[number]
            assert not np.array_equal(after.scores[~inside], before.scores[~inside])

    def test_each_fold_has_a_map_of_its_own(self):
        y = labels()
        found = cross_validate(problem(y), {(1, "mean"): vectors(y, 0.5, 1)}, 4)
        for number in range(4):
            inside = found.fold == number
            order = np.argsort(found.raw[inside])
            assert (np.diff(found.scores[inside][order]) >= 0).all()
        assert (np.diff(found.scores[np.argsort(found.raw)]) < 0).any()
        plain = cross_validate(problem(y, calibration="none"), {(1, "mean"): vectors(y, 0.5, 1)}, 4)
        np.testing.assert_array_equal(plain.scores, plain.raw)
        np.testing.assert_array_equal(plain.raw, found.raw)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_score_that_is_no_number_is_refused(self, value):
        y = labels()
        with pytest.raises(DataError, match="1 of 200 scores are not finite"):
            calibrate("isotonic", ORDINAL, y, np.where(np.arange(SIZE) == 7, value, y))

    def test_kept_classes_are_what_a_probability_is_of(self):
        target = ClassesTarget(kind="classes", classes=("a", "b", "c"), keep=("a", "c"))
        rng = np.random.default_rng(0)
        y = rng.integers(0, 3, 300).astype(float)
        chance = np.where(y == 1, 0.2, 0.9)
        found, _ = calibrate(
            "isotonic", target, y, np.clip(chance + rng.normal(0, 0.05, 300), 0, 1)
        )
        assert found(np.array([0.9]))[0] > 0.9
        assert found(np.array([0.2]))[0] < 0.1
