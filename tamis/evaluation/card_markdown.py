"""The model card as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tamis.evaluation.behaviour_figures import KINDS, BehaviourReport
from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.card import RELIABILITY, CardInput, LabelFacts
from tamis.evaluation.figures import Comparison, Evaluation
from tamis.evaluation.metrics import HIGHER_IS_BETTER
from tamis.target import BinaryTarget, OrdinalTarget


def markdown(given: CardInput, limits: Sequence[str]) -> str:
    """The card as Markdown. No text of it is read as markup."""
    e, data, model = given.evaluation, given.data, given.model
    parts = [
        f"# {_safe(given.name)} {_safe(given.version)}",
        _safe(e.headline()),
        "## Intended use",
        _safe(given.description),
        _stated(given.intended_use, "intended_use"),
        "Not meant for:",
        _stated(given.out_of_scope, "out_of_scope"),
        "## Task",
        f"{_safe(given.task)}: {_safe(_target(given))} "
        f"A document is kept when its score reaches {e.threshold:.3f}.",
        "## Data",
        _safe(data.origin),
        _facts(
            {
                "Documents": f"{data.documents} (fingerprint {data.fingerprint})",
                "Split": f"{given.split.train} train, {given.split.validation} validation, "
                f"{given.split.test} test",
                "Sources": _counted(data.sources),
                "Licences of the texts": _counted(data.licences),
                "Left out": _counted(data.left_out) or "none",
                "Labels": _labels(data.labels),
            }
        ),
        "## Model",
        _facts(
            {
                "Family": model.family,
                **model.own,
                "Head": model.head,
                "Preparation": ", ".join(model.preparation) or "none",
                "Reads": f"{model.long}; {model.max_characters} characters, "
                f"then {model.max_tokens} tokens",
                "Licence": given.licence,
            }
        ),
        "## Figures",
        f"On {e.n} test documents in {e.groups} groups, with 95% intervals.",
        _figures(e),
    ]
    if e.cross_validation is not None:
        c = e.cross_validation
        parts += [f"Over {c.folds} cross-validation folds, {c.n} documents:", _figures(c)]
    parts += [
        "## What a score means",
        *_reliability(given),
        "## Behaviour",
        *_behaviour(given.behaviour),
        "## Ceiling",
        _ceiling(e),
        "## Slices",
        _slices(e),
        "## Limits",
        _list(limits),
        "## Cost of training",
        _facts(given.footprint.facts()),
        _safe(given.footprint.assumptions()) if given.footprint.recorded else "",
        "## Contact",
        _stated(given.contacts, "contacts"),
        "## Provenance",
        _facts(
            {
                "Created": given.created,
                "Code": given.code_version,
                "Task file": given.task_fingerprint,
                "Seed": str(given.seed),
            }
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _stated(sentences: Sequence[str], key: str) -> str:
    """What people stated under a key of the task file, or that they did not."""
    return _list(sentences or [f"Not stated (card.{key} of the task file)."])


def _target(given: CardInput) -> str:
    target = given.target
    if isinstance(target, OrdinalTarget):
        return (
            f"a score from {target.minimum:g} to {target.maximum:g}; labels of "
            f"{target.keep_at_least:g} and above are worth keeping."
        )
    if isinstance(target, BinaryTarget):
        return f"the probability of {target.positive} rather than {target.negative}."
    return f"the probability of {', '.join(target.keep)} among {', '.join(target.classes)}."


def _labels(labels: LabelFacts) -> str:
    made = {
        "llm": "by a large language model, not by people",
        "people": "by people",
        "rules": "by rules",
        "unknown": "by whom is not known",
    }[labels.made_by]
    who = f" ({labels.who})" if labels.who else ""
    how = f", under {labels.instructions}" if labels.instructions else ""
    return f"made {made}{who}{how}" if labels.made_by != "unknown" else made


def _ceiling(e: Evaluation) -> str:
    if e.ceiling is None:
        return "No document was labelled twice."
    c = e.ceiling
    figures = [f"the same label for {c.exact:.0%}", f"F1 of the kept class {c.f1:.3f}"]
    figures += [] if c.kappa is None else [f"kappa {c.kappa:.3f}"]
    figures += [] if c.spearman is None else [f"Spearman {c.spearman:.3f}"]
    return f"Two readings of {c.n} documents: {', '.join(figures)}."


def _figures(c: Comparison) -> str:
    scorers = (c.model, *c.baselines)
    head = ["", *(s.name for s in scorers), *(f"gain over {name}" for name in c.gains)]
    rows = []
    for metric, found in c.model.figures.items():
        name = metric if HIGHER_IS_BETTER[metric] else f"{metric} (lower is better)"
        beside = [f"{s.figures[metric].value:.3f}" for s in c.baselines]
        gains = [str(own[metric]) for own in c.gains.values()]
        rows.append([name, str(found), *beside, *gains])
    return _table(head, rows)


def _reliability(given: CardInput) -> list[str]:
    """The gap, the picture and the table, over all folds where there are some."""
    found, c = given.reliability, given.evaluation.cross_validation
    if found is None:
        return ["It was not measured."]
    folds = c is not None and found is c.reliability
    where = "Cross-validated" if folds else "On the test documents"
    mean = "mean label" if given.target.kind == "ordinal" else "share to keep"
    rows = [
        [
            f"{part.score:.2f}",
            f"{part.label.value:.2f} ({part.label.low:.2f} to {part.label.high:.2f})",
            str(part.label.n),
        ]
        for part in found.bins
    ]
    return [
        f"{where}: {found.sentence()}",
        f"![Mean label beside mean score, with 95% intervals]({RELIABILITY})",
        _table(["mean score", mean, "n"], rows),
    ]


def _behaviour(report: BehaviourReport | None) -> list[str]:
    if report is None or not report.tests:
        return ["It was not tested (behaviour of the task file)."]

    def shown(name: str, found: Interval) -> str:
        if name == "spearman":
            return f"{name} {found}"
        return f"{name} {found.value:.1%} ({found.low:.1%} to {found.high:.1%})"

    rows = [
        [
            KINDS[test.kind],
            test.name,
            "passed" if test.passed else "failed",
            str(test.n),
            ", ".join(shown(name, found) for name, found in test.figures.items()) or test.detail,
            ", ".join(f"{name} {limit:g}" for name, limit in test.limits.items()),
        ]
        for test in report.tests
    ]
    return [
        _safe(report.sentence()),
        _table(["", "test", "", "n", "found, with 95% intervals", "limit"], rows),
        "Changes (median, p95, fall) are shares of the width of the scale.",
    ]


def _slices(c: Comparison) -> str:
    if not c.slices:
        return "There are too few test documents to look within slices."
    names = [baseline.name for baseline in c.baselines]
    rows = [
        [
            f"{part.name} (by {part.kind})",
            str(part.n),
            str(part.figures[c.metric]),
            *(str(part.gains[name]) if name in part.gains else "–" for name in names),
        ]
        for part in c.slices
    ]
    return _table(["slice", "n", c.metric, *(f"gain over {name}" for name in names)], rows)


def _counted(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(f"- **{name}**: {_inline(value)}" for name, value in facts.items() if value)


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_safe(sentence)}" for sentence in sentences)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(_inline(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(head), f"|{' --- |' * len(head)}", *(line(row) for row in rows)])


def _safe(text: str) -> str:
    """Text that begins a line: ``_inline``, and no heading, quotation or list either."""
    return re.sub(r"^(?=[#>+-])", r"\\", _inline(text))


def _inline(text: str) -> str:
    """Text on one line that Markdown will not read as HTML, a link, code or emphasis."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]])", r"\\\1", text)
