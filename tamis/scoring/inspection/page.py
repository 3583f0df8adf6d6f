"""An inspection as one self-contained page: an index of the groups, a card for each document."""

from __future__ import annotations

import json

from tamis.html import Html, cards, histogram, join, page, text
from tamis.scoring.inspection.models import Broken, Group, Inspection, Shown
from tamis.scoring.inspection.plain import one_line, visible

_EXCERPT = 320
_METADATA = 8
_STYLE = """
<style>
:root { --dup: #4a6fa5; --bad: #b3403a; }
@media (prefers-color-scheme: dark) { :root { --dup: #86a9dc; --bad: #ea7d76; } }
html { scroll-behavior: smooth; }
body { max-width: 1280px; }
.kept { --side: var(--keep); } .dropped { --side: #9a8f7a; }
.duplicates { --side: var(--dup); } .quarantine { --side: var(--bad); }
.note { border-left: 4px solid var(--mark); padding: .4rem .9rem; margin: 0 0 1rem;
  background: var(--card); overflow-wrap: anywhere; }
.layout { display: grid; grid-template-columns: 250px minmax(0, 1fr); gap: 2rem;
  margin-top: 1.5rem; align-items: start; }
nav { position: sticky; top: 0; max-height: 100vh; overflow-y: auto; padding: 1rem 0; }
nav b { display: block; margin: .9rem 0 .2rem; color: var(--side); font-size: .78rem;
  letter-spacing: .06em; text-transform: uppercase; }
nav b:first-child { margin-top: 0; }
nav a { display: flex; gap: .75rem; justify-content: space-between; padding: .18rem .6rem;
  border-left: 3px solid var(--side); color: inherit; text-decoration: none; font-size: .88rem; }
nav a:hover, nav a:focus-visible { background: var(--line); }
nav a span { overflow-wrap: anywhere; }
nav a i { color: var(--soft); font-style: normal; font-variant-numeric: tabular-nums; }
nav a.none { opacity: .55; }
section { scroll-margin-top: .5rem; }
section h2 { display: flex; flex-wrap: wrap; gap: .15rem .7rem; align-items: baseline;
  border-bottom: 2px solid var(--side); padding-bottom: .35rem; overflow-wrap: anywhere; }
main section:first-child h2 { margin-top: 1rem; }
h2 small { color: var(--soft); font-weight: 400; font-size: .85rem; }
.doc { border-left-color: var(--side); padding: .7rem 1rem; margin: .65rem 0; overflow: hidden; }
.doc header { display: flex; flex-wrap: wrap; gap: .3rem .7rem; align-items: center;
  font-size: .82rem; color: var(--soft); }
.doc header span { overflow-wrap: anywhere; }
.doc header .score { background: var(--side); color: var(--card); border-radius: 6px;
  padding: .05rem .5rem; font-weight: 650; font-size: .9rem; font-variant-numeric: tabular-nums; }
.doc header .from { color: var(--ink); font-weight: 600; }
.doc header .chip { border: 1px solid var(--line); border-radius: 6px; padding: 0 .4rem; }
.bar { position: relative; width: 84px; height: 5px; border-radius: 3px; background: var(--line);
  flex: none; }
.bar i { position: absolute; top: -3px; width: 11px; height: 11px; margin-left: -5px;
  border-radius: 50%; background: var(--side); }
.bar u { position: absolute; top: -4px; width: 2px; height: 13px; background: var(--mark); }
.doc p { margin: .45rem 0 0; white-space: normal; unicode-bidi: isolate; line-height: 1.55; }
.doc details { margin-top: .4rem; font-size: .85rem; }
.doc pre { margin: .5rem 0 0; padding: .7rem .9rem; max-height: 30rem; overflow: auto;
  background: var(--bg); border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .85rem/1.55 system-ui, sans-serif; unicode-bidi: isolate; }
.doc pre.raw { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .8rem; }
.doc dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem .9rem;
  margin: .6rem 0 0; } .doc dt { color: var(--soft); }
.doc dd { margin: 0; overflow-wrap: anywhere; unicode-bidi: isolate; }
.twin { margin: .6rem 0 0; padding: .35rem .8rem; border-left: 2px dashed var(--side);
  font-size: .86rem; overflow-wrap: anywhere; }
.twin b { color: var(--side); font-weight: 600; } .twin p { color: var(--soft); margin: .2rem 0 0; }
.empty { color: var(--soft); }
@media (max-width: 820px) { .layout { display: block; } nav { position: static;
  max-height: none; } }
</style>
"""
_PARTS = {
    "kept": "Kept",
    "dropped": "Dropped",
    "duplicates": "Duplicates",
    "quarantine": "Quarantined",
}
_SHORT = {"kept": "at random", "near": "near the threshold"}


