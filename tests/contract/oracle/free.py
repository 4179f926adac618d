"""What may still be had of an item: the oracle's arithmetic of stock, oversell and quotas."""

from __future__ import annotations

from collections import Counter

from holdfast_server.model import Line, State
from tests.contract.oracle.books import Books, Claim


class Free:
    """What is free now, line after line; the units of a live claim to replace count too."""

    def __init__(self, books: Books, old: Claim | None = None) -> None:
        self._books = books
        self._old = old if old and old.state is State.HELD else None
        self._taken: Counter[str] = Counter()
        self._taken_here: Counter[tuple[str, str]] = Counter()
        for line in self._old.lines if self._old else ():
            self._take(line.sku, line.location, -line.quantity)

    def units(self, sku: str, location: str = "") -> int:
        """Return the units free at a location, or anywhere; below 0 after a recount."""
        free = self._books.items[sku].available - self._taken[sku]
        if not location:
            return free
        here = self._books.place(sku, location).free - self._taken_here[sku, location]
        return min(free, here)

    def held(self, sku: str) -> int:
        """Return the units that others hold."""
        held = self._books.items[sku].held
        return held + min(0, self._taken[sku]) if self._old else held

    def take(
        self, line: Line, *, may_backorder: bool, may_be_part: bool = False
    ) -> tuple[int, int] | None:
        """Return the units a line gets and how many of them are beyond stock, or None."""
        stock = max(0, self.units(line.sku, line.location))
        beyond = 0
        if may_backorder:
            allowance = self._books.items[line.sku].allowance
            beyond = max(0, allowance + min(0, self.units(line.sku)))
        if line.quantity > stock + beyond and not may_be_part:
            return None
        units = min(line.quantity, stock + beyond)
        self._take(line.sku, line.location, units)
        return units, max(0, units - stock)

    def budget(self, principal: str, most: int) -> int:
        """Return the units that a principal may still hold."""
        lent = self._old.units if self._old and self._old.is_budgeted else 0
        return most - self._books.budgets.get(principal, 0) + lent

    def quota(self, sku: str, channel: str, created_ms: int) -> int | None:
        """Return the units that a channel may still claim, or None where no quota binds it."""
        quota = self._books.items[sku].quotas.get(channel)
        if quota is None or created_ms < quota.since_ms:
            return None
        left, old = quota.most - quota.used, self._old
        if old and old.channel == channel and old.created_ms >= quota.since_ms:
            left += sum(line.quantity for line in old.lines if line.sku == sku)
        return left

    def _take(self, sku: str, location: str, units: int) -> None:
        self._taken[sku] += units
        self._taken_here[sku, location] += units
