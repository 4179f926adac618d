"""`audit show`, `audit stock`, `audit explain`: the past, as a server with an archive tells it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from holdfast import StockExplanation, StockTerm, UnknownReservation
from holdfast_server.cli.client import Call, calls_server
from holdfast_server.cli.stock import LEVEL_COLUMNS, level_row
from holdfast_server.cli.story import story_of
from holdfast_server.cli.terminal import Failure

SHOWN = 20  # changes of a term that are printed for people
COUNTED = {
    StockTerm.ON_HAND: "+",
    StockTerm.HELD: "-",
    StockTerm.COMMITTED: "-",
    StockTerm.SAFETY_STOCK: "-",
}


class MomentType(click.ParamType[int | datetime]):
    """A sequence, or a time in ISO 8601, local where it names no zone."""

    name = "moment"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | datetime:
        """Return the moment; the server checks whether it is in the ledger."""
        if isinstance(value, int | datetime):
            return value
        if value.isascii() and value.isdigit():
            return int(value)
        try:
            return datetime.fromisoformat(value).astimezone()
        except ValueError:
            self.fail(f"{value!r} is no sequence, and no time such as 2026-05-01T12:00", param, ctx)


@click.command("show")
@click.argument("subject", metavar="ID")
@calls_server
async def show_command(call: Call, subject: str) -> None:
    """Tell the story of a reservation, or of a query, by its ID.

    What the agent saw, what was decided by which policy, and what happened afterwards.  Exit 1 if
    a decision does not come out again as it was.
    """
    try:
        decisions = await call.client.replay_decision(subject)
    except UnknownReservation:
        decisions = await call.client.replay_decision(query_id=subject)
    for decision in decisions:
        if call.output.as_json:
            call.output.document(decision)
    if not call.output.as_json:
        call.output.say(story_of(subject, decisions))
    if not all(decision.reproduced for decision in decisions):
        raise click.exceptions.Exit(1)


@click.command("stock")
@click.argument("skus", metavar="SKU...", nargs=-1, required=True)
@click.option("--at", "moment", type=MomentType(), required=True, help="A sequence, or a time.")
@calls_server
async def stock_command(call: Call, skus: tuple[str, ...], moment: int | datetime) -> None:
    """Print the levels of some SKUs as of a moment, worked out from the ledger."""
    if isinstance(moment, datetime):
        found = await call.client.replay_stock(skus, time=moment)
    else:
        found = await call.client.replay_stock(skus, sequence=moment)
    if call.output.as_json:
        call.output.document(found)
    else:
        call.output.say(f"after #{found.sequence}")
        call.output.table(LEVEL_COLUMNS, [level_row(level) for level in found.levels])
    if found.missing_skus:
        missing = ", ".join(found.missing_skus)
        words = f"not there at that moment: {missing}"
        raise Failure(words, reason="UNKNOWN_SKU", as_json=call.output.as_json)


@click.command("explain")
@click.argument("sku")
@click.option("--at", "sequence", type=click.IntRange(min=1), help="A sequence; default: the end.")
@calls_server
async def explain_command(call: Call, sku: str, sequence: int | None) -> None:
    """Print what made the level of a SKU: each of its terms, entry by entry."""
    found = await call.client.explain_stock(sku, sequence=sequence or 0)
    if call.output.as_json:
        call.output.document(found)
    else:
        _explain(call, found)


def _explain(call: Call, found: StockExplanation) -> None:
    level = found.level
    call.output.say(f"{level.sku} after #{found.sequence}: {level.available} available")
    for term in found.terms:
        name = term.term.lower().replace("_", " ")
        call.output.say(f"\n{COUNTED.get(term.term, ' ')} {name:<18} {term.units:>10}")
        shown = term.changes[-SHOWN:]
        earlier = term.units - sum(change.units for change in shown)
        if earlier or len(shown) < len(term.changes):
            call.output.say(f"    {'earlier':<16} {earlier:>+10}")
        for change in shown:
            where = f"#{change.sequence}"
            call.output.say(f"    {where:<16} {change.units:>+10}  {change.kind}  {change.id}")
