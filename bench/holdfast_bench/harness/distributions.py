"""What agents leave to chance: which item they want, and how long they think.

All draw from the generator that they are given, so that a seed decides everything.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from math import log
from random import Random

from holdfast_bench.harness.scenario_tables import Catalogue, Think

TRIES_A_CHOICE = 16


def popularity(catalogue: Catalogue) -> Callable[[Random], int]:
    """Return what draws the number of an item; 0 is the hot one, or the first of zipf."""
    skus, hot_share = catalogue.skus, catalogue.hot_share
    if catalogue.popularity == "zipf":
        return _zipf(skus, catalogue.zipf_s)
    if catalogue.popularity == "uniform" or skus == 1:
        return lambda rng: int(rng.random() * skus)

    def hot(rng: Random) -> int:
        return 0 if rng.random() < hot_share else 1 + int(rng.random() * (skus - 1))

    return hot


def _zipf(skus: int, exponent: float) -> Callable[[Random], int]:
    """Draw by the inverse of the distribution function: a search in as many sums as items."""
    sums = array("d", accumulate(rank**-exponent for rank in range(1, skus + 1)))
    total, last = sums[-1], skus - 1
    return lambda rng: min(bisect_right(sums, rng.random() * total), last)


def several(draw: Callable[[Random], int], skus: int, count: int, rng: Random) -> list[int]:
    """Return so many different items, `count` <= `skus`, in the order they were drawn.

    Popular ones come up again and again: after 16 tries for each, the neighbours of what comes up
    make the rest, so that a cart is full in a bounded time.
    """
    chosen: dict[int, None] = {}
    for _ in range(TRIES_A_CHOICE * count):
        chosen[draw(rng)] = None
        if len(chosen) == count:
            return list(chosen)
    number = draw(rng)
    while len(chosen) < count:
        chosen[number] = None
        number = (number + 1) % skus
    return list(chosen)


def waits(think: Think) -> Callable[[Random], float]:
    """Return what draws seconds of waiting."""
    mean_s, low_s, high_s, limit_s = think.mean_s, think.low_s, think.high_s, think.limit_s
    if think.kind == "uniform":
        return lambda rng: min(low_s + (high_s - low_s) * rng.random(), limit_s)
    if think.kind == "constant" or mean_s == 0:
        return lambda _rng: min(mean_s, limit_s)
    if think.kind == "exponential":
        return lambda rng: min(rng.expovariate(1 / mean_s), limit_s)
    # The mean of a lognormal is exp(mu + sigma**2 / 2).
    mu, sigma = log(mean_s) - think.sigma**2 / 2, think.sigma
    return lambda rng: min(rng.lognormvariate(mu, sigma), limit_s)
