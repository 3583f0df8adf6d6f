import numpy as np
import pytest

from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget

ORDINAL = OrdinalTarget(kind="ordinal", minimum=1.0, maximum=5.0, keep_at_least=3.0)
BINARY = BinaryTarget(kind="binary", negative="0", positive="1")
CLASSES = ClassesTarget(kind="classes", classes=("3", "4", "other"), keep=("4", "other"))


@pytest.mark.parametrize("label", [4, 4.0, "4", " 4.0 ", "4e0", np.float32(4), np.int64(4)])
def test_an_ordinal_label_is_read_from_any_number(label):
    found = ORDINAL.encode(label)
    assert found == 4.0
    assert type(found) is float


@pytest.mark.parametrize("label", [1, 5, "1.0", 2.5])
def test_both_ends_of_the_scale_are_on_it(label):
    assert ORDINAL.encode(label) == float(label)


@pytest.mark.parametrize("label", [True, False, None, "", "good", "nan", float("nan"), [], {}, b""])
def test_what_is_no_number_is_no_ordinal_label(label):
    with pytest.raises(ValueError, match="is not a number") as caught:
        ORDINAL.encode(label)
    assert repr(label) in str(caught.value)


@pytest.mark.parametrize("label", [0.99, 5.01, -1, "6", float("inf"), "-inf"])
def test_a_number_off_the_scale_is_no_ordinal_label(label):
    with pytest.raises(ValueError, match="off the scale 1-5"):
        ORDINAL.encode(label)


def test_an_integer_beyond_every_float_is_no_label():
    with pytest.raises(ValueError):
        ORDINAL.encode(10**400)


def test_a_boolean_of_numpy_is_no_ordinal_label():
    with pytest.raises(ValueError):
        ORDINAL.encode(np.bool_(True))


@pytest.mark.parametrize("label", ["4", 4, 4.0, np.float64(4), np.int64(4)])
def test_a_class_named_by_a_number_is_found(label):
    assert CLASSES.encode(label) == 1.0


def test_a_class_named_by_a_short_float_is_found():
    assert CLASSES.encode(np.float32(4)) == 1.0


@pytest.mark.parametrize("label", [4.5, "5", "", None, True, "4.0", "Other", float("nan"), 1e300])
def test_what_is_no_class_is_refused_with_the_classes(label):
    with pytest.raises(ValueError, match=r"is not one of 3, 4, other$"):
        CLASSES.encode(label)


def test_a_binary_label_is_one_of_the_two():
    assert [BINARY.encode(label) for label in ("0", 0, "1", 1.0)] == [0, 0, 1, 1]
    for label in (True, 2, "yes", None):
        with pytest.raises(ValueError, match=r"is not one of 0, 1$"):
            BINARY.encode(label)


def test_kept_at_and_above_the_line():
    labels = np.array([1, 2.99, 3, 5])
    assert ORDINAL.kept(labels).tolist() == [False, False, True, True]
    assert BINARY.kept(np.array([0.0, 1.0])).tolist() == [False, True]
    assert CLASSES.kept(np.array([0.0, 1.0, 2.0, 1.0])).tolist() == [False, True, True, True]
    assert ORDINAL.kept(labels).dtype == bool


def test_a_label_that_is_missing_is_not_kept():
    for target in (ORDINAL, BINARY, CLASSES):
        assert not target.kept(np.array([np.nan])).any()


def test_ordinal_scores_are_clipped_to_the_scale():
    outputs = np.array([[-3.0], [1.0], [2.5], [7.0]])
    assert ORDINAL.score(outputs).tolist() == [1, 1, 2.5, 5]
    assert outputs[0, 0] == -3


def test_scores_of_classes_are_the_probability_of_the_kept_ones():
    logits = np.log(np.array([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]]))
    assert CLASSES.score(logits) == pytest.approx([0.8, 0.1])
    assert CLASSES.score(logits + 100) == pytest.approx([0.8, 0.1])
    rest = ClassesTarget(kind="classes", classes=CLASSES.classes, keep=("3",))
    assert CLASSES.score(logits) + rest.score(logits) == pytest.approx([1, 1])


def test_extreme_logits_give_probabilities_all_the_same():
    logits = np.array([[1e4, 0.0], [0.0, 1e4], [-1e4, -1e4], [0.0, np.log(3)]])
    assert BINARY.score(logits) == pytest.approx([0, 1, 0.5, 0.75])


@pytest.mark.parametrize(("target", "outputs"), [(ORDINAL, 1), (BINARY, 2), (CLASSES, 3)])
def test_scores_lie_on_the_scale_whatever_the_outputs(target, outputs):
    assert target.n_outputs == outputs
    low, high = target.scale
    scores = target.score(np.random.default_rng(0).normal(0, 50, (200, outputs)))
    assert scores.shape == (200,)
    assert scores.min() >= low
    assert scores.max() <= high + 1e-12
