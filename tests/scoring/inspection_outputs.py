"""Small outputs of a filter, written and committed as the filter does."""

import base64
from pathlib import Path

import pyarrow as pa

from tamis.corpus.manifest import Counts, FileRecord, RunInfo, ShardRecord
from tamis.corpus.store import RUN, LocalStore, open_store
from tamis.corpus.writers import SCHEMA, part_writer
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


def in_row_groups(out, rows, size):
    """Commit one shard of kept rows in row groups of some size."""
    store = open_store(str(out))
    with part_writer(store, "kept/00000-s.parquet") as writer:
        for at in range(0, len(rows), size):
            writer.write_batch(pa.RecordBatch.from_pylist(rows[at : at + size], schema=SCHEMA))
    summary = Summariser(0.0, 5.0, 3.0)
    summary.add(rows)
    record = ShardRecord(
        shard="s0",
        position=0,
        counts=Counts(read=len(rows), kept=len(rows)),
        files=(writer.record,),
        summary=summary.result().model_dump(mode="json"),
    )
    store.append(0, record.model_dump_json().encode())
