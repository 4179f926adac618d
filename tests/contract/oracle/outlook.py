"""The oracle's memory of an item: how it sells, and what its pressure goes by."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

HALF_LIFE_MS, LIFETIME_MS = 10_000, 14_427
DAY_MS = 86_400_000
DEMAND_MAX = 2_000_000_000


def faded(demand: int, ms: int) -> int:
    """Return a demand after a time: halved each half-life, along straight lines in between."""
    halves, rest = divmod(max(ms, 0), HALF_LIFE_MS)
    if halves >= 31:
        return 0
    return (demand - demand * rest // (2 * HALF_LIFE_MS)) // 2**halves


def between(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


@dataclass
class Outlook:
    """Demand in thousandths of units, available units and their cover with backlash."""

    demand_ms: int = 0
    demand: int = 0
    damped: int = 0
    cover_ms: int = DAY_MS

    def follow(self, now_ms: int, claimed: int, available: int) -> None:
        """Take note of units claimed or given back, and of what is available after it."""
        left = faded(self.demand, now_ms - self.demand_ms)
        self.demand = between(left + 1000 * claimed, 0, DEMAND_MAX)
        self.demand_ms = now_ms
        free = max(available, 0)
        is_count = not claimed
        self.damped = between(self.damped, free if is_count else free - max(1, free // 10), free)
        cover = DAY_MS
        if self.demand:
            cover = min(DAY_MS, floor(free * (1000 * LIFETIME_MS) / self.demand))
        self.cover_ms = between(self.cover_ms, cover if is_count else cover * 4 // 5, cover)
