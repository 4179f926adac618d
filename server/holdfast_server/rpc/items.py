"""Items between messages and values: policies and counts in, items and levels out."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from holdfast.v1 import inventory_pb2 as pb
from holdfast.v1 import types_pb2 as types
from holdfast_server.model import (
    DEFAULT_LOCATION,
    UNITS_MAX,
    AdjustStock,
    Caller,
    Item,
    LocationStock,
    Policy,
    PutItem,
    SetStock,
)
from holdfast_server.rpc import messages
from holdfast_server.rpc.arguments import Arguments

TITLE_BYTES_MAX, NOTE_BYTES_MAX, CHANNELS_MAX = 256, 256, 32
LIFETIME_MAX_MS, HORIZON_MAX_MS = 604_800_000, 3_600_000
_LATE = frozenset({types.LATE_COMMIT_REJECT, types.LATE_COMMIT_RETRY, types.LATE_COMMIT_REVIEW})


def _interval(
    check: Arguments, item: pb.Item, name: str, *, low: int = 100, high: int = 86_400_000
) -> int | None:
    if not item.HasField(name):  # type: ignore[arg-type]  # one of four fields, by name
        return None
    value: Duration = getattr(item, name)
    return check.duration_ms(f"item.{name}", value, low=low, high=high)


def _units(check: Arguments, item: pb.Item, name: str, *, high: int = UNITS_MAX) -> int | None:
    if not item.HasField(name):  # type: ignore[arg-type]  # an optional field, by name
        return None
    value: int = getattr(item, name)
    if not 0 <= value <= high:
        check.bad(f"item.{name}", f"must be from 0 to {high}")
    return value


def _text(check: Arguments, item: pb.Item, name: str, bytes_max: int) -> str | None:
    if not item.HasField(name):  # type: ignore[arg-type]  # an optional field, by name
        return None
    value: str = getattr(item, name)
    check.text(f"item.{name}", value, bytes_max=bytes_max)
    return value


def policy(check: Arguments, item: pb.Item) -> Policy:
    """Check and return the policy an item message sets; absent fields keep what is."""
    late = item.late_commit or None
    if late is not None and late not in _LATE:
        check.bad("item.late_commit", "must be REJECT, RETRY or REVIEW")
    return Policy(
        _units(check, item, "safety_stock"),
        _units(check, item, "oversell_limit"),
        _units(check, item, "oversell_share", high=100),
        _units(check, item, "plenty_at"),
        _units(check, item, "low_at"),
        _units(check, item, "scarce_at"),
        _interval(check, item, "hold_ttl_default"),
        _interval(check, item, "hold_ttl_max"),
        _interval(check, item, "hold_lifetime_max", high=LIFETIME_MAX_MS),
        late,
        _interval(check, item, "sellout_horizon", low=0, high=HORIZON_MAX_MS),
        _text(check, item, "title", TITLE_BYTES_MAX),
        _text(check, item, "system_of_record", 128),
    )


def _channels(check: Arguments, item: pb.Item) -> tuple[tuple[str, int | None], ...]:
    if len(item.channels) > CHANNELS_MAX:
        check.bad("item.channels", f"must number at most {CHANNELS_MAX}")
    quotas = []
    for index, entry in enumerate(item.channels):
        field = f"item.channels[{index}]"
        if not entry.channel:
            check.bad(f"{field}.channel", "must not be empty")
        check.text(f"{field}.channel", entry.channel, bytes_max=128)
        quota = entry.quota if entry.HasField("quota") else None
        if quota is not None:
            check.units(f"{field}.quota", quota, low=0)
        quotas.append((entry.channel, quota))
    return tuple(quotas)


def put_item(request_id: str, item: pb.Item, caller: Caller) -> PutItem:
    """Return the operation of a PutItem.  Raises InvalidArgument."""
    check = Arguments()
    request_id = check.new_identifier("request_id", request_id)
    check.sku("item.sku", item.sku)
    operation = PutItem(request_id, caller, item.sku, policy(check, item), _channels(check, item))
    check.done()
    return operation


def _notes(check: Arguments, request: pb.AdjustStockRequest | pb.SetStockRequest) -> None:
    check.sku("sku", request.sku)
    check.location("location", request.location)
    check.text("reason", request.reason, bytes_max=NOTE_BYTES_MAX)
    check.text("reference", request.reference, bytes_max=NOTE_BYTES_MAX)


def adjust_stock(request: pb.AdjustStockRequest, caller: Caller) -> AdjustStock:
    """Return the operation of an AdjustStock.  Raises InvalidArgument."""
    check = Arguments()
    request_id = check.new_identifier("request_id", request.request_id)
    _notes(check, request)
    if not request.delta or abs(request.delta) > UNITS_MAX:
        check.bad("delta", f"must be from -{UNITS_MAX} to {UNITS_MAX}, and not 0")
    check.done()
    return AdjustStock(
        request_id,
        caller,
        request.sku,
        request.delta,
        request.location or DEFAULT_LOCATION,
        request.reason,
        request.reference,
    )


def set_stock(request: pb.SetStockRequest, caller: Caller) -> SetStock:
    """Return the operation of a SetStock.  Raises InvalidArgument."""
    check = Arguments()
    request_id = check.new_identifier("request_id", request.request_id)
    _notes(check, request)
    check.units("on_hand", request.on_hand, low=0)
    expected = request.expected_on_hand if request.HasField("expected_on_hand") else None
    as_of = request.as_of_sequence if request.HasField("as_of_sequence") else None
    if expected is not None and as_of is not None:
        check.bad("as_of_sequence", "must not be set together with expected_on_hand")
    if expected is not None and abs(expected) > UNITS_MAX:
        check.bad("expected_on_hand", f"must be within {UNITS_MAX}")
    check.sequence("as_of_sequence", as_of or 0)
    check.done()
    return SetStock(
        request_id,
        caller,
        request.sku,
        request.on_hand,
        request.location or DEFAULT_LOCATION,
        expected,
        as_of,
        reason=request.reason,
        reference=request.reference,
    )


def item_message(value: Item) -> pb.Item:
    """Return an item's policy as a message with every field set."""
    level = value.level
    return pb.Item(
        sku=level.sku,
        title=value.title,
        safety_stock=level.safety_stock,
        oversell_limit=level.oversell_limit,
        oversell_share=level.oversell_share,
        plenty_at=level.plenty_at,
        low_at=level.low_at,
        scarce_at=level.scarce_at,
        hold_ttl_default=messages.duration(level.hold_ttl_default_ms),
        hold_ttl_max=messages.duration(level.hold_ttl_max_ms),
        hold_lifetime_max=messages.duration(level.hold_lifetime_max_ms),
        late_commit=level.late_commit,  # type: ignore[arg-type]  # the same numbers, tested
        sellout_horizon=messages.duration(level.sellout_horizon_ms),
        system_of_record=value.system_of_record,
        channels=[
            pb.ChannelQuota(channel=entry.channel, quota=entry.quota, used=entry.used)
            for entry in value.channels
        ],
    )


def location_message(value: LocationStock) -> pb.LocationStock:
    """Return the stock of one location as a message."""
    return pb.LocationStock(
        location=value.location,
        on_hand=value.on_hand,
        held=value.held,
        committed=value.committed,
        revision=value.revision,
    )
