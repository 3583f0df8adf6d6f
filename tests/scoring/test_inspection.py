import base64
import re
from collections import Counter
from pathlib import Path

import fsspec
import pytest

from tamis.corpus.manifest import Counts, FileRecord, RunInfo, ShardRecord
from tamis.corpus.store import RUN, LocalStore, open_store
from tamis.corpus.writers import SCHEMA, part_writer
from tamis.errors import DataError, UsageError
from tamis.scoring.inspection import inspect_output
from tamis.scoring.inspection import rows as inspection_rows
from tamis.scoring.inspection import sample as inspection_sample
from tamis.scoring.inspection.models import readable
from tamis.scoring.inspection.page import to_html
from tamis.scoring.inspection.plain import one_line, visible
from tamis.scoring.summary import Summariser

PARTS = {"keep": "kept", "drop": "dropped", "duplicate": "duplicates"}
HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> [bold red]markup[/] "
    "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnp.exe\u2069 end &amp; ' \""
)


def row(number, score, decision="keep", reason="score>=threshold", shard="s0", **changes):
    return {
        **dict.fromkeys(SCHEMA.names),
        "id": f"id-{shard}-{number}",
        "text": f"Text {number} of {shard}. " * 20,
        "source": "web",
        "score": score,
        "encoder_score": score,
        "decision": decision,
        "reason": reason,
        "model_version": "m/1",
        "shard": shard,
        "row": number,
        "metadata": "{}",
        **changes,
    }


def broken(number, reason="invalid_json", raw=b"{broken", shard="s0"):
    encoded = base64.b64encode(raw).decode()
    place = f"line {number + 1}"
    return {"shard": shard, "row": number, "place": place, "reason": reason, "detail": "why",
            "raw": encoded}  # fmt: skip


def write_shard(out, position, rows, quarantine=(), form="parquet", threshold=3.0):
    """Write and commit a shard as the filter does."""
    store = open_store(str(out))
    parts = {"kept": [], "dropped": []}
    for each in rows:
        parts.setdefault(PARTS[each["decision"]], []).append(each)
    files = [_write(store, f"{name}/{position:05d}-s.{form}", r) for name, r in parts.items()]
    if quarantine:
        files.append(_write(store, f"quarantine/{position:05d}-s.jsonl.zst", list(quarantine)))
    summary = Summariser(0.0, 5.0, threshold)
    summary.add(rows)
    for each in quarantine:
        summary.quarantined(each["reason"])
    record = ShardRecord(
        shard=f"s{position}",
        position=position,
        counts=Counts(
            read=len(rows) + len(quarantine),
            kept=len(parts["kept"]),
            dropped=len(parts["dropped"]),
            duplicates=len(parts.get("duplicates", [])),
            quarantined=len(quarantine),
        ),
        files=tuple(files),
        summary=summary.result().model_dump(mode="json"),
    )
    store.append(position, record.model_dump_json().encode())


def _write(store, path, rows) -> FileRecord:
    with part_writer(store, path) as writer:
        writer.write(rows)
    return writer.record


def begin(out, shards=1, finished=True):
    store = open_store(str(out))
    if isinstance(store, LocalStore):
        Path(out).mkdir(parents=True, exist_ok=True)
    info = RunInfo(run="r", fingerprint={"input": f"{shards} files abc", "model": "m/1"})
    store.write(RUN, info.model_dump_json().encode())
    if finished:
        store.write("report.json", b"{}")


def varied(position, size=60):
    """Kept, dropped for three reasons, duplicates of two kinds; scores at every distance."""
    shard, rows = f"s{position}", []
    for i in range(size):
        score = round(0.05 + 4.9 * (i * 37 % size) / size, 3)
        below = score < 3
        kind = i % 10
        if kind == 8:
            rows.append(row(i, None, "duplicate", "exact_duplicate", shard,
                            duplicate_of=f"{position:05d}#{i - 8}", similarity=1.0))  # fmt: skip
        elif kind == 9:
            rows.append(row(i, None, "drop", "language", shard, language="de"))
        elif below:
            rows.append(row(i, score, "drop", "score<threshold", shard))
        elif kind == 7:
            rows.append(row(i, score, "drop", "gopher_bullets", shard))
        elif kind == 6:
            rows.append(row(i, score, "duplicate", "near_duplicate", shard,
                            duplicate_of="00000#1", similarity=0.93))  # fmt: skip
        else:
            rows.append(row(i, score, shard=shard))
    return rows


@pytest.fixture(params=["parquet", "jsonl.zst"])
def out(request, tmp_path):
    folder = tmp_path / "out"
    begin(folder, shards=3)
    for position in range(3):
        bad = [broken(60, shard=f"s{position}"), broken(61, "empty_text", b"", f"s{position}")]
        write_shard(folder, position, varied(position), bad, request.param)
    return str(folder)


def groups(found):
    return {group.name: group for group in found.groups}


def places(group):
    return [(d.shard, d.row) for d in group.documents]


