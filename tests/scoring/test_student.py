import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tamis.errors import ModelError
from tamis.models.score_calibration import IDENTITY
from tamis.scoring import student as module
from tamis.scoring.student import FILE, Student, StudentSettings, fit_folds, load_student

SETTINGS = StudentSettings(bits=12, threshold=2.5, width=0.5)
SCALE = (0.0, 5.0)
FILLER = [f"word{i}" for i in range(80)]


def planted(size=300, seed=0):
    """Texts, and scores that follow the share of kinds of ``gold`` beside kinds of ``lead``."""
    rng = np.random.default_rng(seed)
    shares = rng.random(size)
    texts = []
    for share in shares:
        metals = np.where(rng.random(16) < share, "gold", "lead")
        words = [*(f"{metal}{rng.integers(12)}" for metal in metals), *rng.choice(FILLER, 6)]
        rng.shuffle(words)
        texts.append(" ".join(words))
    return texts, np.around(5 * shares, 6)


def fit(seed=0, settings=SETTINGS):
    texts, scores = planted()
    return fit_folds(texts, scores, settings, SCALE, 5, seed)


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_learns_planted_words(fitted):
    student, unseen = fitted
    texts, scores = planted(200, seed=1)
    assert np.corrcoef(student.score(texts), scores)[0, 1] > 0.7
    assert np.corrcoef(unseen, planted()[1])[0, 1] > 0.7
    best, worst = student.score(["gold0 gold1 gold2 gold3", "lead0 lead1 lead2 lead3"])
    assert best > SETTINGS.threshold > worst


def test_scores_mean_what_the_encoders_do(fitted):
    student, unseen = fitted
    texts, scores = planted(1_000, seed=4)
    found = student.score(texts)
    assert abs(found.mean() - scores.mean()) < 0.15
    for low in (0, 1, 2, 3, 4):
        alike = (low <= found) & (found < low + 1)
        assert abs(found[alike].mean() - scores[alike].mean()) < 0.35
    raw = replace(student, score_map=IDENTITY).score(texts)
    assert (np.argsort(raw) == np.argsort(found)).all()
    assert abs(unseen.mean() - planted()[1].mean()) < 0.05


def test_weights_follow_from_data_and_seed(fitted):
    student, unseen = fitted
    again, unseen_again = fit()
    assert student.weight.tobytes() == again.weight.tobytes() and student.bias == again.bias
    assert unseen.tobytes() == unseen_again.tobytes()
    other, unseen_other = fit(seed=1)
    assert other.weight.tobytes() == student.weight.tobytes()  # the folds play no part in it
    assert unseen_other.tobytes() != unseen.tobytes()


def test_reads_only_the_beginning_and_in_any_company(fitted):
    student, _ = fitted
    start = "gold0 " * 400
    assert len(start) >= SETTINGS.characters
    assert student.score([start + "lead1 lead2"]) == student.score([start + "something else"])
    texts, _ = planted(20, seed=2)
    each = np.concatenate([student.score([text]) for text in texts])
    assert each.tobytes() == student.score(texts).tobytes()
    assert student.score([]).shape == (0,)


def test_out_of_fold_scores_are_of_students_that_had_not_seen_the_document():
    # Each text is one word of its own, and scores are noise: only who has seen it knows its score.
    rng = np.random.default_rng(0)
    texts = [f"word{i}" for i in range(200)]
    scores = rng.choice([0.5, 4.5], 200)
    settings = SETTINGS.model_copy(update={"bits": 18, "alpha": 0.01})
    student, unseen = fit_folds(texts, scores, settings, SCALE, 5, 0)
    kept = scores >= 2.5
    assert ((student.score(texts) >= 2.5) == kept).mean() == 1
    assert ((unseen >= 2.5) == kept).mean() < 0.65
    # A student that has seen none of a fold gives all unknown words of it one score.
    fold = np.random.default_rng(0).permutation(200) % 5
    assert [len(set(np.around(unseen[fold == one], 9))) for one in range(5)] == [1] * 5


WEIRD = {
    "empty": "",
    "blank": " \n\t\u3000",
    "nul": "\x00" * 50,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 900,
    "lone surrogates": "\ud800 gold0 \udfff",
    "marks": "!?#{}<>" * 1_000,
    "one word": "a" * 3_000_000,
    "right to left": "\u202e\u05d0\u0644" * 400,
    "grows in lower case": "İ" * 5_000,
    "private use": "\ue000\U000f0000\U0010ffff",
}


@pytest.mark.parametrize("name", WEIRD)
def test_weird_texts_have_a_score_on_the_scale(fitted, name):
    (score,) = fitted[0].score([WEIRD[name]])
    assert np.isfinite(score) and SCALE[0] <= score <= SCALE[1]


@hypothesis(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=()), max_size=60), max_size=5))
def test_any_text_has_a_score_on_the_scale(texts):
    weight = np.random.default_rng(0).normal(0, 1_000, 2**12).astype(np.float32)
    scores = Student(SETTINGS, weight, 0.3, SCALE).score(texts)
    assert scores.shape == (len(texts),)
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 5).all()


def test_weird_texts_do_not_spoil_the_fit():
    texts, scores = planted(150)
    texts, scores = [*texts, *WEIRD.values()], np.concatenate([scores, np.full(len(WEIRD), 1.0)])
    student, unseen = fit_folds(texts, scores, SETTINGS, SCALE, 5, 0)
    assert np.isfinite(unseen).all() and np.isfinite(student.weight).all()


def test_scores_far_from_the_threshold_are_ordered_and_clipped():
    weight = np.zeros(2**12, dtype=np.float32)
    scores = [
        Student(SETTINGS, weight, bias, SCALE).score(["x"])[0]
        for bias in (-9.0, -0.99, -0.5, 0.0, 0.5, 0.99, 9.0)
    ]
    assert scores == sorted(scores) and scores[3] == 2.5
    assert scores[0] == pytest.approx(2.5 - 0.5 * np.arctanh(0.9999))
    narrow = Student(SETTINGS, weight, 9.0, (2.0, 3.0))
    assert narrow.score(["x"]) == [3.0]


def test_a_saved_student_is_the_same(fitted, tmp_path):
    student, _ = fitted
    student.save(tmp_path)
    loaded = load_student(tmp_path, student.settings, student.scale)
    assert loaded.weight.tobytes() == student.weight.tobytes()
    assert loaded.bias == student.bias and not loaded.score_map.is_identity
    arrays, again = student.arrays(), loaded.arrays()
    assert arrays.keys() == again.keys() and all((arrays[k] == again[k]).all() for k in arrays)
    texts, _ = planted(30, seed=3)
    assert loaded.score(texts).tobytes() == student.score(texts).tobytes()
    settings = StudentSettings.model_validate_json(json.dumps(student.settings.model_dump()))
    assert settings == student.settings


def _cut_short(file):
    file.write_bytes(file.read_bytes()[:-9])


def _weights(**arrays):
    return lambda file: save_file(arrays, file)


FULL, BIAS = np.zeros(2**12, dtype=np.float32), np.zeros(1)


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: (file.unlink(), file.mkdir()), "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: file.write_bytes(b"\xff" * 100), "cannot be read"),
        (_cut_short, "cannot be read"),
        (_weights(weight=FULL), "does not hold the weights of a student"),
        (_weights(bias=BIAS), "does not hold the weights of a student"),
        (_weights(weight=FULL, bias=np.zeros(0)), "does not hold the weights of a student"),
        (_weights(weight=FULL, bias=np.array(1.0)), "does not hold the weights of a student"),
        (_weights(weight=FULL, bias=np.zeros((1, 2))), "does not hold the weights of a student"),
        (_weights(weight=FULL, bias=BIAS, score_map_x=FULL), "does not hold the weights"),
        (_weights(weight=FULL, bias=BIAS, score_map_x=FULL, score_map_y=FULL), "does not hold"),
        (_weights(weight=FULL[:-1], bias=BIAS), "has 4095 weights, not 2^12"),
        (_weights(weight=FULL.reshape(64, 64), bias=BIAS), "has 64 x 64 weights, not 2^12"),
        (_weights(weight=FULL.astype(np.float64), bias=BIAS), "finite numbers in float32"),
        (_weights(weight=FULL, bias=np.array([np.nan])), "finite numbers in float32"),
        (_weights(weight=np.where(np.arange(2**12) == 5, np.inf, FULL), bias=BIAS), "float32"),
    ],
)
def test_a_file_that_is_no_student_is_told_in_a_sentence(fitted, tmp_path, harm, part):
    fitted[0].save(tmp_path)
    harm(tmp_path / FILE)
    with pytest.raises(ModelError, match=FILE) as caught:
        load_student(tmp_path, SETTINGS, SCALE)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_without_words_is_told_by_its_kind():
    assert module.first_line(OSError()) == "OSError"
    assert module.first_line(ValueError("one\ntwo")) == "one"


@pytest.mark.parametrize(
    "change",
    [{"width": 0.0}, {"width": float("nan")}, {"threshold": float("inf")}, {"alpha": 0.0},
     {"bits": 30}, {"longest_gram": 0}, {"characters": 10}, {"colour": 1}],
)  # fmt: skip
def test_settings_that_make_no_student_are_refused(change):
    with pytest.raises(ValueError):
        StudentSettings.model_validate({"threshold": 1.0, "width": 1.0, **change})
