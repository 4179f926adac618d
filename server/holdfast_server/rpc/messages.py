"""Values to messages.

What every answer carries is filled in where it stands in the answer (`put_*`): building a part and
copying it in costs twice as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.engine.load import ServerLoad
from holdfast_server.model import (
    Code,
    Context,
    Level,
    Outcome,
    RefusedLine,
    Reservation,
    State,
)
from holdfast_server.pressure import signal_of

if TYPE_CHECKING:  # the container is protobuf's own affair at run time
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    _Levels = RepeatedCompositeFieldContainer[types.StockLevel]

_REASONS = {
    Code.OUT_OF_STOCK: types.REFUSAL_REASON_OUT_OF_STOCK,
    Code.STOCK_CHANGED: types.REFUSAL_REASON_STOCK_CHANGED,
    Code.CHANNEL_QUOTA: types.REFUSAL_REASON_CHANNEL_QUOTA,
    Code.HOLD_BUDGET: types.REFUSAL_REASON_HOLD_BUDGET,
    Code.STOCK_LOST: types.REFUSAL_REASON_STOCK_LOST,
}
_WORDS = {
    Code.OUT_OF_STOCK: "not enough stock",
    Code.STOCK_CHANGED: "the stock changed after if_sequence",
    Code.CHANNEL_QUOTA: "the channel's quota is used up",
    Code.HOLD_BUDGET: "the principal holds as much as it may",
    Code.STOCK_LOST: "a recount took the units away",
}
_ENDED = {
    State.COMMITTED: types.ENDED_REASON_COMMITTED,
    State.RELEASED: types.ENDED_REASON_RELEASED,
    State.EXPIRED: types.ENDED_REASON_EXPIRED,
    State.HELD: types.ENDED_REASON_UNSPECIFIED,
}


def timestamp(ms: int) -> Timestamp:
    """Return a time in ms since the Unix epoch as a message."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def duration(ms: int) -> Duration:
    """Return an interval in ms as a message."""
    return Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def _put_time(message: Timestamp, ms: int) -> None:
    message.seconds, rest = divmod(ms, 1000)
    message.nanos = rest * 1_000_000


def put_level(message: types.StockLevel, value: Level, now_ms: int) -> types.StockLevel:
    """Fill in a level with its signal, as of a moment."""
    pressure, advice, retry_after_ms = signal_of(value, now_ms)
    message.sku = value.sku
    message.available = value.available
    message.on_hand = value.on_hand
    message.held = value.held
    message.committed = value.committed
    message.safety_stock = value.safety_stock
    message.oversell_left = value.oversell_left
    message.revision = value.revision
    message.pressure = pressure  # type: ignore[assignment]  # the same numbers, tested
    message.advice = advice  # type: ignore[assignment]
    _put_time(message.as_of, now_ms)
    if retry_after_ms:
        message.retry_after.CopyFrom(duration(retry_after_ms))
    return message


def level(value: Level, now_ms: int) -> types.StockLevel:
    """Return a level with its signal, as of a moment."""
    return put_level(types.StockLevel(), value, now_ms)


def put_levels(messages: _Levels, outcome: Outcome) -> None:
    """Fill in the levels an outcome saw, each SKU once."""
    seen = outcome.levels
    if len(seen) > 1:
        seen = tuple({value.sku: value for value in seen if value}.values())
    for value in seen:
        if value:
            put_level(messages.add(), value, outcome.now_ms)


def context(value: Context) -> types.Context:
    """Return what a caller said about itself."""
    return types.Context(
        agent_id=value.agent_id,
        session_id=value.session_id,
        channel=value.channel,
        external_ref=value.external_ref,
        rationale=value.rationale,
    )


def put_reservation(message: types.Reservation, value: Reservation) -> None:
    """Fill in the record of a reservation."""
    message.reservation_id = value.reservation_id
    message.state = value.state  # type: ignore[assignment]  # the same numbers, tested
    message.sequence = value.sequence
    message.principal = value.principal
    lines = message.lines
    for sku, quantity, backordered, location in value.lines:
        lines.add(sku=sku, quantity=quantity, backordered=backordered, location=location)
    _put_time(message.created_at, value.created_ms)
    _put_time(message.expires_at, value.expires_ms)
    if any(value.context):
        message.context.CopyFrom(context(value.context))
    if value.state is not State.HELD:
        _put_end(message, value)


def _put_end(message: types.Reservation, value: Reservation) -> None:
    _put_time(message.ended_at, value.ended_ms)
    message.ended_reason = _ENDED[value.state]
    message.order_ref = value.order_ref
    message.late = value.late
    if value.replaced_by:
        message.replaced_by = value.replaced_by
        message.ended_reason = types.ENDED_REASON_SUPERSEDED


def _refused_line(line: RefusedLine) -> types.RefusalLine:
    message = types.RefusalLine(
        sku=line.sku,
        location=line.location,
        requested=line.requested,
        available=line.available,
    )
    if line.next_expiry_ms:
        message.next_expiry_at.CopyFrom(timestamp(line.next_expiry_ms))
    return message


def refusal(outcome: Outcome) -> types.Refusal:
    """Return a refusal with what could be had instead."""
    code = Code(outcome.code)
    lines: Iterable[RefusedLine] = outcome.detail
    return types.Refusal(
        reason=_REASONS[code],
        lines=[_refused_line(line) for line in lines],
        message=_WORDS[code],
    )


def server_pressure(load: ServerLoad) -> stock.ServerPressure:
    """Return what a server of this load asks of all clients."""
    message = stock.ServerPressure(load=load)  # type: ignore[arg-type]  # same numbers, tested
    if load.suggested_min_interval_ms:
        message.suggested_min_interval.CopyFrom(duration(load.suggested_min_interval_ms))
    return message
