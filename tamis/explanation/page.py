"""Explanations as self-contained pages: a coloured text, and what moves a model's scores."""

from __future__ import annotations

from collections.abc import Sequence

from tamis.evaluation.bootstrap import Interval
from tamis.explanation.report import ModelExplanation, WordEffect
from tamis.explanation.words import Explanation, Word
from tamis.html import Html, cards, join, page, section, table, text
from tamis.scoring.inspection.plain import one_line, visible

LEVELS = (0.08, 0.25, 0.5, 0.75)
"""Shares of the largest weight from which a word is marked, ever more strongly."""
MOST_WORDS = 20_000
TOP = 20
_STYLE = """
<style>
:root { --up: 31, 122, 90; --down: 190, 84, 30; }
@media (prefers-color-scheme: dark) { :root { --up: 84, 190, 150; --down: 240, 140, 80; } }
.read { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.2rem; line-height: 2; white-space: pre-wrap; overflow-wrap: anywhere;
  unicode-bidi: isolate; }
.read mark, .legend mark { color: var(--ink); border-radius: 3px; padding: .1em .12em; }
.p1 { background: rgba(var(--up), .10); } .n1 { background: rgba(var(--down), .10); }
.p2 { background: rgba(var(--up), .20); } .n2 { background: rgba(var(--down), .20); }
.p3 { background: rgba(var(--up), .30); } .n3 { background: rgba(var(--down), .30); }
.p4 { background: rgba(var(--up), .42); } .n4 { background: rgba(var(--down), .42); }
mark[class^=p] { border-bottom: 2px solid rgb(var(--up)); }
mark[class^=n] { border-bottom: 2px dashed rgb(var(--down)); }
.legend { color: var(--soft); } .note { color: var(--soft); overflow-wrap: anywhere; }
.two { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); }
.two > *, figure { min-width: 0; } figure { margin: 0 0 1rem; }
</style>
"""


def level(weight: float, largest: float) -> int:
    """How strongly a word is marked: 0 for not at all, to 4."""
    share = abs(weight) / largest if largest > 0 else 0.0
    return sum(share >= bound for bound in LEVELS)


def text_page(found: Explanation, title: str, lead: str) -> str:
    """One text with its words coloured by what they add to its score."""
    figures = [
        (f"{found.calibrated:.3f}", "score as served"),
        (f"{found.score:.3f}", f"before calibration, {found.unit}"),
        (f"{found.baseline:.3f}", "of a text that says nothing"),
        (f"{found.completeness_gap:+.4f}", "left unexplained (completeness gap)"),
    ]
    raising = [word for word in sorted(found.words, key=lambda w: -w.weight) if word.weight > 0]
    lowering = [word for word in sorted(found.words, key=lambda w: w.weight) if word.weight < 0]
    body = [
        Html(_STYLE),
        cards(figures),
        section("The text as the model reads it", join([_legend(found), _coloured(found)])),
        Html('<div class="two">'),
        section("Words that raise the score", _words(raising[:TOP])),
        section("Words that lower it", _words(lowering[:TOP])),
        Html("</div>"),
        _note(f"Method: {found.method}, {found.detail}."),
    ]
    return page(one_line(title, 200), join(body), one_line(lead, 400))


def _legend(found: Explanation) -> Html:
    largest = max((abs(word.weight) for word in found.words), default=0.0)
    down = "".join(f'<mark class="n{n}">{n}</mark> ' for n in (4, 3, 2, 1))
    up = "".join(f'<mark class="p{n}">{n}</mark> ' for n in (1, 2, 3, 4))
    return Html(
        f'<p class="legend">lowers the score (dashed) {down}&nbsp; {up}raises it (solid); '
        f"4: from {LEVELS[3]:.0%} of the largest weight, {largest:.3f} {found.unit}; "
        f"1: from {LEVELS[0]:.0%}. A word's own weight shows where the pointer rests.</p>"
    )


def _coloured(found: Explanation) -> Html:
    largest = max((abs(word.weight) for word in found.words), default=0.0)
    parts, at = [], 0
    for word in found.words[:MOST_WORDS]:
        parts.append(text(visible(found.text[at : word.start])))
        strength = level(word.weight, largest)
        shown = text(visible(word.text))
        if strength:
            side = "p" if word.weight > 0 else "n"
            shown = Html(
                f'<mark class="{side}{strength}" title="{word.weight:+.4f}">{shown}</mark>'
            )
        parts.append(shown)
        at = word.end
    rest = found.text[at:] if len(found.words) <= MOST_WORDS else " … (the rest is not shown)"
    parts.append(text(visible(rest)))
    return Html(f'<div class="read" dir="auto">{"".join(parts)}</div>')


def _words(words: Sequence[Word]) -> Html:
    if not words:
        return _note("None.")
    rows = [(one_line(word.text, 60), f"{word.weight:+.4f}", word.start) for word in words]
    return table(("word", "weight", "at character"), rows)


def _note(told: str) -> Html:
    return Html(f'<p class="note">{text(told)}</p>')


