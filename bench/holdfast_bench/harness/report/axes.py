"""Axes: where a value stands between the two ends, and what is written beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10
from typing import NamedTuple, Protocol

from holdfast_bench.harness.report import units

LOG_FROM_SPREAD = 40.0  # a wider range of latencies is drawn on a logarithmic axis
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Tick(NamedTuple):
    """A value with what is written beside it; "" is a line without words."""

    value: float
    text: str


class Axis(Protocol):
    """One direction of a chart."""

    @property
    def label(self) -> str:
        """What is measured, or its unit."""

    def place(self, value: float) -> float:
        """Return where a value stands: 0 at the low end, 1 at the high one."""

    def ticks(self, count: int) -> list[Tick]:
        """Return about so many values to write beside the axis."""


@dataclass(frozen=True)
class Linear:
    """Equal steps."""

    label: str
    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value stands."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int) -> list[Tick]:
        """Return multiples of a round step."""
        step = nice_step((self.high - self.low) / count)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [Tick(i * step, units.tick(round(i * step, 9))) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Log:
    """Equal factors; what is not above `low` stands at it."""

    label: str
    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value stands."""
        return log10(max(value, self.low) / self.low) / log10(self.high / self.low)

    def ticks(self, count: int) -> list[Tick]:
        """Return powers of ten, and what lies between them while there is room for words."""
        decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        words = (1, 2, 5) if len(decades) * 3 <= count * 2 else (1,)
        found = [(10.0**decade * digit, digit) for decade in decades for digit in range(1, 10)]
        return [
            Tick(value, units.tick(value) if digit in words else "")
            for value, digit in found
            if self.low * 0.999 <= value <= self.high * 1.001
        ]


@dataclass(frozen=True)
class Nines:
    """Percentiles as HdrHistogram draws them: each further nine is as wide as the one before."""

    label: str
    high: float  # the last percentile, below 100

    def place(self, value: float) -> float:
        """Return where a percentile stands."""
        return min(1.0, -log10(1 - min(value, self.high) / 100) / -log10(1 - self.high / 100))

    def ticks(self, count: int) -> list[Tick]:
        """Return the percentiles that people name."""
        named = [Tick(0.0, "0"), Tick(50.0, "50 %"), Tick(90.0, "90 %")]
        nines = -log10(1 - self.high / 100)
        named += [Tick(p, f"{p:.10g} %") for p in (100 - 10.0**-i for i in range(floor(nines)))]
        return [tick for tick in named if tick.value <= self.high + 1e-9]


@dataclass(frozen=True)
class Steps:
    """Names for the numbers 1, 2, 3."""

    label: str
    names: Sequence[str]

    def place(self, value: float) -> float:
        """Return where a step stands; half a step is left free at either end."""
        return (value - 0.5) / len(self.names)

    def ticks(self, count: int) -> list[Tick]:
        """Return every step."""
        return [Tick(i, name) for i, name in enumerate(self.names, start=1)]


def nice_step(least: float) -> float:
    """Return the round number that is at least so large."""
    power: float = 10.0 ** floor(log10(least))
    return next(power * step for step in STEPS if power * step >= least * (1 - 1e-9))


def from_zero(label: str, values: Iterable[float | None], *, least: float = 0.0) -> Linear:
    """Return an axis from 0 to a round number that no value passes."""
    top = max((value for value in values if value is not None), default=0.0)
    top = max(top, least) or 1.0
    step = nice_step(top / 5)
    return Linear(label, 0.0, step * ceil(top / step - 1e-9))


def latencies(label: str, values: Iterable[float | None]) -> Axis:
    """Return an axis for latencies: logarithmic where the slow ones would flatten the others."""
    known = [value for value in values if value is not None and 0 < value < inf]
    if not known or max(known) <= LOG_FROM_SPREAD * min(known):
        return from_zero(label, known)
    return Log(f"{label}, log scale", _round_below(min(known)), _round_above(max(known)))


def _round_below(value: float) -> float:
    return max(step for step in _around(value) if step <= value * (1 + 1e-9))


def _round_above(value: float) -> float:
    return min(step for step in _around(value) if step >= value * (1 - 1e-9))


def _around(value: float) -> list[float]:
    power: float = 10.0 ** floor(log10(value))
    return [power * digit for digit in (1, 2, 5, 10)]
