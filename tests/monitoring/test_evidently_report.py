import numpy as np

from tamis.monitoring.evidently_report import evidently_html
from tests.monitoring.monitor_tools import made, profile, row, window, window_of


def test_evidently_draws_what_came_without_texts_or_markup_of_others():
    evil = "</script><script>alert(1)</script>"
    texts, vectors, _ = made(["court"] * 40, seed=3)
    rows = [
        row(i, f"secret {texts[i]}", vectors[i], source=evil, score=np.nan if i % 9 else 1.0)
        for i in range(40)
    ]
    page = evidently_html(profile(60), window(rows))
    assert len(page) > 100_000 and "Drift" in page
    assert "alert(1)" not in page and "secret" not in page


def test_too_few_documents_make_no_page():
    assert evidently_html(profile(60), window([])) == ""
    assert evidently_html(profile(60), window_of(["sea"])) == ""
