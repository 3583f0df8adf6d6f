import io
import re

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.app import app
from cli.explain import show, show_overview
from tamis.errors import DataError
from tamis.explanation.deletion import check_explanations, deletion_check
from tamis.explanation.explain import explain_text
from tamis.explanation.features import NAMES, features
from tamis.explanation.overview import explain_model, word_effects
from tamis.explanation.page import text_page
from tamis.explanation.report import ModelExplanation
from tamis.explanation.surrogate import SOURCE, fit_surrogate
from tests.tiny import BAD_WORDS, GOOD_WORDS, easy_set, easy_texts

MIXED = easy_texts(np.full(24, 0.5), seed=11)
HOSTILE = "proof <script>alert(1)</script> \x1b[31m sale ‮ [bold]lemma[/]"


@pytest.mark.parametrize("name", ["ordinal", "linear"])
def test_deleting_what_counts_moves_the_score_more_than_chance(fitted, name):
    found = deletion_check(fitted(name), [*MIXED, "too short"], seed=1)
    assert (found.documents, found.skipped) == (24, 1)
    assert found.more.low > 0 and found.less.low > 0 and found.decision.passed
    assert found.supporting.value > found.random.value > found.opposing.value
    assert found.more.value == pytest.approx(found.supporting.value - found.random.value)


def test_weights_at_random_do_not_pass_the_check(fitted, rng):
    classifier = fitted("ordinal")

    def guess(text):
        found = explain_text(classifier, text)
        words = [w.model_copy(update={"weight": float(rng.normal())}) for w in found.words]
        return found.model_copy(update={"words": tuple(words)})

    found = deletion_check(classifier, MIXED, explain=guess)
    assert not found.decision.passed
    turned = [explain_text(classifier, text) for text in MIXED]
    turned = [
        t.model_copy(
            update={"words": tuple(w.model_copy(update={"weight": -w.weight}) for w in t.words)}
        )
        for t in turned
    ]
    assert check_explanations(classifier, turned, [str(i) for i in range(24)]).more.high < 0


def test_nothing_to_delete_is_refused(fitted):
    with pytest.raises(DataError, match="no document has 5 words"):
        deletion_check(fitted("linear"), ["one two", ""])


@pytest.fixture(scope="module")
def overview(fitted):
    return explain_model(fitted("linear"), easy_set(120), sample=60, seed=2)


def test_the_overview_names_words_and_stays_off_the_test_documents(fitted, overview):
    test = len(fitted("linear").info.trained_on.test)
    assert test > 0 and overview.scored == 120 - test
    assert overview.documents == 60
    assert len({e.word for e in overview.raising[:6]} & set(GOOD_WORDS)) >= 4
    assert len({e.word for e in overview.lowering[:6]} & set(BAD_WORDS)) >= 4
    for effect in overview.raising:
        assert effect.weight.low <= effect.weight.value <= effect.weight.high
        assert 5 <= effect.weight.n <= 60
    assert any(word in overview.largest[0].feature for word in GOOD_WORDS)
    assert overview.largest[0].weight > 0 > overview.smallest[0].weight
    assert overview.sources[0].source == "web" and overview.sources[0].score.n == overview.scored
    assert overview.deletion is not None and overview.deletion.decision.passed
    assert ModelExplanation.model_validate_json(overview.model_dump_json()) == overview


def test_no_document_left_is_refused(fitted):
    data = easy_set(120)
    known = fitted("linear").info.trained_on.known()
    only = np.array([known[name] == "test" for name in data.strings("id")])
    with pytest.raises(DataError, match="beside the test documents"):
        explain_model(fitted("linear"), data.take(only))


def test_a_word_of_few_documents_or_groups_is_not_named(fitted):
    found = [explain_text(fitted("linear"), f"proof word{i} sale") for i in range(6)]
    raising, lowering = word_effects(found, [f"g{i}" for i in range(6)], 0)
    assert {e.word for e in (*raising, *lowering)} == {"proof", "sale"}
    assert word_effects(found, ["same"] * 6, 0) == ((), ())


def test_the_surrogate_finds_the_feature_that_makes_the_score(rng):
    texts = [" ".join(["word"] * int(n)) + "!" * int(n % 3) for n in rng.integers(5, 300, 120)]
    groups = [f"g{i // 2}" for i in range(120)]
    length = features(texts)[:, NAMES.index("length")]
    found = fit_surrogate(texts, length, ["a"] * 120, groups, 0)
    assert found.r2 > 0.9
    best = {each.feature for each in found.importances[:2]}
    assert best & {"length", "sentence length", "line length"}
    noise = fit_surrogate(texts, rng.normal(size=120), ["a"] * 120, groups, 0)
    assert noise.r2 < 0.1
    named = ["a", "b", "c"] * 40
    by_source = fit_surrogate(texts, np.array([float(ord(n)) for n in named]), named, groups, 0)
    assert by_source.importances[0].feature == SOURCE and by_source.r2 > 0.9
    assert fit_surrogate(texts[:20], length[:20], named[:20], groups[:20], 0) is None
    assert fit_surrogate(texts, np.ones(120), named, groups, 0) is None


def test_features_of_any_text_are_finite():
    table = features(["", "\n\n", HOSTILE, "a\ud800", "A1?!" * 50_000, "see http://x.y and www.z"])
    assert table.shape == (6, len(NAMES)) and np.isfinite(table).all()
    assert table[5, NAMES.index("links")] == 2


def test_pages_escape_everything_and_act_on_nothing(fitted, overview):
    hostile = explain_text(fitted("ordinal"), HOSTILE)
    page = text_page(hostile, "<b>x</b>", "<i>y</i>")
    assert page.startswith("<!doctype html>") and "<script" not in page and "<b>x" not in page
    assert "\x1b" not in page and "‮" not in page
    assert re.search(r'<mark class="[pn][1-4]" title="[+-]\d', page)
    bad = overview.raising[0].model_copy(update={"word": "<img src=x>"})
    shown = overview.model_copy(update={"raising": (bad,)}).to_html()
    assert "<img" not in shown and "&lt;img" in shown and "<script" not in shown
    assert "R2" in shown


def printed(write, found, *more, colour=True):
    system = "truecolor" if colour else None
    to = Console(file=io.StringIO(), width=90, force_terminal=colour, color_system=system)
    write(found, to, *more)
    return to.file.getvalue()


def test_the_terminal_shows_words_with_and_without_colour(fitted, overview):
    found = explain_text(fitted("ordinal"), HOSTILE)
    plain = printed(show, found, 2.0, colour=False)
    assert "\x1b" not in plain and "[bold]lemma[/]" in plain and "completeness gap" in plain
    for word in found.top(3):
        assert re.search(rf"{re.escape(word.text)}\s+{re.escape(f'{word.weight:+.4f}')}", plain)
    coloured = printed(show, found, 2.0)
    assert "48;2;" in coloured and "\x1b[31m" not in coloured
    assert "words that raise it" in printed(show_overview, overview, colour=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "given 0 things to explain"),
        (["--text", "a", "--global"], "given 2 things to explain"),
        (["--file", "none/there.txt"], "cannot be read"),
        (["--text", "a", "--html", "none/page.html"], "allowed: a file that can be written"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["explain", *arguments])
    assert done.exit_code != 0 and said in str(done.exception)
