"""How close an item is to selling out, and what an agent should do about it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from holdfast_server.model import Level

RETRY_AFTER_LOW_MS = 500
RETRY_AFTER_MAX_MS = 10_000


class Pressure(IntEnum):
    """How close to selling out; the numbers of types.proto."""

    PLENTY = 1
    NORMAL = 2
    LOW = 3
    SCARCE = 4
    SOLD_OUT = 5


class Advice(IntEnum):
    """What an agent should do; the numbers of types.proto."""

    PROCEED = 1
    SLOW_DOWN = 2
    OFFER_ALTERNATIVE = 3
    BACKORDER = 4
    STOP = 5


class Signal(NamedTuple):
    """Pressure of one level, the advice that follows, and when it is worth asking again."""

    pressure: Pressure
    advice: Advice
    retry_after_ms: int


def pressure_of(level: Level) -> Pressure:
    """Return the pressure of a level by its item's thresholds."""
    available = level.available
    if available <= 0:
        return Pressure.SOLD_OUT
    if available <= level.scarce_at:
        return Pressure.SCARCE
    if available <= level.low_at:
        return Pressure.LOW
    return Pressure.PLENTY if available >= level.plenty_at else Pressure.NORMAL


def signal_of(level: Level) -> Signal:
    """Return pressure, advice and pause for a level.

    The pause grows as stock falls: 500 ms at `low_at`, doubled for every unit fewer, at most
    10 s.
    """
    pressure = pressure_of(level)
    if pressure <= Pressure.NORMAL:
        return Signal(pressure, Advice.PROCEED, 0)
    fewer = min(max(level.low_at - level.available, 0), 5)
    pause_ms = min(RETRY_AFTER_LOW_MS << fewer, RETRY_AFTER_MAX_MS)
    if pressure is Pressure.LOW:
        return Signal(pressure, Advice.SLOW_DOWN, pause_ms)
    if pressure is Pressure.SCARCE:
        return Signal(pressure, Advice.OFFER_ALTERNATIVE, pause_ms)
    if level.oversell_left > 0:
        return Signal(pressure, Advice.BACKORDER, 0)
    # Only a hold that ends can bring units back; without one there is nothing to wait for.
    return Signal(pressure, Advice.STOP, pause_ms if level.held else 0)
