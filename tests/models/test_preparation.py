import time
from typing import get_args

import emoji
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.models.preparation import _FACE, PreparationStep, _name, prepare

STEPS = get_args(PreparationStep)
ANY = st.text(st.characters(), max_size=300)
TWEETS = st.lists(
    st.sampled_from(
        ["@user", "@", "#GoTeam", "##", "http://", "https://a.b/c", "www.x", "sooooo", "🙂", "👍🏽"]
        + [
            ":)",
            "<3",
            ":'(",
            "don't",
            "running",
            "İ",
            "ß",
            "ﬁ",
            "\ud800",
            "e\u0301",
            "\n",
            "👩‍👩‍👧",
        ]
    ),
    max_size=12,
).map("".join)


def one(text, *steps):
    (found,) = prepare([text], steps)
    return found


@pytest.mark.parametrize("step", STEPS)
@given(text=ANY | TWEETS)
@settings(max_examples=60, deadline=None)
def test_any_text_is_prepared(step, text):
    assert isinstance(one(text, step), str)


@pytest.mark.parametrize("step", ["urls", "elongation", "normalise", "hashtags", "users", "emoji"])
@given(text=ANY | TWEETS)
@settings(max_examples=100, deadline=None)
def test_once_is_enough(step, text):
    found = one(text, step)
    assert one(found, step) == found


@given(text=ANY | TWEETS)
@settings(max_examples=50, deadline=None)
def test_all_steps_together_do_not_crash(text):
    assert isinstance(one(text, *STEPS), str)


@given(texts=st.lists(TWEETS, max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_text_is_prepared_as_if_it_were_alone(texts):
    assert list(prepare(texts, STEPS)) == [one(text, *STEPS) for text in texts]


def test_no_step_changes_nothing():
    texts = ["As IT is  \t!", ""]
    assert prepare(texts, ()) is texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://example.org/a?b=c#d now", "see url now"),
        ("HTTP://EXAMPLE.ORG www.example.org", "url url"),
        ("(http://a.b)", "(url"),
        ('<a href="http://a.b">x', '<a href="url">x'),
        ("http:// alone, wwwx and awww.", "http:// alone, wwwx and awww."),
        ("", ""),
    ],
)
def test_urls(text, expected):
    assert one(text, "urls") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@bob hi @Ann_3!", "user hi user!"),
        ("mail me@example.org", "mail me@example.org"),
        (".@bob", ".@bob"),
        ("@ home, a @", "@ home, a @"),
        ("@" + "b" * 20, "user"),
    ],
)
def test_users(text, expected):
    assert one(text, "users") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#MoreThanThis", "more than this"),
        ("#NASAnews2024 wow", "nas anews 2024 wow"),
        ("#fail", "fail"),
        ("#USA", "usa"),
        ("&#39; C# ## # x", "&#39; C# ## # x"),
        ("#école", "école"),
        ("#漢字", "漢字"),
        ("a#b", "a#b"),
        ("#___", "___"),
    ],
)
def test_hashtags(text, expected):
    assert one(text, "hashtags").lower() == expected.lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("great 🙂", "great slightly smiling face"),
        ("👍🏽", "thumbs up medium skin tone"),
        ("a😂😂b", "a face with tears of joy face with tears of joy b"),
        ("ok :) and :'( and <3!", "ok smiling and crying and loving!"),
        ("http://a.b :/x a:) 12:30", "http://a.b :/x a:) 12:30"),
        ("</3 XD :-P", "heartbroken laughing teasing"),
    ],
)
def test_emoji_and_emoticons(text, expected):
    assert " ".join(one(text, "emoji").split()) == expected


@given(
    st.lists(
        st.sampled_from([*list(emoji.EMOJI_DATA)[::7], "a", " ", "1", "#", "\u200d", "é"])
    ).map(lambda parts: "".join(parts)[:60])
)
@settings(max_examples=200, deadline=None)
def test_every_emoji_is_found(text):
    named = emoji.replace_emoji(text, lambda _, facts: f" {_name(facts)} ")
    assert _FACE.sub("face", one(text, "emoji")) == _FACE.sub("face", named)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("soooooo goooood", "sooo goood"),
        ("too 10000000 !!!!!!", "too 10000000 !!!!!!"),
        ("aaa AAAAA", "aaa AAA"),
    ],
)
def test_elongation(text, expected):
    assert one(text, "elongation") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Straße \t ﬁn\xa0 x ", "strasse fin x"),
        ("“It’s” — a…", '"it\'s" - a...'),
        ("One\n\n  Two\t\nThree", "one\n\ntwo\nthree"),
        ("e\u0301 \uff21", "é a"),
        ("!" * 40 + "q" + "\u0301" * 99 + "?", "!" * 40 + "q" + "\u0301" * 30 + "?"),
    ],
)
def test_normalise(text, expected):
    assert one(text, "normalise") == expected


def test_stem_and_lemmatise():
    assert one("Running, runs; RUNNER's 3rd!", "stem") == "run, run; runner 3rd!"
    assert one("The mice were running", "lemmatise") == "the mouse be run"
    assert one("\n  Mice\t:) ", "lemmatise") == "\n  mouse\t:) "


def test_steps_are_taken_in_order():
    text = "@Bob: #SoHappy http://a.b 🙂"
    assert one(text, "users", "hashtags", "urls", "emoji", "normalise") == (
        "user: so happy url slightly smiling face"
    )
    assert one("#SoHappy", "normalise", "hashtags") == "sohappy"


HARD = {
    "letters": "a",
    "urls": "http://",
    "open urls": "http://a",
    "users": "@",
    "named users": "@a",
    "hashtags": "#A",
    "humps": "#AaB1",
    "emoji": "👩\u200d",
    "faces": ":-",
    "sad faces": ":'( ",
    "blanks": " \t",
    "lines": "\n ",
    "marks": "a\u0301",
    "accents": "\u0301",
    "stacked marks": "\u0301\u0316",
    "voiced marks": "\u0301\uff9e",
    "quotes": "a'",
    "pairs": "ab",
    "repeats": "aaab",
    "words": "running mice ",
    "ligatures": "\ufdfa",
    "surrogates": "\ud800",
}


@pytest.mark.parametrize("step", STEPS)
def test_time_grows_with_length_and_not_with_its_square(step):
    for name, part in HARD.items():
        short, long = (part * (size // len(part)) for size in (20_000, 160_000))
        fast, slow = (min(spent(step, text) for _ in range(2)) for text in (short, long))
        # Eight times the text; its square would be 64 times the time.
        assert slow < 24 * fast + 0.05, name


def spent(step, text):
    start = time.process_time()
    one(text, step)
    return time.process_time() - start


def test_a_megabyte_of_anything_is_prepared_by_all_steps():
    text = "".join(part * (50_000 // len(part)) for part in HARD.values())
    found = one(text, *STEPS)
    # A ligature may become eighteen letters and an emoji its name; nothing grows beyond that.
    assert len(found) < 20 * len(text)