def to_html(found: Inspection) -> str:
    """The page; every text that came from data is escaped, and nothing in it acts."""
    counts = found.counts
    body = [
        Html(_STYLE),
        _notes(found),
        cards(
            [
                (f"{counts.kept:,}", f"kept, {_share(counts.kept, counts.read)}"),
                (f"{counts.dropped:,}", f"dropped, {_share(counts.dropped, counts.read)}"),
                (f"{counts.duplicates:,}", f"duplicates, {_share(counts.duplicates, counts.read)}"),
                (
                    f"{counts.quarantined:,}",
                    f"quarantined, {_share(counts.quarantined, counts.read)}",
                ),
                (f"{found.shown:,}", "shown below"),
            ]
        ),
    ]
    if found.threshold is not None:
        drawing = histogram(found.histogram, found.low, found.high, found.threshold)
        body += [Html("<h2>Scores of all documents that have one</h2>"), drawing]
    sections = join(_section(number, group, found) for number, group in enumerate(found.groups))
    body.append(Html(f'<div class="layout">{_index(found)}<main>{sections}</main></div>'))
    model = f", model {one_line(found.model, 100)}" if found.model else ""
    lead = f"{one_line(found.output, 300)}: {found.state}{model}. {counts}"
    return page("A look through the sieve", join(body), lead)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "nothing was read"


def _notes(found: Inspection) -> Html:
    notes = []
    if not found.finished:
        notes.append(f"The run is {found.state}. Counts and documents are of those only.")
    for path, problem in found.problems.items():
        notes.append(f"{one_line(path, 200)} cannot be read: {one_line(problem, 300)}")
    return join(Html(f'<p class="note">{text(note)}</p>') for note in notes)


def _index(found: Inspection) -> Html:
    lines, part = [], ""
    for number, group in enumerate(found.groups):
        if group.part != part:
            part = group.part
            lines.append(Html(f'<b class="{part}">{_PARTS[part]}</b>'))
        empty = "" if group.shown else " none"
        name = _SHORT["near"] if group.near else _SHORT.get(group.name, one_line(group.name, 80))
        count = "" if group.near else f"{group.total:,}"
        lines.append(
            Html(
                f'<a class="{part}{empty}" href="#g{number}"><span>{text(name)}</span>'
                f"<i>{count}</i></a>"
            )
        )
    return Html(f'<nav aria-label="Groups">{join(lines)}</nav>')


def _section(number: int, group: Group, found: Inspection) -> Html:
    name = one_line(group.name, 100)
    title = name if group.near or group.name == group.part else f"{_PARTS[group.part]}: {name}"
    told = f"{group.shown:,} of {group.total:,}"
    if group.near:
        told = f"the {group.shown:,} nearest that were found, of {group.total:,} on this side"
    documents = join(_document(shown, found) for shown in group.documents)
    broken = join(_broken(row) for row in group.broken)
    content = join([documents, broken])
    if not group.shown:
        content = Html('<p class="empty">None was found.</p>')
    heading = f"{text(title[:1].upper() + title[1:])} <small>{text(told)}</small>"
    return Html(
        f'<section id="g{number}" class="{group.part}"><h2>{heading}</h2>{content}</section>'
    )


def _document(shown: Shown, found: Inspection) -> Html:
    head = [_score(shown, found)]
    if shown.source:
        head.append(_span(one_line(shown.source, 120), "from"))
    head.append(_span(f"{one_line(shown.shard, 160)} row {shown.row:,}"))
    head += [_span(chip, "chip") for chip in _chips(shown)]
    line = one_line(shown.text, _EXCERPT)
    parts = [
        Html(f"<header>{join(head)}</header>"),
        Html(f'<p dir="auto">{text(line or "(empty)")}</p>'),
        _twin(shown),
        _details(shown, line),
    ]
    return Html(f'<article class="doc">{join(parts)}</article>')


