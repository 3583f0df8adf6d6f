"""An evaluation as one self-contained page: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.figures import Agreement, Comparison, Confusion, Evaluation, Reliability
from tamis.evaluation.metrics import HIGHER_IS_BETTER
from tamis.evaluation.plots import comparison_plot, confusion_plot, reliability_plot, score_plot
from tamis.target import Target
from tamis.task import MetricName

TITLES: dict[MetricName, str] = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "mae": "MAE",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
}

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 68rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 50rem; } .quiet { color: #646a73; } .lead { font-size: 1.1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .45rem; border-bottom: 1px solid #e6e8eb; }
th { font-weight: 600; vertical-align: bottom; } th small { display: block; font-weight: 400; }
th:first-child, td:first-child { text-align: left; }
td small { display: block; color: #646a73; white-space: nowrap; }
tr.model td { background: #eef7f3; font-weight: 600; } tr.model small { font-weight: 400; }
.better { color: #12654a; } .worse { color: #a3421d; }
.scroll { overflow-x: auto; } figure { margin: .8rem 0; } img { max-width: 100%; height: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.pictures img { max-height: 22rem; }
"""


def render(evaluation: Evaluation) -> str:
    """The page. Every text that came from data is escaped."""
    e = evaluation
    kept = sum(e.decision.counts[row][1] for row in range(2))
    parts = [
        f"<h1>Evaluation of {escape(e.task)}</h1>",
        f'<p class="lead">{_headline(e)}</p>',
        f'<p class="quiet">A document is kept when its score reaches {e.threshold:.3f}: '
        f"{kept} of {e.n} are. Intervals cover 95% and come from resampling the {e.groups} groups "
        f"of test documents; they cover the choice of documents, not the luck of training.</p>",
        "<h2>Beside the baselines</h2>",
        _scorers(e),
        _picture(
            comparison_plot(TITLES[e.metric], _of_record(e)), "Metric of record of each scorer"
        ),
        "<h2>The ceiling</h2>",
        _ceiling(e.ceiling),
        "<h2>Within slices</h2>",
        _slices(e),
        "<h2>Where it is right and wrong</h2>",
        _pictures(e),
        "<h2>What a score means</h2>",
        _reliability(e),
    ]
    if e.cross_validation is not None:
        c = e.cross_validation
        parts += [
            "<h2>Cross-validated, over all labelled documents</h2>",
            f'<p class="quiet">{c.folds} folds, {c.n} documents in {c.groups} groups; each was '
            f"scored by a model that had not seen its fold.</p>",
            _scorers(c),
            _slices(c),
        ]
    title = escape(f"Evaluation of {e.task}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def _headline(e: Evaluation) -> str:
    found = e.figure
    text = (
        f"{TITLES[e.metric]} <b>{found.value:.3f}</b> ({found.low:.3f} to {found.high:.3f}) "
        f"on {e.n} test documents"
    )
    if not e.gains:
        return f"{text}."
    name = min(e.gains, key=lambda baseline: e.gains[baseline][e.metric].value)
    won = e.gains[name][e.metric]
    verdict = "ahead of" if won.low > 0 else "behind" if won.high < 0 else "not clearly apart from"
    return (
        f"{text}: {verdict} the strongest baseline, <i>{escape(name)}</i>, "
        f"by {won.value:+.3f} ({won.low:+.3f} to {won.high:+.3f})."
    )


def _of_record(c: Comparison) -> dict[str, Interval]:
    scorers = (c.model, *c.baselines)
    return {scorer.name: scorer.figures[c.metric] for scorer in scorers}


def _scorers(c: Comparison) -> str:
    metrics = list(c.model.figures)
    lower = "<small>lower is better</small>"
    head = ["", *(TITLES[m] + ("" if HIGHER_IS_BETTER[m] else lower) for m in metrics)]
    rows = [
        [escape(s.name), *(_cell(s.figures[m]) for m in metrics)] for s in (c.model, *c.baselines)
    ]
    table = _table(head, rows, first="model")
    if not c.gains:
        return table
    shown: tuple[MetricName, ...] = (c.metric,) if c.metric == "f1" else (c.metric, "f1")
    gains = [
        [escape(name), *(_gain(own[metric]) for metric in shown)] for name, own in c.gains.items()
    ]
    heads = [f"Gain in {TITLES[metric]}" for metric in shown]
    note = (
        '<p class="quiet">Gain of the model over each baseline on the same documents (paired); '
        "positive means that the model is better.</p>"
    )
    return table + note + _table(["Over", *heads], gains)


def _ceiling(found: Agreement | None) -> str:
    if found is None:
        return '<p class="quiet">No document was labelled twice, so the ceiling is unknown.</p>'
    kappa = "undefined" if found.kappa is None else f"{found.kappa:.3f}"
    spearman = "" if found.spearman is None else f"Spearman {found.spearman:.3f}, "
    return (
        f"<p>Two readings of {found.n} documents agree with kappa {kappa}, {spearman}"
        f"the same label for {found.exact:.0%}, F1 of the kept class {found.f1:.3f}. "
        f"A model is not to be expected to agree with a reading better than another reading does."
        f"</p>"
    )


def _slices(c: Comparison) -> str:
    if not c.slices:
        return '<p class="quiet">There are too few documents to look within slices.</p>'
    names = [baseline.name for baseline in c.baselines]
    shown: tuple[MetricName, ...] = (c.metric,) if c.metric == "f1" else (c.metric, "f1")
    head = ["Slice", "Documents", *(TITLES[metric] for metric in shown)]
    head += [f"Gain over {name}" for name in names]
    rows = [
        [
            f"{escape(s.name)}<small>by {s.kind}</small>",
            f"{s.n}<small>{s.groups} groups</small>",
            *(_cell(s.figures[metric]) for metric in shown),
            *(_gain(s.gains[name]) if name in s.gains else "–" for name in names),
        ]
        for s in c.slices
    ]
    note = (
        f'<p class="quiet">Gains are in {escape(TITLES[c.metric])}, paired, and given from 30 '
        f"documents on.</p>"
    )
    return _table([escape(h) for h in head], rows) + note


def _pictures(e: Evaluation) -> str:
    score = score_plot(e.target, e.labels(), e.scores(), e.threshold)
    found = [_picture(score, "Score against label, with the threshold")]
    if e.confusion is not None:
        found.append(_picture(confusion_plot(e.confusion), "Label against rounded score"))
    return f'<div class="pictures">{"".join(found)}</div>{_decision(e.decision)}'


def _reliability(e: Evaluation) -> str:
    """Over all folds where there are some: the test documents are few."""
    c = e.cross_validation
    if c is not None and c.reliability is not None:
        where = f"Over {c.folds} folds, calibrated without the fold that is scored."
        return _reliability_of(e.target, c.reliability, where)
    if e.reliability is None:
        return '<p class="quiet">It was not measured.</p>'
    return _reliability_of(e.target, e.reliability, "On the test documents.")


def _reliability_of(target: Target, found: Reliability, where: str) -> str:
    mean = "Mean label" if target.kind == "ordinal" else "Share to keep"
    rows = [
        [
            f"{part.score:.2f}",
            _cell(part.label),
            f"{part.label.n}<small>{part.label.groups} groups</small>",
        ]
        for part in found.bins
    ]
    picture = _picture(reliability_plot(target, found), f"{mean} over mean score")
    table = _table(["Mean score", mean, "Documents"], rows)
    return (
        f"<p>{escape(found.sentence())} {escape(where)}</p>"
        f'<div class="pictures">{picture}{table}</div>'
    )


def _decision(decision: Confusion) -> str:
    rows = [
        [f"to {level}", *(str(count) for count in counts)]
        for level, counts in zip(decision.levels, decision.counts, strict=True)
    ]
    return _table(["By label", "dropped by score", "kept by score"], rows)


def _cell(found: Interval) -> str:
    return f"{found.value:.3f}<small>{found.low:.3f} to {found.high:.3f}</small>"


def _gain(won: Interval) -> str:
    style = "better" if won.low > 0 else "worse" if won.high < 0 else ""
    return (
        f'<span class="{style}">{won.value:+.3f}</span>'
        f"<small>{won.low:+.3f} to {won.high:+.3f}</small>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], first: str = "") -> str:
    """A table of cells that are HTML already; ``first`` is the style of the first row."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = ""
    for position, row in enumerate(rows):
        style = f' class="{first}"' if first and position == 0 else ""
        body += f"<tr{style}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n"
    return f'<div class="scroll"><table><tr>{top}</tr>\n{body}</table></div>'


def _picture(png: bytes, alternative: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<figure><img alt="{escape(alternative)}" src="data:image/png;base64,{data}"></figure>'