def test_every_group_is_there_with_its_count(out):
    found = inspect_output(out, per_group=5)
    rows = [r for position in range(3) for r in varied(position)]
    expected = Counter(r["reason"] for r in rows if r["decision"] != "keep")
    expected["kept"] = sum(r["decision"] == "keep" for r in rows)
    expected |= Counter(invalid_json=3, empty_text=3)
    shown = {name: group.total for name, group in groups(found).items() if not group.near}
    assert shown == dict(expected)
    assert found.counts.balanced and found.counts.read == 186
    assert (found.finished, found.shards, found.threshold) == (True, 3, 3.0)
    assert sum(found.histogram) == sum(r["score"] is not None for r in rows)
    for group in found.groups:
        assert group.shown == min(5, group.total), group.name
        parts = {"kept": "score>=threshold", "near the threshold, kept": "score>=threshold",
                 "near the threshold, dropped": "score<threshold"}  # fmt: skip
        wanted = parts.get(group.name, group.name)
        assert {d.reason for d in (*group.documents, *group.broken)} == {wanted}
        assert len({(d.shard, d.row) for d in (*group.documents, *group.broken)}) == group.shown


def test_those_near_the_threshold_are_the_nearest(out):
    found = groups(inspect_output(out, per_group=4))
    rows = [r for position in range(3) for r in varied(position) if r["score"] is not None]
    for name, reason in (("kept", "score>=threshold"), ("dropped", "score<threshold")):
        side = sorted(abs(r["score"] - 3) for r in rows if r["reason"] == reason)[:4]
        near = found[f"near the threshold, {name}"]
        assert [abs(d.score - 3) for d in near.documents] == pytest.approx(side)
        assert all(d.characters == len(d.text) for d in near.documents)


def test_a_document_near_the_threshold_is_found_in_files_that_were_not_looked_at(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(inspection_sample, "FILES", 2)
    monkeypatch.setattr(inspection_sample, "FEWEST_FILES", 1)
    begin(tmp_path / "out", shards=9)
    for position in range(9):
        near = 3.001 if position in (2, 4, 7) else 4.5
        rows = [row(i, 4.0 + i / 100, shard=f"s{position}") for i in range(20)]
        long = "a long text " * 100
        write_shard(
            tmp_path / "out",
            position,
            [*rows, row(20, near, shard=f"s{position}", text=long)],
        )
    found = groups(inspect_output(str(tmp_path / "out"), per_group=3))
    near = found["near the threshold, kept"].documents
    assert [(d.position, d.row, d.score) for d in near] == [(p, 20, 3.001) for p in (2, 4, 7)]
    assert all(len(d.text) == 1_200 for d in near)


def test_a_duplicate_shows_what_stays_in_its_place(out):
    found = groups(inspect_output(out, per_group=50))
    near = found["near_duplicate"].documents
    assert near and all(d.stays is not None for d in near)
    assert {(d.stays.shard, d.stays.row) for d in near} == {("s0", 1)}
    assert all(d.similarity == 0.93 and "Text 1 of s0" in d.stays.text for d in near)
    exact = found["exact_duplicate"].documents
    assert {(d.stays.shard, d.stays.row) for d in exact} == {(d.shard, d.row - 8) for d in exact}


def test_a_duplicate_of_what_is_not_committed_has_no_twin(tmp_path):
    begin(tmp_path, shards=2, finished=False)
    references = ["00001#4", "00000#999", "99999999999999999999#1", "nonsense", None]
    rows = [
        row(i, None, "duplicate", "exact_duplicate", duplicate_of=to)
        for i, to in enumerate(references)
    ]
    write_shard(tmp_path, 0, rows)
    shown = groups(inspect_output(str(tmp_path)))["exact_duplicate"].documents
    assert [d.stays for d in shown] == [None] * 5
    assert {d.duplicate_of for d in shown} == set(references)


def test_the_same_seed_shows_the_same_and_another_seed_others(out):
    first, second = inspect_output(out, 5, seed=1), inspect_output(out, 5, seed=1)
    assert first == second
    other = inspect_output(out, 5, seed=2)
    assert places(groups(first)["kept"]) != places(groups(other)["kept"])
    assert to_html(first) == to_html(second)


def test_kept_documents_are_drawn_evenly(tmp_path):
    begin(tmp_path)
    write_shard(tmp_path, 0, [row(i, 4.0) for i in range(1_000)])
    rows = [
        document.row
        for seed in range(40)
        for document in inspect_output(str(tmp_path), 10, seed, ["kept"]).groups[0].documents
    ]
    quarters = Counter(number // 250 for number in rows)
    assert all(60 <= quarters[q] <= 140 for q in range(4)), quarters


def test_reading_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection_rows, "PARQUET_ROWS", 200)
    shards = 40
    begin(tmp_path, shards)
    for position in range(shards):
        rows = [row(i, 4.0 if i % 2 else 1.0, "keep" if i % 2 else "drop",
                    "score>=threshold" if i % 2 else "score<threshold", f"s{position}")
                for i in range(500)]  # fmt: skip
        write_shard(tmp_path, position, rows)
    opened = Counter()
    plain = LocalStore.open

    def count(self, path):
        opened[path.partition("/")[0]] += 1
        return plain(self, path)

    monkeypatch.setattr(LocalStore, "open", count)
    found = inspect_output(str(tmp_path), per_group=5, only=["kept", "score<threshold"])
    assert all(group.shown == 5 for group in found.groups)
    assert sum(group.total for group in found.groups if not group.near) == 20_000
    # The light columns of a few files, then once more those that hold what is shown.
    assert found.looked_at < 2 * inspection_sample.FEWEST_FILES * 250 + 1_500
    assert opened["kept"] <= 3 * inspection_sample.FEWEST_FILES + 5
    assert opened["dropped"] <= 2 * inspection_sample.FEWEST_FILES


def test_lines_are_read_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection_rows, "LINES_ROWS", 100)
    begin(tmp_path)
    write_shard(tmp_path, 0, [row(i, 4.0) for i in range(5_000)], form="jsonl.zst")
    found = inspect_output(str(tmp_path), only=["kept"])
    assert found.groups[0].total == 5_000
    assert all(document.row < 100 for document in found.groups[0].documents)
    assert found.looked_at <= 300


