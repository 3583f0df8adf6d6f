"""Whatever happens to the bytes of a shard, each row is read or quarantined, and once only."""

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamis.corpus.document import Document, Quarantined
from tamis.corpus.readers import ReadLimits, list_shards, read_shard
from tamis.task import Columns
from tests.corpus.broken_shards import PACKED, SUFFIXES, shard

KINDS = [f"{suffix}{packing}" for suffix in SUFFIXES for packing in PACKED] + ["parquet"]
WORDS = st.text("abcdefgh ,\"'<>\n\u00e9\u4e2d", max_size=40).map(lambda text: f"word {text} end")

positions = st.floats(0, 1, exclude_max=True)
damages = st.one_of(
    st.tuples(st.just("cut"), positions),
    st.tuples(st.just("flip"), positions, st.integers(1, 255)),
    st.tuples(st.just("insert"), positions, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("insert"), positions, st.integers(1, 3000).map(bytes)),
    st.tuples(st.just("remove"), positions, st.integers(1, 400)),
    st.tuples(st.just("repeat"), positions, st.integers(1, 400)),
    st.tuples(st.just("twice")),
)


def damaged(data, damage):
    name, *how = damage
    if name == "twice":
        return data + data
    at = int(how[0] * len(data))
    if name == "cut":
        return data[:at]
    if name == "flip":
        return data[:at] + bytes([data[at] ^ how[1]]) + data[at + 1 :] if data else data
    if name == "insert":
        return data[:at] + how[1] + data[at:]
    if name == "remove":
        return data[:at] + data[at + how[1] :]
    return data[: at + how[1]] + data[at:]


def build(kind, texts):
    suffix, _, packing = kind.partition(".")
    return PACKED[f".{packing}" if packing else ""](shard(suffix, texts))


def read(folder, kind, data):
    path = folder / f"a.{kind}"
    path.write_bytes(data)
    (listed,) = list_shards([str(path)])
    return list(read_shard(listed, Columns(), ReadLimits(max_line_bytes=20_000, batch_rows=5)))


def check(rows):
    numbers = [row.row for row in rows]
    assert len(set(numbers)) == len(numbers)
    assert numbers == sorted(numbers)
    assert min(numbers, default=0) >= 0 or numbers == [-1]
    for row in rows:
        assert row.shard == "a"
        if isinstance(row, Document):
            assert row.text.strip() and "\x00" not in row.text and row.id
            pa.array([row.id, row.text, row.source, msgspec.json.encode(row.metadata).decode()])
        else:
            assert isinstance(row, Quarantined)
            assert row.reason and row.place and row.detail and len(row.raw) <= 4096


def few(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@pytest.mark.parametrize("kind", KINDS)
class TestEveryFormat:
    @few(6)
    @given(texts=st.lists(WORDS, min_size=1, max_size=12))
    def test_undamaged_gives_every_document(self, tmp_path, kind, texts):
        rows = read(tmp_path, kind, build(kind, texts))
        check(rows)
        assert all(isinstance(row, Document) for row in rows)
        if kind.startswith("txt"):
            assert [row.text for row in rows] == ["\n".join(texts)]
        elif kind.startswith("warc"):
            assert len(rows) == len(texts)
        else:
            assert [row.text for row in rows] == texts
        assert [row.row for row in rows] == list(range(len(rows)))

    @few(60)
    @given(
        texts=st.lists(WORDS, max_size=12),
        before=st.lists(damages, max_size=2),
        after=st.lists(damages, max_size=3),
    )
    def test_damaged_never_raises(self, tmp_path, kind, texts, before, after):
        suffix, _, packing = kind.partition(".")
        data = shard(suffix, texts)
        for damage in before:
            data = damaged(data, damage)
        data = PACKED[f".{packing}" if packing else ""](data)
        for damage in after:
            data = damaged(data, damage)
        rows = read(tmp_path, kind, data)
        check(rows)
        if suffix != "parquet":  # whose lost rows are one, with their numbers left out
            assert [row.row for row in rows] in ([-1], list(range(len(rows))))

    @few(25)
    @given(at=positions)
    def test_what_stands_before_a_cut_is_delivered(self, tmp_path, kind, at):
        if kind == "parquet" or kind.endswith(".zst"):
            pytest.skip("nothing comes before the footer or in less than a block")
        texts = [f"text number {i} " + "abc" * (i % 7) for i in range(30)]
        whole = read(tmp_path, kind, build(kind, texts))
        data = build(kind, texts)
        rows = read(tmp_path, kind, data[: int(at * len(data))])
        check(rows)
        found = [row for row in rows if isinstance(row, Document)]
        if kind.startswith("txt"):
            assert len(rows) <= 1
        else:
            # The last row of a CSV file may be cut within its last field, which nobody can see.
            n = max(0, len(found) - 1) if kind == "csv" else len(found)
            assert [row.text for row in found[:n]] == [row.text for row in whole[:n]]
            if "." not in kind:
                assert len(found) >= 30 * at - 4
            assert len(rows) - len(found) <= 1
