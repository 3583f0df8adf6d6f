"""What Grafana's two dashboards show: rows of panels, each with its expressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_WIDE, _HALF, _THIRD, _QUARTER = 24, 12, 8, 6
_JOINED = "* on (job, instance) group_left (task) job_instance:tamis_model:now{task=~"
_TASK = '{task=~"$task"}'


@dataclass(frozen=True)
class Query:
    """One expression, and how its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: What it shows.
        text: How to read it.
        queries: Of its series.
        unit: Of Grafana.
        kind: ``lines`` over time, one ``number``, or ``bars`` of the newest values.
        width: Of 24 columns.
        most: Upper end of the axis; None leaves it to the data.
        limit: From where a value is bad; None where none is.
    """

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "lines"
    width: int = _HALF
    most: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Page:
    """A dashboard: rows of panels."""

    uid: str
    title: str
    text: str
    tasks: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def _of_task(expression: str) -> str:
    """A figure of the service, with the task that its instance serves."""
    return f'{expression} {_JOINED}"$task"}}'


def _one(expression: str, legend: str = "{{task}}") -> tuple[Query, ...]:
    return (Query(expression, legend),)


def _rate(by: str, counter: str) -> tuple[Query, ...]:
    """A counter of the service a second, by one label."""
    summed = _of_task(f"rate({counter}[$__rate_interval])")
    return _one(f"sum by ({by}) ({summed})", f"{{{{{by}}}}}")


_VERSION = "{{task}} {{version}}"

SERVICE = Page(
    uid="tamis-service",
    title="Tamis: service",
    text="Whether the service answers, how fast, and how full it is.",
    tasks="label_values(tamis_model_info, task)",
    rows=(
        (
            "Now",
            (
                Panel(
                    "Instances that answer",
                    "Of those that Prometheus knows.",
                    _one(f"sum by (task) (job_instance_task:tamis_up:now{_TASK})"),
                    kind="number",
                    width=_QUARTER,
                ),
                Panel(
                    "Errors",
                    "Share of requests of the last five minutes: 500 and above, but for 503.",
                    _one(f"task:tamis_errors:ratio5m{_TASK}"),
                    unit="percentunit",
                    kind="number",
                    width=_QUARTER,
                    limit=0.01,
                ),
                Panel(
                    "Turned away",
                    "Share of requests of the last five minutes that got 503.",
                    _one(f"task:tamis_turned_away:ratio5m{_TASK}"),
                    unit="percentunit",
                    kind="number",
                    width=_QUARTER,
                    limit=0.05,
                ),
                Panel(
                    "95th percentile",
                    "Of the time to answer /score and /predict, over five minutes.",
                    _one(f"task:tamis_request_seconds:p95_5m{_TASK}"),
                    unit="s",
                    kind="number",
                    width=_QUARTER,
                    limit=1.0,
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel(
                    "Requests by status",
                    "Of all routes.",
                    _rate("status", "tamis_requests_total"),
                    unit="reqps",
                ),
                Panel(
                    "Requests refused",
                    "By the code of the error.",
                    _rate("reason", "tamis_rejected_total"),
                    unit="reqps",
                ),
                Panel(
                    "Time to answer",
                    "Of /score and /predict; an alert rings where 5% take longer than 1 s.",
                    tuple(
                        Query(
                            f"histogram_quantile({q}, "
                            f"task_le:tamis_request_seconds:increase5m{_TASK})",
                            f"{{{{task}}}} {name}",
                        )
                        for q, name in ((0.5, "half"), (0.95, "95%"), (0.99, "99%"))
                    ),
                    unit="s",
                    limit=1.0,
                ),
                Panel(
                    "Documents",
                    "Scored, by what was decided.",
                    _rate("decision", "tamis_documents_total"),
                    unit="ops",
                ),
            ),
        ),
        (
            "Room",
            (
                Panel(
                    "Queue",
                    "Share of the queue that is taken; a full one turns requests away.",
                    _one(f"task:tamis_queue:ratio{_TASK}"),
                    unit="percentunit",
                    width=_THIRD,
                    most=1.0,
                    limit=0.8,
                ),
                Panel(
                    "Request log: records lost",
                    "Share of records of the last 15 minutes that found no room.",
                    _one(f"task:tamis_log_dropped:ratio15m{_TASK}"),
                    unit="percentunit",
                    width=_THIRD,
                    limit=0.01,
                ),
                Panel(
                    "Length of documents",
                    "In characters.",
                    tuple(
                        Query(
                            f"histogram_quantile({q}, sum by (le) ("
                            + _of_task("rate(tamis_text_characters_bucket[$__rate_interval])")
                            + "))",
                            name,
                        )
                        for q, name in ((0.5, "half"), (0.95, "95%"))
                    ),
                    width=_THIRD,
                ),
            ),
        ),
        (
            "Alerts",
            (
                Panel(
                    "Alerts that ring",
                    "What each means is in docs/runbook.md.",
                    (
                        Query(
                            "sum by (alertname, task) "
                            '(ALERTS{alertname=~"Tamis.*", alertstate="firing"})',
                            "{{alertname}} {{task}}",
                        ),
                    ),
                    width=_WIDE,
                ),
            ),
        ),
    ),
)

MODEL = Page(
    uid="tamis-model",
    title="Tamis: model",
    text="Whether the served model still fits what it is asked, and what was done about it.",
    tasks="label_values(tamis_monitor_window_seconds, task)",
    rows=(
        (
            "Now",
            (
                Panel(
                    "Drift",
                    "1 where the calibrated tests rang on the newest window.",
                    _one(f"tamis_drift_alarm{_TASK}", _VERSION),
                    kind="number",
                    width=_QUARTER,
                    limit=1.0,
                ),
                Panel(
                    "Since a window was looked at",
                    "An alert rings where two runs are overdue.",
                    _one(f"time() - tamis_monitor_last_run_timestamp_seconds{_TASK}"),
                    unit="s",
                    kind="number",
                    width=_QUARTER,
                ),
                Panel(
                    "Age of the model",
                    "Since it was trained.",
                    _one(f"time() - tamis_model_trained_timestamp_seconds{_TASK}", _VERSION),
                    unit="s",
                    kind="number",
                    width=_QUARTER,
                    limit=180 * 86_400.0,
                ),
                Panel(
                    "Retrain budget",
                    "What the policy still allows.",
                    _one(f"tamis_retrain_budget_remaining{_TASK}"),
                    kind="number",
                    width=_QUARTER,
                ),
            ),
        ),
        (
            "Scores of the last hour beside the reference's",
            (
                Panel(
                    "Distance of scores",
                    "Kolmogorov-Smirnov, and what chance explains; an alert rings above both 0.1 "
                    "and the line of chance, with 200 documents and more.",
                    (
                        Query(
                            f"task_version:tamis_score_shift:ks1h{_TASK}", "{{task}} {{version}}"
                        ),
                        Query(
                            f"task_version:tamis_score_shift:threshold1h{_TASK}",
                            "{{task}} {{version}}: chance",
                        ),
                    ),
                ),
                Panel(
                    "Kept share",
                    "Of the last hour's documents, and of the reference's.",
                    (
                        Query(f"task_version:tamis_kept:ratio1h{_TASK}", "{{task}} {{version}}"),
                        Query(
                            f"task_version:tamis_reference_kept:ratio{_TASK}",
                            "{{task}} {{version}}: reference",
                        ),
                    ),
                    unit="percentunit",
                    most=1.0,
                ),
                Panel(
                    "Documents up to each score",
                    "Two distribution functions; where they part, the scores have shifted.",
                    (
                        Query(f"task_version_le:tamis_score:ratio1h{_TASK}", "{{le}}"),
                        Query(
                            f"task_version_le:tamis_reference_score:ratio{_TASK}",
                            "{{le}} reference",
                        ),
                    ),
                    unit="percentunit",
                    kind="bars",
                    most=1.0,
                ),
                Panel(
                    "Documents of the last hour",
                    "Below 200 no shift rings.",
                    _one(f"task_version:tamis_score:documents1h{_TASK}", _VERSION),
                ),
            ),
        ),
        (
            "What the monitor found",
            (
                Panel(
                    "Calibrated p-value",
                    "Of the newest window: how often an unchanged one looks as strange.",
                    _one(f"tamis_drift_p{_TASK}", _VERSION),
                    unit="percentunit",
                    most=1.0,
                ),
                Panel(
                    "Tests of drift",
                    "Each statistic as a share of where it rings.",
                    (
                        Query(
                            f"tamis_drift_statistic{_TASK} / tamis_drift_threshold{_TASK}",
                            "{{task}} {{test}}",
                        ),
                    ),
                    unit="percentunit",
                    limit=1.0,
                ),
                Panel(
                    "Performance on labels that came",
                    "And the same figures at registration.",
                    (
                        Query(f"tamis_performance{_TASK}", "{{task}} {{metric}}"),
                        Query(
                            f"tamis_performance_reference{_TASK}", "{{task}} {{metric}}: then"
                        ),
                    ),
                ),
                Panel(
                    "Recall of the cascade",
                    "As measured, and as promised.",
                    (
                        Query(f"tamis_cascade_recall{_TASK}", "{{task}}"),
                        Query(f"tamis_cascade_recall_promised{_TASK}", "{{task}}: promised"),
                    ),
                    unit="percentunit",
                    most=1.0,
                ),
            ),
        ),
        (
            "What was done",
            (
                Panel(
                    "Retrainings",
                    "By what came of them.",
                    (
                        Query(
                            f"sum by (task, outcome) (tamis_retrains_total{_TASK})",
                            "{{task}} {{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "Which version is served",
                    "How many instances serve it.",
                    _one(f"count by (task, version) (tamis_model_info{_TASK})", _VERSION),
                ),
            ),
        ),
    ),
)  # fmt: skip
PAGES = {"service": SERVICE, "model": MODEL}


def expressions(page: Page) -> Iterator[str]:
    """Every expression of PromQL on a dashboard."""
    for _, panels in page.rows:
        for panel in panels:
            for query in panel.queries:
                yield query.expression
