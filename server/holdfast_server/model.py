"""Values that cross the rooms of the house: operations in, outcomes and ledger entries out.

All are immutable and hold only the standard library's types.  Quantities are whole units, times
are milliseconds since the Unix epoch, intervals are milliseconds.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

UNITS_MAX = 1_000_000_000
LINES_MAX = 100
SKUS_MAX = 1000
DEFAULT_LOCATION = "default"


class Kind(IntEnum):
    """Kind of an operation and of a ledger entry; the numbers of `EntryKind` in ledger.proto."""

    RESERVE = 1
    COMMIT = 2
    RELEASE = 3
    EXTEND = 4
    EXPIRE = 5
    SUPERSEDE = 6
    PUT_ITEM = 7
    ADJUST_STOCK = 8
    SET_STOCK = 9
    GET_RESERVATION = 20
    GET_STOCK = 21


class Code(IntEnum):
    """What the kernel answered: below 10 success, 10..19 a refusal, 20 and above an error."""

    OK = 0
    REPLAYED = 1
    AGAIN = 2
    OUT_OF_STOCK = 10
    STOCK_CHANGED = 11
    CHANNEL_QUOTA = 12
    HOLD_BUDGET = 13
    STOCK_LOST = 14
    INVALID = 20
    UNKNOWN_SKU = 21
    UNKNOWN_RESERVATION = 22
    RESERVATION_ID_REUSED = 23
    RESERVATION_EXPIRED = 24
    RESERVATION_COMMITTED = 25
    RESERVATION_RELEASED = 26
    RESERVATION_SUPERSEDED = 27
    EXCEEDS_HOLD = 28
    LIFETIME_EXCEEDED = 29
    STALE_QUANTITY = 30
    NOT_OWNER = 31


class LateCommit(IntEnum):
    """What happens to a commit that comes after the expiry; the numbers of types.proto."""

    REJECT = 1
    RETRY = 2
    REVIEW = 3


class State(IntEnum):
    """State of a reservation; the numbers of `ReservationState` in types.proto."""

    HELD = 1
    COMMITTED = 2
    RELEASED = 3
    EXPIRED = 4


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


def weight(operation: Operation) -> int:
    """Return the lines an operation brings to a batch, at least 1."""
    if isinstance(operation, GetStock):
        return len(operation.skus) or 1
    return len(getattr(operation, "lines", ())) or 1


class Level(NamedTuple):
    """An item's counters and thresholds, exact as of `revision`."""

    sku: str
    on_hand: int
    held: int
    committed: int
    backordered: int
    owed: int
    revision: int
    safety_stock: int
    oversell_limit: int
    oversell_share: int
    plenty_at: int
    low_at: int
    scarce_at: int
    hold_ttl_default_ms: int
    hold_ttl_max_ms: int
    hold_lifetime_max_ms: int
    late_commit: int
    channel_count: int

    @property
    def available(self) -> int:
        """Return the units that can be promised from stock; negative after a recount."""
        return self.on_hand - self.held - self.committed - self.safety_stock

    @property
    def allowance(self) -> int:
        """Return the units that may in all be sold beyond available."""
        if self.oversell_share:
            return min(self.oversell_limit, self.on_hand * self.oversell_share // 100)
        return self.oversell_limit

    @property
    def oversell_left(self) -> int:
        """Return the units that may still be sold beyond available."""
        return max(0, self.allowance + min(self.available, 0))

    @property
    def deficit(self) -> int:
        """Return the units claimed beyond on_hand that no oversell allowance granted."""
        return max(0, self.held + self.committed - self.backordered - self.on_hand)


class ChannelQuota(NamedTuple):
    """The most units a channel may have held plus committed, and how many it has."""

    channel: str
    quota: int
    used: int
    since_ms: int


class Item(NamedTuple):
    """One SKU, its policy and its level."""

    title: str
    system_of_record: str
    channels: tuple[ChannelQuota, ...]
    level: Level


class LocationStock(NamedTuple):
    """What is owned and claimed at one location."""

    location: str
    on_hand: int
    held: int
    committed: int
    revision: int = 0


class ReservedLine(NamedTuple):
    """Units of one SKU that a reservation has, and how many of them are beyond stock."""

    sku: str
    quantity: int
    backordered: int
    location: str


class Reservation(NamedTuple):
    """The record of one claim."""

    reservation_id: str
    state: State
    lines: tuple[ReservedLine, ...]
    principal: str
    context: Context
    created_ms: int
    expires_ms: int
    ended_ms: int
    sequence: int
    order_ref: str = ""
    replaced_by: str = ""
    late: bool = False


class RefusedLine(NamedTuple):
    """A line that could not be had; `next_expiry_ms` 0 when no near expiry could free units."""

    sku: str
    location: str
    requested: int
    available: int
    next_expiry_ms: int


class Outcome(NamedTuple):
    """What became of one operation.

    `levels` are the levels the decision saw, one a line, None for a missing SKU of GetStock.
    `detail` depends on the code: the refused lines, the missing SKUs, the offending field.
    """

    code: int
    sequence: int
    now_ms: int
    reservation: Reservation | None = None
    levels: tuple[Level | None, ...] = ()
    detail: Any = None


class BatchResult(NamedTuple):
    """What became of a batch, in the order of its operations.

    An operation that the store could not decide has its error in place of an outcome;
    `more_due` tells that overdue holds are left to end.
    """

    outcomes: list[Outcome | Exception]
    now_ms: int
    sequence: int
    more_due: bool


class Movement(NamedTuple):
    """Signed changes of one SKU's counters, at a location when it is not empty."""

    sku: str
    location: str
    on_hand: int
    held: int
    committed: int
    backordered: int


class LedgerEntry(NamedTuple):
    """One accepted operation: who did it, what moved, and what it left behind."""

    sequence: int
    epoch: int
    time_ms: int
    kind: Kind
    id: str
    principal: str
    movements: tuple[Movement, ...]
    reservation: Reservation | None = None
    item: Item | None = None
    context: Context = Context()
    order_ref: str = ""
    reason: str = ""
    reference: str = ""


class Position(NamedTuple):
    """A place in the ledger of one cell."""

    epoch: int
    sequence: int


class Head(NamedTuple):
    """The end of the ledger, and the oldest entry that can still be read."""

    epoch: int
    sequence: int
    first_sequence: int
