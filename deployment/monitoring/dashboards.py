"""Grafana's two dashboards, written as JSON: `python -m deployment.monitoring.dashboards`.

The JSON lies in ``grafana/dashboards/``, from where compose provisions it; it is generated, and a
test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deployment.monitoring.pages import PAGES, Page, Panel

FOLDER = Path(__file__).with_name("grafana") / "dashboards"
SOURCE = "prometheus"
"""Of the data, as ``grafana/datasources/prometheus.yaml`` calls it."""


def rendered(page: Page) -> str:
    """A dashboard as Grafana reads it, in JSON.

    Raises:
        ImportError: There is no grafana-foundation-sdk.
    """
    from grafana_foundation_sdk.builders import dashboard
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableRefresh

    task = (
        dashboard.QueryVariable("task")
        .label("Task")
        .query(page.tasks)
        .datasource(_source())
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )
    made = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.text)
        .tags(["tamis"])
        .readonly()
        .timezone("utc")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(task)
    )
    number = 0
    for title, panels in page.rows:
        number += 1
        made = made.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            made = made.with_panel(_drawn(panel, number))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(made.build())), indent=1) + "\n"


def _source() -> Any:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef(type_val="prometheus", uid=SOURCE)


def _drawn(panel: Panel, number: int) -> Any:
    from grafana_foundation_sdk.builders import bargauge, prometheus, stat, timeseries
    from grafana_foundation_sdk.models.common import BigValueGraphMode, VizOrientation

    kinds: dict[str, tuple[Any, int]] = {
        "lines": (timeseries.Panel().legend(_legend()).tooltip(_tooltip()), 8),
        "number": (stat.Panel().graph_mode(BigValueGraphMode.NONE), 5),
        "bars": (bargauge.Panel().orientation(VizOrientation.HORIZONTAL), 8),
    }
    drawn, height = kinds[panel.kind]
    drawn = drawn.id(number).title(panel.title).description(panel.text).unit(panel.unit)
    drawn = drawn.height(height).span(panel.width).datasource(_source()).min(0)
    if panel.most is not None:
        drawn = drawn.max(panel.most)
    if panel.limit is not None:
        drawn = drawn.thresholds(_limit(panel.limit))
        drawn = drawn.thresholds_style(_line()) if panel.kind == "lines" else drawn
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
        target = target.ref_id(letter).datasource(_source())
        drawn = drawn.with_target(target.range() if panel.kind == "lines" else target.instant())
    return drawn


def _limit(value: float) -> Any:
    from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
    from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

    steps = [Threshold(value=None, color="green"), Threshold(value=value, color="red")]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _legend() -> Any:
    from grafana_foundation_sdk.builders.common import VizLegendOptions
    from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement

    shown = VizLegendOptions().display_mode(LegendDisplayMode.LIST).show_legend(True)
    return shown.placement(LegendPlacement.BOTTOM).calcs([])


def _tooltip() -> Any:
    from grafana_foundation_sdk.builders.common import VizTooltipOptions
    from grafana_foundation_sdk.models.common import SortOrder, TooltipDisplayMode

    return VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)


def _line() -> Any:
    from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig
    from grafana_foundation_sdk.models.common import GraphTresholdsStyleMode

    return GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE)


def main() -> int:
    """Write both dashboards."""
    for name, page in PAGES.items():
        (FOLDER / f"{name}.json").write_text(rendered(page), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
