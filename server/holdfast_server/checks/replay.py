"""Stock as the ledger alone tells it: the sum of every entry's movements."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.v1.ledger_pb2 import LedgerEntry, Movement


@dataclass(slots=True)
class Counters:
    """Units of an item, or of an item at one location."""

    on_hand: int = 0
    held: int = 0
    committed: int = 0
    backordered: int = 0

    @property
    def claimed(self) -> int:
        """Return the units that someone holds or bought."""
        return self.held + self.committed

    def add(self, move: Movement) -> None:
        """Apply one movement."""
        self.on_hand += move.on_hand
        self.held += move.held
        self.committed += move.committed
        self.backordered += move.backordered


@dataclass(slots=True)
class ReplayedItem(Counters):
    """An item's counters, and the part of its policy that bounds them."""

    safety_stock: int = 0
    oversell_limit: int = 0
    oversell_share: int = 0

    @property
    def overclaimed(self) -> int:
        """Return the units claimed beyond what stock can cover; negative while some are free."""
        return self.claimed + self.safety_stock - self.on_hand

    @property
    def allowance(self) -> int:
        """Return the units that may in all be claimed beyond that."""
        if self.oversell_share:
            return min(self.oversell_limit, self.on_hand * self.oversell_share // 100)
        return self.oversell_limit

    @property
    def deficit(self) -> int:
        """Return the units claimed beyond on_hand that no allowance granted."""
        return max(0, self.claimed - self.backordered - self.on_hand)


class Replay:
    """Items and places as of the last entry applied."""

    def __init__(self) -> None:
        self.items: dict[str, ReplayedItem] = {}
        self.places: dict[tuple[str, str], Counters] = {}

    def apply(self, entry: LedgerEntry) -> None:
        """Take one entry into account; entries come in order."""
        for move in entry.movements:
            self.items.setdefault(move.sku, ReplayedItem()).add(move)
            if move.location:
                self.places.setdefault((move.sku, move.location), Counters()).add(move)
        if entry.HasField("item"):
            item = self.items.setdefault(entry.item.sku, ReplayedItem())
            item.safety_stock = entry.item.safety_stock
            item.oversell_limit = entry.item.oversell_limit
            item.oversell_share = entry.item.oversell_share
