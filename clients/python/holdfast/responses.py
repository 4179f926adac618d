"""Messages of StockService to values; shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.changes import ServerLoad
from holdfast.errors import Refused, leaves
from holdfast.model import (
    Advice,
    Committed,
    Context,
    EndedReason,
    Extended,
    Levels,
    Pressure,
    RefusedLine,
    Released,
    Reservation,
    ReservationLine,
    ReservationState,
    Reserved,
    Source,
    Stock,
    StockLevel,
)
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2 as types

E = TypeVar("E", bound=StrEnum)

NO_CONTEXT = Context()
LOAD_KEY = "holdfast-load"


def numbered(kind: type[E], proto: Any, prefix: str) -> Mapping[int, E]:
    """Return the members of an enumeration by their number in the contract."""
    return {proto.Value(f"{prefix}_{member}"): member for member in kind}


_STATES = numbered(ReservationState, types.ReservationState, "RESERVATION_STATE")
_ENDED_REASONS = numbered(EndedReason, types.EndedReason, "ENDED_REASON")
_PRESSURES = numbered(Pressure, types.Pressure, "PRESSURE")
_ADVICE = numbered(Advice, types.Advice, "ADVICE")
_SOURCES = numbered(Source, types.Source, "SOURCE")
_LOADS = numbered(ServerLoad, pb.ServerLoad, "SERVER_LOAD")
_LOADS_IN_TRAILERS: Mapping[str | bytes, ServerLoad] = {load.lower(): load for load in ServerLoad}
REFUSALS: Mapping[int, type[Refused]] = {
    types.RefusalReason.Value(f"REFUSAL_REASON_{refusal.reason}"): refusal
    for refusal in leaves(Refused)
}


def time_of(message: Timestamp) -> datetime:
    """Return a time of the server."""
    return datetime.fromtimestamp(message.seconds + message.nanos / 1e9, UTC)


def seconds_of(message: Duration) -> float:
    """Return an interval in seconds."""
    return message.seconds + message.nanos / 1e9


def context_of(message: types.Context) -> Context:
    """Return what an agent said about itself."""
    return Context(
        message.agent_id,
        message.session_id,
        message.channel,
        message.external_ref,
        message.rationale,
    )


def reservation_of(message: types.Reservation) -> Reservation:
    """Return the record of a reservation."""
    return Reservation(
        message.reservation_id,
        _STATES.get(message.state, ReservationState.UNSPECIFIED),
        tuple(
            ReservationLine(line.sku, line.quantity, line.backordered, line.location)
            for line in message.lines
        ),
        context_of(message.context) if message.HasField("context") else NO_CONTEXT,
        time_of(message.created_at),
        time_of(message.expires_at),
        time_of(message.ended_at) if message.HasField("ended_at") else None,
        _ENDED_REASONS.get(message.ended_reason, EndedReason.UNSPECIFIED),
        message.order_ref,
        message.late,
        message.sequence,
        message.principal,
        message.replaced_by,
    )


def level_of(message: types.StockLevel) -> StockLevel:
    """Return the level of one item."""
    return StockLevel(
        message.sku,
        message.available,
        message.on_hand,
        message.held,
        message.committed,
        message.safety_stock,
        message.oversell_left,
        message.revision,
        _PRESSURES.get(message.pressure, Pressure.UNSPECIFIED),
        _ADVICE.get(message.advice, Advice.UNSPECIFIED),
        seconds_of(message.retry_after) if message.HasField("retry_after") else 0.0,
        time_of(message.as_of),
    )


def levels_of(messages: Iterable[types.StockLevel]) -> Levels:
    """Return levels."""
    return tuple(level_of(message) for message in messages)


def refused_line_of(message: types.RefusalLine) -> RefusedLine:
    """Return a line that could not be had."""
    expires = message.HasField("next_expiry_at")
    return RefusedLine(
        message.sku,
        message.location,
        message.requested,
        message.available,
        time_of(message.next_expiry_at) if expires else None,
    )


def refused_of(message: pb.ReserveResponse | pb.CommitResponse, key: str) -> Refused:
    """Return the refusal of a reserve or commit as an error; `key` is the reservation_id."""
    refusal = message.refusal
    error = REFUSALS.get(refusal.reason, Refused)(refusal.message)
    error.lines = tuple(map(refused_line_of, refusal.lines))
    error.levels = levels_of(message.levels)
    error.sequence = message.sequence
    error.idempotency_key = key
    return error


def reserved_of(message: pb.ReserveResponse, key: str) -> Reserved:
    """Return the answer to a reserve.  Raises the Refused that it is."""
    if message.HasField("refusal"):
        raise refused_of(message, key)
    return Reserved(
        reservation_of(message.reservation),
        levels_of(message.levels),
        message.sequence,
        message.replayed,
    )


def committed_of(message: pb.CommitResponse, key: str) -> Committed:
    """Return the answer to a commit.  Raises the Refused that it is."""
    if message.HasField("refusal"):
        raise refused_of(message, key)
    return Committed(
        reservation_of(message.reservation),
        levels_of(message.levels),
        message.sequence,
        message.replayed,
    )


def released_of(message: pb.ReleaseResponse) -> Released:
    """Return the answer to a release."""
    return Released(
        reservation_of(message.reservation),
        levels_of(message.levels),
        message.sequence,
        message.replayed,
    )


def extended_of(message: pb.ExtendResponse) -> Extended:
    """Return the answer to an extend."""
    return Extended(reservation_of(message.reservation), message.sequence, message.replayed)


def stock_of(message: pb.GetStockResponse) -> Stock:
    """Return the answer to a get_stock."""
    return Stock(
        levels_of(message.levels),
        tuple(message.missing_skus),
        message.sequence,
        _SOURCES.get(message.source, Source.UNSPECIFIED),
        seconds_of(message.staleness),
        message.query_id,
    )


def load_of(message: pb.ServerPressure) -> ServerLoad:
    """Return what a server asks of its clients; nothing said is nothing asked."""
    load = _LOADS.get(message.load, ServerLoad.NORMAL)
    return ServerLoad.NORMAL if load is ServerLoad.UNSPECIFIED else load


def min_interval_of(message: pb.ServerPressure) -> float:
    """Return the interval in seconds that a server suggests to its clients, 0 for none."""
    if not message.HasField("suggested_min_interval"):
        return 0.0
    return seconds_of(message.suggested_min_interval)


def load_in(trailers: Iterable[tuple[str, str | bytes]] | None) -> ServerLoad:
    """Return what the trailing metadata of a unary call say of the server's load."""
    for key, value in trailers or ():
        if key == LOAD_KEY:
            return _LOADS_IN_TRAILERS.get(value, ServerLoad.NORMAL)
    return ServerLoad.NORMAL
