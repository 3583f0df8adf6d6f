import io
import re

import numpy as np
import pytest
from PIL import Image

from tamis.comparison.rank import rank
from tamis.comparison.report import Comparison, markdown_table
from tests.comparison.examples import documents, folds_of, linear_task, made_trial

BAD = "<b>a|b</b> & $x$"


@pytest.fixture(scope="module")
def found():
    task, data = linear_task(), documents()
    folds = folds_of(task, data)
    trials = [
        made_trial(data, folds, lambda labels, _: labels, "right", speeds=(1_234.0,)),
        made_trial(data, folds, lambda labels, _: np.round(labels / 2), "rough"),
    ]
    made = rank(task, data, folds, trials)
    odd = made.rows[1].model_copy(update={"name": BAD})
    rows = (made.rows[0], odd, *made.rows[2:])
    return made.model_copy(update={"rows": rows, "labels_by": "<i>us</i>"})


def table_of(text):
    """Cells of a table in Markdown, by line; a bar that is escaped is no border."""
    lines = [line.replace("\\|", "\0") for line in text.strip().split("\n")]
    return [[cell.strip().replace("\0", "|") for cell in line[1:-1].split("|")] for line in lines]


def test_it_is_kept_as_json(found):
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_the_table_has_a_line_for_each_row_and_a_cell_for_each_header(found):
    head, rule, *lines = table_of(found.to_markdown())
    assert head == list(found.headers) and set(rule) == {"---"}
    assert len(lines) == len(found.rows) == 5
    assert all(len(line) == len(head) for line in lines)
    assert lines[0][0] == "**right**" and lines[0][3] == ""
    assert lines[0][2] == "**1.000 (1.000 to 1.000)**"
    assert lines[0][7] == "**1,234**" and lines[0][8] == "**1.0**"
    assert re.fullmatch(r"-0\.\d{3} \(-0\.\d{3} to -0\.\d{3}\)", lines[1][3])
    assert lines[2][-3:] == ["", "", ""]  # a baseline costs nothing


def test_names_cannot_break_the_markdown(found):
    text = found.to_markdown()
    assert "<b>" not in text
    assert table_of(text)[3][0] == "&lt;b&gt;a|b&lt;/b&gt; &amp; $x$"
    assert len(table_of(markdown_table(("a\nb",), [("c\n| d |",)], ""))) == 3


def test_names_cannot_break_the_page(found):
    page = found.to_html()
    assert "<b>a" not in page and "<i>us" not in page
    assert "&lt;b&gt;a|b&lt;/b&gt; &amp; $x$" in page and "&lt;i&gt;us&lt;/i&gt;" in page
    assert "<script" not in page and page.count("data:image/png;base64,") == 1
    assert all(header in page for header in found.headers)
    assert "a test machine" in page


def test_the_picture_is_a_png_that_marks_the_one_to_deploy(found):
    picture = found.picture()
    assert picture.startswith(b"\x89PNG\r\n")
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert found.deploy == "right"
    assert found.model_copy(update={"deploy": ""}).picture() != picture


def test_baselines_are_not_in_the_picture(found):
    trained = tuple(row for row in found.rows if row.family != "baseline")
    assert found.model_copy(update={"rows": trained}).picture() == found.picture()


def test_the_sentence_says_what_was_compared(found):
    assert found.lead.startswith(f"{found.documents:,} documents in 3 folds, ")
    assert "labels: <i>us</i>. To deploy: right, the best of 1 within 1.0%" in found.lead
