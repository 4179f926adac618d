"""`reserve`, `commit`, `release`, `extend` and `reservation`: one hold, from its first day on."""

from __future__ import annotations

from typing import Any

import click

from holdfast import Context, Line, Reservation
from holdfast_server.cli.client import (
    LINE,
    SECONDS,
    Call,
    calls_server,
    context_options,
)
from holdfast_server.cli.terminal import clock

reservation_argument = click.argument("reservation_id", metavar="ID")
some_lines = click.argument("lines", metavar="[SKU=QUANTITY[@LOCATION]]...", nargs=-1, type=LINE)
sequence_option = click.option(
    "--if-sequence",
    type=click.IntRange(min=0),
    default=0,
    help="Refuse if an item changed after this sequence; 0 = no check.",
)


@click.command()
@click.argument("lines", metavar="SKU=QUANTITY[@LOCATION]...", nargs=-1, required=True, type=LINE)
@click.option("--id", "reservation_id", help="Idempotency key; default: a new one.")
@click.option("--ttl", type=SECONDS, help="How long to hold, such as 30s or 15m.")
@click.option("--allow-partial", is_flag=True, help="Take what there is.")
@click.option("--allow-backorder", is_flag=True, help="Use the items' oversell allowance.")
@click.option("--replaces", default="", metavar="ID", help="Reservation to take the place of.")
@sequence_option
@context_options
@calls_server
async def reserve_command(call: Call, /, lines: tuple[Line, ...], **options: Any) -> None:
    """Hold units for a while, all lines or none."""
    answer = await call.client.reserve(lines, **options)
    _show(call, answer, answer.reservation)


@click.command()
@reservation_argument
@some_lines
@click.option("--order-ref", default="", help="The order it is sold for.")
@sequence_option
@context_options
@calls_server
async def commit_command(
    call: Call, /, reservation_id: str, lines: tuple[Line, ...], **options: Any
) -> None:
    """Turn a hold, or the given lines of it, into a sale."""
    answer = await call.client.commit(reservation_id, lines, **options)
    _show(call, answer, answer.reservation)


@click.command()
@reservation_argument
@some_lines
@context_options
@calls_server
async def release_command(
    call: Call, reservation_id: str, lines: tuple[Line, ...], context: Context | None
) -> None:
    """Give a hold, or the given lines of it, back."""
    answer = await call.client.release(reservation_id, lines, context=context)
    _show(call, answer, answer.reservation)


@click.command()
@reservation_argument
@click.argument("ttl", type=SECONDS)
@context_options
@calls_server
async def extend_command(
    call: Call, reservation_id: str, ttl: float, context: Context | None
) -> None:
    """Let a hold expire TTL from now, such as 30s or 15m."""
    answer = await call.client.extend(reservation_id, ttl, context=context)
    _show(call, answer, answer.reservation)


@click.command()
@reservation_argument
@calls_server
async def reservation_command(call: Call, reservation_id: str) -> None:
    """Print a reservation, also after it ended."""
    found = await call.client.get_reservation(reservation_id)
    _show(call, found, found)


def _show(call: Call, answer: Any, reservation: Reservation) -> None:
    if call.output.as_json:
        call.output.document(answer)
        return
    call.output.say(f"{reservation.reservation_id} {_state(reservation)}{_replayed(answer)}")
    call.output.table(
        ("sku", "#units", "#backordered", "location"),
        [
            (line.sku, line.quantity, line.backordered, line.location or "anywhere")
            for line in reservation.lines
        ],
    )


def _state(reservation: Reservation) -> str:
    if reservation.ended_at is None:
        return f"{reservation.state} until {clock(reservation.expires_at)}"
    why = reservation.ended_reason  # SUPERSEDED says more than RELEASED
    late = ", late" if reservation.late else ""
    order = f", order {reservation.order_ref}" if reservation.order_ref else ""
    return f"{why} at {clock(reservation.ended_at)}{late}{order}"


def _replayed(answer: Any) -> str:
    return " (replayed)" if getattr(answer, "replayed", False) else ""
