"""What callers ask for: one value an operation."""

from __future__ import annotations

from typing import NamedTuple

UNITS_MAX = 1_000_000_000
LINES_MAX = 100
SKUS_MAX = 1000
DEFAULT_LOCATION = "default"


class Line(NamedTuple):
    """Units of one SKU; an empty location means anywhere."""

    sku: str
    quantity: int
    location: str = ""


class Context(NamedTuple):
    """What a caller says about itself: recorded, never interpreted, except the channel's quota."""

    agent_id: str = ""
    session_id: str = ""
    channel: str = ""
    external_ref: str = ""
    rationale: str = ""


class Caller(NamedTuple):
    """Who asks: the principal, and whether it may act on what others reserved."""

    principal: str
    is_operator: bool = False


class Reserve(NamedTuple):
    """Hold lines; each (sku, location) occurs once.  `ttl_ms` 0 is the items' default."""

    reservation_id: str
    caller: Caller
    lines: tuple[Line, ...]
    ttl_ms: int = 0
    context: Context = Context()
    allow_partial: bool = False
    allow_backorder: bool = False
    if_sequence: int = 0
    replaces: str = ""


class Commit(NamedTuple):
    """Sell a hold; no lines means all of it."""

    reservation_id: str
    caller: Caller
    lines: tuple[Line, ...] = ()
    order_ref: str = ""
    context: Context = Context()
    if_sequence: int = 0


class Release(NamedTuple):
    """Give a hold back; no lines means all of it."""

    reservation_id: str
    caller: Caller
    lines: tuple[Line, ...] = ()
    context: Context = Context()


class Extend(NamedTuple):
    """Move a hold's expiry to `ttl_ms` from now."""

    reservation_id: str
    caller: Caller
    ttl_ms: int
    context: Context = Context()


class GetReservation(NamedTuple):
    """Read one reservation as it stands, due expiry included."""

    reservation_id: str
    caller: Caller


class GetStock(NamedTuple):
    """Read the levels of some SKUs as they stand, due expiries included."""

    skus: tuple[str, ...]
    caller: Caller = Caller("", False)
    context: Context = Context()


class Policy(NamedTuple):
    """Policy of an item to put; None keeps what the item has, or its default when it is new."""

    safety_stock: int | None = None
    oversell_limit: int | None = None
    oversell_share: int | None = None
    plenty_at: int | None = None
    low_at: int | None = None
    scarce_at: int | None = None
    hold_ttl_default_ms: int | None = None
    hold_ttl_max_ms: int | None = None
    hold_lifetime_max_ms: int | None = None
    late_commit: int | None = None
    sellout_horizon_ms: int | None = None
    title: str | None = None
    system_of_record: str | None = None


class PutItem(NamedTuple):
    """Create an item or change its policy; a channel quota of None removes the channel's."""

    request_id: str
    caller: Caller
    sku: str
    policy: Policy = Policy()
    channels: tuple[tuple[str, int | None], ...] = ()


class AdjustStock(NamedTuple):
    """Add `delta` units, which may be negative, to what is owned at a location."""

    request_id: str
    caller: Caller
    sku: str
    delta: int
    location: str = DEFAULT_LOCATION
    reason: str = ""
    reference: str = ""


class SetStock(NamedTuple):
    """State how many units are owned at a location.

    `expected` compares with the count at the location.  A count taken as of an older sequence is
    brought up to date by `moved`, the units that moved since, and refused as STOCK_CHANGED when
    the item has changed after `if_sequence`, the sequence up to which `moved` was summed.
    """

    request_id: str
    caller: Caller
    sku: str
    on_hand: int
    location: str = DEFAULT_LOCATION
    expected: int | None = None
    as_of_sequence: int | None = None
    moved: int = 0
    if_sequence: int = 0
    reason: str = ""
    reference: str = ""


Operation = (
    Reserve
    | Commit
    | Release
    | Extend
    | GetReservation
    | GetStock
    | PutItem
    | AdjustStock
    | SetStock
)


def subjects(operation: Operation) -> tuple[str, ...]:
    """Return what an operation must find as those before it left it: reservations, or an item."""
    if isinstance(operation, Reserve):
        own, other = operation.reservation_id, operation.replaces
        return (own, other) if other else (own,)
    if isinstance(operation, PutItem | AdjustStock | SetStock):
        return (f"~{operation.sku}",)
    return () if isinstance(operation, GetStock) else (operation.reservation_id,)


def weight(operation: Operation) -> int:
    """Return the lines an operation brings to a batch, at least 1."""
    if isinstance(operation, GetStock):
        return len(operation.skus) or 1
    return len(getattr(operation, "lines", ())) or 1
