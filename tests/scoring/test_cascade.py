import math
from dataclasses import replace

import numpy as np
import pytest

from tamis.corpus.document import Document
from tamis.errors import EngineError, ModelError
from tamis.models.score_calibration import ScoreMap
from tamis.scoring.band import Band
from tamis.scoring.cascade import (
    MARK,
    Cascade,
    CascadeInfo,
    CascadeScores,
    describe,
    load_cascade,
    read_cascade,
)
from tamis.scoring.settings import Promise
from tamis.scoring.stages import Candidate, Stages
from tamis.scoring.student import FILE, Student, StudentSettings, vectorizer
from tests.scoring import filter_stubs as stubs

ENCODER = "e" * 64
SETTINGS = StudentSettings(bits=12, threshold=2.5, width=1.0)
SCALE = (0.0, 5.0)


def make_info(band=Band(low=2.0, high=3.0), **changes):
    given = {
        "task": "toy",
        "encoder": ENCODER,
        "backend": "torch",
        "threshold": 2.5,
        "scale": SCALE,
        "student": SETTINGS,
        "band": band,
        "promise": Promise(),
        "tokens_per_character": (0.25, 0.5),
        "seed": 0,
    }
    return CascadeInfo.model_validate(given | changes)


def make_student():
    """One that goes by the share of ``good`` and ``bad`` words alone."""
    weight = np.zeros(2**12, dtype=np.float32)
    for word, value in (("good", 5), ("bad", -5)):
        columns = vectorizer(SETTINGS).transform([word]).indices
        weight[columns] = value
    return Student(SETTINGS, weight, 0.0, SCALE)


def make(band=Band(low=2.0, high=3.0), audit=0.0, **changes):
    return Cascade(make_info(band, **changes), make_student(), audit)


class Encoder:
    """Counts what it is asked; its score is the text's number of ``yes``, 0-5."""

    def __init__(self, broken=()):
        self.asked, self.calls, self.broken = [], 0, broken

    def score(self, texts):
        self.calls += 1
        self.asked += texts
        values = [
            math.nan if text in self.broken else min(5.0, text.count("yes")) for text in texts
        ]
        return stubs.Scored(np.array(values), np.array([len(text.split()) for text in texts]))


def corpus(size=120):
    """Texts that the student drops, sends and keeps, a third each; half with a high score."""
    kinds = ("bad", "neutral", "good")
    return [f"{kinds[i % 3]} number{i} " + "yes " * (4 if i % 2 else 0) for i in range(size)]


TEXTS = corpus()


def test_only_documents_in_the_band_reach_the_encoder():
    encoder = Encoder()
    found = make().score(TEXTS, encoder)
    assert encoder.asked == [text for text in TEXTS if text.startswith("neutral")]
    assert encoder.calls == 1
    assert found.sent.tolist() == [text.startswith("neutral") for text in TEXTS]
    assert not found.audited.any()
    assert np.isnan(found.encoder[~found.sent]).all()
    assert found.values[found.sent].tolist() == found.encoder[found.sent].tolist()
    assert found.values[~found.sent].tolist() == found.student[~found.sent].tolist()


def test_an_encoder_that_is_not_needed_is_not_called():
    encoder = Encoder()
    found = make().score(["good", "bad", "good good"], encoder)
    assert encoder.calls == 0 and found.values.shape == (3,)
    assert make().score([], encoder).values.shape == (0,) and encoder.calls == 0
    nothing_sent = make(Band(low=2.5, high=2.5)).score(TEXTS, encoder)
    assert encoder.calls == 0 and not nothing_sent.sent.any()


def test_an_open_band_asks_about_everything():
    encoder = Encoder()
    found = make(Band()).score(TEXTS, encoder)
    assert encoder.asked == TEXTS and found.sent.all()
    plain = Encoder().score(TEXTS)
    assert found.values.tolist() == plain.values.tolist()
    assert found.tokens.tolist() == plain.tokens.tolist()


