"""The server's own load: how long an operation that comes now would wait, as one of three levels.

The load is the longest of some delays, looked at every 50 ms: of the oldest operation that waits
for a batch, of the store's answer to a batch, of the event loop, and of the oldest answer that
waits for the archive.  A level is reached when the delay stays at its bound for a moment, so that a
pause of the collector is none.  It is left, one step at a time, when the delay stayed below half
the bound for a second.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import structlog

from holdfast_server.errors import Overloaded

log = structlog.get_logger(__name__)

TICK_S = 0.05
RISE_S, FALL_S = 0.1, 1.0
FALL_AT = 0.5
RETRY_AFTER_MS, RETRY_AFTER_MAX_MS = 500, 10_000


class ServerLoad(IntEnum):
    """How loaded the server is; the numbers of `ServerLoad` in stock.proto."""

    NORMAL = 1
    HIGH = 2
    OVERLOADED = 3

    @property
    def suggested_min_interval_ms(self) -> int:
        """Return the interval between messages of a Watch that the server would rather have."""
        return _SUGGESTED_MIN_INTERVAL_MS[self]


_SUGGESTED_MIN_INTERVAL_MS = {
    ServerLoad.NORMAL: 0,
    ServerLoad.HIGH: 100,
    ServerLoad.OVERLOADED: 1_000,
}


class Delays(NamedTuple):
    """Where an operation waits, ms: its batch, the store, the event loop, the archive."""

    queue_wait_ms: float = 0
    round_trip_ms: float = 0
    loop_lag_ms: float = 0
    archive_ms: float = 0


@dataclass(frozen=True)
class LoadBounds:
    """Delays at which a level is reached; `overloaded_ms` 0 means never."""

    high_ms: int = 250
    overloaded_ms: int = 1_000

    def of(self, load: ServerLoad) -> float:
        """Return the delay that reaches a level above NORMAL."""
        if load is ServerLoad.HIGH:
            return self.high_ms
        return self.overloaded_ms or math.inf


@dataclass(eq=False)
class LoadGauge:
    """The level of load, worked out from delays as they are observed; `draw` is from 0 to 1."""

    bounds: LoadBounds = LoadBounds()
    draw: Callable[[], float] = random.random
    load: ServerLoad = ServerLoad.NORMAL
    delays: Delays = field(default_factory=Delays)
    _above_since: dict[ServerLoad, float] = field(default_factory=dict)
    _calm_since: float = 0.0

    @property
    def delay_ms(self) -> float:
        """Return the longest of the delays that were observed last."""
        return max(self.delays)

    def observe(self, now_s: float, delays: Delays) -> None:
        """Take the delays of a moment."""
        self.delays = delays
        for load in (ServerLoad.HIGH, ServerLoad.OVERLOADED):
            if self.delay_ms < self.bounds.of(load):
                self._above_since.pop(load, None)
            elif now_s - self._above_since.setdefault(load, now_s) >= RISE_S:
                self.load = max(self.load, load)
        self._fall(now_s)

    def _fall(self, now_s: float) -> None:
        if self.load is ServerLoad.NORMAL or self.delay_ms >= FALL_AT * self.bounds.of(self.load):
            self._calm_since = now_s
        elif now_s - self._calm_since >= FALL_S:
            self.load = ServerLoad(self.load - 1)
            self._calm_since = now_s

    def refusal(self) -> Overloaded:
        """Return the error of a new Reserve while the server is overloaded.

        The wait it asks for grows with the delay over the bound, and differs from one to the
        next, or all who were refused would come back at once.
        """
        bound_ms = self.bounds.of(ServerLoad.OVERLOADED)
        longest_ms = RETRY_AFTER_MS * max(1.0, self.delay_ms / bound_ms)
        retry_after_ms = min(longest_ms, RETRY_AFTER_MAX_MS) * (0.5 + self.draw())
        return Overloaded(
            f"new reservations are refused until operations wait less than "
            f"{FALL_AT * bound_ms:.0f} ms; they wait {self.delay_ms:.0f} ms",
            retry_after_ms=round(retry_after_ms),
        )


async def watch_load(gauge: LoadGauge, delays_at: Callable[[float], Delays]) -> None:
    """Feed a gauge with the delays of the engine and the lateness of the event loop, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due_s, before = loop.time() + TICK_S, gauge.load
        await asyncio.sleep(TICK_S)
        now_s = loop.time()
        gauge.observe(now_s, delays_at(now_s)._replace(loop_lag_ms=1000 * (now_s - due_s)))
        if gauge.load != before:
            write = log.warning if gauge.load > before else log.info
            waits = {name: round(ms) for name, ms in gauge.delays._asdict().items()}
            write("server load", load=gauge.load.name, before=before.name, **waits)
