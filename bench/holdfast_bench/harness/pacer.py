"""When sessions start: the plan of an open load, made before anything is known of the server.

Rates are piecewise linear in time, so the expected number of starts up to a moment, N(t), is
piecewise quadratic; the deterministic kinds start session i at the moment N(t) reaches i.  That
makes the number of starts exact, and a plan the same however many processes share it: each
takes every n-th start (`share`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from math import ceil, sqrt
from random import Random
from typing import NamedTuple

from holdfast_bench.harness.scenario_tables import Arrivals

ROUNDING = 1e-9  # of a start: 0.1 * 30 is a little more than 3


class Segment(NamedTuple):
    """A stretch of time in which the rate changes evenly from one value to another."""

    begins: float
    ends: float
    rate: float
    rate_to: float

    @property
    def expected(self) -> float:
        """Starts expected in it."""
        return (self.rate + self.rate_to) / 2 * (self.ends - self.begins)

    def moment(self, count: float) -> float:
        """Return when so many starts of this segment are reached."""
        slope = (self.rate_to - self.rate) / (self.ends - self.begins)
        # The root of rate * t + slope / 2 * t**2 = count, in the form that loses no digits.
        root = sqrt(max(self.rate**2 + 2 * slope * count, 0.0))
        return min(self.begins + 2 * count / (self.rate + root), self.ends)


def starts(arrivals: Arrivals, seconds: float, rng: Random) -> Iterator[float]:
    """Yield the moments, in seconds from the beginning and ascending, at which sessions start.

    Deterministic kinds do not draw from `rng`.  Closed arrivals yield the first start of each
    agent, spread evenly over `ramp_s`.
    """
    if arrivals.kind == "closed":
        spread = min(arrivals.ramp_s, seconds) / arrivals.sessions
        return (number * spread for number in range(arrivals.sessions))
    if arrivals.kind == "poisson":
        moments = _poisson(arrivals.rate, seconds, rng)
    else:
        moments = _planned(segments(arrivals, seconds))
    return islice(moments, arrivals.sessions or None)


def count(arrivals: Arrivals, seconds: float) -> int:
    """Return how many starts there are; of Poisson arrivals, how many are expected."""
    if arrivals.kind == "closed":
        return arrivals.sessions
    total = _whole(sum(segment.expected for segment in segments(arrivals, seconds)))
    return min(total, arrivals.sessions or total)


def share(moments: Iterable[float], index: int, of: int) -> Iterator[tuple[int, float]]:
    """Yield number and moment of the starts that are one process's share of a plan."""
    return islice(enumerate(moments), index, None, of)


def segments(arrivals: Arrivals, seconds: float) -> list[Segment]:
    """Return the planned rate over time, of open arrivals."""
    rate, rate_to = arrivals.rate, arrivals.rate_to
    if arrivals.kind == "steps":
        return list(_steps(arrivals, seconds))
    if arrivals.kind != "ramp":
        return [Segment(0.0, seconds, rate, rate)]
    ramp_s = arrivals.ramp_s or seconds
    if ramp_s >= seconds:
        reached = rate + (rate_to - rate) * seconds / ramp_s
        return [Segment(0.0, seconds, rate, reached)]
    return [Segment(0.0, ramp_s, rate, rate_to), Segment(ramp_s, seconds, rate_to, rate_to)]


def _steps(arrivals: Arrivals, seconds: float) -> Iterator[Segment]:
    for number in range(ceil(seconds / arrivals.step_s)):
        begins, ends = number * arrivals.step_s, min((number + 1) * arrivals.step_s, seconds)
        rate = min(arrivals.rate + number * arrivals.step, arrivals.rate_to)
        if begins < ends:
            yield Segment(begins, ends, rate, rate)


def _planned(plan: list[Segment]) -> Iterator[float]:
    number, before = 0, 0.0
    for segment in plan:
        after = before + segment.expected
        while number < _whole(after):
            yield segment.moment(max(number - before, 0.0))
            number += 1
        before = after


def _poisson(rate: float, seconds: float, rng: Random) -> Iterator[float]:
    moment = rng.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += rng.expovariate(rate)


def _whole(count: float) -> int:
    """Return how many whole numbers, from 0, are below a count."""
    return ceil(count - ROUNDING)
