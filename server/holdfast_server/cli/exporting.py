"""`audit export`: the ledger as a file for other tools."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from holdfast import EntryFilter, LedgerEntry
from holdfast_server.cli.client import Call, calls_server
from holdfast_server.cli.terminal import Failure, plain

PAGE_SIZE = 1_000
ROWS = 10_000  # of a row group


@click.command("export")
@click.option("--from", "first", type=click.IntRange(min=1), help="First sequence.")
@click.option("--to", "last", type=click.IntRange(min=1), help="Last sequence; default: the end.")
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True
)
@click.option(
    "--output", "file", type=click.Path(dir_okay=False, path_type=Path), help="Default: stdout."
)
@calls_server
async def export_command(
    call: Call, /, first: int | None, last: int | None, form: str, file: Path | None
) -> None:
    """Write entries of the ledger, one JSON document a line or as Parquet.

    Parquet keeps what is nested (reservation, item) as JSON text.
    """
    as_json = call.output.as_json
    wanted: EntryFilter = {"page_size": PAGE_SIZE}
    if first:
        wanted["from_sequence"] = first
    if last:
        wanted["through_sequence"] = last
    entries = call.client.list_entries(**wanted)
    if form == "jsonl":
        count = await _write_lines(entries, file)
    elif file is None:
        raise Failure("Parquet needs --output FILE", as_json=as_json)
    else:
        try:
            count = await _write_parquet(entries, file)
        except ModuleNotFoundError as missing:
            raise Failure(
                f"{missing.name} is not installed: pip install 'holdfast[parquet]'", as_json=as_json
            ) from missing
    if file:
        call.output.say(f"{count} entries written to {file}")


async def _write_lines(entries: AsyncIterator[LedgerEntry], file: Path | None) -> int:
    count = 0
    with click.open_file(str(file or "-"), "w", encoding="utf-8") as out:
        async for entry in entries:
            out.write(json.dumps(plain(entry), ensure_ascii=False) + "\n")
            count += 1
    return count


async def _write_parquet(entries: AsyncIterator[LedgerEntry], file: Path) -> int:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    schema, count, rows = _schema(arrow), 0, list[dict[str, Any]]()
    with parquet.ParquetWriter(file, schema) as writer:
        async for entry in entries:
            rows.append(_row(entry))
            count += 1
            if len(rows) == ROWS:
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                rows.clear()
        writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
    return count


def _schema(arrow: Any) -> Any:
    text, number = arrow.string(), arrow.int64()
    counters = ("on_hand", "held", "committed", "backordered")
    move = [("sku", text), ("location", text), *((name, number) for name in counters)]
    context = ("agent_id", "session_id", "channel", "external_ref", "rationale")
    return arrow.schema(
        [
            *(("sequence", number), ("epoch", number), ("cell", arrow.int32())),
            ("time", arrow.timestamp("ms", tz="UTC")),
            *((name, text) for name in ("kind", "id", "principal")),
            ("movements", arrow.list_(arrow.struct(move))),
            *((name, text) for name in (*context, "order_ref", "reason", "reference")),
            *(("reservation", text), ("item", text)),
        ]
    )


def _row(entry: LedgerEntry) -> dict[str, Any]:
    row = entry._asdict() | entry.context._asdict()
    row["kind"] = str(entry.kind)
    row["movements"] = [move._asdict() for move in entry.movements]
    for name in ("reservation", "item"):
        row[name] = json.dumps(plain(row[name]), ensure_ascii=False) if row[name] else None
    return row
