"""The page of a window: verdict first, then what to do, then the figures. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from tamis import html
from tamis.evaluation.bootstrap import Interval
from tamis.html import Html
from tamis.monitoring.drift import DriftReport
from tamis.monitoring.novelty import Cluster, NovelDocument
from tamis.monitoring.performance import Performance
from tamis.monitoring.pictures import closeness, histogram, intervals, pairs
from tamis.monitoring.report import MonitorReport

_STYLE = Html("""<style>
.verdict { border-radius: 12px; padding: 1rem 1.2rem; margin: 0 0 1rem; border: 1px solid;
  border-left-width: 6px; background: var(--card); font-size: 1.12rem; }
.verdict small { display: block; color: var(--soft); font-size: .9rem; margin-top: .3rem; }
.ok { border-color: var(--keep); } .notice { border-color: var(--drop); }
.warning { border-color: #c99a35; } .alarm { border-color: var(--mark); }
.steps { margin: .2rem 0 1.2rem; padding: 0; list-style: none; }
.steps li { margin: .55rem 0; } .steps code { display: block; margin-top: .2rem;
  padding: .45rem .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; overflow-x: auto; font-size: .86rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr));
  gap: .9rem; align-items: start; }
figcaption { color: var(--soft); font-size: .85rem; margin: -.3rem 0 .5rem; }
.words span { display: inline-block; background: var(--bg); border: 1px solid var(--line);
  border-radius: 99px; padding: .05rem .6rem; margin: .15rem .25rem .15rem 0; font-size: .86rem; }
