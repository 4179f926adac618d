"""Whether two small samples differ: the Mann-Whitney U test, and the bootstrap of their medians.

The test asks nothing of the distribution that latencies would not give it: only which of two runs
was the slower one.  H. B. Mann, D. R. Whitney: On a Test of Whether one of Two Random Variables is
Stochastically Larger than the Other.  Annals of Mathematical Statistics 18 (1947).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import comb, erfc, sqrt
from random import Random

EXACT_MAX = 40  # runs of both sides; beyond, the normal approximation is as good
RESAMPLES = 10_000
CONFIDENCE = 0.95


def p_value(a: Sequence[float], b: Sequence[float]) -> float:
    """Return how likely so large a difference, or a larger one, is between two like samples.

    Two-sided.  Exact, with ties too, for up to EXACT_MAX values: of all ways to deal the ranks to
    the two samples, the share that is as uneven.  Then normal, corrected for ties and continuity.
    """
    ranks = doubled_ranks([*a, *b])
    if len(ranks) > EXACT_MAX:
        return _normal(ranks, len(a))
    return _exact(ranks, len(a))


def doubled_ranks(values: Sequence[float]) -> list[int]:
    """Return twice the rank of each value; equal ones share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, before = [0] * len(values), 0
    for _, group in groupby(order, key=values.__getitem__):
        places = list(group)
        for place in places:
            ranks[place] = 2 * before + len(places) + 1
        before += len(places)
    return ranks


def _exact(ranks: Sequence[int], count: int) -> float:
    """Count the ways to draw `count` of the ranks, by their sum."""
    ways: list[Counter[int]] = [Counter({0: 1}), *(Counter[int]() for _ in range(count))]
    for rank in ranks:
        for drawn in range(count, 0, -1):
            for total, number in ways[drawn - 1].items():
                ways[drawn][total + rank] += number
    seen, all_ways = sum(ranks[:count]), comb(len(ranks), count)
    below = sum(number for total, number in ways[count].items() if total <= seen)
    above = sum(number for total, number in ways[count].items() if total >= seen)
    return min(1.0, 2 * min(below, above) / all_ways)


def _normal(ranks: Sequence[int], count: int) -> float:
    n, m = count, len(ranks) - count
    u = sum(ranks[:n]) / 2 - n * (n + 1) / 2
    ties = sum(times**3 - times for times in Counter(ranks).values())
    variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
    distance = max(0.0, abs(u - n * m / 2) - 0.5)
    return erfc(distance / sqrt(2 * variance)) if variance > 0 else 1.0


def difference(a: Sequence[float], b: Sequence[float], *, seed: int) -> tuple[float, float]:
    """Return the bounds of the difference of the medians, b - a, by the percentile bootstrap."""
    dice = Random(seed)
    found = sorted(_median(dice, b) - _median(dice, a) for _ in range(RESAMPLES))
    outside = (1 - CONFIDENCE) / 2
    return found[int(outside * RESAMPLES)], found[int((1 - outside) * RESAMPLES) - 1]


def _median(dice: Random, values: Sequence[float]) -> float:
    """Return the median of as many values, each drawn from all of these."""
    drawn, half = sorted(dice.choices(values, k=len(values))), len(values) // 2
    return drawn[half] if len(values) % 2 else (drawn[half - 1] + drawn[half]) / 2
