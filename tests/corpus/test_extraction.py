import time

import pytest

from tamis.corpus.extraction import MAX_DEPTH, MAX_TAGS, HtmlError, extract
from tamis.corpus.settings import HtmlSettings
from tests.memory import printed

BOTH = [HtmlSettings(extractor=name) for name in ("resiliparse", "trafilatura")]
WORDS = "Words of a page that are many enough for whoever extracts it to take them for its content."

# Pages that a parser or an extractor bears badly: memory, time or the stack.
HOSTILE = {
    "a million nested": "<div>" * 1_000_000 + "x",
    "a million nested and closed": "<div>" * 1_000_000 + "x" + "</div>" * 1_000_000,
    "deep within the tags": "<div>" * (MAX_TAGS - 1) + "x",
    "deep in comments": "<div><!--</div>-->" * (MAX_TAGS // 4),
    "deep in tables": "<table><tr><td>" * (MAX_TAGS // 4),
    "formatting opened again": "<p>" + "".join(f"<b a={i}>" for i in range(9_000)) + "<p>x" * 9_000,
    "formatting after a few levels": "<p>"
    + "".join(f"<i a={i}>" for i in range(400))
    + "</p>"
    + "<p>x" * 40_000,
    "attributes": "<div " + " ".join(f"a{i}" for i in range(500_000)) + ">x",
    "attributes with quotes": "<div " + "".join(f'a{i}=">"' for i in range(100_000)) + ">x",
    "attributes in many tags": ("<p " + " ".join(f"a{i}" for i in range(9_000)) + ">x") * 40,
    "signs in a name": "<div " + "a<" * (MAX_TAGS - 10),
    "only signs": "<" * 1_000_000,
}

HARNESS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from tamis.corpus.extraction import HtmlError, extract
from tamis.corpus.settings import HtmlSettings
page = sys.stdin.read()
for name in ("resiliparse", "trafilatura"):
    try:
        print("text", len(extract(page, HtmlSettings(extractor=name))))
    except HtmlError as error:
        print(error.reason)
print(peak_mb())
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_page_costs_neither_the_process_nor_memory(name):
    # In a process of its own: a fault in a parser would end this one.
    *said, megabytes = printed(HARNESS, typed=HOSTILE[name], seconds=60)
    assert len(said) == 2
    if "deep" in name or "nested" in name or "attributes" in name:
        assert said == ["html_too_deep"] * 2
    assert int(megabytes) < 700


@pytest.mark.parametrize("settings", BOTH, ids=lambda s: s.extractor)
class TestBoth:
    def test_text_without_markup(self, settings):
        body = f"<script>var a;</script><p>{WORDS}</p><p>{WORDS} &eacute;&lt;</p>"
        text = extract(f"<html><head><title>T</title></head><body>{body}</body></html>", settings)
        assert WORDS in text
        assert "\u00e9<" in text
        assert "var a" not in text and "</p>" not in text

    @pytest.mark.parametrize("html", ["", " ", "<html></html>", "<script>x</script>", "\x00"])
    def test_a_page_without_text(self, settings, html):
        assert extract(html, settings).strip() == ""

    def test_depth_up_to_the_limit(self, settings):
        # html and body are levels too.
        fine = "<div>" * (MAX_DEPTH - 3) + f"<p>{WORDS}"
        extract(fine, settings)
        with pytest.raises(HtmlError, match="nested") as caught:
            extract("<div>" + fine, settings)
        assert caught.value.reason == "html_too_deep"

    def test_broken_markup_is_no_failure(self, settings):
        for html in (f"<p {WORDS}", f"<p>{WORDS}<![CDATA[<", f"</b></i><p>{WORDS}&#xD800;&#0;"):
            extract(html, settings).encode()

    def test_a_failing_extractor_is_a_reason(self, settings, monkeypatch):
        class Panic(BaseException):
            pass

        def fail(*args, **kwargs):
            raise Panic("inside")

        monkeypatch.setattr("resiliparse.extract.html2text.extract_plain_text", fail)
        monkeypatch.setattr("trafilatura.extract", fail)
        with pytest.raises(HtmlError, match="Panic: inside") as caught:
            extract(f"<p>{WORDS}</p>", settings)
        assert caught.value.reason == "html_failed"

    def test_an_interrupt_is_none(self, settings, monkeypatch):
        def stop(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("resiliparse.extract.html2text.extract_plain_text", stop)
        monkeypatch.setattr("trafilatura.extract", stop)
        with pytest.raises(KeyboardInterrupt):
            extract(f"<p>{WORDS}</p>", settings)


def test_main_content_is_a_choice():
    html = f"<html><body><nav>Home</nav><main><p>{WORDS}</p></main></body></html>"
    assert extract(html, HtmlSettings()) == WORDS
    assert "Home" in extract(html, HtmlSettings(main_content=False))


def test_much_formatting_leaves_the_text_as_it_is():
    rows = "".join(f"<p><b>{i}</b> <em>a</em> <i>b<u>c</u></i>d</p>" for i in range(3_000))
    plain = rows
    for name in ("b", "em", "i", "u"):
        plain = plain.replace(f"<{name}>", "<span>").replace(f"</{name}>", "</span>")
    settings = HtmlSettings(main_content=False)
    text = extract(rows, settings)
    assert text.startswith("0 a bcd\n\n1 a bcd\n\n2 a bcd")
    assert text == extract(plain, settings)


def test_a_script_is_no_crowd_of_attributes():
    script = "<script>for(i=0;i<n;i++){" + "a = b; " * 1_000 + "}</script>"
    assert WORDS in extract(f"{script}<p>{WORDS}</p>", HtmlSettings())


def test_guarding_an_ordinary_page_is_cheap():
    html = f'<div class="a" id=b><a href="/x">link</a> {WORDS}</div>' * 1_000
    extract(html, HtmlSettings())
    start = time.process_time()
    extract(html, HtmlSettings())
    assert time.process_time() - start < 1