.cluster { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1rem; margin: .6rem 0; } .cluster .doc { background: var(--bg); }
.bad { color: var(--mark); font-weight: 600; white-space: nowrap; }
p .bad { white-space: normal; } p.note { color: var(--soft); font-size: .88rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
</style>""")


def render(report: MonitorReport) -> str:
    """The page."""
    parts: list[str] = [
        _STYLE,
        _verdict(report),
        _steps(report),
        html.cards(_cards(report)),
        html.section("Drift", _drift(report)),
        html.section("What came", _looks(report)),
        html.section("What is new", _novelty(report)),
        html.section("How the model does", _performance(report.performance)),
        html.section("Quality of the data", _quality(report)),
    ]
    if report.health is not None:
        parts.append(html.section("Health of the service", _health(report)))
    parts.append(html.section("Every condition", _reasons(report)))
    parts.append(_facts(report))
    span = report.source
    if report.start is not None and report.end is not None and "request log" not in span:
        span += f", {report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC"
    title = f"Monitoring of {report.task}"
    model = f"Model {report.task}/{report.version}. " if report.version else ""
    return html.page(title, html.join(parts), f"{model}{span[:1].upper()}{span[1:]}.")


def _verdict(report: MonitorReport) -> Html:
    return Html(
        f'<div class="verdict {report.severity}">{html.text(report.headline())}'
        f"<small>{html.text(_sentence(report.ringing.reason))}</small></div>"
    )


def _steps(report: MonitorReport) -> Html:
    items = []
    for told, command in report.next_steps():
        code = f"<code>{html.text(command)}</code>" if command else ""
        items.append(f"<li>{html.text(told)}{code}</li>")
    return Html(f'<ul class="steps">{"".join(items)}</ul>')


def _cards(report: MonitorReport) -> list[tuple[str, str]]:
    cards = [(f"{report.documents:,}", "documents looked at")]
    if report.drift is not None:
        cards.append((_p(report.drift.p), "p of no drift"))
    if report.novelty.unlike is not None:
        cards.append((f"{report.novelty.unlike:.0%}", "seem unlike the reference"))
    kept, reference = report.looks.kept
    if kept is not None:
        beside = "" if reference is None else f", reference {reference:.0%}"
        cards.append((f"{kept:.0%}", f"kept by the model{beside}"))
    found = report.performance
    if found.measured is not None:
        cards.append((f"{found.measured.value:.3f}", f"{found.metric} on {found.labels:,} labels"))
    elif found.metric in found.estimated:
        value = found.estimated[found.metric].value
        cards.append((f"{value:.3f}", f"{found.metric}, estimated: no labels"))
    return cards


def _drift(report: MonitorReport) -> Html:
    if report.drift is None:
        return _note("There is nothing to compare.")
    rows = tests_of(report.drift)
    note = "" if report.calibrated else _note(
        "The alarm is not set for this model: how often it rings by chance is not known."
    )  # fmt: skip
    drawn = closeness(rows, "How close each test is to its threshold") if rows else ""
    table = html.table(
        ("", "test", "found"),
        [(_mark(r.passed), r.check, r.detail) for r in report.drift.reasons],
    )
    whole = Html(f"<details><summary>every test</summary>{table}</details>")
    return html.join([note, Html(f"<p>{html.text(_found(report.drift))}</p>"), drawn, whole])


def _found(drift: DriftReport) -> str:
    verdict = "They differ" if drift.drifted else "They were not found to differ"
    return (
        f"{drift.window:,} documents of the window beside {drift.reference:,} of the reference. "
        f"{verdict}: p = {_p(drift.p)} of all tests as one, alarm from {_p(drift.level)}."
    )


def tests_of(drift: DriftReport) -> list[tuple[str, float, str, bool]]:
    """Each test of drift: how far it went toward its threshold, in words, whether it is beyond.

    0 is what is expected of a window that does not differ, 1 is the threshold.
    """
    found = []
    for each in drift.tests:
        room = each.threshold - each.expected
        if room > 0:
            far = (each.value - each.expected) / room
            told = f"{each.value:.3g} of {each.threshold:.3g}, p {_p(each.adjusted)}"
            found.append((each.name, far, told, each.adjusted <= drift.level))
    return found


def _looks(report: MonitorReport) -> Html:
    looks = report.looks
    parts = []
    if looks.scores is not None:
        parts.append(histogram(looks.scores, "Scores", looks.threshold))
    if looks.characters is not None:
        parts.append(histogram(looks.characters, "Length of documents in characters"))
    if looks.languages:
        parts.append(pairs(looks.languages, "Languages"))
    if looks.sources and any(reference for _, reference in looks.sources.values()):
        parts.append(pairs(looks.sources, "Sources"))
    if not parts:
        return _note("No document came.")
    return Html(f'<div class="two">{"".join(parts)}</div>')


def _novelty(report: MonitorReport) -> Html:
    found = report.novelty
    if not found.measured:
        return _note("Without vectors of enough documents it cannot be said what is new.")
    parts: list[str] = []
    if found.clusters:
        bars = {
            _name(number, cluster): (cluster.share, cluster.reference_share)
            for number, cluster in enumerate(found.clusters, 1)
        }
        parts.append(pairs(bars, "Share of the documents that are in each cluster", whole=True))
        parts += [_cluster(number, each) for number, each in enumerate(found.clusters, 1)]
    else:
        parts.append(_note("No group of documents is more frequent than among the reference."))
    documents = [_document(each) for each in found.documents]
    parts.append(
        Html(f"<h3>The documents that are most unusual</h3>{''.join(documents)}")
    )  # fmt: skip
    if not report.texts:
        parts.append(_note("Texts were not kept, so no words and excerpts can be shown."))
    return html.join(parts)


def _name(number: int, cluster: Cluster) -> str:
    return f"{number}  {' '.join(cluster.words[:2])}".strip()


def _cluster(number: int, cluster: Cluster) -> Html:
    words = "".join(f"<span>{html.text(word)}</span>" for word in cluster.words)
    facts = [f"{cluster.size:,} documents, {cluster.share:.1%} of the window"]
    facts.append(f"{cluster.reference_share:.1%} of the reference")
    for mix in (cluster.languages, cluster.sources):
        if mix:
            facts.append(", ".join(f"{name} {count:,}" for name, count in mix.items()))
    if cluster.mean_score is not None:
        facts.append(f"mean score {cluster.mean_score:.2f}, {cluster.kept or 0:.0%} kept")
    shown = "".join(_document(each) for each in cluster.documents)
    return Html(
        f'<div class="cluster"><h3>{number}. {html.text(facts[0])}</h3>'
        f'<p class="note">{html.text("; ".join(facts[1:]))}</p>'
        f'<div class="words">{words}</div>'
        f"<details><summary>examples</summary>{shown}</details></div>"
    )


def _document(each: NovelDocument) -> Html:
    score = "no score" if each.score is None else f"score {each.score:.2f}"
    parts = [score, each.source, each.language, f"{each.characters:,} characters"]
    parts.append(f"more unusual than {each.novelty:.0%} of the reference")
    line = " · ".join(part for part in [*parts, f"id {each.id}"] if part)
    body = "" if each.excerpt is None else f'<p dir="auto">{html.text(each.excerpt)}</p>'
    return Html(f'<div class="doc"><small>{html.text(line)}</small>{body}</div>')


def _performance(found: Performance) -> Html:
    parts: list[str] = []
    rows: list[tuple[str, Interval | None, float | None, str]] = []
    if found.reference is not None:
        rows.append((f"{found.metric}, reference", found.reference, None, "--drop"))
    if found.measured is not None:
        rows.append((f"{found.metric}, labels", found.measured, None, "--mark"))
    if found.metric in found.estimated:
        rows.append((f"{found.metric}, estimated", found.estimated[found.metric], None, "--keep"))
    if rows:
        parts.append(intervals(rows, "Metric of record, 95% intervals"))
    told = [
        html.text(_sentence(reason.detail))
        if reason.passed
        else Html(f'<span class="bad">{html.text(_sentence(reason.detail))}</span>')
        for reason in found.reasons()
    ]
    parts.append(Html("".join(f"<p>{each}</p>" for each in told)))
    if found.labels:
        parts.append(_note(_selection(found)))
    if found.estimated:
        known = {name: f"{value:.3f}" for name, value in found.expected.items()}
        table = [
            (name, _interval(figure), known.get(name, ""))
            for name, figure in found.estimated.items()
        ]
        parts.append(html.table(("estimated without labels", "window", "reference"), table))
        parts.append(_note(
            "Estimates hold as far as a score means what it meant on the reference; labels that "
            "changed do not show in them."
        ))  # fmt: skip
    return html.join(parts)


def _selection(found: Performance) -> str:
    told = "Labels are of documents that clients chose, not of a random part of the window."
    if found.selected_p is None:
        return told
    if found.selected_p < 0.01:
        return f"{told} Their scores differ from the window's (p {_p(found.selected_p)})."
    return f"{told} Their scores do not differ from the window's (p {_p(found.selected_p)})."


def _quality(report: MonitorReport) -> Html:
    rows = []
    for name, each in report.quality.shares.items():
        share = "not measured" if each.share is None else f"{each.share:.2%}"
        limit = "" if each.limit is None else f"{each.limit:.2%}"
        known = "" if each.reference is None else f"{each.reference:.2%}"
        title = f"{name.replace('_', ' ')}: {each.name}"
        state = _mark(not each.broken) if each.limit is not None and each.of else ""
        rows.append((state, title, share, known, limit, f"{each.count:,} of {each.of:,}"))
    return html.table(("", "share of documents", "window", "reference", "limit", "counted"), rows)


def _health(report: MonitorReport) -> Html:
    health = report.health
    if health is None:
        return Html("")
    cards = [
        (f"{health.requests:,}", "requests"),
        (f"{health.errors:,}", "failed"),
        (f"{health.rejected:,}", "turned away"),
        ("–" if health.p95_seconds is None else f"{health.p95_seconds:.2g} s", "95% within"),
        (f"{health.queue:,}", "documents wait"),
        (f"{health.dropped:,}", "records dropped"),
    ]
    return html.cards(cards)


def _reasons(report: MonitorReport) -> Html:
    rows = [(_mark(r.passed), r.check, r.detail) for r in report.reasons]
    table = html.table(("", "condition", "found"), rows)
    return Html(f"<details><summary>{len(rows)} conditions</summary>{table}</details>")


def _facts(report: MonitorReport) -> Html:
    told = ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in report.counts.items() if count
    )
    facts = f"Fingerprint {report.fingerprint[:16]}, looked at {report.at:%Y-%m-%d %H:%M}. {told}."
    return _note(facts)


def _mark(passed: bool) -> Html:
    return Html("held") if passed else Html('<span class="bad">NOT HELD</span>')


def _note(told: str) -> Html:
    return Html(f'<p class="note">{html.text(told)}</p>')


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _sentence(told: str) -> str:
    told = told.strip()
    return f"{told[:1].upper()}{told[1:]}" + ("" if told.endswith(".") else ".")


__all__: Sequence[str] = ("render", "tests_of")