def _score(shown: Shown, found: Inspection) -> Html:
    if shown.score is None:
        return Html('<span class="chip">not scored</span>')
    badge = f'<span class="score">{shown.score:.3f}</span>'
    if found.threshold is None or found.high <= found.low:
        return Html(badge)

    def place(value: float) -> str:
        share = (value - found.low) / (found.high - found.low)
        return f"left:{100 * min(max(share, 0.0), 1.0):.1f}%"

    return Html(
        f'{badge}<span class="bar" title="on the scale, beside the threshold">'
        f'<u style="{place(found.threshold)}"></u><i style="{place(shown.score)}"></i></span>'
    )


def _chips(shown: Shown) -> list[str]:
    chips = []
    if shown.language:
        chips.append(one_line(shown.language, 12))
    if shown.tokens is not None:
        chips.append(f"{shown.tokens:,} tokens")
    if shown.pii_found:
        chips.append(f"personal data: {shown.pii_found:,}")
    if shown.similarity is not None:
        chips.append(f"{shown.similarity:.0%} alike")
    return chips


def _span(content: str, name: str = "") -> Html:
    attribute = f' class="{name}"' if name else ""
    return Html(f"<span{attribute}>{text(content)}</span>")


def _twin(shown: Shown) -> Html:
    if shown.duplicate_of is None:
        return Html("")
    told = f"<b>repeats {text(one_line(shown.duplicate_of, 60))}</b>"
    if shown.stays is None:
        return Html(f'<div class="twin">{told}</div>')
    stays = shown.stays
    where = f"{one_line(stays.shard, 160)} row {stays.row:,}, {one_line(stays.reason, 60)}"
    score = "" if stays.score is None else f", scored {stays.score:.3f}"
    return Html(
        f'<div class="twin">{told} {text(where + score)}'
        f'<p dir="auto">{text(one_line(stays.text, 240))}</p></div>'
    )


def _details(shown: Shown, line: str) -> Html:
    beginning = visible(shown.text)
    whole = shown.characters is not None and shown.characters <= len(shown.text)
    parts = []
    if line != " ".join(beginning.split()) or "\n" in beginning.strip():
        parts.append(Html(f'<pre dir="auto">{text(beginning)}</pre>'))
    fields = [("id", one_line(shown.id, 200)), ("reason", one_line(shown.reason, 100))]
    fields += _metadata(shown.metadata)
    items = (f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in fields if value)
    parts.append(Html(f"<dl>{''.join(items)}</dl>"))
    length = f"{shown.characters:,}" if shown.characters is not None else "more"
    size = f"all {length} characters" if whole else f"the first {len(shown.text):,} of {length}"
    title = f"text ({size}) and fields" if len(parts) > 1 else f"fields ({size} shown)"
    return Html(f"<details><summary>{text(title)}</summary>{join(parts)}</details>")


def _metadata(encoded: str) -> list[tuple[str, str]]:
    """Some of the other columns; those of an object that was cut are shown as they are."""
    if encoded in ("", "{}", "null"):
        return []
    try:
        found = json.loads(encoded)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return [("metadata", one_line(encoded, 400))]
    items = list(found.items())[:_METADATA]
    return [(one_line(str(key), 60), one_line(_flat(value), 300)) for key, value in items]


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _broken(row: Broken) -> Html:
    where = f"{one_line(row.shard, 160)}, {one_line(row.place, 80)}"
    parts = [f'<header><span class="from">{text(where)}</span></header>']
    if row.detail:
        parts.append(f"<p>{text(one_line(row.detail, 400))}</p>")
    if row.raw.strip():
        first = one_line(row.raw, 160)
        parts.append(f'<pre class="raw">{text(first)}</pre>')
        if visible(row.raw).strip() != first:
            parts.append(
                "<details><summary>the beginning of its bytes</summary>"
                f'<pre class="raw">{text(visible(row.raw[:2_000]))}</pre></details>'
            )
    return Html(f'<article class="doc">{"".join(parts)}</article>')
