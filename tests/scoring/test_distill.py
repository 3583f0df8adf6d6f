import math

import numpy as np
import pytest
import xxhash

from tamis.errors import DataError
from tamis.scoring import distill as module
from tamis.scoring.cascade import read_cascade
from tamis.scoring.distill import Request, Taught, distill, part, students
from tamis.scoring.distill_report import DistillReport
from tamis.scoring.settings import CascadeSettings, Promise
from tests.scoring import filter_stubs as stubs

GOOD, BAD = ([f"{kind}{i}" for i in range(25)] for kind in ("good", "bad"))
PROMISE = Promise(recall=0.9, precision=0.9, confidence=0.9)


def draw(size=1_500, seed=0):
    """Texts whose share of good words runs from none to all."""
    rng = np.random.default_rng(seed)
    shares = rng.random(size)
    texts = []
    for i, share in enumerate(shares):
        good = rng.random(30) < share
        words = np.where(good, rng.choice(GOOD, 30), rng.choice(BAD, 30))
        texts.append(" ".join([*words, f"number{i}"]))
    return texts


def true_score(text):
    """0-5, by the share of good words."""
    words = text.split()[:30]
    return round(5 * sum(word.startswith("good") for word in words) / len(words), 6)


def noise(text):
    """0-1, of the text alone."""
    return xxhash.xxh32_intdigest(text.encode()) / 2**32


class Runtime:
    """The encoder as it runs: the true score, but for a share of the texts on the other side."""

    def __init__(self, flipped=0.0, score=true_score):
        self.flipped, self.of, self.asked = flipped, score, []

    def score(self, texts):
        self.asked += texts
        values = [
            5 - self.of(text) if noise(text + "?") < self.flipped else self.of(text)
            for text in texts
        ]
        return stubs.Scored(np.array(values), np.full(len(texts), 31))


def small_students(request):
    """The students that are tried, but fewer and small: columns cost time."""
    return [one.model_copy(update={"bits": 13}) for one in students(request)[:2]]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(module, "students", small_students)


def taught_of(texts, score=true_score):
    scores = np.array([score(text) for text in texts])
    return Taught(list(texts), scores, np.full(len(texts), 31))


def request_for(seed=0, threshold=3.0, **settings):
    return Request(
        task="toy",
        encoder="e" * 64,
        backend="torch",
        margin=0.0,
        threshold=threshold,
        scale=(0.0, 5.0),
        tokens=64,
        corpus="3 files",
        settings=CascadeSettings(**{"promise": PROMISE, "audit": 0.1, **settings}),
        seed=seed,
    )


@pytest.fixture(scope="module")
def texts():
    return draw()


@pytest.fixture(scope="module")
def made(texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "students", small_students)
        runtime = Runtime()
        return *distill(taught_of(texts), runtime, request_for()), runtime


def sides_of(texts, seed=0):
    return [
        [texts[row] for row in rows] for rows in part(len(texts), request_for(seed).settings, seed)
    ]


def test_parts_are_disjoint_and_complete():
    for size in (0, 1, 7, 1_500):
        train, calibration, test = part(size, CascadeSettings(), 3)
        assert sorted([*train, *calibration, *test]) == list(range(size))
        assert len(calibration) == len(test) == round(0.2 * size)
    again, other = part(1_500, CascadeSettings(), 3), part(1_500, CascadeSettings(), 4)
    assert [side.tolist() for side in again] == [s.tolist() for s in (train, calibration, test)]
    assert other[0].tolist() != train.tolist()


def test_a_cascade_is_certified_and_measured_on_documents_that_had_no_say(made, texts):
    cascade, report, runtime = made
    train, calibration, test = sides_of(texts)
    assert report.documents == {
        "train": len(train), "calibration": len(calibration), "test": len(test)
    }  # fmt: skip
    assert set(runtime.asked) == {*calibration, *test}
    assert not cascade.info.band.sends_everything and cascade.audit == 0.1
    assert report.calibration.p_recall <= 0.1 and report.calibration.p_precision <= 0.1
    assert report.calibration.documents == len(calibration)

    found = cascade.score(test, Runtime())
    kept, wanted = found.values >= 3, np.array([true_score(text) for text in test]) >= 3
    assert report.test.recall.value == pytest.approx((kept & wanted).sum() / wanted.sum())
    assert report.test.precision.value == pytest.approx((kept & wanted).sum() / kept.sum())
    assert report.test.sent.value == pytest.approx(found.sent.mean())
    assert (report.test.recall.n, report.test.precision.n) == (wanted.sum(), kept.sum())
    assert report.test.recall.value > 0.88 and report.test.sent.value < 0.5
    assert report.encoder_only.recall.value == report.encoder_only.sent.value == 1
    assert report.kept == sum(true_score(text) >= 3 for text in texts)


def test_the_promise_holds_for_documents_nobody_has_seen(made):
    cascade, _, _ = made
    fresh = draw(4_000, seed=9)
    kept = cascade.score(fresh, Runtime()).values >= 3
    wanted = np.array([true_score(text) for text in fresh]) >= 3
    assert (kept & wanted).sum() / wanted.sum() >= 0.9
    assert (kept & wanted).sum() / kept.sum() >= 0.9


def test_what_the_cascade_says_of_itself_is_in_it(made):
    cascade, report, _ = made
    info = cascade.info
    assert (info.task, info.encoder, info.threshold, info.corpus) == (
        "toy", "e" * 64, 3.0, "3 files"
    )  # fmt: skip
    assert info.promise == PROMISE and info.band == report.calibration.band
    assert info.student == min(report.students, key=lambda trial: trial.sent).settings
    assert all(0.1 < rate < 0.3 for rate in info.tokens_per_character)
    assert report.gain > 0
    assert DistillReport.model_validate_json(report.model_dump_json()) == report


def test_the_same_seed_makes_the_same_cascade(made, texts, tmp_path):
    cascade, report, _ = made
    again, report_again = distill(taught_of(texts), Runtime(), request_for())
    assert again.fingerprint == cascade.fingerprint
    speeds = {"documents_per_cpu_second": {}}
    assert report_again.model_copy(update=speeds) == report.model_copy(update=speeds)
    other, _ = distill(taught_of(texts), Runtime(), request_for(seed=1))
    assert other.student.weight.tobytes() != cascade.student.weight.tobytes()
    again.save(tmp_path)
    assert read_cascade(tmp_path).info.band == cascade.info.band


def test_flips_of_the_running_encoder_are_accounted_for(made, texts):
    _, calm, _ = made
    cascade, report = distill(taught_of(texts), Runtime(0.03), request_for())
    test = sides_of(texts)[2]
    wanted = np.array([true_score(text) for text in test]) >= 3
    alone = Runtime(0.03).score(test).values >= 3
    kept = cascade.score(test, Runtime(0.03)).values >= 3
    for figures, chosen in ((report.encoder_only, alone), (report.test, kept)):
        right = (chosen & wanted).sum()
        assert figures.recall.value == pytest.approx(right / wanted.sum())
        assert figures.precision.value == pytest.approx(right / chosen.sum())
    assert report.encoder_only.recall.value < 1 and report.encoder_only.precision.value < 1
    assert report.test.recall.value < calm.test.recall.value
    assert report.students == calm.students  # they learn from the fp32 scores alone


def check_alone(cascade, report, texts, reason):
    """Nothing was certified: everything is sent, and the report says why."""
    assert report.calibration.band is None and report.test is None
    assert reason in report.calibration.reason
    assert cascade.info.band.sends_everything and report.gain == 1
    runtime = Runtime()
    found = cascade.score(texts[:40], runtime)
    assert runtime.asked == texts[:40] and found.sent.all()
    page = report.to_html()
    assert "the encoder decides alone" in page and "nan" not in page
    assert DistillReport.model_validate_json(report.model_dump_json()) == report


def test_too_few_kept_documents_certify_nothing(texts):
    taught = taught_of(texts)
    threshold = float(np.sort(taught.scores)[-25])
    cascade, report = distill(taught, Runtime(), request_for(threshold=threshold))
    check_alone(cascade, report, texts, "to certify recall 0.9 at 0.9 confidence")


def test_an_encoder_that_runs_too_far_from_the_reference_certifies_nothing(texts):
    cascade, report = distill(taught_of(texts), Runtime(0.3), request_for())
    check_alone(cascade, report, texts, "Even with every document sent")
    assert report.encoder_only.recall.value < 0.9


def test_an_encoder_that_no_student_can_imitate_decides_nearly_everything(texts):
    def score(text):
        return round(5 * noise(text), 6)

    _, report = distill(taught_of(texts, score), Runtime(score=score), request_for())
    assert report.calibration.band is not None
    assert report.test.sent.value > 0.7
    assert abs(report.students[0].spearman) < 0.15
    assert np.isfinite(report.gain) and report.gain < 2
    report.to_html()


def test_scores_that_are_no_number_count_as_not_kept(texts):
    runtime = Runtime(score=lambda text: math.nan if noise(text) < 0.2 else true_score(text))
    _, report = distill(taught_of(texts), runtime, request_for())
    assert report.encoder_only.recall.value < 0.9 and report.calibration.band is None


@pytest.mark.parametrize(
    ("size", "changes", "part"),
    [
        (0, {}, "too few to calibrate"),
        (2, {}, "too few to calibrate"),
        (15, {}, "a student needs at least 10 on either side"),
        (200, {"threshold": 5.0}, "the encoder keeps 0; a student needs at least 10"),
        (200, {"threshold": 0.0}, "of 120 documents the encoder keeps 120;"),
        (200, {"test": 0.001}, "200 documents are too few to calibrate"),
    ],
)
def test_too_small_a_sample_is_told_in_a_sentence(texts, size, changes, part):
    few = [text for text in texts if true_score(text) < 5][:size]
    with pytest.raises(DataError) as caught:
        distill(taught_of(few), Runtime(), request_for(**changes))
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_student_that_gives_one_score_to_all_is_reported(texts, monkeypatch):
    real = module.fit_folds

    def constant(*arguments):
        student, unseen = real(*arguments)
        return student, np.full_like(unseen, 1.0)

    monkeypatch.setattr(module, "fit_folds", constant)
    _, report = distill(taught_of(texts[:400]), Runtime(), request_for())
    assert [trial.spearman for trial in report.students] == [0.0, 0.0]
    assert DistillReport.model_validate_json(report.model_dump_json()) == report


def test_students_read_about_as_much_as_the_encoder():
    tried = students(request_for())
    assert {one.characters for one in tried} == {256, 320}
    assert {one.width for one in tried} == {0.5, 1.0}
    assert {one.threshold for one in tried} == {3.0}
    assert len(set(map(str, tried))) == len(tried)
