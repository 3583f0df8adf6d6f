import base64
import re

from tamis.scoring.inspection import inspect_output
from tamis.scoring.inspection.models import readable
from tamis.scoring.inspection.page import to_html
from tamis.scoring.inspection.plain import one_line, visible
from tests.scoring.inspection_outputs import HOSTILE, begin, broken, row, write_shard


def test_texts_are_cut_and_their_length_is_told(tmp_path):
    begin(tmp_path)
    long = "wörd " * 10_000
    write_shard(tmp_path, 0, [row(0, 4.0, text=long, metadata='{"u": "' + "x" * 50_000 + '"}')])
    shown = inspect_output(str(tmp_path), text=700).groups[0].documents[0]
    assert shown.text == long[:700] and shown.characters == 50_000
    assert len(shown.metadata) < 10_000
    page = to_html(inspect_output(str(tmp_path), text=700))
    assert "the first 700 of 50,000" in page and len(page) < 40_000


def test_a_hostile_document_does_nothing_on_the_page(tmp_path):
    begin(tmp_path)
    changes = dict.fromkeys(("text", "id", "source", "language"), HOSTILE)
    metadata = '{"<script>": "</dd><script>"}'
    rows = [
        row(0, 4.0, **{**changes, "text": HOSTILE + "\n" + HOSTILE}, metadata=metadata),
        row(1, None, "drop", "<script>reason", **changes),
        row(2, None, "duplicate", "near_duplicate", **changes, duplicate_of="00000#0"),
    ]
    for each in rows:
        each["shard"] = HOSTILE
    bad = [broken(3, raw=HOSTILE.encode()), broken(4, raw=b"\x00\xff\xfe\x01" * 30)]
    bad[0]["place"] = bad[0]["detail"] = HOSTILE
    write_shard(tmp_path, 0, rows, bad)
    page = to_html(inspect_output(str(tmp_path)))
    assert "<script" not in page.lower() and "<img" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert "&lt;script&gt;alert(1)" in page and "‹U+202E›gnp.exe" in page and "␛[31m" in page
    assert "00 ff fe 01 00 ff" in page
    assert not re.search(r"(?:src|href|url|action)\s*=?\s*[\"'(]\s*(?!#)\w+:", page)
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert page.count("<section") == len(inspect_output(str(tmp_path)).groups)


def test_what_acts_is_made_visible():
    assert visible("a\r\nb\tc") == "a\nb\tc"
    assert visible("\x1b[2J\x07\x7f\x9b") == "␛[2J␇␡‹U+009B›"
    assert visible("\u202eevil\u2066 \U000e0041 \ud800") == (
        "‹U+202E›evil‹U+2066› ‹U+E0041› ‹U+D800›"
    )
    assert visible("שלום, é e\u0301 👩‍🔬 中文") == "שלום, é e\u0301 👩‍🔬 中文"
    assert len(visible("a" + "\u0301" * 500)) == 5
    assert one_line("  many \n\n blanks  here ", 50) == "many blanks here"
    assert len(one_line("x" * 10_000_000, 40)) == 40


def test_bytes_are_shown_as_text_or_in_hexadecimal():
    def shown(raw):
        return readable(base64.b64encode(raw).decode())

    assert shown(b'{"text": "caf\xc3\xa9"') == '{"text": "café"'
    assert shown(b"mostly readable text with one bad \xff byte") == (
        "mostly readable text with one bad \\xff byte"
    )
    assert shown(b"\x1f\x8b\x08\x00\x99\x00") == "1f 8b 08 00 99 00"
    assert readable("not base64!") == "" and shown(b"") == ""
