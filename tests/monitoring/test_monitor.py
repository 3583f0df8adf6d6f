import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tamis.monitoring.alarm import Past
from tamis.monitoring.health import health_of, read_metrics
from tamis.monitoring.monitor import monitor_window
from tamis.monitoring.report import MonitorReport
from tamis.monitoring.settings import HealthLimits
from tests.monitoring.monitor_tools import made, profile, row, task, window, window_of
from tests.monitoring.test_health import page

NOW = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)
PROFILE = profile(400)
TASK = task(calibration={"permutations": 199})
SAME = ["school", "sea"] * 60
DRIFTED = ["school", "sea"] * 40 + ["court"] * 60


def looked(found, history=(), health=None, of=TASK, known=PROFILE):
    return monitor_window(of, known, found, None, history, health, NOW, "3")


@pytest.fixture(scope="module")
def drifted():
    return looked(window_of(DRIFTED, labelled=70))


@pytest.fixture(scope="module")
def same():
    return looked(window_of(SAME))


def test_a_window_that_drifted_rings_and_says_what_to_do(drifted):
    assert drifted.severity == "alarm" and drifted.drifted and drifted.ringing.rings
    assert not drifted.decision().passed
    assert drifted.headline().startswith("Alarm: the documents differ")
    commands = [command for _, command in drifted.next_steps()]
    assert "python run.py monitor --task toy --retrain-on-drift" in commands
    assert drifted.novelty.clusters and drifted.performance.labels == 70
    html = drifted.to_html()
    assert html.index("Alarm: the documents") < html.index("--retrain-on-drift")
    assert html.index("--retrain-on-drift") < html.index("<h2>Drift")
    assert "plaintiff" in html or "tribunal" in html


def test_the_same_again_is_well_but_the_alarm_is_not_set(same):
    assert same.severity == "notice" and not same.drifted and same.decision().passed
    assert same.next_steps()[0][1].endswith("--calibrate")
    assert "not known" in same.headline()


def test_in_the_cool_down_it_is_a_warning():
    rang = Past(end=NOW - timedelta(hours=2), drifted=True, rang=True)
    found = looked(window_of(DRIFTED), [rang])
    assert found.severity == "warning" and found.drifted and not found.ringing.rings
    assert found.headline().startswith("Look at it")


def test_labels_alone_can_ring():
    found = looked(window_of(SAME * 2, labelled=240, flipped=0.5))
    assert found.performance.worse and not found.drifted and found.severity == "alarm"
    assert "worse on the labels" in found.headline()


def test_an_ill_service_and_damaged_data_are_warnings_and_do_not_ring():
    health = health_of([read_metrics(page(failed=200))], HealthLimits())
    found = looked(window_of(SAME, dropped=500), health=health)
    assert found.severity == "warning" and not found.ringing.rings and not found.drifted
    assert "dropped by the log" in found.headline() and "errors" in found.headline()
    assert "Health of the service" in found.to_html()


def test_a_report_survives_json_and_is_the_same_each_time(drifted):
    again = MonitorReport.model_validate_json(drifted.model_dump_json())
    assert again == drifted and again.to_html() == drifted.to_html()
    assert looked(window_of(DRIFTED, labelled=70)) == drifted


@pytest.mark.parametrize("size", [0, 1, 2, 12])
def test_few_documents_or_none_never_ring(size):
    found = looked(window_of(["court"] * size))
    assert not found.drifted and found.severity == "notice" and found.documents == size
    assert "<h1>" in found.to_html() and found.picture()[:4] == b"\x89PNG"


def test_what_the_log_did_not_keep_is_told_and_does_no_harm():
    rows = [row(i, None, characters=40 + i % 90, score=np.nan, language=None) for i in range(80)]
    html = looked(window(rows)).to_html()
    assert "not measured" in html and "cannot be said what is new" in html


def test_nothing_that_came_in_a_window_is_markup_on_its_page():
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    texts, vectors, _ = made(["court"] * 60, seed=3)
    rows = [
        row(i, f"{evil} {texts[i]}", vectors[i], id=f"{evil}{i}", source=evil, language=evil[:9],
            group=evil, score=float("nan") if i % 2 else 2.0)
        for i in range(60)
    ]  # fmt: skip
    found = looked(window(rows))
    html = found.to_html()
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html
    assert re.search(r"Content-Security-Policy", html)
    assert "http://" not in html and "https://" not in html
    found.picture()


def test_a_profile_of_vectors_and_scores_only_is_enough():
    bare = profile(200)
    size = len(bare.sample)
    for name, value in (
        ("characters", np.zeros(size, np.int64)), ("languages", np.full(size, "")),
        ("sources", np.full(size, "")), ("words", None),
    ):  # fmt: skip
        object.__setattr__(bare.sample, name, value)
    object.__setattr__(bare, "labels", np.full(size, np.nan))
    object.__setattr__(bare, "words", {})
    found = looked(window_of(SAME), known=bare)
    assert not found.drifted and found.to_html()
    assert found.looks.languages == {"en": (1.0, None)}


def test_a_window_is_judged_by_its_end_not_by_when_it_is_looked_at():
    rang = Past(end=NOW - timedelta(hours=100), drifted=True, rang=True)
    recent = window(
        [row(i, text, vector) for i, (text, vector) in enumerate(zip(*made(DRIFTED)[:2],
         strict=True))],
        end=NOW - timedelta(hours=90),
    )  # fmt: skip
    assert not looked(recent, [rang]).ringing.rings
