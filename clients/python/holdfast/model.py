"""Values that go in and come out: plain, immutable, without gRPC.

Times are aware datetimes in UTC, intervals are seconds.  Read results by attribute: later versions
may add fields at the end.  In an enumeration, UNSPECIFIED also stands for a value that only a
newer server knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, TypeAlias, TypedDict


class ReservationState(StrEnum):
    """State of a reservation; it starts HELD and ends once."""

    UNSPECIFIED = "UNSPECIFIED"
    HELD = "HELD"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


class EndedReason(StrEnum):
    """Why a reservation ended; UNSPECIFIED while it is HELD."""

    UNSPECIFIED = "UNSPECIFIED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"
    SUPERSEDED = "SUPERSEDED"


class Pressure(StrEnum):
    """How close an item is to selling out."""

    UNSPECIFIED = "UNSPECIFIED"
    PLENTY = "PLENTY"
    NORMAL = "NORMAL"
    LOW = "LOW"
    SCARCE = "SCARCE"
    SOLD_OUT = "SOLD_OUT"


class Advice(StrEnum):
    """What an agent should do about the pressure."""

    UNSPECIFIED = "UNSPECIFIED"
    PROCEED = "PROCEED"
    SLOW_DOWN = "SLOW_DOWN"
    OFFER_ALTERNATIVE = "OFFER_ALTERNATIVE"
    BACKORDER = "BACKORDER"
    STOP = "STOP"


class Source(StrEnum):
    """Where an answer comes from."""

    UNSPECIFIED = "UNSPECIFIED"
    STORE = "STORE"
    AUTHORITY = "AUTHORITY"
    ASSUMED = "ASSUMED"


class Line(NamedTuple):
    """Units of one SKU; no location means anywhere."""

    sku: str
    quantity: int = 1
    location: str = ""


LineLike: TypeAlias = Line | tuple[str, int] | tuple[str, int, str] | str
Lines: TypeAlias = str | Iterable[LineLike]
Seconds: TypeAlias = float | timedelta


class Context(NamedTuple):
    """What an agent says about itself and its reasons; recorded, at most 1 KiB each.

    Only `channel` has an effect: it selects the channel quota of an item.
    """

    agent_id: str = ""
    session_id: str = ""
    channel: str = ""
    external_ref: str = ""
    rationale: str = ""


class ReserveOptions(TypedDict, total=False):
    """What a reserve may be told besides its lines."""

    reservation_id: str | None  # the idempotency key; by default the client makes one
    ttl: Seconds | None  # from the server's receipt; by default the item's policy says
    context: Context | None
    allow_partial: bool  # grant what is available, if anything is
    allow_backorder: bool  # use the oversell allowance of items that have one
    if_sequence: int  # refuse if an item changed after it; 0 = no check
    replaces: str  # the reservation this one takes the place of


class CommitOptions(TypedDict, total=False):
    """What a commit may be told besides its lines."""

    order_ref: str  # the order it is sold for, at most 128 bytes
    context: Context | None
    if_sequence: int  # refuse if an item changed after it; 0 = no check


class ReservationLine(NamedTuple):
    """Units of one SKU in a reservation; `backordered` of them are beyond stock."""

    sku: str
    quantity: int
    backordered: int
    location: str


class Reservation(NamedTuple):
    """The record of one agent's claim."""

    reservation_id: str
    state: ReservationState
    lines: tuple[ReservationLine, ...]
    context: Context
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    ended_reason: EndedReason
    order_ref: str
    late: bool
    sequence: int
    principal: str
    replaced_by: str


class RefusedLine(NamedTuple):
    """One line that could not be had.

    `available` is what could have been had at that moment, and may be negative;
    `next_expiry_at` is when the next hold expires that could free some.
    """

    sku: str
    location: str
    requested: int
    available: int
    next_expiry_at: datetime | None


class StockLevel(NamedTuple):
    """The stock of one item, over all locations, at one moment.

    `retry_after` is how long to wait before the next attempt on this item, 0.0 for no wait.
    """

    sku: str
    available: int
    on_hand: int
    held: int
    committed: int
    safety_stock: int
    oversell_left: int
    revision: int
    pressure: Pressure
    advice: Advice
    retry_after: float
    as_of: datetime


Levels: TypeAlias = tuple[StockLevel, ...]


class Reserved(NamedTuple):
    """The answer to a reserve; `replayed` says that this id had been reserved before."""

    reservation: Reservation
    levels: Levels
    sequence: int
    replayed: bool


class Committed(NamedTuple):
    """The answer to a commit; `replayed` says that the same lines had been committed before."""

    reservation: Reservation
    levels: Levels
    sequence: int
    replayed: bool


class Released(NamedTuple):
    """The answer to a release; `replayed` says that it had been released so before."""

    reservation: Reservation
    levels: Levels
    sequence: int
    replayed: bool


class Extended(NamedTuple):
    """The answer to an extend; `replayed` says that the hold lasts that long anyway."""

    reservation: Reservation
    sequence: int
    replayed: bool


class Stock(NamedTuple):
    """Levels of some items, all as of one moment, in the order asked.

    `sequence` passed as if_sequence makes a reserve refuse if anything changed in between.
    `staleness` is how old the levels may be at most, 0.0 for exact.
    """

    levels: Levels
    missing_skus: tuple[str, ...]
    sequence: int
    source: Source
    staleness: float
    query_id: str

    @property
    def by_sku(self) -> Mapping[str, StockLevel]:
        """The levels, by SKU."""
        return {level.sku: level for level in self.levels}


class Violation(NamedTuple):
    """One bad field, by its path in the request, and the limit it breaks."""

    field: str
    description: str
