"""What became of an operation."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from holdfast_server.model.stock import Level, Reservation


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
