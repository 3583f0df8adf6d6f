"""The page at ``/`` in headless Chromium: a real service, and refusals that are played to it."""

import json
import re
import shutil

import pytest

from tests.deployment.serving.small_service import KEY, save_served, serving

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the program chromium is not installed")
SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--disable-quic",
]  # fmt: skip
GOOD = "proof theorem lemma axiom integral matrix, word1 word2 sale"
BAD = "sale cheap click offer buy discount"
HOSTILE = (
    '<img src=x onerror="window.hit=1"><script>window.hit=1</script>\u202egnp.exe proof\x1b[31m'
)
LONG = 2_000
MODEL = {"task": "toy", "version": "1", "digest": "d"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with serving(folder, save_served(folder / "model"), limits={"characters": LONG}) as one:
        yield one


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as program:
        chromium = program.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(service, browser):
    """Open the page; whatever a browser complains of fails the test."""
    contexts, complaints = [], []

    def open_page(**how):
        context = browser.new_context(**how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.goto(service.url + "/")
        playwright.expect(page.locator("#model")).to_contain_text("toy, version 1")
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    # The browser itself notes every answer that is an error.
    assert [one for one in complaints if not one.startswith("Failed to load resource")] == []


def press(page, text, key=KEY):
    page.fill("#key", key)
    page.fill("#text", text)
    page.click("#score")


def scored(page, text=GOOD):
    press(page, text)
    playwright.expect(page.locator("#result")).to_be_visible()
    return page


def play(page, status=200, body=None, **headers):
    """Have every further request for a score answered so; returns what was asked."""
    asked = []

    def answer(route):
        asked.append(route.request)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = "application/json"
        route.fulfill(status=status, body=json.dumps(body), headers=told, content_type=kind)

    page.route("**/score", answer)
    return asked


def refusal(message="Said so."):
    return {"error": {"code": "some_code", "message": message}, "request_id": "r"}


def answer_of(score, threshold=2.5, words=(), read="", **more):
    explanation = {"method": "occlusion", "unit": "points", "base": 1.0, "read": read}
    document = {"id": "r-0", "score": score, "decision": "keep", "tokens": 3, **more}
    document["explanation"] = explanation | {"words": list(words)}
    found = {"request_id": "r", "model": MODEL, "threshold": threshold}
    return found | {"documents": [document]}


def left(page, name):
    return float(page.locator(name).evaluate("one => one.style.left").rstrip("%"))


def test_a_text_is_scored_and_its_words_are_coloured(opened, service):
    page = scored(opened())
    asked = {"documents": [{"text": GOOD}], "explain": True}
    told, model = service.ask("/score", asked).json, service.ask("/model").json
    document = told["documents"][0]
    assert page.inner_text("#value") == f"{document['score']:.2f}"
    assert page.inner_text("#decision") == "✓ Keep"
    assert page.inner_text("#version") == "toy/1"
    assert page.inner_text("#tokens") == str(document["tokens"])
    assert page.inner_text("#limit-label") == f"threshold {told['threshold']:.2f}"
    assert re.fullmatch(r"\d+ ms|\d+\.\d s", page.inner_text("#latency"))
    low, high = model["scale"]
    assert left(page, "#dot") == pytest.approx(
        100 * (document["score"] - low) / (high - low), abs=0.1
    )
    limit = 100 * (told["threshold"] - low) / (high - low)
    assert left(page, "#limit-line") == pytest.approx(limit, abs=0.1) == left(page, "#kept")
    label = page.get_attribute("#scale", "aria-label")
    assert "on a scale from 0 to 5" in label and f"{document['score']:.2f}" in label
    assert page.inner_text("#read") == GOOD == document["explanation"]["read"]
    words = {word["text"]: word["weight"] for word in document["explanation"]["words"]}
    largest = max(map(abs, words.values()))
    marks = page.locator("#read mark")
    assert marks.count() == sum(abs(weight) >= 0.08 * largest for weight in words.values()) > 3
    for mark in marks.all():
        weight = words[mark.inner_text()]
        strength = sum(abs(weight) / largest >= bound for bound in (0.08, 0.25, 0.5, 0.75))
        assert mark.get_attribute("class") == f"{'p' if weight > 0 else 'n'}{strength}"
        shown = mark.get_attribute("title").replace("−", "-")
        assert shown == f"{weight:+.3f} points"
    assert page.inner_text("#raising tr:first-child td:first-child") == max(words, key=words.get)
    assert page.inner_text("#lowering tr:first-child td:first-child") == "sale"


def test_what_is_dropped_says_so_without_reasons_if_none_are_wanted(opened):
    page = opened()
    page.uncheck("#explain")
    page.fill("#key", KEY)
    page.fill("#text", BAD)
    page.press("#text", "Control+Enter")
    playwright.expect(page.locator("#decision")).to_have_text("✕ Drop")
    assert page.locator("#reasons").is_hidden() and page.inner_text("#margin").startswith("−")
    assert page.inner_text("#told").startswith("Drop: score ")


def test_a_wrong_key_is_refused_and_a_right_one_stays_in_the_tab(opened):
    page = opened()
    press(page, GOOD, key="")
    playwright.expect(page.locator("#error")).to_have_text("This service asks for a key.")
    press(page, GOOD, key="wrong")
    playwright.expect(page.locator("#error")).to_contain_text("does not take this key")
    assert page.get_attribute("#key", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "key"
    assert page.evaluate("sessionStorage.length") == 0
    scored(page)
    assert page.locator("#error").is_hidden()
    assert KEY not in page.url and page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    page.reload()
    assert page.input_value("#key") == KEY
    press(page, GOOD, key="wrong")
    playwright.expect(page.locator("#error")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


REFUSALS = [
    (400, {}, "The service cannot read this text. Said so."),
    (413, {}, "This is more than the service takes. Said so."),
    (422, {}, "The service cannot read this text. Said so."),
    (500, {}, "The service could not answer (status 500). Said so."),
    (200, {}, "The service could not answer (status 200). Said so."),
    (503, {}, "The service has too much to do, or is not ready. Try again in a while."),
    (503, {"Retry_After": "7"},
     "The service has too much to do, or is not ready. Try again in 7 seconds."),
]  # fmt: skip


def test_refusals_are_told_in_a_sentence(opened):
    page = scored(opened())
    for status, headers, sentence in REFUSALS:
        page.unroute("**/score")
        play(page, status, refusal(), **headers)
        page.click("#score")
        playwright.expect(page.locator("#error")).to_have_text(sentence)
        assert page.locator("#result").is_hidden()
    assert page.get_attribute("#error", "role") == "alert"


def test_it_waits_as_long_as_it_was_asked_to(opened):
    page = opened()
    page.clock.install()
    asked = play(page, 429, refusal(), Retry_After="40")
    press(page, GOOD)
    page.clock.run_for(300)
    playwright.expect(page.locator("#score")).to_have_text("Wait 40 s")
    page.clock.run_for(30_000)
    playwright.expect(page.locator("#score")).to_have_text("Wait 10 s")
    page.click("#score", force=True)
    page.press("#text", "Control+Enter")
    assert len(asked) == 1
    page.clock.run_for(11_000)
    playwright.expect(page.locator("#score")).to_have_text("Score")
    page.click("#score")
    playwright.expect(page.locator("#error")).to_be_visible()
    assert len(asked) == 2


def test_no_answer_at_all_is_told(opened):
    page = opened()
    page.route("**/score", lambda route: route.abort())
    press(page, GOOD)
    playwright.expect(page.locator("#error")).to_contain_text("The service did not answer.")
    playwright.expect(page.locator("#score")).to_have_attribute("aria-disabled", "false")


def test_what_cannot_be_scored_is_not_sent(opened):
    page = opened()
    asked = play(page, 500, refusal())
    press(page, " \n ")
    playwright.expect(page.locator("#error")).to_have_text("Paste a text first.")
    press(page, "🙂" * (LONG + 1))
    playwright.expect(page.locator("#error")).to_contain_text("2,001 characters, and at most 2,000")
    assert page.inner_text("#count") == "2,001 of 2,000 characters"
    press(page, GOOD, key="schlüssel")
    playwright.expect(page.locator("#error")).to_contain_text("signs that no key has")
    assert asked == []


def test_one_press_is_one_request_and_busy_is_shown(opened):
    page, held = opened(), []
    page.route("**/score", lambda route: held.append(route))
    press(page, GOOD)
    playwright.expect(page.locator("#score")).to_have_text("Scoring…")
    assert page.get_attribute("#form", "aria-busy") == "true"
    page.click("#score", force=True)
    page.press("#text", "Control+Enter")
    assert len(held) == 1
    sent = held[0].request
    assert sent.post_data_json == {"documents": [{"text": GOOD}], "explain": True}
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    held[0].continue_()
    playwright.expect(page.locator("#result")).to_be_visible()
    assert page.get_attribute("#form", "aria-busy") == "false"


def test_hostile_texts_and_answers_are_only_text(opened):
    page = scored(opened(), HOSTILE)
    assert "‹U+202E›gnp.exe" in page.inner_text("#read") and "␛[31m" in page.inner_text("#read")
    words = [{"text": HOSTILE, "start": 0, "end": len(HOSTILE), "weight": 1.0}]
    found = answer_of(3.0, words=words, read=HOSTILE, id=HOSTILE)
    found["request_id"] = found["model"]["task"] = found["model"]["version"] = HOSTILE
    found["documents"][0]["explanation"] |= {"method": HOSTILE, "unit": HOSTILE}
    play(page, 200, found)
    page.click("#score")
    playwright.expect(page.locator("#version")).to_contain_text("<img")
    page.unroute("**/score")
    play(page, 422, refusal(HOSTILE))
    page.click("#score")
    playwright.expect(page.locator("#error")).to_contain_text("<script>")
    assert page.locator("img, script:not([src])").count() == 0
    assert page.evaluate("window.hit") is None


def test_places_are_counted_in_code_points(opened):
    page = opened()
    read = "🙂🙂 één proof 𝒳 sale 👩‍🔬"
    words = [
        {"text": text, "start": read.index(text), "end": read.index(text) + len(text), "weight": w}
        for text, w in (("één", 0.5), ("proof", 1.0), ("sale", -1.0))
    ]
    play(page, 200, answer_of(3.0, words=words, read=read))
    press(page, "anything")
    playwright.expect(page.locator("#result")).to_be_visible()
    assert page.locator("#read mark").all_inner_texts() == ["één", "proof", "sale"]
    assert page.inner_text("#read") == read


def test_a_score_just_below_the_threshold_does_not_look_equal(opened):
    page = opened()
    play(page, 200, answer_of(2.18801, 2.19025, decision="drop"))
    press(page, "anything")
    playwright.expect(page.locator("#value")).to_have_text("2.188")
    assert page.inner_text("#limit-label") == "threshold 2.190"
    assert page.inner_text("#margin") == "−0.002"


def test_weights_are_read_with_the_keyboard(opened):
    page = scored(opened())
    marks = page.locator("#read mark")
    told = [f"“{mark.inner_text()}” {mark.get_attribute('title')}" for mark in marks.all()]
    page.focus("#read")
    for expected in (told[0], told[1], told[2]):
        page.keyboard.press("ArrowRight")
        playwright.expect(page.locator("#readout")).to_have_text(expected)
    page.keyboard.press("ArrowLeft")
    playwright.expect(page.locator("#readout")).to_have_text(told[1])
    marks.last.hover()
    playwright.expect(page.locator("#readout")).to_have_text(told[-1])


def test_everything_can_be_reached_by_tab(opened):
    page, reached = scored(opened()), []
    page.focus("#key")
    for _ in range(8):
        reached.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert reached[:7] == [
        "key", "example-lesson", "example-advertisement", "text", "explain", "score", "read",
    ]  # fmt: skip


CONTRAST = """names => {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const paint = layers => {
    context.clearRect(0, 0, 1, 1);
    for (const layer of layers) { context.fillStyle = layer; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = rgb => rgb.map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  return names.map(name => {
    const one = document.querySelector(name), layers = [];
    for (let e = one; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
    const ink = [...layers, getComputedStyle(one).color];
    const back = light(paint(layers)), front = light(paint(ink));
    return [name, (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_light_and_dark(opened, scheme):
    page = scored(opened(color_scheme=scheme))
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 247)"
    assert light == (scheme == "light")
    names = [
        "h1", ".lead", "label", "#key-note", "#text", "#count", "#score", ".quiet", "#range",
        "#decision", "#limit-label", ".ticks span", ".facts dt", ".facts dd", ".legend",
        ".legend .p4", ".legend .n4", ".legend .p1", "#read", "#readout", "th", "td", "footer a",
    ]  # fmt: skip
    found = dict(page.evaluate(CONTRAST, names))
    play(page, 422, refusal())
    page.click("#score")
    playwright.expect(page.locator("#error")).to_be_visible()
    found |= dict(page.evaluate(CONTRAST, ["#error"]))
    assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}


def test_it_fits_a_phone(opened):
    page = opened(viewport={"width": 320, "height": 640}, is_mobile=True, has_touch=True)
    scored(page, "theorem" * 100 + " " + GOOD)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.locator("#score").bounding_box()["height"] >= 40
    page.locator("#read mark").first.tap()
    assert "points" in page.inner_text("#readout")


def test_the_policy_lets_no_other_script_or_style_in(opened, service):
    page = opened()
    policy = service.ask("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    markup = service.ask("/").body.decode()
    assert not re.search(r"<style|\son\w+=|\sstyle=|<script(?! type=\"module\" src=)", markup)
    assert not re.search(r"(?:src|href|action)=\"(?:\w+:)?//", markup)
    blocked = page.evaluate("""() => new Promise(done => {
        document.addEventListener("securitypolicyviolation", e => done(e.effectiveDirective));
        const one = document.createElement("script");
        one.textContent = "window.hit = 1";
        document.body.append(one);
        setTimeout(() => done("nothing"), 5000);
    })""")
    assert blocked.startswith("script-src") and page.evaluate("window.hit") is None
    assert "Content Security Policy" in opened.complaints.pop()
