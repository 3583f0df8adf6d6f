"""python run.py requests: the log of served requests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import ResultFile

if TYPE_CHECKING:
    from tamis.monitoring.export import Exported
    from tamis.monitoring.log_settings import RequestLogSettings

app = typer.Typer(help="The log of served requests: windows, retention, deletion.",
                  no_args_is_help=True)  # fmt: skip
LogFolder = Annotated[
    Path,
    typer.Option("--log", envvar="TAMIS_SERVE_LOG", help="Folder that the service logs to."),
]
_WHEN = "as 2026-01-31, 2026-01-31T18:30 (UTC), now, or 90m, 24h, 7d ago"


@app.command("window")
def window(
    log: LogFolder,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file: NAME.parquet or NAME.jsonl.")
    ],
    start: Annotated[str, typer.Option("--from", help=f"From when: {_WHEN}.")] = "24h",
    end: Annotated[str, typer.Option("--to", help="Until when, likewise.")] = "now",
    everything: Annotated[
        bool, typer.Option("--all", help="Every record: repeated, shadow, without text.")
    ] = False,
    result: ResultFile = None,
) -> None:
    """Write what was served in a span of time, with its labels; `retrain --window` reads it."""
    from cli.plan import console
    from cli.result import Clock, Result, check_writable, write
    from tamis.errors import DataError, UsageError

    clock = Clock()
    check_writable(result)
    now = datetime.now(UTC)
    first, last = moment("--from", start, now), moment("--to", end, now)
    if first >= last:
        raise UsageError(f"--from: given {start!r}; allowed: a time before --to {end!r}")
    from tamis.monitoring.export import export
    from tamis.monitoring.windows import Reader

    with Reader(log) as reader:
        done = export(reader, first, last, output, everything)
        keep = reader.settings.keep
    if not done.documents and done.without_text:
        output.unlink(missing_ok=True)
        raise DataError(
            f"{log}: {done.without_text:,} records of that time, none with a text (log.keep is "
            f"{keep!r} now); --all writes their scores and lengths"
        )
    _show(done, output)
    if done.dropped:
        console.print(f"[yellow]![/] the service dropped {done.dropped:,} more records then")
    counts = {name: getattr(done, name) for name in done.__dataclass_fields__}
    outputs = {"window": str(output)}
    write(Result(verb="requests window", stack="local", counts=counts, outputs=outputs,
                 seconds=clock.seconds()), result)  # fmt: skip


@app.command("status")
def status(log: LogFolder, result: ResultFile = None) -> None:
    """Show what the log holds: requests, labels, what was dropped, and its size."""
    import pyarrow.compute as pc

    from cli.plan import console
    from cli.result import Result, check_writable, write
    from tamis.monitoring.feedback import join
    from tamis.monitoring.windows import Reader

    check_writable(result)
    with Reader(log) as reader:
        records = shadow = 0
        times: list[datetime] = []
        for batch in reader.batches(columns=["at", "shadow", "characters"], shadow=True):
            records += batch.num_rows
            shadow += pc.sum(batch["shadow"]).as_py() or 0
            span = pc.min_max(batch["at"]).as_py()
            times = [min([*times[:1], span["min"]]), max([*times[1:], span["max"]])]
        joined = join(reader)
        counts = {
            "records": records,
            "shadow": shadow,
            "windows": len(reader.windows(None, None)),
            "labels": joined.labels,
            "labelled": len(joined.of),
            "replaced": joined.repeated,
            "unknown": joined.unknown,
            "dropped": reader.dropped(),
            "quarantined": reader.quarantined() + joined.unreadable,
            "bytes": sum(path.stat().st_size for path in log.rglob("*") if path.is_file()),
        }
        settings = reader.settings
    lines = (
        ("requests", f"{records:,} records, {shadow:,} of shadow versions"),
        ("time", f"{times[0]:%Y-%m-%d %H:%M} to {times[1]:%Y-%m-%d %H:%M} UTC" if times else "-"),
        ("windows", f"{counts['windows']:,}, {counts['bytes']:,} bytes in all"),
        ("feedback", f"{joined.labels:,} labels; {len(joined.of):,} requests labelled, "
                     f"{joined.repeated:,} labels replaced, {joined.unknown:,} of unknown ids"),
        ("lost", f"{counts['dropped']:,} dropped, {counts['quarantined']:,} lines quarantined"),
        ("kept", f"text: {settings.keep}, for {settings.retention_days:g} days"),
    )  # fmt: skip
    console.print(f"[bold]{log}[/]", soft_wrap=True)
    for name, told in lines:
        console.print(f"  [dim]{name:<10}[/] ", end="")
        console.print(told, markup=False, soft_wrap=True)
    write(Result(verb="requests status", stack="local", counts=counts), result)


@app.command("purge")
def purge(
    log: LogFolder,
    days: Annotated[
        float | None, typer.Option("--days", help="Delete what is older; the log's own setting.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", help="Delete the oldest requests beyond; likewise.")
    ] = None,
    result: ResultFile = None,
) -> None:
    """Delete requests, texts and feedback that are too old or too much."""
    from cli.plan import console
    from cli.result import Result, check_writable, write
    from tamis.monitoring.compaction import WAIT_SECONDS, compact
    from tamis.monitoring.retention import purge as delete

    check_writable(result)
    settings = _settings(log, days, max_bytes)
    compact(log, settings)
    done = delete(log, settings, datetime.now(UTC), WAIT_SECONDS)
    console.print(f"[green]✓[/] {done.files:,} files deleted, {done.bytes:,} bytes")
    counts = {"files": done.files, "bytes": done.bytes}
    write(Result(verb="requests purge", stack="local", counts=counts), result)


@app.command("compact")
def compact_(log: LogFolder, result: ResultFile = None) -> None:
    """Take closed segments into Parquet windows; `window` and `status` do so, too."""
    from cli.plan import console
    from cli.result import Result, check_writable, write
    from tamis.monitoring.compaction import compact

    check_writable(result)
    done = compact(log, _settings(log))
    console.print(f"[green]✓[/] {done.segments:,} segments, {done.records:,} records, "
                  f"{len(done.windows):,} windows written")  # fmt: skip
    counts = {
        "segments": done.segments,
        "records": done.records,
        "quarantined": done.quarantined,
        "windows": len(done.windows),
        "damaged": done.damaged,
    }
    write(Result(verb="requests compact", stack="local", counts=counts), result)


@app.command("forget")
def forget(
    documents: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of documents.")],
    log: LogFolder,
    result: ResultFile = None,
) -> None:
    """Delete all records and labels of some documents."""
    from cli.plan import console
    from cli.result import Result, check_writable, write
    from tamis.monitoring import retention

    check_writable(result)
    done = retention.forget(log, documents, datetime.now(UTC))
    console.print(f"[green]✓[/] {done.records:,} records and {done.labels:,} labels deleted; "
                  "what a running service still writes to goes when that is closed")  # fmt: skip
    counts = {"records": done.records, "labels": done.labels}
    write(Result(verb="requests forget", stack="local", counts=counts), result)


def moment(option: str, given: str, now: datetime) -> datetime:
    """A time as people write it.

    Raises:
        UsageError: It is none.
    """
    from datetime import timedelta

    from tamis.errors import UsageError

    units = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
    try:
        if given == "now":
            return now
        if given[-1:] in units and given[:-1].replace(".", "", 1).isdigit():
            return now - float(given[:-1]) * units[given[-1]]
        found = datetime.fromisoformat(given)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{option}: given {given!r}; allowed: a time, {_WHEN}") from None


def _settings(
    log: Path, days: float | None = None, max_bytes: int | None = None
) -> RequestLogSettings:
    """Settings of the log's last service, with what the command says instead."""
    from tamis.config import validate
    from tamis.errors import UsageError
    from tamis.monitoring.log_settings import RequestLogSettings
    from tamis.monitoring.windows import settings_of

    if not log.is_dir():
        raise UsageError(f"--log: given {str(log)!r}; allowed: a folder that there is")
    given = settings_of(log).model_dump(mode="json")
    if days is not None:
        given["retention_days"] = days
    if max_bytes is not None:
        given["max_bytes"] = max_bytes
        given["segment_bytes"] = min(given["segment_bytes"], max(4_096, max_bytes // 2))
    return validate(RequestLogSettings, given, "requests")


def _show(done: Exported, output: Path) -> None:
    from cli.plan import console

    told = f"{done.documents:,} documents, {done.labelled:,} labelled: {output}"
    console.print("[green]✓[/] ", end="")
    console.print(told, markup=False, soft_wrap=True)
    lines = (
        ("left out", f"{done.repeated:,} repeated, {done.without_text:,} without text"),
        ("labels", f"{done.labels:,} came, {done.replaced:,} replaced, {done.unknown:,} unknown"),
        ("next", f"python run.py retrain --window {output}"),
    )
    for name, value in lines:
        console.print(f"  [dim]{name:<10}[/] ", end="")
        console.print(value, markup=False, soft_wrap=True)
