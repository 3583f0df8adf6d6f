"""Valid shards of every format, for tests to damage."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

SUFFIXES = ("jsonl", "csv", "txt", "warc", "wet")
PACKED = {"": lambda data: data, ".gz": lambda data: gzip.compress(data, 1, mtime=0)}
PACKED[".zst"] = lambda data: pa.compress(data, codec="zstd", asbytes=True)
DATE = "2024-05-18T01:58:10Z"


def page(text):
    return f"<html><head><title>t</title></head><body><p>{text}</p></body></html>"


def http(body, status="200 OK", headers=(), kind="text/html; charset=utf-8"):
    named = [*([("Content-Type", kind)] if kind else []), *headers]
    lines = "".join(f"{name}: {value}\r\n" for name, value in named)
    body = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def records(blocks, kind="response", url="https://site{}.example/page", gzipped=False, **headers):
    """A WARC file of one record for each block, with the request and metadata crawlers add."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=gzipped, warc_version="WARC/1.0")
    writer.write_record(writer.create_warcinfo_record("a.warc.gz", {"software": "a test"}))
    said = {"response": "application/http; msgtype=response"}.get(kind, "text/plain")
    for number, block in enumerate(blocks):
        uri = url.format(number)
        if kind == "response":
            asked = StatusAndHeaders("GET / HTTP/1.1", [("Host", "x")], is_http_request=True)
            writer.write_record(
                writer.create_warc_record(uri, "request", payload=io.BytesIO(), http_headers=asked)
            )
        given = {
            "WARC-Record-ID": f"<urn:uuid:id-{number}>",
            "WARC-Date": DATE,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        writer.write_record(
            writer.create_warc_record(
                uri,
                kind,
                payload=io.BytesIO(block),
                length=len(block),
                warc_content_type=said,
                warc_headers_dict=given,
            )
        )
    return buffer.getvalue()


def shard(suffix, texts):
    """The bytes of a valid shard of the texts; the texts themselves are what comes out of it."""
    if suffix == "jsonl":
        return b"".join(json.dumps({"text": text, "n": 1}).encode() + b"\n" for text in texts)
    if suffix == "csv":
        buffer = io.StringIO()
        csv.writer(buffer).writerows([["text", "n"], *([text, 1] for text in texts)])
        return buffer.getvalue().encode()
    if suffix == "parquet":
        sink = io.BytesIO()
        table = pa.table({"text": texts, "n": list(range(len(texts)))})
        pq.write_table(
            table, sink, row_group_size=max(1, len(texts) // 3), write_page_checksum=True
        )
        return sink.getvalue()
    if suffix == "txt":
        return "\n".join(texts).encode()
    if suffix == "warc":
        return records([http(page(text)) for text in texts])
    return records([text.encode() for text in texts], kind="conversion")