@pytest.mark.parametrize(
    "band",
    [Band(), Band(low=2.0, high=3.0), Band(low=2.5, high=2.5), Band(low=2.0), Band(high=2.5)],
)
@pytest.mark.parametrize("audit", [0.0, 0.5, 1.0])
def test_who_decides_is_seen_in_the_score_and_counts_add_up(band, audit):
    found = make(band, audit).score(TEXTS, Encoder())
    kept = found.values >= 2.5
    assert kept.tolist() == band.keep(found.student, found.encoder >= 2.5).tolist()
    assert (found.values == np.where(found.sent, found.encoder, found.student)).all()
    counts = found.counts(2.5)
    assert counts.sent + counts.dropped + counts.kept == len(TEXTS)
    assert counts.sent == found.sent.sum()
    assert counts.sent_kept + counts.kept == kept.sum()
    assert counts.dropped_audited + counts.kept_audited == found.audited.sum()
    assert (np.isfinite(found.encoder) == (found.sent | found.audited)).all()
    if audit == 1:
        wanted = np.array([text.count("yes") >= 3 for text in TEXTS])
        assert counts.dropped_missed == (~found.sent & ~kept & wanted).sum()
        assert counts.kept_wrong == (~found.sent & kept & ~wanted).sum()


def test_audited_documents_have_both_scores_and_keep_the_students_decision():
    encoder = Encoder()
    cascade = make(audit=0.5)
    found = cascade.score(TEXTS, encoder)
    assert 10 < found.audited.sum() < 70 and not (found.audited & found.sent).any()
    assert encoder.asked == [TEXTS[i] for i in np.flatnonzero(found.sent | found.audited)]
    chosen = found.audited
    assert np.isfinite(found.encoder[chosen]).all()
    assert found.values[chosen].tolist() == found.student[chosen].tolist()
    assert ((found.values >= 2.5) != (found.encoder >= 2.5))[chosen].any()
    assert (found.values == make().score(TEXTS, Encoder()).values).all()


def test_the_same_documents_are_audited_in_any_company():
    cascade = make(audit=0.4)
    whole = cascade.score(TEXTS, Encoder())
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for size in (1, 7, 50):
        parts = [
            cascade.score([TEXTS[row] for row in order[start : start + size]], Encoder())
            for start in range(0, len(order), size)
        ]
        for name in ("audited", "sent", "values", "tokens", "encoder", "student"):
            column = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(column, getattr(whole, name)[order], equal_nan=name == "encoder")
        counts = [part.counts(2.5) for part in parts]
        assert sum(counts[1:], counts[0]) == whole.counts(2.5)
    other = make(audit=0.4, seed=1).score(TEXTS, Encoder())
    assert other.audited.tolist() != whole.audited.tolist()
    more = make(audit=0.6).score(TEXTS, Encoder())
    assert (more.audited >= whole.audited).all() and more.audited.sum() > whole.audited.sum()


def test_tokens_are_counted_where_asked_and_estimated_elsewhere():
    texts = ["good " * 100, "bad " * 100, "neutral " * 30, ""]
    found = make().score(texts, Encoder())
    assert found.tokens.tolist() == [125, 200, 30, 0]
    assert make(Band(low=2.5, high=2.5)).score([""], Encoder()).tokens.tolist() == [1]


def run_stages(texts, cascade, encoder):
    plan = stubs.make_plan("memory://none", threshold=2.5, cascade=cascade, load=lambda _: encoder)
    stages = Stages(plan).for_shard(0, {})
    block = [Candidate(Document(str(i), t, "", "s", i), t) for i, t in enumerate(texts)]
    stages.run(block)
    return block, stages.audit


def test_no_number_from_the_encoder_is_quarantined_where_it_decides():
    broken = {TEXTS[0], TEXTS[1], TEXTS[2]}  # one that is dropped, one sent, one kept
    block, counts = run_stages(TEXTS, make(audit=1.0), Encoder(broken))
    assert [c.document.row for c in block if c.decision == "quarantine"] == [1]
    assert block[1].reason == "no_score" and block[1].score is None
    assert (block[0].decision, block[2].decision) == ("drop", "keep")
    assert block[0].encoder_score is None and block[0].student_score == block[0].score
    assert counts.sent + counts.dropped + counts.kept == len(TEXTS)
    for candidate in block:
        if candidate.score is not None:
            assert candidate.decision == ("keep" if candidate.score >= 2.5 else "drop")


def test_an_encoder_that_gives_another_number_of_scores_is_caught():
    class Short(Encoder):
        def score(self, texts):
            return super().score(texts[:1])

    with pytest.raises(EngineError, match=r"gave \(1,\) scores for 40 documents"):
        make().score(TEXTS, Short())


