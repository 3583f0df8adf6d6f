"""Whole runs: the same on both engines, as a Delta table, one at a time, over broken shards."""

import gzip
import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

import tamis
from tamis.corpus.document import Quarantined
from tamis.corpus.manifest import Counts, read_manifest, read_output
from tamis.corpus.readers import list_shards
from tamis.corpus.settings import (
    DecontaminationSettings,
    FilterSettings,
    GopherRepetitionSettings,
    LanguageSettings,
    NearDuplicateSettings,
    PiiSettings,
    RulesSettings,
)
from tamis.corpus.store import PARTS, LocalStore
from tamis.engine.local import LocalEngine
from tamis.errors import EngineError, ResumeRefused, UsageError
from tamis.scoring.passes import sift_candidates
from tests.corpus import broken_shards
from tests.corpus.test_fuzz import KINDS, build, damaged, damages, few
from tests.faults import fault_stubs
from tests.scoring import whole_runs
from tests.scoring.filter_stubs import make_plan
from tests.scoring.test_stages import GERMAN, QUESTION, prose
from tests.scoring.whole_runs import (
    FEW_BANDS,
    Interrupted,
    in_manifest,
    lines,
    on_disk,
    parts,
    rows_on_disk,
    run,
    snapshot,
)

ROOT = str(Path(tamis.__file__).parent.parent)
QUARANTINED = 5


def never(model_dir):
    raise AssertionError("nothing is left to score")


class TestBothEngines:
    @pytest.fixture(scope="class")
    def corpus(self, tmp_path_factory):
        """Shards of six formats, something for every stage, and five rows that are broken."""
        folder = tmp_path_factory.mktemp("corpus")
        texts = [prose(number) for number in range(60)]
        texts[7] += " Write to jane.doe@example.org or call."
        texts[11] += f" {QUESTION}?"
        texts[23] = GERMAN
        texts[31] = "The river and the valley have been of use to people."
        again = [texts[2], texts[40], f"  {texts[2]}\n", texts[5] + " A word more.", GERMAN]
        rows = [json.dumps({"text": t, "id": f"j{i}", "n": i}) for i, t in enumerate(texts[:20])]
        rows[3:3] = ['{"text": "broken', '{"no": 1}']
        (folder / "a.jsonl").write_text("\n".join(rows))
        packed = build("jsonl", texts[20:30]) + b"\xff\xfe\n"
        (folder / "b.jsonl.gz").write_bytes(gzip.compress(packed))
        (folder / "c.csv").write_bytes(build("csv", texts[30:40]))
        (folder / "d.parquet").write_bytes(build("parquet", [*texts[40:50], *again]))
        (folder / "e.warc.gz").write_bytes(build("warc.gz", texts[50:]))
        (folder / "f.jsonl.zst").write_bytes(build("jsonl.zst", texts[:5])[:-3])
        (folder / "g.parquet").write_bytes(b"PAR1 and nothing else PAR1")
        (folder / "h.jsonl").write_bytes(b"")
        return folder

    @pytest.fixture(scope="class")
    def everything(self, tmp_path_factory):
        exam = tmp_path_factory.mktemp("exam") / "exam.jsonl"
        exam.write_text(json.dumps({"question": QUESTION}))
        return FilterSettings(
            language=LanguageSettings(enabled=True),
            # The sentences of these texts are all of one make.
            rules=RulesSettings(
                enabled=True, gopher_repetition=GopherRepetitionSettings(enabled=False)
            ),
            decontamination=DecontaminationSettings(files=(str(exam),)),
            pii=PiiSettings(action="mask"),
            near_duplicates=FEW_BANDS,
        )

    @pytest.fixture(scope="class")
    def ray(self):
        from tamis.engine.ray import RayEngine

        with RayEngine(workers=2) as engine:
            yield whole_runs.Borrowed(engine)

    @pytest.mark.parametrize("form", ["parquet", "jsonl.zst"])
    def test_every_part_is_the_same_byte_for_byte(self, ray, corpus, everything, tmp_path, form):
        settings = {"filter": everything, "format": form, "threshold": 0.5}
        settings |= {"load": fault_stubs.load, "block": 7}
        engines = {"local": LocalEngine(0), "ray": ray}
        reports = {
            name: run(corpus, tmp_path / name, engine, **settings)
            for name, engine in engines.items()
        }
        local, other = (parts(tmp_path / name) for name in engines)
        for part in PARTS:
            assert local[part] == other[part]
        files = [
            [f for record in read_manifest(str(tmp_path / name)).shards for f in record.files]
            for name in engines
        ]
        assert files[0] == files[1]
        assert reports["local"].counts == reports["ray"].counts
        assert reports["local"].summary == reports["ray"].summary

        # And there was something to compare.
        counts = reports["local"].counts
        assert (counts.read, counts.quarantined) == (60 + 5 + QUARANTINED, QUARANTINED)
        assert counts.balanced and min(map(len, local.values())) >= QUARANTINED
        reasons = Counter(json.loads(line)["reason"] for part in PARTS for _, line in local[part])
        assert reasons["exact_duplicate"] == 4 and reasons["near_duplicate"] == 1
        assert reasons["language"] == 1 and reasons["contaminated:exam.jsonl"] == 1
        assert reasons["c4_too_few_sentences"] == 1 and reasons["score<threshold"] > 1
        assert reports["local"].summary.pii == {"email": 1}


