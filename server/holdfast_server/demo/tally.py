"""What the agents saw: how their sessions ended, how long calls took, what they were told."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from holdfast import Reservation
from holdfast_server.checks import Acknowledged

T = TypeVar("T")

# How long pacing made the call of this task wait: that is advice heeded, and no latency.
PACED_S: ContextVar[float] = ContextVar("paced_s", default=0.0)

RECENT = 5_000  # calls whose latencies the live view shows


@dataclass
class Tally:
    """Counts by what happened: sessions, reserves, or units where the name says so."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: array[float] = field(default_factory=lambda: array("d"))
    acknowledged: list[Acknowledged] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    async def timed(self, call: Awaitable[T]) -> T:
        """Await a call and keep how long it took, however it ended."""
        PACED_S.set(0.0)
        start = time.perf_counter()
        try:
            return await call
        finally:
            self.seconds.append(max(time.perf_counter() - start - PACED_S.get(), 0.0))

    def told(self, kind: int, reservation: Reservation) -> None:
        """Remember an answer, to be looked for in the ledger."""
        lines = tuple((line.sku, line.quantity) for line in reservation.lines)
        entry = Acknowledged(kind, reservation.reservation_id, reservation.sequence, lines)
        self.acknowledged.append(entry)

    @property
    def refusals_per_100_orders(self) -> float:
        """Return how many reserves were refused for 100 that became orders."""
        return 100 * self.counts["refusals"] / max(self.counts["orders"], 1)

    def percentiles_ms(self, *, recent: bool = False) -> tuple[float, float]:
        """Return the median and the 99th percentile of the calls' latencies."""
        values = sorted(self.seconds[-RECENT:] if recent else self.seconds)
        return at(values, 0.5) * 1000, at(values, 0.99) * 1000


def at(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of sorted values lies; 0 of none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