def test_scores_are_rounded_before_deciding():
    student = make_student()
    bias = float(np.tanh((2.4999999 - 2.5) / 1.0))
    found = Cascade(
        make_info(Band(low=2.5, high=2.5)), Student(SETTINGS, student.weight, bias, SCALE)
    ).score(["neutral"], Encoder())
    assert found.student == [2.5] and found.counts(2.5).kept == 1


def test_a_band_beside_the_threshold_is_refused():
    for band in (Band(low=2.6, high=3.0), Band(low=1.0, high=2.4), Band(low=2.6)):
        with pytest.raises(ValueError, match="misses the threshold"):
            make_info(band)


def same(one: CascadeScores, other: CascadeScores):
    for name in ("values", "student", "encoder", "tokens", "sent", "audited"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "encoder")


def test_a_saved_cascade_is_the_same(tmp_path):
    cascade = make(audit=0.3)
    cascade.save(tmp_path / "new" / "folder")
    loaded = load_cascade(tmp_path / "new" / "folder", ENCODER, 0.3)
    assert loaded.fingerprint == cascade.fingerprint
    assert loaded.info.band == cascade.info.band and loaded.audit == 0.3
    same(loaded.score(TEXTS, Encoder()), cascade.score(TEXTS, Encoder()))
    assert read_cascade(tmp_path / "new" / "folder").audit == 0


def test_the_fingerprint_is_of_all_that_decides():
    cascade = make(audit=0.1)
    student = cascade.student
    weight = student.weight.copy()
    weight[7] += 1
    score_map = ScoreMap(np.array([0.0, 5.0]), np.array([0.0, 4.9]))
    others = [
        make(Band(low=2.0, high=3.000001), 0.1),
        make(Band(low=2.0), 0.1),
        make(audit=0.2),
        make(audit=0.1, seed=1),
        make(audit=0.1, threshold=2.4),
        make(audit=0.1, encoder="f" * 64),
        Cascade(cascade.info, Student(SETTINGS, weight, student.bias, SCALE), 0.1),
        Cascade(cascade.info, Student(SETTINGS, student.weight, 1e-9, SCALE), 0.1),
        Cascade(cascade.info, replace(student, score_map=score_map), 0.1),
    ]
    prints = [cascade.fingerprint, *(other.fingerprint for other in others)]
    assert len(set(prints)) == len(prints)
    assert make(audit=0.1).fingerprint == cascade.fingerprint


def test_beside_another_encoder_it_is_refused(tmp_path):
    make().save(tmp_path)
    with pytest.raises(ModelError, match="not used beside ffffffffffff") as caught:
        load_cascade(tmp_path, "f" * 64, 0.0)
    assert "\n" not in str(caught.value)


def _another_student(folder):
    Student(SETTINGS, np.ones(2**12, dtype=np.float32), 0.0, SCALE).save(folder)


def _edit(old, new):
    def edit(folder):
        text = (folder / MARK).read_text()
        assert old in text
        (folder / MARK).write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (_another_student, "it is not the student that cascade.json was written for"),
        (lambda f: (f / FILE).unlink(), f"{FILE} cannot be read"),
        (lambda f: (f / MARK).unlink(), f"{MARK} cannot be read"),
        (lambda f: (f / MARK).write_text(""), f"{MARK} is damaged"),
        (lambda f: (f / MARK).write_text("[]"), f"{MARK} is damaged"),
        (lambda f: (f / MARK).write_bytes(b"\xff\xfe{"), f"{MARK} cannot be read"),
        (_edit('"format":1', '"format":2'), "format"),
        (_edit('"bits":12', '"bits":13'), "has 4096 weights, not 2^13"),
        (_edit('"low":2.0', '"low":2.9'), "misses the threshold"),
        (_edit('"low":2.0', '"low":NaN'), f"{MARK} is damaged"),
        (_edit('"seed":0', '"seed":0,"colour":1'), "colour"),
        (_edit('"student_sha256":"', '"student_sha256":"0'), "it is not the student"),
    ],
)
def test_a_damaged_cascade_is_told_in_a_sentence(tmp_path, harm, part):
    make().save(tmp_path)
    text = (tmp_path / MARK).read_text()
    (tmp_path / MARK).write_text(text.replace('": ', '":'))
    read_cascade(tmp_path)
    harm(tmp_path)
    with pytest.raises(ModelError) as caught:
        read_cascade(tmp_path)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_described_in_a_line():
    told = describe(make_info())
    assert "below 2.000 and from 3.000" in told and "recall >= 0.95" in told and "95%" in told
    assert "\n" not in told
