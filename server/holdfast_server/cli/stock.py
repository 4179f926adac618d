"""`items` and `stock`: what there is, and how much of it can be had."""

from __future__ import annotations

import click

from holdfast import StockLevel
from holdfast_server.cli.client import Call, calls_server
from holdfast_server.cli.terminal import Failure

ITEM_COLUMNS = (
    "sku",
    "title",
    "#on hand",
    "#held",
    "#committed",
    "#safety",
    "#available",
    "pressure",
)
LEVEL_COLUMNS = (
    *("sku", "#available", "#on hand", "#held", "#committed", "#safety", "#oversell left"),
    *("pressure", "advice", "retry after", "#revision"),
)


@click.command()
@click.option("--prefix", default="", help="Only SKUs that start so.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many; default all.")
@calls_server
async def items_command(call: Call, prefix: str, limit: int | None) -> None:
    """List items with their levels, in order of SKU."""
    rows = []
    page_size = min(limit or 1_000, 1_000)
    async for entry in call.client.list_items(prefix, page_size=page_size):
        if call.output.as_json:
            call.output.document(entry)
        level = entry.level
        numbers = (level.on_hand, level.held, level.committed, level.safety_stock, level.available)
        rows.append((level.sku, entry.item.title, *numbers, level.pressure))
        if len(rows) == limit:
            break
    if not call.output.as_json:
        call.output.table(ITEM_COLUMNS, rows)


@click.command()
@click.argument("skus", metavar="SKU...", nargs=-1, required=True)
@calls_server
async def stock_command(call: Call, skus: tuple[str, ...]) -> None:
    """Print the levels of some SKUs, all as of one moment."""
    found = await call.client.get_stock(skus)
    if call.output.as_json:
        call.output.document(found)
    else:
        call.output.table(LEVEL_COLUMNS, [level_row(level) for level in found.levels])
    if found.missing_skus:
        missing = ", ".join(found.missing_skus)
        as_json = call.output.as_json
        raise Failure(f"no such SKU: {missing}", reason="UNKNOWN_SKU", as_json=as_json)


def level_row(level: StockLevel) -> tuple[object, ...]:
    return (
        level.sku,
        level.available,
        level.on_hand,
        level.held,
        level.committed,
        level.safety_stock,
        level.oversell_left,
        level.pressure,
        level.advice,
        f"{level.retry_after:g} s" if level.retry_after else "",
        level.revision,
    )
