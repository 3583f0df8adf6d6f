import io
import json
import re
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from cli.inspect import inspect, show
from tamis.errors import UsageError
from tamis.scoring.inspection import inspect_output
from tests.program import run
from tests.scoring.inspection_outputs import HOSTILE, begin, broken, row, varied, write_shard

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(inspect)
KEPT = sum(each["decision"] == "keep" for position in range(2) for each in varied(position))


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    begin(folder, shards=2)
    for position in range(2):
        write_shard(folder, position, varied(position), [broken(60, shard=f"s{position}")])
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(found, width=80):
    to = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    show(found, to)
    return to.file.getvalue()


def test_documents_are_printed_and_a_page_is_written_beside_them(out):
    done = invoke(out, "--n", "3", "--result", out.parent / "result.json")
    assert done.exit_code == 0, done.exception
    assert f"in 122 = kept {KEPT} " in done.output
    counted = re.findall(r"■ (.+?)   (\d+) (?:nearest )?of (\d+)", done.output)
    assert ("kept", "3", f"{KEPT}") in counted
    assert ("dropped: language", "3", "12") in counted
    assert ("duplicate: exact_duplicate", "3", "12") in counted
    assert ("quarantined: invalid_json", "2", "2") in counted
    assert "repeats 0000" in done.output and "Text " in done.output
    assert "look at it" in done.output
    page = (out / "inspect.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert not [path for path in out.iterdir() if path.name.startswith(".tmp")]
    result = json.loads((out.parent / "result.json").read_text())
    assert (result["verb"], result["stack"], result["model_version"]) == (
        "inspect", "local", "m/1",
    )  # fmt: skip
    assert result["outputs"] == {"output": str(out), "html": str(out / "inspect.html")}
    assert result["counts"]["read"] == 122 and result["counts"]["kept"] == KEPT
    assert result["counts"]["shards"] == 2 and result["counts"]["shown"] > 10


def test_only_and_seed(out):
    some = invoke(out, "--only", "kept, language", "--n", "2").output
    assert "dropped: language" in some and "score<threshold" not in some
    assert "near the threshold, kept" in some
    assert invoke(out, "--only", "kept").output == invoke(out, "--only", "kept").output
    assert invoke(out, "--only", "kept").output != invoke(out, "--only", "kept", "--seed", 1).output


def test_the_page_goes_where_it_is_wanted(out, tmp_path, monkeypatch):
    assert invoke(out, "--html", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").exists() and not (out / "inspect.html").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.inspect.os.access", lambda path, mode: Path(path) != out)
    assert invoke(out).exit_code == 0
    assert (tmp_path / "inspect.html").exists() and not (out / "inspect.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{empty}"], "no output of tamis"),
        (["{out}", "--only", "kept,lnaguage"], "given 'lnaguage'; there is kept, near"),
        (["{out}", "--html", "/no/such/folder/x.html"], "--html"),
        (["{out}", "--html", "{empty}"], "--html"),
        (["{out}", "--result", "/no/such/folder/x.json"], "--result"),
    ],
)
def test_mistakes(out, tmp_path, arguments, told):
    (tmp_path / "empty").mkdir()
    done = invoke(*(a.format(out=out, empty=tmp_path / "empty") for a in arguments))
    assert isinstance(done.exception, UsageError) and told in str(done.exception)
    assert not (out / "inspect.html").exists() and not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("n", ["0", "-3", "many"])
def test_a_number_that_is_none_ends_with_two(out, n):
    assert invoke(out, "--n", n).exit_code == 2


def test_a_hostile_document_does_nothing_to_the_terminal(tmp_path):
    begin(tmp_path)
    changes = dict.fromkeys(("text", "id", "source", "language", "shard"), HOSTILE)
    rows = [
        row(0, 4.0, **{**changes, "text": "first [/] " + HOSTILE}),
        row(1, None, "drop", "[bold]reason\x1b[2J", **changes),
        row(2, None, "duplicate", "near_duplicate", **changes, duplicate_of="00000#0"),
    ]
    bad = [broken(3, raw=HOSTILE.encode())]
    bad[0]["place"] = bad[0]["detail"] = bad[0]["shard"] = HOSTILE
    write_shard(tmp_path, 0, rows, bad)
    told = printed(inspect_output(str(tmp_path)))
    ours = re.compile(r"\x1b\[[0-9;]*m")
    assert "\x1b[31mred" not in told
    plain = ours.sub("", told)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)
    assert "first [/] <script>alert(1)</script>" in plain
    assert "[bold" in plain and "␛[31mred" in plain and "‹U+202E›gnp.exe" in plain
    assert "[bold]reason␛[2J" in plain


@pytest.mark.parametrize("width", [50, 120])
def test_the_width_is_respected_and_texts_are_cut(tmp_path, width):
    begin(tmp_path)
    texts = ["x" * 9_000, "word " * 2_000, "文字" * 3_000, "", "short"]
    rows = [row(i, 4.0 - i / 10, text=text) for i, text in enumerate(texts)]
    rows.append(row(9, None, "duplicate", "exact_duplicate", duplicate_of="00000#1"))
    write_shard(tmp_path, 0, rows)
    lines = printed(inspect_output(str(tmp_path), only=["kept", "duplicates"]), width).splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    body = [line for line in plain[4:] if not line.startswith("■")]
    assert max(cell_len(line) for line in body) <= width
    for start in ("x", "word", "文"):
        at = next(i for i, line in enumerate(body) if line.strip().startswith(start))
        assert all(line.strip()[0] in "xw文字" for line in body[at : at + 3])
        assert body[at + 2].endswith("…") and not body[at + 3].strip().startswith(start)
    assert any(line.strip() == "(empty)" for line in body)
    assert any("repeats 00000#1" in line for line in body)


def test_a_terminal_without_many_characters_is_no_reason_to_fail(out):
    raw = io.BytesIO()
    ascii_only = io.TextIOWrapper(raw, encoding="ascii")
    show(inspect_output(str(out)), Console(file=ascii_only, width=80))
    ascii_only.flush()
    assert f"? kept   8 of {KEPT}".encode() in raw.getvalue()


def test_an_unfinished_and_an_empty_output_are_told(tmp_path):
    begin(tmp_path, shards=4, finished=False)
    assert "unfinished: 0 of 4 shards" in invoke(tmp_path).output
    assert "there is no document to show" in invoke(tmp_path).output


def test_from_the_command_line(out, tmp_path):
    done = run(tmp_path / "home", "inspect", out, "--only", "near")
    assert done.code == 0, done.err
    assert "near the threshold, dropped" in done.out and done.result["verb"] == "inspect"