def test_a_rare_reason_is_looked_for_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection_sample, "FILES", 2)
    monkeypatch.setattr(inspection_sample, "FEWEST_FILES", 2)
    begin(tmp_path, shards=30)
    for position in range(30):
        rows = [row(i, 1.0, "drop", "score<threshold", f"s{position}") for i in range(20)]
        if position in (11, 23):
            rows[7] = row(7, None, "drop", "language", f"s{position}")
        write_shard(tmp_path, position, rows)
    for seed in range(4):
        rare = groups(inspect_output(str(tmp_path), seed=seed))["language"]
        assert rare.total == 2
        assert sorted(places(rare)) == [("s11", 7), ("s23", 7)]


def test_only_some_groups(out):
    def names(*only):
        return [group.name for group in inspect_output(out, only=only).groups]

    assert names("kept") == ["kept", "near the threshold, kept"]
    assert names("near") == ["near the threshold, kept", "near the threshold, dropped"]
    assert names("language", "kept") == ["kept", "near the threshold, kept", "language"]
    assert set(names("duplicates")) == {"exact_duplicate", "near_duplicate"}
    assert set(names("quarantined")) == {"invalid_json", "empty_text"}
    assert "language" in names("dropped") and "kept" not in names("dropped")
    with pytest.raises(UsageError, match=r"given 'langauge'; there is kept, near.*language"):
        names("kept", "langauge")


def test_an_unfinished_output_says_so(tmp_path):
    begin(tmp_path, shards=3, finished=False)
    write_shard(tmp_path, 1, varied(1))
    found = inspect_output(str(tmp_path))
    assert not found.finished and found.state == "unfinished: 1 of 3 shards committed so far"
    assert found.state in to_html(found)
    begin(tmp_path, shards=3)
    assert not inspect_output(str(tmp_path)).finished
    begin(tmp_path, shards=1)
    assert inspect_output(str(tmp_path)).state == "1 shard"


def test_an_output_without_any_document(tmp_path):
    begin(tmp_path, shards=2, finished=False)
    nothing = inspect_output(str(tmp_path))
    assert (nothing.shown, nothing.threshold, nothing.counts.read) == (0, None, 0)
    assert "None was found" in to_html(nothing)
    write_shard(tmp_path, 0, [])
    assert inspect_output(str(tmp_path)).shown == 0


def test_a_folder_that_is_no_output(tmp_path):
    with pytest.raises(UsageError, match=r"no output of tamis"):
        inspect_output(str(tmp_path))


def test_a_damaged_summary_is_told(tmp_path):
    begin(tmp_path)
    write_shard(tmp_path, 0, varied(0))
    path = tmp_path / "manifest.jsonl"
    path.write_text(path.read_text().replace('"histogram":[', '"histogram":["x",'))
    with pytest.raises(DataError, match="summary in the manifest"):
        inspect_output(str(tmp_path))


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_a_damaged_file_is_told_and_the_others_are_shown(out, damage):
    path = sorted(Path(out, "kept").iterdir())[1]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:60] if damage == "cut" else b"x" * 5_000)
    found = inspect_output(out)
    assert list(found.problems) == [f"kept/{path.name}"]
    assert f"kept/{path.name} cannot be read" in to_html(found)
    kept = groups(found)["kept"]
    assert kept.shown == 8 and {d.shard for d in kept.documents} == {"s0", "s2"}
    assert groups(found)["language"].shown == 8


def test_on_an_object_store(tmp_path):
    out = f"memory://inspect-{tmp_path.name}/out"
    begin(out)
    try:
        write_shard(out, 0, varied(0), [broken(60)])
        found = inspect_output(out)
        assert found.finished and groups(found)["kept"].shown == 8
        assert groups(found)["invalid_json"].broken[0].raw == "{broken"
    finally:
        fsspec.filesystem("memory").rm(out.partition("/out")[0], recursive=True)


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
        row(0, 4.0, **changes, metadata=metadata),
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
