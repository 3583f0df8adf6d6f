"""Small self-contained HTML pages: no script, no outside file, light and dark.

Everything handed in as text is escaped; ``Html`` marks what is markup already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Markup, not to be escaped again."""

    __slots__ = ()


_STYLE = """
:root { color-scheme: light dark; --bg: #fbfaf7; --card: #fff; --ink: #23211d; --soft: #6d675d;
  --line: #e4dfd4; --keep: #2f7d5b; --drop: #b9b2a4; --mark: #c4522d; }
@media (prefers-color-scheme: dark) { :root { --bg: #181715; --card: #211f1c; --ink: #ece8df;
  --soft: #a39c8f; --line: #38342e; --keep: #5cb48c; --drop: #5d574d; --mark: #ee8a63; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 1000px; background: var(--bg);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; }
p.lead { color: var(--soft); margin: 0 0 1.5rem; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(125px, 1fr)); gap: .75rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1rem; }
.card b { display: block; font-size: 1.45rem; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; }
table { width: 100%; border-collapse: collapse; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden; font-size: .9rem; }
th, td { text-align: left; padding: .5rem .75rem; border-top: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { border-top: 0; color: var(--soft); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
.doc { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--drop);
  border-radius: 8px; padding: .6rem .9rem; margin: .5rem 0; }
.doc.kept { border-left-color: var(--keep); }
.doc small { color: var(--soft); overflow-wrap: anywhere; }
.doc p { margin: .25rem 0 0; white-space: pre-line; overflow-wrap: anywhere; font-size: .9rem; }
details summary { cursor: pointer; color: var(--soft); }
"""


def text(value: object) -> Html:
    """Escape anything but ``Html``, for element content and attribute values."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[str]) -> Html:
    """Markup one after another."""
    return Html("\n".join(text(part) for part in parts))


def page(title: str, body: str, lead: str = "") -> str:
    """A whole page.

    Args:
        title: Heading and window title.
        body: Markup as ``Html``; a plain string is escaped.
        lead: A line below the heading.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{text(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><h1>{text(title)}</h1><p class="lead">{text(lead)}</p>\n{text(body)}\n'
        "</body></html>\n"
    )


def section(title: str, body: str) -> Html:
    """A heading and what belongs to it."""
    return Html(f"<section><h2>{text(title)}</h2>\n{text(body)}</section>")


def cards(figures: Sequence[tuple[str, str]]) -> Html:
    """Large figures side by side, each a value and what it is."""
    items = (f'<div class="card"><b>{text(v)}</b><span>{text(k)}</span></div>' for v, k in figures)
    return Html(f'<div class="cards">{"".join(items)}</div>')


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; numbers are set to the right, with thousands apart."""
    body = [list(row) for row in rows]
    numeric = [
        bool(body) and all(_is_number(row[i]) or row[i] == "" for row in body)
        for i in range(len(headers))
    ]

    def cell(tag: str, value: object, right: bool) -> str:
        shown = f"{value:,}" if isinstance(value, int) else value
        style = ' class="n"' if right else ""
        return f"<{tag}{style}>{text(shown)}</{tag}>"

    def line(tag: str, values: Sequence[object]) -> str:
        cells = (cell(tag, v, right) for v, right in zip(values, numeric, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    lines = "\n".join(line("td", row) for row in body)
    return Html(f"<table><thead>{line('th', headers)}</thead><tbody>{lines}</tbody></table>")


def histogram(
    counts: Sequence[int], low: float, high: float, threshold: float | None = None
) -> Html:
    """Bars over a scale as inline SVG; bars from the threshold on are coloured as kept.

    Args:
        counts: Documents in equal bins from ``low`` to ``high``.
        low: Lower end of the scale.
        high: Upper end.
        threshold: Where to draw the line.
    """
    width, height, left, base = 920, 224, 46, 200
    span, top = width - left - 10, max([*counts, 1])
    step = span / max(len(counts), 1)

    def x(value: float) -> float:
        return left + span * (value - low) / (high - low)

    parts = []
    for share in (0.5, 1.0):
        y = base - 170 * share
        parts.append(
            f'<line x1="{left}" x2="{width - 10}" y1="{y}" y2="{y}" stroke="var(--line)"/>'
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end" fill="var(--soft)">'
            f"{_compact(top * share)}</text>"
        )
    for i, count in enumerate(counts):
        begin, end = (
            low + (high - low) * i / len(counts),
            low + (high - low) * (i + 1) / len(counts),
        )
        kept = threshold is not None and begin + (end - begin) / 2 >= threshold
        colour = "--keep" if kept else "--drop"
        bar = max(170 * count / top, 1.5 if count else 0)
        parts.append(
            f'<rect x="{left + i * step + 0.5:.1f}" y="{base - bar:.1f}" width="{step - 1:.1f}" '
            f'height="{bar:.1f}" rx="1.5" fill="var({colour})">'
            f"<title>{begin:.2f} to {end:.2f}: {count:,}</title></rect>"
        )
    for i in range(6):
        value = low + (high - low) * i / 5
        parts.append(
            f'<text x="{x(value):.1f}" y="{base + 18}" text-anchor="middle" '
            f'fill="var(--soft)">{value:.4g}</text>'
        )
    parts.append(
        f'<line x1="{left}" x2="{width - 10}" y1="{base}" y2="{base}" stroke="var(--soft)"/>'
    )
    if threshold is not None:
        at = min(max(x(threshold), left), width - 10)
        # The label goes where there is room for it.
        side, gap = ("end", -6) if at > width / 2 else ("start", 6)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="12" y2="{base}" stroke="var(--mark)" '
            f'stroke-width="2" stroke-dasharray="5 4"/><text x="{at + gap:.1f}" y="20" '
            f'text-anchor="{side}" fill="var(--mark)">threshold {threshold:.4g}</text>'
        )
    drawing = "\n".join(parts)
    label = f"Histogram of {sum(counts):,} scores from {low:g} to {high:g}"
    return Html(
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"\n{drawing}\n</svg></figure>"
    )


def _is_number(value: object) -> bool:
    if isinstance(value, int | float):
        return True
    return isinstance(value, str) and value.rstrip("%").replace(",", "").replace(".", "").isdigit()


def _compact(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
