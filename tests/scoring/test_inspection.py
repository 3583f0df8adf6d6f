from collections import Counter
from pathlib import Path

import fsspec
import pytest

from tamis.corpus.store import LocalStore, open_store
from tamis.errors import DataError, UsageError
from tamis.scoring.inspection import inspect_output
from tamis.scoring.inspection import rows as inspection_rows
from tamis.scoring.inspection import sample as inspection_sample
from tamis.scoring.inspection.page import to_html
from tamis.scoring.inspection.rows import RowReader
from tests.scoring.inspection_outputs import begin, broken, in_row_groups, row, varied, write_shard


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


@pytest.mark.parametrize("n", [4, 20])
def test_those_near_the_threshold_are_the_nearest(out, n):
    found = groups(inspect_output(out, per_group=n))
    rows = [r for position in range(3) for r in varied(position) if r["score"] is not None]
    for name, reason in (("kept", "score>=threshold"), ("dropped", "score<threshold")):
        side = sorted(abs(r["score"] - 3) for r in rows if r["reason"] == reason)[:n]
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


def test_row_groups_are_read_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection_rows, "PARQUET_ROWS", 100)
    begin(tmp_path)
    in_row_groups(tmp_path, [row(3 * i, 4.0 + i / 10_000) for i in range(2_000)], size=50)
    looked_at, seen = [], set()
    for seed in range(6):
        found = inspect_output(str(tmp_path), 5, seed, ["kept"])
        looked_at.append(found.looked_at)
        kept = groups(found)["kept"].documents
        assert all(d.text.startswith(f"Text {d.row} of s0") and d.row % 3 == 0 for d in kept)
        assert all(d.score == pytest.approx(4 + d.row / 30_000) for d in kept)
        assert len({d.row // 150 for d in kept}) <= 2
        seen |= {d.row // 150 for d in kept}
        near = groups(found)["near the threshold, kept"].documents
        assert [d.row for d in near] == [0, 3, 6, 9, 12]
        assert [d.id for d in near] == [f"id-s0-{d.row}" for d in near]
    assert max(looked_at) <= 100 + 5 + 5 + 50 + 5
    assert len(seen) > 4


def test_a_document_is_found_in_the_row_group_that_has_it(tmp_path):
    begin(tmp_path)
    in_row_groups(tmp_path, [row(3 * i, 4.0) for i in range(500)], size=50)
    reader = RowReader(open_store(str(tmp_path)), cut=100)
    found = reader.numbered("kept/00000-s.parquet", {0, 750, 751, 1_497, 9_999})
    assert {number: r["id"] for number, r in found.items()} == {
        n: f"id-s0-{n}" for n in (0, 750, 1_497)
    }
    assert reader.looked_at <= 3 * 50 + 3


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
