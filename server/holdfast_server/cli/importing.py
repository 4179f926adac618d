"""`import`: a catalogue file into items and counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeVar
from uuid import uuid4

import click
from rich.console import Console
from rich.progress import track

from holdfast import Imported
from holdfast_server import catalogue
from holdfast_server.catalogue import Catalogue, CatalogueError
from holdfast_server.cli.client import Call, calls_server
from holdfast_server.cli.terminal import Failure, Output

T = TypeVar("T")


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--strict", is_flag=True, help="Load nothing if any row is bad.")
@click.option(
    "--count",
    type=click.Choice(["on_hand", "available"]),
    default="on_hand",
    show_default=True,
    help="What of a Shopify export becomes on_hand.",
)
@click.option("--request-id", help="Repeat an import that broke off; default: a new one.")
@calls_server
async def import_command(
    call: Call,
    file: BinaryIO,
    strict: bool,
    count: catalogue.CountOf,
    request_id: str | None,
) -> None:
    """Load items and counts from FILE (- for standard input).

    FILE is a Shopify inventory export, a CSV with sku, on_hand and, if there are any, location,
    safety_stock, oversell_limit and title, or JSON lines with these keys. Bad rows are reported
    by their line, the others are loaded, and the exit status is 1.
    """
    output, name = call.output, file.name
    try:
        found = catalogue.parse(file.read(catalogue.FILE_BYTES_MAX + 1), count=count)
    except CatalogueError as error:
        raise Failure(f"{name}: {error}", as_json=output.as_json) from error
    if strict and found.bad:
        line, reason = found.bad[0]
        what = f"{name}: line {line}: {reason}; nothing was loaded"
        raise Failure(what, as_json=output.as_json)
    request_id = request_id or uuid4().hex
    rows = _counted(catalogue.to_rows(found), len(found.items), output)
    loaded = await call.client.import_items(rows, request_id=request_id)
    _report(output, found, loaded, request_id)
    if found.bad or loaded.failed:
        raise click.exceptions.Exit(1)


def _counted(rows: Iterable[T], total: int, output: Output) -> Iterator[T]:
    """Yield rows, with a progress bar on a terminal."""
    console = Console(stderr=True)
    quiet = output.as_json or not console.is_terminal
    yield from track(rows, "importing", total, console=console, disable=quiet, transient=True)


def _report(output: Output, found: Catalogue, loaded: Imported, request_id: str) -> None:
    problems = [(note.line, note.reason) for note in found.bad]
    problems += [(error.row, f"{error.sku}: {error.message}") for error in loaded.errors]
    problems.sort()
    if output.as_json:
        output.document(
            {
                "request_id": request_id,
                "rows": found.rows,
                "items": loaded.imported,
                "failed_items": loaded.failed,
                "bad": [{"line": line, "reason": reason} for line, reason in problems],
                "skipped": found.skipped,
                "ignored_columns": sorted(found.ignored),
                "kept_back": found.kept_back,
                "sequence": loaded.sequence,
            }
        )
        return
    for line, reason in problems:
        click.echo(f"line {line}: {reason}", err=True)
    output.say(f"{found.rows} rows read, {loaded.imported} items loaded")
    if problems:
        output.say(f"{len(problems)} problems, listed on standard error")
    if found.skipped:
        output.say(f"{len(found.skipped)} counts skipped: not stocked there")
    if found.ignored:
        output.say(f"columns without a use here: {', '.join(sorted(found.ignored))}")
    if found.kept_back:
        output.say(
            f"{found.kept_back} units on hand are committed or unavailable in the file; they can be"
            " sold here, unless you import again with --count available"
        )
