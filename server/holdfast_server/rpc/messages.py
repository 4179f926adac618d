"""Values to messages."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import types_pb2 as types
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


def level(value: Level, now_ms: int) -> types.StockLevel:
    """Return a level with its signal, as of a moment."""
    pressure, advice, retry_after_ms = signal_of(value)
    message = types.StockLevel(
        sku=value.sku,
        available=value.available,
        on_hand=value.on_hand,
        held=value.held,
        committed=value.committed,
        safety_stock=value.safety_stock,
        oversell_left=value.oversell_left,
        revision=value.revision,
        pressure=pressure.value,  # type: ignore[arg-type]  # the same numbers, tested
        advice=advice.value,  # type: ignore[arg-type]
        as_of=timestamp(now_ms),
    )
    if retry_after_ms:
        message.retry_after.CopyFrom(duration(retry_after_ms))
    return message


def levels(outcome: Outcome) -> list[types.StockLevel]:
    """Return the levels an outcome saw, each SKU once."""
    seen = outcome.levels
    if len(seen) > 1:
        seen = tuple({value.sku: value for value in seen if value}.values())
    return [level(value, outcome.now_ms) for value in seen if value]


def context(value: Context) -> types.Context:
    """Return what a caller said about itself."""
    return types.Context(
        agent_id=value.agent_id,
        session_id=value.session_id,
        channel=value.channel,
        external_ref=value.external_ref,
        rationale=value.rationale,
    )


def reservation(value: Reservation) -> types.Reservation:
    """Return the record of a reservation."""
    message = types.Reservation(
        reservation_id=value.reservation_id,
        state=value.state.value,  # type: ignore[arg-type]  # the same numbers, tested
        lines=[
            types.ReservationLine(
                sku=sku, quantity=quantity, backordered=backordered, location=location
            )
            for sku, quantity, backordered, location in value.lines
        ],
        created_at=timestamp(value.created_ms),
        expires_at=timestamp(value.expires_ms),
        sequence=value.sequence,
        principal=value.principal,
    )
    if any(value.context):
        message.context.CopyFrom(context(value.context))
    if value.state is not State.HELD:
        _add_end(message, value)
    return message


def _add_end(message: types.Reservation, value: Reservation) -> None:
    message.ended_at.CopyFrom(timestamp(value.ended_ms))
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