def overview_page(found: ModelExplanation) -> str:
    """What moves a model's scores."""
    body = [
        Html(_STYLE),
        section("Is it to be believed?", _deletion(found)),
        section("Words", _overview_words(found)),
        section("Sources", _sources(found)),
        section("Plain features", _surrogate(found)),
    ]
    if found.largest:
        body.append(section("Weights of the model", _features(found)))
    lead = (
        f"{found.family}, {found.method} of {found.documents} documents and scores of "
        f"{found.scored}, drawn from {found.drawn_from}."
    )
    return page(f"What moves the score: {found.task}", join(body), lead)


def _deletion(found: ModelExplanation) -> Html:
    check = found.deletion
    if check is None:
        return _note("The documents have too few words to delete some.")
    passed = check.decision.passed
    verdict = "Deleting the words named here moves the score more than chance does."
    failed = "Deleting the words named here does not clearly move the score more than chance does."
    told = [verdict if passed else failed, *check.sentences]
    return join(_note(sentence) for sentence in told)


def _overview_words(found: ModelExplanation) -> Html:
    note = _note(
        f"Mean of what a word adds to a document's score ({found.unit}), over the explained "
        "documents that hold it, with 95% intervals over groups. The words are chosen among many, "
        "for which the intervals make no allowance."
    )
    sides = (("raise the score", found.raising), ("lower it", found.lowering))
    drawn = [_effects(f"Words that {name}", words) for name, words in sides if words]
    if not drawn:
        return join([note, _note("No word stands in enough documents.")])
    return join([note, Html(f'<div class="two">{join(drawn)}</div>')])


def _effects(title: str, words: Sequence[WordEffect]) -> Html:
    rows = [
        (one_line(e.word, 40), f"{e.weight.value:+.3f}", _span(e.weight), e.weight.n) for e in words
    ]
    picture = dots(title, [(one_line(e.word, 18), e.weight) for e in words[:12]])
    return Html(f"<div>{picture}{table(('word', 'mean', '95%', 'documents'), rows)}</div>")


def _sources(found: ModelExplanation) -> Html:
    rows = [
        (one_line(e.source, 80), f"{e.score.value:.3f}", _span(e.score), e.score.n)
        for e in found.sources
    ]
    note = _note("Mean score as served, with 95% intervals over groups.")
    picture = dots(
        "Mean score of sources", [(one_line(e.source, 18), e.score) for e in found.sources]
    )
    return join([note, picture, table(("source", "mean score", "95%", "documents"), rows)])


def _surrogate(found: ModelExplanation) -> Html:
    if found.surrogate is None:
        return _note("There are too few documents or groups for a model of the scores.")
    rows = [
        (
            e.feature,
            f"{e.loss:.3f}",
            f"{e.spread:.3f}",
            "" if e.direction is None else f"{e.direction:+.2f}",
        )
        for e in found.surrogate.importances
    ]
    heads = ("feature", "loss of R2 when shuffled", "spread", "Spearman with the score")
    return join([_note(found.surrogate.sentence()), table(heads, rows)])


def _features(found: ModelExplanation) -> Html:
    sides = [
        table(("n-gram", "weight"), [(one_line(f.feature, 60), f"{f.weight:+.3f}") for f in side])
        for side in (found.largest, found.smallest)
    ]
    return Html(f'<div class="two">{"".join(sides)}</div>')


def _span(found: Interval) -> str:
    return f"{found.low:+.3f} to {found.high:+.3f}"


def dots(title: str, figures: Sequence[tuple[str, Interval]]) -> Html:
    """One dot with its interval a line, as inline SVG; a line marks nothing where that is near.

    Args:
        title: For those who cannot see it.
        figures: Names and figures from the top.
    """
    left, right, step = 150, 490, 20
    edges = [edge for _, figure in figures for edge in (figure.low, figure.high)]
    low, high = min(0.0, *edges), max(0.0, *edges)
    scale = (right - left) / (high - low or 1.0)
    height = step * len(figures) + 24

    def x(value: float) -> str:
        return f"{left + (value - low) * scale:.1f}"

    zero, base = x(0.0), height - 20
    parts = [f'<line x1="{zero}" x2="{zero}" y1="4" y2="{base}" stroke="var(--line)"/>']
    for row, (name, figure) in enumerate(figures):
        y = 14 + step * row
        colour = "rgb(var(--up))" if figure.value >= 0 else "rgb(var(--down))"
        parts.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" fill="var(--ink)">{text(name)}'
            f'</text><line x1="{x(figure.low)}" x2="{x(figure.high)}" y1="{y}" y2="{y}" '
            f'stroke="{colour}" stroke-width="2"/><circle cx="{x(figure.value)}" cy="{y}" r="4" '
            f'fill="{colour}"><title>{figure}</title></circle>'
        )
    for value in (low, high):
        anchor = "start" if value == low else "end"
        parts.append(
            f'<text x="{x(value)}" y="{height - 4}" text-anchor="{anchor}" '
            f'fill="var(--soft)">{value:.3g}</text>'
        )
    return Html(
        f'<figure><svg viewBox="0 0 500 {height}" role="img" aria-label="{text(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )
