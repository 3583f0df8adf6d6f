import json
import math

import numpy as np
import pytest
import xxhash

from tamis.corpus.manifest import read_manifest, read_output
from tamis.corpus.readers import list_shards
from tamis.corpus.settings import (
    ExactSettings,
    FilterSettings,
    LanguageSettings,
    NearDuplicateSettings,
    PiiSettings,
    RulesSettings,
)
from tamis.engine.local import LocalEngine
from tamis.errors import DataError, EngineError, UsageError
from tamis.scoring import distill as module
from tamis.scoring.cascade import read_cascade
from tamis.scoring.distill import Request, Taught, distill, part, read_taught, students, teach
from tamis.scoring.distill_report import DistillReport
from tamis.scoring.passes import sift_shard
from tamis.scoring.settings import CascadeSettings, Promise
from tests.scoring import filter_stubs as stubs
from tests.scoring import whole_runs
from tests.scoring.test_stages import GERMAN, prose

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


SHARDS, ROWS = 4, 150


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for shard in range(SHARDS):
        lines = [json.dumps({"text": f"text {shard} {row}"}) for row in range(ROWS)]
        (folder / f"p{shard}.jsonl").write_text("\n".join(lines))
    return folder


def teach_here(corpus, out, documents=200, seed=0, engine=None, **changes):
    plan = stubs.make_plan(
        "nowhere", **{"filter": FilterSettings(), "format": "jsonl.zst", **changes}
    )
    shards = list_shards([str(corpus)])
    return teach(plan, shards, documents, str(out), seed, engine or LocalEngine(0), stubs.quiet)


def rows_of(out):
    return [(row["shard"], row["row"], row["text"], row["score"]) for row in read_output(str(out))]


@pytest.fixture(scope="module")
def sample(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "out"
    return out, teach_here(corpus, out)


def test_a_sample_is_drawn_from_all_of_every_shard(sample):
    out, share = sample
    rows = rows_of(out)
    assert share == 0.33 and 150 < len(rows) < 250
    for shard in range(SHARDS):
        drawn = [row for name, row, *_ in rows if name == f"p{shard}"]
        assert 25 < len(drawn) < 80
        assert sum(row >= ROWS / 2 for row in drawn) > 0.3 * len(drawn)
        assert max(drawn) > 0.8 * ROWS
    patterns = {frozenset(r for s, r, *_ in rows if s == f"p{n}") for n in range(SHARDS)}
    assert len(patterns) == SHARDS
    assert all(score == stubs.true_score(text) for *_, text, score in rows)
    assert not list(read_output(str(out), "dropped"))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_draws_the_same(corpus, sample, tmp_path, workers):
    teach_here(corpus, tmp_path / "out", engine=LocalEngine(workers))
    assert whole_runs.parts(tmp_path / "out") == whole_runs.parts(sample[0])
    assert read_taught(str(tmp_path / "out")).texts == read_taught(str(sample[0])).texts


def test_what_was_taught_is_in_the_order_of_the_corpus(corpus, sample, tmp_path):
    class Backwards(LocalEngine):
        def run(self, items, *arguments, **more):
            super().run(items[::-1], *arguments, **more)

    teach_here(corpus, tmp_path / "out", engine=Backwards(0))
    shards = [record.shard for record in read_manifest(str(tmp_path / "out")).shards]
    assert shards == [f"p{shard}" for shard in range(SHARDS)]
    backwards, forwards = read_taught(str(tmp_path / "out")), read_taught(str(sample[0]))
    assert backwards.texts == forwards.texts == [text for *_, text, _ in sorted(rows_of(sample[0]))]
    assert backwards.scores.tolist() == forwards.scores.tolist()


def test_another_seed_draws_others_and_all_may_be_drawn(corpus, sample, tmp_path):
    teach_here(corpus, tmp_path / "other", seed=1)
    assert {row[:2] for row in rows_of(tmp_path / "other")} != {r[:2] for r in rows_of(sample[0])}
    assert teach_here(corpus, tmp_path / "all", documents=10_000) == 1
    assert len(rows_of(tmp_path / "all")) == SHARDS * ROWS


def _never(model_dir):
    raise AssertionError("nothing is left to score")


def test_a_sample_goes_on_where_it_was_stopped(corpus, sample, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(EngineError, match="on purpose"):
        teach_here(corpus, out, engine=whole_runs.Interrupted(whole_runs.stop, sift_shard))
    done = [record.shard for record in read_manifest(str(out)).shards]
    times = {file: file.stat().st_mtime_ns for file in (out / "kept").iterdir()}
    assert len(done) == 2
    assert teach_here(corpus, out) == sample[1]
    assert whole_runs.parts(out) == whole_runs.parts(sample[0])
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    teach_here(corpus, out, load=_never)


def test_a_sample_passes_the_stages_before_the_score_and_no_others(tmp_path):
    texts = [
        prose(1), prose(2), prose(1), GERMAN, "The river and the valley.",
        f"{prose(3)} Write to jane.doe@example.org. {prose(4)}", f"{prose(2)} Once more.",
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    chosen = FilterSettings(
        exact=ExactSettings(),
        language=LanguageSettings(enabled=True),
        rules=RulesSettings(enabled=True),
        pii=PiiSettings(action="mask"),
        near_duplicates=NearDuplicateSettings(),
    )
    out = tmp_path / "out"
    teach_here(tmp_path / "a.jsonl", out, filter=chosen, threshold=4.9)
    assert {row["text"] for row in read_output(str(out))} == {
        text for text in texts if text != GERMAN
    }
    (dropped,) = read_output(str(out), "dropped")
    assert dropped["reason"] == "language"
    (duplicate,) = read_output(str(out), "duplicates")
    assert duplicate["reason"] == "exact_duplicate"


def test_an_empty_corpus_is_told_in_a_sentence(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UsageError, match="hold no row"):
        teach_here(tmp_path / "a.jsonl", tmp_path / "out")


def test_what_was_taught_has_no_text_twice(tmp_path):
    texts = ["one", "two two", "one", "NAN three", "two two", "four"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    teach_here(tmp_path / "a.jsonl", tmp_path / "out", filter=stubs.PLAIN)
    taught = read_taught(str(tmp_path / "out"))
    assert taught.texts == ["one", "two two", "four"]
    assert taught.scores.tolist() == [stubs.true_score(text) for text in taught.texts]
    assert taught.tokens.tolist() == [1, 2, 1]
    ids = {row["text"]: row["id"] for row in read_output(str(tmp_path / "out"))}
    assert read_taught(str(tmp_path / "out"), {ids["one"]}).texts == ["two two", "four"]
    some = taught.take(np.array([2, 0]))
    assert (some.texts, some.tokens.tolist()) == (["four", "one"], [1, 1])
