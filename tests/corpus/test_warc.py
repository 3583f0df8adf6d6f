import gzip
import json
import re
import tracemalloc
import zlib

import brotli
import pyarrow as pa
import pytest

from tamis.corpus import warc
from tamis.corpus.document import Document, Quarantined, content_hash
from tamis.corpus.readers import ReadLimits, list_shards, read_shard
from tamis.corpus.settings import HtmlSettings
from tamis.task import Columns
from tests.corpus.broken_shards import DATE, http, page, records

WORDS = "Words of the page that somebody may want to read."


def read(path, data, **limits):
    path.write_bytes(data)
    (shard,) = list_shards([str(path)])
    return list(read_shard(shard, Columns(), ReadLimits(**limits)))


@pytest.fixture
def warcs(tmp_path):
    return lambda data, name="a.warc", **limits: read(tmp_path / name, data, **limits)


def texts(rows):
    return [row.text for row in rows if isinstance(row, Document)]


def reasons(rows):
    return [row.reason for row in rows if isinstance(row, Quarantined)]


class TestRecords:
    def test_a_page_and_what_is_known_of_it(self, warcs):
        (row,) = warcs(records([http(page(WORDS))], WARC_Identified_Content_Language="eng"))
        assert row == Document(
            "id-0",
            WORDS,
            "site0.example",
            "a",
            0,
            {
                "url": "https://site0.example/page",
                "date": DATE,
                "content_type": "text/html",
                "charset": "utf-8",
                "language": "eng",
            },
        )
        assert row.id_given

    def test_a_conversion_of_wet(self, tmp_path):
        data = records(
            ["Zwei\nZeilen \u4e2d".encode()], "conversion", WARC_Identified_Content_Language="deu"
        )
        (row,) = read(tmp_path / "CC-MAIN-1.warc.wet.gz", gzip.compress(data))
        assert (row.text, row.source, row.shard) == (
            "Zwei\nZeilen \u4e2d",
            "site0.example",
            "CC-MAIN-1.warc",
        )
        assert row.metadata["language"] == "deu"

    @pytest.mark.parametrize("packed", ["members", "frames", "plain"])
    def test_every_member_and_frame_is_read(self, warcs, packed):
        blocks = [http(page(f"{WORDS} {i}")) for i in range(40)]
        if packed == "members":
            data, name = records(blocks, gzipped=True), "a.warc.gz"
            assert data.count(b"\x1f\x8b\x08") >= 80
        else:
            data, name = records(blocks), "a.warc"
        if packed == "frames":
            halves = [data[: len(data) // 2], data[len(data) // 2 :]]
            data = b"".join(pa.compress(h, codec="zstd", asbytes=True) for h in halves)
            name = "a.warc.zst"
        assert texts(warcs(data, name)) == [f"{WORDS} {i}" for i in range(40)]

    def test_what_is_no_page_is_quarantined_with_status_or_type(self, warcs):
        rows = warcs(
            records(
                [
                    http("gone", "404 Not Found"),
                    http("moved", "301 Moved"),
                    http(b"\x89PNG", kind="image/png"),
                    http(b"%PDF", kind="application/pdf"),
                    http("plain words", kind="text/plain"),
                    http(page(WORDS), kind="application/xhtml+xml"),
                    http("no type", kind=""),
                ]
            )
        )
        assert reasons(rows) == ["not_a_page"] * 5
        said = " ".join(row.detail for row in rows if isinstance(row, Quarantined))
        assert "404" in said and "image/png" in said
        assert texts(rows) == ["plain words", WORDS]
        assert [row.row for row in rows] == list(range(7))
        # Records are counted with those that are no rows, as other tools count them.
        assert [row.place for row in rows if isinstance(row, Quarantined)][:2] == [
            "record 3",
            "record 5",
        ]

    def test_without_an_id_and_with_odd_urls(self, warcs):
        data = records([http(page(WORDS))] * 2, url="http://[::bad{}/")
        data = re.sub(rb"WARC-Record-ID: <urn:uuid:id-0>\r\n", b"", data)
        first, second = warcs(data)
        assert (first.id, first.source, first.id_given) == (content_hash(WORDS), "", False)
        assert second.id == "id-1"

    def test_resources_are_pages_and_other_records_are_none(self, warcs):
        def turned(kind, said):
            data = records([page(WORDS).encode()], "conversion")
            data = data.replace(b"Type: conversion", b"Type: " + kind)
            return data.replace(b"Content-Type: text/plain", b"Content-Type: " + said)

        assert texts(warcs(turned(b"resource", b"text/html"))) == [WORDS]
        assert warcs(turned(b"revisit", b"text/html")) == []
        assert warcs(turned(b"metadata", b"text/html")) == []
        assert reasons(warcs(turned(b"continuation", b"text/html"))) == ["not_a_page"]
        assert reasons(warcs(turned(b"conversion", b"application/pdf"))) == ["not_a_page"]

    def test_wet_in_bad_utf8(self, warcs):
        assert reasons(warcs(records([b"a\xff"], "conversion"))) == ["invalid_utf8"]

    def test_the_extractor_is_a_choice(self, tmp_path):
        path = tmp_path / "a.warc"
        body = "".join(f"<p>{WORDS} And again, {i} times, at some length.</p>" for i in range(9))
        path.write_bytes(
            records([http(f"<html><body><nav>Home</nav><main>{body}</main></body></html>")])
        )
        (shard,) = list_shards([str(path)])
        for extractor in ("resiliparse", "trafilatura"):
            html = HtmlSettings(extractor=extractor)
            (row,) = read_shard(shard, Columns(), html=html)
            assert WORDS in row.text and "Home" not in row.text
        (row,) = read_shard(shard, Columns(), html=HtmlSettings(main_content=False))
        assert "Home" in row.text


class TestPayloads:
    BODY = page(WORDS * 20).encode()

    @pytest.mark.parametrize(
        ("coding", "pack"),
        [
            ("gzip", gzip.compress),
            ("x-gzip", lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])),
            ("deflate", zlib.compress),
            ("deflate", lambda data: zlib.compress(data)[2:-4]),
            ("br", brotli.compress),
            ("zstd", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
            ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
            ("identity", bytes),
            ("gzip", bytes),  # stored decoded, with the headers as they were
            ("deflate", bytes),
            ("br", bytes),
            ("zstd", bytes),
            ("strange", bytes),
        ],
    )
    def test_codings(self, warcs, coding, pack):
        data = records([http(pack(self.BODY), headers=[("Content-Encoding", coding)])])
        assert texts(warcs(data)) == [WORDS * 20]

    @pytest.mark.parametrize("cut", [0, 40])
    def test_chunks(self, warcs, cut):
        chunked = b"".join(
            b"%x;x=y\r\n%b\r\n" % (len(part), part)
            for part in (self.BODY[i : i + 100] for i in range(0, len(self.BODY), 100))
        )
        chunked = (chunked + b"0\r\n\r\n")[: -cut or None]
        block = http(chunked, headers=[("Transfer-Encoding", "chunked")])
        rows = warcs(records([block]))
        assert reasons(rows) == (["corrupt_payload"] if cut else [])
        assert texts(warcs(records([block], WARC_Truncated="length")))
        stored = http(self.BODY, headers=[("Transfer-Encoding", "chunked")])
        assert texts(warcs(records([stored]))) == [WORDS * 20]

    @pytest.mark.parametrize(
        ("coding", "pack"),
        [
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("br", brotli.compress),
            ("zstd", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
        ],
    )
    def test_a_damaged_payload(self, warcs, coding, pack):
        body = page(" ".join(map(str, range(3000)))).encode()
        short = http(pack(body)[:-300], headers=[("Content-Encoding", coding)])
        rows = warcs(records([short, http(self.BODY)]))
        assert reasons(rows) == ["corrupt_payload"]
        assert len(texts(rows)) == 1

    @pytest.mark.parametrize(
        ("coding", "pack"),
        [
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("br", lambda data: brotli.compress(data, quality=3)),
            ("zstd", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
            ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ],
    )
    def test_a_bomb_in_a_payload(self, warcs, coding, pack):
        bomb = records([http(pack(bytes(50_000_000)), headers=[("Content-Encoding", coding)])])
        tracemalloc.start()
        rows = warcs(bomb, max_line_bytes=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert reasons(rows) == ["zip_bomb"]
        assert peak < 10_000_000

    def test_a_page_over_the_limit(self, warcs):
        body = page(" ".join(map(str, range(30_000)))).encode()
        packed = http(gzip.compress(body), headers=[("Content-Encoding", "gzip")])
        assert reasons(warcs(records([packed]), max_line_bytes=100_000)) == ["too_long"]

    def test_no_http(self, warcs):
        data = records([http("a"), http("b")])
        data = data.replace(b"HTTP/1.1 200 OK", b"SSH-2.00 200 OK", 1)
        assert reasons(warcs(data)) == ["corrupt_http"]
        unended = (
            b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 17\r\n\r\nHTTP/1.1 200 OK\r\n"
        )
        assert reasons(warcs(unended)) == ["corrupt_http"]


class TestCharsets:
    TEXT = "Stra\u00dfe, \u0434\u043e\u043c"

    @pytest.mark.parametrize(
        ("body", "kind", "said"),
        [
            (page("Stra\u00dfe").encode("latin-1"), "text/html; charset=ISO-8859-1", "Stra\u00dfe"),
            (
                page("\u65e5\u672c").encode("shift_jis"),
                'text/html;charset="Shift_JIS"',
                "\u65e5\u672c",
            ),
            (
                page("\u0434\u043e\u043c")
                .replace("<head>", "<head><meta charset=windows-1251>")
                .encode("cp1251"),
                "text/html",
                "\u0434\u043e\u043c",
            ),
            (
                page("\u4e2d\u6587")
                .replace(
                    "<head>",
                    '<head><meta http-equiv=Content-Type content="text/html; charset=gb2312">',
                )
                .encode("gbk"),
                "text/html; charset=nonsense",
                "\u4e2d\u6587",
            ),
            (page("na\u00efve").encode("utf-16"), "text/html", "na\u00efve"),
            (page("na\u00efve").encode("utf-8-sig"), "text/html; charset=latin-1", "na\u00efve"),
            (page("na\u00efve").encode(), "text/html", "na\u00efve"),
            (page("na\u00efve").encode("latin-1"), "text/html", "na\u00efve"),
            (
                page("\u0434\u043e\u043c").encode() + b"<p>a \xd0 byte</p>",
                "text/html",
                "\u0434\u043e\u043c\n\na \ufffd byte",
            ),
            (b"<p>bad \xff byte</p>", "text/html; charset=utf-8", "bad \ufffd byte"),
            (page("plain").encode(), "text/html; charset=unicode_escape", "plain"),
        ],
    )
    def test_header_then_meta_then_the_bytes(self, warcs, body, kind, said):
        assert texts(warcs(records([http(body, kind=kind)]))) == [said]


class TestDamage:
    def blocks(self, n):
        return [http(page(f"{WORDS} {i}")) for i in range(n)]

    def test_reading_goes_on_after_garbage(self, warcs):
        parts = records(self.blocks(6)).split(b"WARC/1.0\r\n")
        parts[5] += b"garbage\r\n\r\n" * 9
        rows = warcs(b"WARC/1.0\r\n".join(parts))
        assert reasons(rows) == ["corrupt_warc"]
        # The record before it cannot be told from one with a wrong length.
        assert len(texts(rows)) == 5
        assert [row.row for row in rows] == list(range(6))

    @pytest.mark.parametrize("wrong", [b"1", b"%d" % 10**9, b"-3", b"x", b"9" * 40])
    def test_a_wrong_length_costs_one_record(self, warcs, wrong):
        data = records(self.blocks(8))
        spots = [m.span() for m in re.finditer(rb"Content-Length: \d+", data)]
        start, end = spots[-3]  # a response, followed by a request and a response
        rows = warcs(data[:start] + b"Content-Length: " + wrong + data[end:])
        assert reasons(rows) == ["corrupt_warc"]
        # One that reaches beyond the file and the limit takes the rest along.
        assert texts(rows)[:6] == [f"{WORDS} {i}" for i in range(6)]
        assert len(texts(rows)) == (6 if wrong == b"%d" % 10**9 else 7)

    def test_a_length_that_swallows_the_next_records(self, warcs):
        data = records(self.blocks(8))
        start, end = [m.span() for m in re.finditer(rb"Content-Length: \d+", data)][2]
        rows = warcs(data[:start] + b"Content-Length: 3000" + data[end:])
        assert reasons(rows) == ["corrupt_warc"]
        assert texts(rows) == [f"{WORDS} {i}" for i in range(1, 8)]

    def test_swallowing_records_cannot_take_hours(self, warcs, monkeypatch):
        monkeypatch.setattr(warc, "_MAX_RESCUED", 3)
        one = b"\r\nWARC/1.0\r\nWARC-Type: response\r\nContent-Length: 9000\r\n\r\nx"
        assert len(warcs(one * 100)) <= 5

    @pytest.mark.parametrize("packing", ["", ".gz"])
    def test_a_truncated_file(self, warcs, packing):
        whole = records(self.blocks(50), gzipped=bool(packing))
        rows = warcs(whole[: len(whole) // 2], f"a.warc{packing}")
        assert reasons(rows) == ["corrupt_gzip" if packing else "corrupt_warc"]
        assert texts(rows) == [f"{WORDS} {i}" for i in range(len(texts(rows)))]
        assert len(texts(rows)) > 20

    def test_a_break_after_a_whole_record_does_not_cost_it(self, warcs):
        whole = records(self.blocks(3), gzipped=True)
        rows = warcs(whole + b"\x1f\x8b\x08 no more gzip", "a.warc.gz")
        assert len(texts(rows)) == 3
        assert reasons(rows) == ["corrupt_gzip"]

    def test_a_header_without_end(self, warcs):
        data = records(self.blocks(2))
        long = b"WARC/1.0\r\nWARC-Type: response\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"
        rows = warcs(long + data)
        assert reasons(rows) == ["corrupt_warc"]
        assert len(texts(rows)) == 2

    def test_not_warc_at_all(self, warcs):
        assert reasons(warcs(b"nothing of the kind\n" * 9999)) == ["corrupt_warc"]
        assert warcs(b"") == []
        assert warcs(b"\r\n\r\n") == []

    def test_a_record_of_100_mb_is_skipped_without_holding_it(self, tmp_path):
        path = tmp_path / "a.warc"
        size = 100_000_000
        with path.open("wb") as file:
            for kind in (b"response", b"request"):
                file.write(
                    b"WARC/1.0\r\nWARC-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, size)
                )
                for _ in range(size // 1_000_000):
                    file.write(b"x" * 1_000_000)
                file.write(b"\r\n\r\n")
            file.write(records(self.blocks(1)))
        (shard,) = list_shards([str(path)])
        tracemalloc.start()
        rows = list(read_shard(shard, Columns()))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert reasons(rows) == ["too_long"]
        assert len(texts(rows)) == 1
        assert peak < 5_000_000

    def test_metadata_can_be_written(self, warcs):
        data = records(self.blocks(1)).replace(b"site0.example/page", b"site0.example/\xff\xed\xa0")
        (row,) = warcs(data)
        assert json.dumps(row.metadata).encode()
        row.metadata["url"].encode()
