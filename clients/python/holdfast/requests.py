"""Arguments to messages of StockService; shared by both clients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from holdfast.changes import OnGap
from holdfast.errors import InvalidArgument
from holdfast.model import Context, Line, Lines, Seconds, Violation
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2 as types

_ON_GAPS = {choice: pb.OnGap.Value(f"ON_GAP_{choice}") for choice in OnGap}
INT64_MAX = 2**63 - 1
INTERVAL_MAX_S = 315_576_000_000  # 10,000 years: the range of google.protobuf.Duration


def new_id() -> str:
    """Return an id for a new intention."""
    return uuid4().hex


def _bad(field: str, description: str) -> InvalidArgument:
    """Return the error that the server has for a bad argument, for what cannot even be sent."""
    error = InvalidArgument(f"{field} {description}")
    error.violations = (Violation(field, description),)
    return error


def units(field: str, value: int) -> int:
    """Return a number of units.  Raises InvalidArgument for one that no message can carry."""
    if not -INT64_MAX <= value <= INT64_MAX:
        raise _bad(field, f"must fit 64 bits, not {value}")
    return value


def duration(field: str, value: Seconds | None) -> Duration | None:
    """Return an interval as a message.  Raises InvalidArgument for one that is none."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not math.isfinite(seconds) or abs(seconds) > INTERVAL_MAX_S:
        raise _bad(field, f"must be a number of seconds, not {seconds}")
    whole, ms = divmod(round(seconds * 1000), 1000)
    if whole < 0 and ms:  # both parts of a Duration have one sign
        whole, ms = whole + 1, ms - 1000
    return Duration(seconds=whole, nanos=ms * 1_000_000)


def context_message(value: Context | None) -> types.Context | None:
    """Return what an agent says about itself as a message."""
    return types.Context(**value._asdict()) if value else None


def lines_of(lines: Lines) -> tuple[Line, ...]:
    """Return lines, however they were given.  Raises TypeError, naming the line."""
    given = [lines] if isinstance(lines, str | Line) else lines
    return tuple(_line(index, line) for index, line in enumerate(given))


def _line(index: int, line: Any) -> Line:
    try:
        return Line(line) if isinstance(line, str) else Line(*line)
    except TypeError:
        raise _no_line(index, line) from None


def _no_line(index: int, line: Any) -> TypeError:
    return TypeError(f"lines[{index}] must be a Line, (sku, quantity) or a SKU, not {line!r}")


def line_messages(lines: Lines) -> list[types.Line]:
    """Return lines as messages.  Raises TypeError or InvalidArgument, naming the line."""
    given = [lines] if isinstance(lines, str | Line) else lines
    return [_line_message(index, line) for index, line in enumerate(given)]


def _line_message(index: int, line: Any) -> types.Line:
    sku, quantity, location = _line(index, line)
    try:
        return types.Line(
            sku=sku, quantity=units(f"lines[{index}].quantity", quantity), location=location
        )
    except TypeError:
        raise _no_line(index, line) from None


def reserve_request(  # noqa: PLR0913  # one parameter for each of ReserveOptions
    lines: Lines,
    *,
    reservation_id: str | None = None,
    ttl: Seconds | None = None,
    context: Context | None = None,
    allow_partial: bool = False,
    allow_backorder: bool = False,
    if_sequence: int = 0,
    replaces: str = "",
) -> pb.ReserveRequest:
    """Return the request of a Reserve, with an id in any case, so that it can be repeated."""
    return pb.ReserveRequest(
        reservation_id=reservation_id or new_id(),
        lines=line_messages(lines),
        ttl=duration("ttl", ttl),
        context=context_message(context),
        allow_partial=allow_partial,
        allow_backorder=allow_backorder,
        if_sequence=if_sequence,
        replaces=replaces,
    )


def commit_request(
    reservation_id: str,
    lines: Lines,
    *,
    order_ref: str = "",
    context: Context | None = None,
    if_sequence: int = 0,
) -> pb.CommitRequest:
    """Return the request of a Commit."""
    return pb.CommitRequest(
        reservation_id=reservation_id,
        lines=line_messages(lines),
        order_ref=order_ref,
        context=context_message(context),
        if_sequence=if_sequence,
    )


def release_request(
    reservation_id: str, lines: Lines, context: Context | None
) -> pb.ReleaseRequest:
    """Return the request of a Release."""
    return pb.ReleaseRequest(
        reservation_id=reservation_id,
        lines=line_messages(lines),
        context=context_message(context),
    )


def extend_request(reservation_id: str, ttl: Seconds, context: Context | None) -> pb.ExtendRequest:
    """Return the request of an Extend."""
    return pb.ExtendRequest(
        reservation_id=reservation_id,
        ttl=duration("ttl", ttl),
        context=context_message(context),
    )


def get_stock_request(skus: str | Iterable[str], context: Context | None) -> pb.GetStockRequest:
    """Return the request of a GetStock; one SKU may be given as itself."""
    wanted = [skus] if isinstance(skus, str) else skus
    return pb.GetStockRequest(skus=wanted, context=context_message(context))


def watch_request(
    skus: str | Iterable[str],
    *,
    resume_token: str = "",
    on_gap: OnGap | str = OnGap.RESYNC,
    min_interval: Seconds | None = None,
    heartbeat: Seconds | None = None,
) -> pb.WatchRequest:
    """Return the request of a Watch; one SKU may be given as itself, none means all."""
    request = pb.WatchRequest(
        skus=[skus] if isinstance(skus, str) else skus,
        resume_token=resume_token,
        on_gap=_ON_GAPS[OnGap(on_gap)],
        min_interval=duration("min_interval", min_interval),
        heartbeat=duration("heartbeat", heartbeat),
    )
    if request.HasField("heartbeat") and request.heartbeat.ToNanoseconds() <= 0:
        raise _bad("heartbeat", f"must be more than 0 s, not {heartbeat}")
    return request


def key_of(request: Any) -> str:
    """Return the id that makes a request idempotent, or nothing for a read."""
    key: str = getattr(request, "reservation_id", "") or getattr(request, "request_id", "")
    return key
