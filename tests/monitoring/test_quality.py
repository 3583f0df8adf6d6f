import numpy as np
import pytest

from tamis.monitoring.encodings import is_broken
from tamis.monitoring.quality import measure_quality, near_duplicates, surely_above
from tamis.monitoring.samples import hashed_words
from tamis.monitoring.settings import QualityLimits
from tests.monitoring.monitor_tools import made, profile, row, window

TEXTS = made(["school"] * 100, seed=5)[0]


def quality(rows, **counts):
    return measure_quality(window(rows, **counts), profile(60).sample, QualityLimits())


@pytest.mark.parametrize(
    "text",
    [
        "Die Größe der Häuser über dem Fluß",
        "Les élèves étudient à l’école française",
        "Ученики читают книги в школе",
        "日本語の文章を読む生徒",
        "O coração não é São Paulo 🙂",
    ],
)
def test_text_that_was_decoded_wrongly_is_told_from_text_that_was_not(text):
    assert not is_broken(text)
    raw = text.encode("utf-8")
    assert is_broken(raw.decode("cp1252", "replace"))
    assert is_broken(raw.decode("latin-1"))
    assert is_broken(raw[:-1].decode("ascii", "replace"))


def test_a_slip_in_a_long_text_is_no_damage():
    text = "A long and sound text of many words. " * 200
    assert not is_broken(text + "one \ufffd there")
    assert not is_broken("„Spaß“, CAFÉ» and “À”, A± 5° 20 £")
    assert not is_broken("")


def test_sound_data_break_nothing():
    found = quality([row(i, text) for i, text in enumerate(TEXTS)])
    assert not found.broken and all(reason.passed for reason in found.reasons())
    assert found.shares["duplicates"].share == 0 and found.shares["empty"].reference == 0


@pytest.mark.parametrize("name", ["empty", "duplicates", "broken_encoding", "without_score"])
def test_each_kind_of_damage_is_found(name):
    def damaged(i):
        if name == "empty":
            return row(i, " \n")
        if name == "duplicates":
            return row(i, TEXTS[0].upper())
        if name == "broken_encoding":
            return row(i, f"{TEXTS[i]} CafÃ© au lait, trÃ¨s bon")
        return row(i, TEXTS[i], score=np.nan)

    found = quality([damaged(i) if i % 2 else row(i, text) for i, text in enumerate(TEXTS)])
    broken = {key for key, share in found.shares.items() if share.broken}
    assert broken == {name}
    assert found.shares[name].share == pytest.approx(0.5, abs=0.01)
    assert [reason.passed for reason in found.reasons()].count(False) == 1


def test_drops_of_the_log_are_a_share_of_what_was_served():
    rows = [row(i, text) for i, text in enumerate(TEXTS)]
    assert not quality(rows, dropped=1).broken
    found = quality(rows, dropped=100)
    assert found.broken and found.shares["dropped"].share == 0.5


def test_one_document_of_fifty_is_chance_and_ten_are_not():
    assert not surely_above(1, 50, 0.02) and not surely_above(2, 50, 0.02)
    assert surely_above(10, 50, 0.02) and not surely_above(0, 0, 0.02)


def test_what_the_log_did_not_keep_is_not_measured():
    found = quality([row(i, None, characters=50) for i in range(40)])
    assert found.shares["broken_encoding"].share is None
    assert found.shares["duplicates"].share is None
    assert found.shares["empty"].share == 0 and not found.broken
    assert quality([]).shares["empty"].share is None and quality([row(1, TEXTS[0])]).shares


def test_near_duplicates_are_found_by_hashed_words():
    base = [f"{text} {number}th version of page{number}" for number, text in enumerate(TEXTS[:20])]
    # Another word or two in a long document changes little.
    texts = [*base, *(f"{text} again" for text in base[:5])]
    count, compared = near_duplicates(hashed_words(texts))
    assert (count, compared) == (10, 25)
    assert near_duplicates(None) == (0, 0) and near_duplicates(hashed_words(["a b"])) == (0, 0)
