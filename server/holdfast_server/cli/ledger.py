"""`ledger` and `check`: what happened, and whether the promises were kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import click

from holdfast import EntryFilter, LedgerEntry, Movement
from holdfast_server.checks import Verdict, check_server
from holdfast_server.cli.client import Call, calls_server
from holdfast_server.cli.terminal import Output, clock

NEWEST = 50


@click.command()
@click.option("--from", "from_sequence", type=click.IntRange(min=1), help="First sequence.")
@click.option("--through", "through_sequence", type=click.IntRange(min=1), help="Last sequence.")
@click.option("--sku", default="", help="Only entries that move or put this item.")
@click.option("--reservation", "reservation_id", default="", help="Only entries of this one.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new entries as they come.")
@calls_server
async def ledger_command(
    call: Call, /, follow: bool, from_sequence: int | None, **wanted: Any
) -> None:
    """Print the ledger: without a choice, its newest 50 entries."""
    chosen: EntryFilter = {name: value for name, value in wanted.items() if value}  # type: ignore[assignment]  # the options are named as its keys
    if follow and "through_sequence" in chosen:
        raise click.UsageError("--follow has no end, so it excludes --through")
    (head,) = await call.client.get_head()
    if from_sequence:
        chosen["from_sequence"] = from_sequence
    elif not chosen:
        chosen["from_sequence"] = max(head.first_sequence, head.sequence - NEWEST + 1)
    if follow:
        chosen["through_sequence"] = head.sequence
    if chosen.get("from_sequence", 0) <= head.sequence:
        async for entry in call.client.list_entries(**chosen):
            _show(call.output, entry)
    if follow:
        async for entry in _new_entries(call, head.sequence, chosen):
            _show(call.output, entry)


async def _new_entries(call: Call, after: int, wanted: EntryFilter) -> AsyncIterator[LedgerEntry]:
    start = max(after + 1, wanted.get("from_sequence", 0))
    async for entry in call.client.stream_entries(after + 1):
        if entry.sequence < start or wanted.get("reservation_id", entry.id) != entry.id:
            continue
        skus = {move.sku for move in entry.movements}
        if entry.item is not None:
            skus.add(entry.item.sku)
        if not wanted.get("sku") or wanted["sku"] in skus:
            yield entry


def _show(output: Output, entry: LedgerEntry) -> None:
    if output.as_json:
        output.document(entry)
        return
    moves = ", ".join(map(moves_words, entry.movements))
    who = entry.principal or "-"
    output.say(
        f"{entry.sequence:>8}  {clock(entry.time)}  {entry.kind:<12}  {entry.id}  {who}  {moves}"
    )


def moves_words(move: Movement) -> str:
    """Return what moved of one item, in words."""
    where = f"@{move.location}" if move.location else ""
    changes = [
        f"{name} {getattr(move, name):+d}"
        for name in ("on_hand", "held", "committed", "backordered")
        if getattr(move, name)
    ]
    return f"{move.sku}{where} {' '.join(changes)}"


@click.command()
@calls_server
async def check_command(call: Call) -> None:
    """Check the promises against everything the server recorded; exit 1 if one is broken."""
    verdicts = await check_server(call.client)
    show_verdicts(call.output, verdicts)
    if not all(verdict.holds for verdict in verdicts):
        raise click.exceptions.Exit(1)


def show_verdicts(output: Output, verdicts: list[Verdict]) -> None:
    """Print verdicts, and what broke a promise."""
    if output.as_json:
        output.document({"holds": all(verdict.holds for verdict in verdicts), "checks": verdicts})
        return
    output.table(
        ("check", "verdict", "#looked at"),
        [
            (verdict.name, "holds" if verdict.holds else "BROKEN", verdict.looked_at)
            for verdict in verdicts
        ],
    )
    for verdict in verdicts:
        for violation in verdict.violations:
            output.say(f"{verdict.name}: {violation}")
