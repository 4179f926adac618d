"""What was done: the entries of the ledger, and places in it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple, TypeAlias

from holdfast_server.model.operations import Context
from holdfast_server.model.stock import Item, Reservation


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
    """The end of the ledger, the oldest entry that can still be read, and the cell's clock."""

    epoch: int
    sequence: int
    first_sequence: int
    now_ms: int = 0


ItemRow: TypeAlias = tuple[bytes, bytes]
"""An item as the store keeps it: its SKU and its row."""


class LedgerBatch(NamedTuple):
    """What one batch did: its sequences, and the rows of the items it changed.

    One without entries (`first` > `last`) says that nothing happened after `last` up to `now_ms`.
    """

    epoch: int
    first: int
    last: int
    now_ms: int
    rows: Sequence[ItemRow] = ()


class LedgerBreak(StrEnum):
    """Why a reader of the ledger cannot go on from where it was."""

    TRIMMED = "entries were trimmed"
    DAMAGED = "an entry cannot be read"
    EPOCH = "the ledger has another epoch"
    ROLLBACK = "the ledger went back"
