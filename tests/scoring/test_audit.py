"""The audit: what it estimates, how often its intervals hold, and when it rings."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import hypergeom

from tamis.scoring.audit import AuditCounts, AuditEstimate, audit, audited
from tamis.scoring.band import Promise, exact_bounds

PROMISE = Promise()
DRAWS = 500


def run(chance, recall, precision=0.97, share=0.01, documents=400_000, kept_share=0.12):
    """Counts of a run whose true recall and precision are these, as near as whole numbers go."""
    wanted = round(documents * kept_share)
    missed = round(wanted * (1 - recall))
    all_kept = round((wanted - missed) / precision)
    wrong = all_kept - (wanted - missed)
    kept = all_kept // 2 + wrong
    sent_kept = all_kept - kept
    sent = 2 * sent_kept
    dropped = documents - sent - kept
    dropped_audited = int(chance.binomial(dropped, share))
    kept_audited = int(chance.binomial(kept, share))
    counts = AuditCounts(
        sent=sent,
        sent_kept=sent_kept,
        dropped=dropped,
        dropped_audited=dropped_audited,
        dropped_missed=int(chance.hypergeometric(missed, dropped - missed, dropped_audited)),
        kept=kept,
        kept_audited=kept_audited,
        kept_wrong=int(chance.hypergeometric(wrong, kept - wrong, kept_audited)),
    )
    right = all_kept - wrong
    return counts, right / (right + missed), right / all_kept


def test_counts_add_up_and_cannot_contradict_themselves():
    one = AuditCounts(sent=5, sent_kept=2, dropped=90, dropped_audited=9, dropped_missed=1)
    two = AuditCounts(dropped=10, dropped_audited=1, kept=7, kept_audited=3, kept_wrong=2)
    both = AuditCounts(
        sent=5,
        sent_kept=2,
        dropped=100,
        dropped_audited=10,
        dropped_missed=1,
        kept=7,
        kept_audited=3,
        kept_wrong=2,
    )
    assert one + two == two + one == both
    assert one + AuditCounts() == one
    assert AuditCounts.model_validate_json(both.model_dump_json()) == both
    for wrong in (
        {"sent": -1},
        {"sent_kept": 1},
        {"dropped": 3, "dropped_audited": 4},
        {"dropped": 3, "dropped_audited": 2, "dropped_missed": 3},
        {"kept": 3, "kept_audited": 4},
        {"kept": 3, "kept_audited": 2, "kept_wrong": 3},
        {"lost": 1},
    ):
        with pytest.raises(ValidationError):
            AuditCounts(**wrong)


def test_estimates_scale_the_audited_documents_up():
    counts = AuditCounts(
        sent=2_000,
        sent_kept=1_000,
        dropped=7_000,
        dropped_audited=700,
        dropped_missed=7,
        kept=1_000,
        kept_audited=100,
        kept_wrong=4,
    )
    found = audit(counts, PROMISE)
    # 70 of the dropped documents should have been kept, and 40 of those kept dropped.
    assert found.recall.value == pytest.approx(1_960 / 2_030)
    assert found.precision.value == pytest.approx(1_960 / 2_000)
    assert (found.recall.n, found.precision.n) == (700, 100)
    assert found.recall.low < found.recall.value < found.recall_at_most < found.recall.high
    assert found.precision.low < found.precision.value < found.precision_at_most
    assert found.precision_at_most < found.precision.high
    assert (found.broken, found.undecided, found.decision.passed) == (False, False, True)
    recall, precision = found.decision.reasons
    assert (recall.check, precision.check) == ("recall", "precision")
    assert str(found.recall) in recall.detail
    assert "7,000 documents, of which 700 were audited and 7" in recall.detail
    assert "100 were audited and 4" in precision.detail
    assert AuditEstimate.model_validate_json(found.model_dump_json()) == found


def test_what_was_audited_in_full_is_known():
    counts = AuditCounts(
        sent=10,
        sent_kept=5,
        dropped=80,
        dropped_audited=80,
        dropped_missed=5,
        kept=10,
        kept_audited=10,
        kept_wrong=0,
    )
    found = audit(counts, PROMISE)
    assert (found.recall.low, found.recall.high) == (0.75, 0.75)
    assert (found.precision.low, found.precision.high) == (1.0, 1.0)
    assert found.broken
    assert not found.decision.reasons[0].passed
    assert "at most 0.750" in found.decision.reasons[0].detail
    assert found.decision.reasons[1].passed


def test_nothing_audited_is_not_decided():
    counts = AuditCounts(sent=100, sent_kept=40, dropped=900, kept=50)
    found = audit(counts, PROMISE)
    assert (found.recall, found.precision) == (None, None)
    assert (found.broken, found.undecided, found.decision.passed) == (False, True, False)
    details = [reason.detail for reason in found.decision.reasons]
    assert details == [
        "None of the 900 documents that the student dropped was audited: recall cannot be judged.",
        "None of the 50 documents that the student kept was audited: precision cannot be judged.",
    ]
    none = audit(AuditCounts(), PROMISE)
    assert (none.broken, none.undecided, none.decision.passed) == (False, True, False)
    # Recall can be judged though precision cannot.
    half = audit(counts + AuditCounts(dropped=100, dropped_audited=100), PROMISE)
    assert half.undecided
    assert half.recall.value == 1.0
    assert half.precision is None
    # And where the student decided nothing there is nothing to audit.
    alone = audit(AuditCounts(sent=100, sent_kept=40), PROMISE)
    assert (alone.recall.low, alone.precision.low) == (1.0, 1.0)
    assert (alone.undecided, alone.decision.passed) == (False, True)
    # Nothing kept, and rightly so; or nothing kept that should have been.
    empty = audit(AuditCounts(dropped=900, dropped_audited=900), PROMISE)
    assert (empty.recall, empty.precision, empty.broken) == (None, None, False)
    assert empty.decision.passed
    lost = audit(AuditCounts(dropped=900, dropped_audited=90, dropped_missed=9), PROMISE)
    assert (lost.recall.value, lost.recall_at_most, lost.broken) == (0.0, 0.0, True)


numbers = st.integers(0, 10**9) | st.integers(0, 20)


@given(st.lists(numbers, min_size=8, max_size=8), st.sampled_from([0.5, 0.95, 0.999]))
@settings(max_examples=200, deadline=None)
def test_any_counts_give_figures_in_order(parts, confidence):
    sent_kept, missed, wrong, *more = parts
    counts = AuditCounts(
        sent=sent_kept + more[0],
        sent_kept=sent_kept,
        dropped=missed + more[1] + more[2],
        dropped_audited=missed + more[1],
        dropped_missed=missed,
        kept=wrong + more[3] + more[4],
        kept_audited=wrong + more[3],
        kept_wrong=wrong,
    )
    found = audit(counts, Promise(confidence=confidence))
    for figure, at_most in (
        (found.recall, found.recall_at_most),
        (found.precision, found.precision_at_most),
    ):
        assert 0 <= at_most <= 1
        if figure is not None:
            assert 0 <= figure.low <= figure.value + 1e-9
            assert figure.value <= at_most + 1e-9
            assert at_most <= figure.high + 1e-9 <= 1 + 1e-9
    passed = not found.broken and not found.undecided
    assert found.decision.passed == passed
    AuditEstimate.model_validate_json(found.model_dump_json())


@pytest.mark.parametrize(("total", "n"), [(30, 10), (200, 20), (1_000, 300)])
@pytest.mark.parametrize("tail", [0.0025, 0.025, 0.05])
def test_bounds_hold_for_draws_without_replacement(total, n, tail):
    hits = np.arange(n + 1)
    low, high = np.array([exact_bounds(int(hit), n, tail) for hit in hits]).T
    for counting in range(total + 1):
        chances = hypergeom.pmf(hits, total, counting, n)
        assert chances[high * total < counting - 1e-9].sum() <= tail + 1e-12
        assert chances[low * total > counting + 1e-9].sum() <= tail + 1e-12


@pytest.mark.parametrize(
    ("recall", "precision", "share", "confidence"),
    [(0.95, 0.95, 0.01, 0.95), (0.8, 0.99, 0.005, 0.95), (0.99, 0.7, 0.02, 0.8)],
)
def test_intervals_cover_the_truth(recall, precision, share, confidence):
    chance = np.random.default_rng(int(1_000 * recall))
    covered = np.zeros(2)
    for _ in range(DRAWS):
        counts, *truth = run(chance, recall, precision, share)
        found = audit(counts, Promise(confidence=confidence))
        pairs = zip((found.recall, found.precision), truth, strict=True)
        covered += [figure.low <= true <= figure.high for figure, true in pairs]
    margin = 3 * math.sqrt(confidence * (1 - confidence) / DRAWS)
    assert (covered / DRAWS >= confidence - margin).all()
    # And not by saying nothing.
    assert found.recall.high - found.recall.low < 0.15
    assert found.precision.high - found.precision.low < 0.15


def test_a_promise_that_just_holds_seldom_rings_and_a_broken_one_does():
    chance = np.random.default_rng(1)
    slack = 3 * math.sqrt(0.05 * 0.95 / DRAWS)

    def ringing(recall, precision):
        found = [audit(run(chance, recall, precision)[0], PROMISE) for _ in range(DRAWS)]
        assert all(one.decision.passed != one.broken for one in found)
        recalls = [one.recall_at_most < 0.95 for one in found]
        precisions = [one.precision_at_most < 0.95 for one in found]
        assert [one.broken for one in found] == np.logical_or(recalls, precisions).tolist()
        return np.mean(recalls), np.mean(precisions)

    by_recall, by_precision = ringing(0.9501, 0.9501)
    assert 0.005 < by_recall <= 0.05 + slack
    assert by_precision <= 0.05 + slack
    by_recall, by_precision = ringing(0.8, 0.97)
    assert by_recall > 0.99
    assert by_precision < 0.05
    by_recall, by_precision = ringing(0.97, 0.85)
    assert by_recall < 0.05
    assert by_precision > 0.99


def test_the_same_documents_are_audited_whoever_asks():
    chance = np.random.default_rng(2)
    hashes = chance.integers(0, 2**64, size=20_000, dtype=np.uint64)
    chosen = audited(hashes, 0.01, seed=7)
    assert chosen.dtype == np.bool_
    digests = [int(value).to_bytes(8, "big") for value in hashes]
    assert audited(digests, 0.01, seed=7).tolist() == chosen.tolist()
    turned = chance.permutation(20_000)
    assert audited(hashes[turned], 0.01, seed=7).tolist() == chosen[turned].tolist()
    parts = [audited(hashes[at : at + 999], 0.01, seed=7) for at in range(0, 20_000, 999)]
    assert np.concatenate(parts).tolist() == chosen.tolist()
    # A larger share audits those and more; another seed others.
    assert audited(hashes, 0.05, seed=7)[chosen].all()
    assert (chosen & audited(hashes, 0.01, seed=8)).sum() < 20
    assert 140 < chosen.sum() < 260
    assert 140 < audited(hashes, 0.01, seed=-1).sum() < 260
    # Hashes that lie close together are as good as any.
    assert 140 < audited(np.arange(20_000, dtype=np.uint64), 0.01, seed=7).sum() < 260


def test_all_or_none_can_be_audited():
    hashes = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    assert audited(hashes, 1.0, seed=0).all()
    assert not audited(hashes, 0.0, seed=0).any()
    assert audited([], 0.5, seed=0).shape == audited(hashes[:0], 0.5, seed=0).shape == (0,)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError):
            audited(hashes, share, seed=0)
