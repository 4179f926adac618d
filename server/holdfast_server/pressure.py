"""How close an item is to selling out, and what an agent should do about it.

A pure function of a level and the time: the kernel keeps in the level what it takes to know how
fast the item sells and where its pressure stood (lua/kernel/outlook.lua).  So every answer, every
stream, every server of a cell and every replay gives the same signal.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from holdfast_server.model import Level

RETRY_AFTER_LOW_MS = 500
RETRY_AFTER_MAX_MS = 10_000

# As in lua/kernel/outlook.lua.
HALF_LIFE_MS, LIFETIME_MS, HALVES_MAX = 10_000, 14_427, 31
COVER_MAX_MS = 86_400_000


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


def faded(demand: int, ms: int) -> int:
    """Return what is left of a demand after a time: half of it after each half-life."""
    if not demand or ms <= 0:
        return demand
    halves, rest = divmod(ms, HALF_LIFE_MS)
    if halves >= HALVES_MAX:
        return 0
    return (demand - demand * rest // (2 * HALF_LIFE_MS)) >> halves


def cover_ms(level: Level, now_ms: int) -> int:
    """Return how long the available units last at the rate of sale, with backlash.

    The rate is the demand over its mean lifetime; while nothing is sold it fades.
    """
    demand = faded(level.demand, now_ms - level.demand_ms)
    if not demand:
        return COVER_MAX_MS
    cover = min(max(level.available, 0) * 1000 * LIFETIME_MS // demand, COVER_MAX_MS)
    return max(level.cover_ms, cover * 4 // 5)


def _by_units(level: Level) -> Pressure:
    """Return the pressure that the units alone make."""
    if level.available <= 0:
        return Pressure.SOLD_OUT
    units = level.damped or 1
    if units <= level.low_at:
        return Pressure.LOW if units > level.scarce_at else Pressure.SCARCE
    return Pressure.PLENTY if units >= level.plenty_at else Pressure.NORMAL


def _by_time(level: Level, now_ms: int) -> Pressure:
    """Return the pressure that the rate of sale makes: PLENTY if the item lasts long enough."""
    horizon_ms = level.sellout_horizon_ms
    # What lasted long enough at the last change only lasts longer by now.
    if level.cover_ms > horizon_ms or not (horizon_ms and level.demand):
        return Pressure.PLENTY
    lasts_ms = cover_ms(level, now_ms)
    if lasts_ms > horizon_ms:
        return Pressure.PLENTY
    return Pressure.SCARCE if lasts_ms * 3 <= horizon_ms else Pressure.LOW


def pressure_of(level: Level, now_ms: int) -> Pressure:
    """Return the pressure of a level by its item's thresholds and its rate of sale."""
    return max(_by_units(level), _by_time(level, now_ms))


def signal_of(level: Level, now_ms: int) -> Signal:
    """Return pressure, advice and pause for a level at a time.

    The pause grows as stock falls: 500 ms at `low_at`, doubled for every unit fewer, at most
    10 s.
    """
    pressure = pressure_of(level, now_ms)
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


def is_passing(level: Level, now_ms: int) -> bool:
    """Tell whether the pressure is higher than the units alone make it, and so falls with time."""
    return _by_time(level, now_ms) > _by_units(level)