@pytest.fixture
def corpus(tmp_path):
    """Four shards; every one has repetitions of the one before, and a broken line."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for shard in range(4):
        texts = [prose(10 * shard + number, 3) for number in range(12)]
        texts += [prose(10 * shard - 5, 3), prose(10 * shard - 6, 3) + " Yes."]
        rows = [json.dumps({"text": t, "id": f"{shard}-{i}"}) for i, t in enumerate(texts)]
        (folder / f"p{shard}.jsonl").write_text("\n".join([*rows, "{"]))
    return folder


def table(out, version=None):
    """Rows of a version of a table by part."""
    found = {part: [] for part in PARTS}
    for row in DeltaTable(str(out), version=version).to_pyarrow_table().to_pylist():
        found[row.pop("part")].append(row)
    return {part: lines(rows) for part, rows in found.items() if part != "quarantine"}


def named(out):
    """Rows of an output by part, as its manifest has them, but for the quarantine."""
    return {part: rows for part, rows in parts(out).items() if part != "quarantine"}


class TestDelta:
    @pytest.fixture
    def calm(self, corpus, tmp_path):
        run(corpus, tmp_path / "calm")
        return parts(tmp_path / "calm")

    def test_the_table_has_the_rows_of_the_run(self, corpus, calm, tmp_path):
        out = tmp_path / "out"
        report = run(corpus, out, format="delta")
        assert parts(out) == calm
        assert table(out) == named(out)
        counts = report.counts
        sizes = {part: len(rows) for part, rows in table(out).items()}
        assert sizes == {
            "kept": counts.kept, "dropped": counts.dropped, "duplicates": counts.duplicates
        }  # fmt: skip
        assert min(sizes.values()) >= 4 and counts.quarantined == 4
        assert counts.read == 60 and counts.balanced
        assert DeltaTable(str(out)).version() == 4, "one version a shard"
        ids = [name for rows in table(out, 2).values() for name, _ in rows]
        assert {name[0] for name in ids} == {"0", "1"}

    def test_a_second_run_does_nothing(self, corpus, tmp_path):
        out = tmp_path / "out"
        first = run(corpus, out, format="delta")
        before = snapshot(out)
        again = run(corpus, out, format="delta", load=never)
        assert again.counts == first.counts and again.summary == first.summary
        assert snapshot(out, "report.json", "report.html") == {
            path: found for path, found in before.items() if not path.startswith("report")
        }
        assert DeltaTable(str(out)).version() == 4

    def test_a_stopped_run_goes_on_where_it_was(self, corpus, calm, tmp_path):
        out = tmp_path / "out"
        with pytest.raises(EngineError, match="on purpose"):
            run(corpus, out, Interrupted(whole_runs.stop), format="delta")
        assert DeltaTable(str(out)).version() == 2
        first = table(out)
        assert first == named(out) and first["kept"] and first["kept"] != calm["kept"]
        report = run(corpus, out, format="delta")
        assert parts(out) == calm and table(out) == named(out)
        assert table(out, 2) == first
        assert DeltaTable(str(out)).version() == 4
        assert report.counts.balanced and report.shards == 4
        assert on_disk(out) == in_manifest(out)

    def test_what_only_the_log_knows_is_not_done_again(self, corpus, calm, tmp_path, monkeypatch):
        out, append = tmp_path / "out", LocalStore.append

        def full(store, position, record, ledger=""):
            if not ledger and position == 1:
                raise OSError("no space left")
            append(store, position, record, ledger)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "append", full)
            with pytest.raises(EngineError, match="no space left"):
                run(corpus, out, format="delta")
        assert len(read_manifest(str(out)).shards) == 1
        assert DeltaTable(str(out)).version() == 2
        first = {file: file.stat().st_ino for file in map(Path, DeltaTable(str(out)).file_uris())}
        run(corpus, out, format="delta")
        assert {file: file.stat().st_ino for file in first} == first, "nothing was written again"
        assert parts(out) == calm and table(out) == named(out)
        assert [record.position for record in read_manifest(str(out)).shards] == [0, 1, 2, 3]
        assert DeltaTable(str(out)).version() == 4

    @pytest.mark.parametrize("stopped", [False, True])
    def test_fresh_is_a_new_version_and_the_old_one_stays(self, corpus, tmp_path, stopped):
        out = tmp_path / "out"
        run(corpus, out, format="delta")
        old = table(out)
        changed = {"format": "delta", "threshold": 1.0}
        if stopped:
            with pytest.raises(EngineError, match="on purpose"):
                run(corpus, out, Interrupted(whole_runs.stop), fresh=True, **changed)
            assert table(out, 4) == old
            run(corpus, out, **changed)
        else:
            run(corpus, out, fresh=True, **changed)
        new = table(out)
        assert DeltaTable(str(out)).version() == 4 + 1 + 4
        assert new == named(out) and len(new["kept"]) > len(old["kept"])
        assert table(out, 4) == old
        assert not any(table(out, 5).values())
        run(corpus, out, fresh=True, format="delta")
        assert table(out) == old == table(out, 4) and table(out, 9) == new

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"format": "delta", "threshold": 2.0}, r"threshold is 2\.0, was 3\.0"),
            ({"format": "delta", "model_version": "stub-2"}, "model is stub-2, was stub-1"),
            ({"format": "parquet"}, "format is parquet, was delta"),
            (
                {
                    "format": "delta",
                    "filter": FilterSettings(near_duplicates=NearDuplicateSettings(threshold=0.9)),
                },
                r"filter\.near_duplicates is ",
            ),
        ],
    )
    def test_other_settings_are_refused(self, corpus, tmp_path, changes, told):
        out = tmp_path / "out"
        run(corpus, out, format="delta")
        before = snapshot(out)
        with pytest.raises(ResumeRefused, match=told):
            run(corpus, out, load=never, **changes)
        assert snapshot(out) == before

    def test_another_format_does_not_take_the_place_of_a_table(self, corpus, tmp_path):
        out = tmp_path / "out"
        run(corpus, out, format="delta")
        before = snapshot(out)
        with pytest.raises(UsageError, match="is a Delta table"):
            run(corpus, out, fresh=True, load=never)
        assert snapshot(out) == before
        run(corpus, tmp_path / "other")
        run(corpus, tmp_path / "other", fresh=True, format="delta")
        assert table(tmp_path / "other") == table(out) == named(tmp_path / "other")


class TestOneAtATime:
    @pytest.mark.parametrize("fresh", [False, True])
    @pytest.mark.parametrize("place", ["folder", "memory"])
    def test_a_second_run_beside_the_first_is_refused(self, corpus, tmp_path, place, fresh):
        local = place == "folder"
        out = str(tmp_path / "out") if local else f"memory://{uuid.uuid4().hex}/out"
        told = []

        def second():
            before = parts(out)
            assert before["kept"], "the first run is in the middle of its work"
            with pytest.raises(UsageError) as caught:
                run(corpus, out, fresh=fresh, load=never)
            told.append(str(caught.value))
            assert parts(out) == before

        try:
            report = run(corpus, out, Interrupted(second))
            assert told[0].startswith(f"another run is writing to {out}") and "\n" not in told[0]
            assert told[0].endswith("wait for its end or choose another output")
            run(corpus, tmp_path / "calm")
            assert parts(out) == parts(tmp_path / "calm")
            assert run(corpus, out, load=never).counts == report.counts, "the lock was given back"
        finally:
            fsspec.filesystem("memory").store.clear()

    @pytest.mark.parametrize("fresh", [False, True])
    def test_a_second_run_beside_another_process_is_refused(self, corpus, tmp_path, fresh):
        out = tmp_path / "out"
        first = subprocess.Popen(
            [sys.executable, whole_runs.__file__, str(corpus), str(out)],
            env={**os.environ, "PYTHONPATH": ROOT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert first.stdout.readline() == "waiting\n"
            before = snapshot(out)
            with pytest.raises(UsageError) as caught:
                run(corpus, out, fresh=fresh, load=never)
            assert str(caught.value) == (
                f"another run is writing to {out}; wait for its end or choose another output"
            )
            assert snapshot(out) == before
            first.communicate("go on\n", timeout=60)
            assert first.returncode == 0
        finally:
            first.kill()
            first.wait()
        run(corpus, tmp_path / "calm")
        assert parts(out) == parts(tmp_path / "calm")
        assert run(corpus, out, load=never).counts.read == 60

    def test_a_run_that_failed_gives_the_lock_back(self, corpus, tmp_path):
        out = tmp_path / "out"
        with pytest.raises(EngineError, match="on purpose"):
            run(corpus, out, Interrupted(whole_runs.stop, sift_candidates))
        assert run(corpus, out).counts.read == 60


TEXTS = [prose(number, 3) for number in range(4)]
TEXTS += [f"{TEXTS[0]} One more.", TEXTS[1].upper(), "NAN", "word", ""]
texts = st.lists(st.sampled_from(TEXTS), max_size=9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_balance_holds_over_broken_shards(tmp_path, kind):
    suffix, _, packing = kind.partition(".")
    total = []

    @few(6)
    @given(texts, st.lists(damages, max_size=2), st.lists(damages, max_size=3))
    def over(given_texts, before, after):
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        data = broken_shards.shard(suffix, given_texts)
        for damage in before:
            data = damaged(data, damage)
        data = broken_shards.PACKED[f".{packing}" if packing else ""](data)
        for damage in after:
            data = damaged(data, damage)
        (folder / f"a.{kind}").write_bytes(data)
        (folder / "b.jsonl").write_bytes(build("jsonl", [*TEXTS[:5], TEXTS[0]]) + b"{\n")
        out = folder / "out"
        report = run(folder, out, block=4)
        counts = report.counts
        assert counts.read == counts.kept + counts.dropped + counts.duplicates + counts.quarantined
        assert report.shards == 2 and counts.read >= 7
        assert rows_on_disk(out) == {
            "kept": counts.kept,
            "dropped": counts.dropped,
            "duplicates": counts.duplicates,
            "quarantine": counts.quarantined,
        }
        listed = list_shards([str(folder / name) for name in (f"a.{kind}", "b.jsonl")])
        plan = make_plan(out)
        given = {(row.shard, row.row): type(row) for one in listed for row in plan.read(one)}
        found = {
            part: {(row["shard"], row["row"]) for row in read_output(str(out), part)}
            for part in PARTS
        }
        assert sum(map(len, found.values())) == counts.read == len(given)
        assert set().union(*found.values()) == set(given)
        broken = {place for place, what in given.items() if what is Quarantined}
        assert broken and broken <= found["quarantine"]
        total.append(counts)

    over()
    whole = sum(total, Counts())
    assert len(total) >= 6 and min(whole.kept, whole.dropped, whole.duplicates) > 0
