import pytest

from tamis.corpus.language import LanguageFilter
from tamis.corpus.settings import LanguageSettings

TEXTS = {
    "en": "The council decided last night to rebuild the old stone bridge across the river.",
    "fr": "Le conseil municipal a décidé hier soir de reconstruire le vieux pont de pierre.",
    "de": "Der Gemeinderat hat gestern Abend beschlossen, die alte Brücke wieder aufzubauen.",
    "ru": "Городской совет вчера вечером решил восстановить старый каменный мост через реку.",
    "ar": "قرر المجلس البلدي مساء أمس إعادة بناء الجسر الحجري القديم فوق النهر.",
    "ja": "市議会は昨夜、川にかかる古い石橋を再建することを決定しました。",
}


def language(**settings):
    return LanguageFilter(LanguageSettings(enabled=True, **settings))


@pytest.mark.parametrize("code", TEXTS)
def test_the_language_and_its_probability(code):
    found, probability = language().identify(TEXTS[code])
    assert found == code
    assert 0.5 < probability <= 1


def test_the_reason():
    accepts = language(accept=("en", "de"), min_probability=0.5)
    assert accepts.reason(TEXTS["en"])[:2] == (None, "en")
    assert accepts.reason(TEXTS["de"])[:2] == (None, "de")
    reason, code, probability = accepts.reason(TEXTS["fr"])
    assert (reason, code) == ("language", "fr") and probability > 0.5


def test_an_accepted_language_must_be_probable():
    text = "ok 7 la de 12"
    code, probability = language().identify(text)
    assert 0 < probability < 0.9
    sure = language(accept=(code,), min_probability=0.9)
    assert sure.reason(text) == ("language", code, probability)
    assert language(accept=(code,), min_probability=probability).reason(text)[0] is None


@pytest.mark.parametrize("text", ["", " \n\t ", "\u3000" * 5_000])
def test_nothing_to_look_at(text):
    assert language().identify(text) == ("none", 0.0)
    assert language(accept=("none",), min_probability=0.0).reason(text)[0] is None


def test_lines_capitals_and_leading_blanks_make_no_difference():
    english = language()
    plain = english.identify(TEXTS["en"])
    assert english.identify(TEXTS["en"].replace(" ", "\n")) == plain
    assert english.identify("\n" * 5_000 + TEXTS["en"]) == plain
    assert english.identify(TEXTS["en"].upper())[0] == "en"


def test_an_unsure_beginning_makes_it_look_further_and_no_further_than_it_may():
    unsure = "1999 | 2000 | 2001 | 2002 | " * 8
    text = unsure + TEXTS["fr"] * 8
    assert language().identify(unsure)[1] < 0.8
    assert language().identify(text)[0] == "fr"
    short = language(characters=len(unsure))
    assert short.identify(text) == short.identify(unsure)


HOSTILE = {
    "one character": "a" * 20_000_000,
    "line feeds": "\n" * 1_000_000,
    "late": " " * 1_000_000 + "x",
    "surrogates": "\ud800 words " * 1_000,
    "NULs": "\x00" * 1_000_000,
    "emoji": "😀" * 1_000_000,
    "right to left": "\u202e" + TEXTS["ar"] * 1_000,
    "punctuation": "...",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_have_an_answer(name):
    code, probability = language().identify(HOSTILE[name])
    assert code and 0 <= probability <= 1
