"""What is left to chance has the shape that was asked for, and is the same for the same seed.

Seeds are fixed, so that each check either always holds or never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import exp
from random import Random
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_bench.harness.distributions import popularity, several, waits
from holdfast_bench.harness.scenario import Catalogue, Think

DRAWS = 50_000


def drawn(draw: Callable[[Random], float], seed: int = 1, draws: int = DRAWS) -> list[float]:
    rng = Random(seed)
    return [draw(rng) for _ in range(draws)]


def chi_square(counts: Mapping[float, int], shares: list[float]) -> float:
    """Distance from what is expected, by degrees of freedom: about 1 when the shares are right."""
    total = sum(counts.values())
    distance = sum(
        (counts.get(number, 0) - share * total) ** 2 / (share * total)
        for number, share in enumerate(shares)
    )
    return distance / (len(shares) - 1)


CATALOGUES = [
    (Catalogue(skus=50), [1 / 50] * 50),
    (
        Catalogue(skus=50, popularity="zipf", zipf_s=1.1),
        [rank**-1.1 / sum(each**-1.1 for each in range(1, 51)) for rank in range(1, 51)],
    ),
    (Catalogue(skus=5, popularity="hot", hot_share=0.8), [0.8, 0.05, 0.05, 0.05, 0.05]),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("catalogue", "shares"), CATALOGUES)
def test_items_are_drawn_in_their_shares(
    catalogue: Catalogue, shares: list[float], seed: int
) -> None:
    counts = Counter(drawn(popularity(catalogue), seed))

    assert set(counts) <= set(range(catalogue.skus))
    assert chi_square(counts, shares) < 2


def test_shares_that_are_wrong_are_told_apart() -> None:
    counts = Counter(drawn(popularity(Catalogue(skus=50, popularity="zipf", zipf_s=1.0))))

    assert chi_square(counts, CATALOGUES[1][1]) > 10


@pytest.mark.parametrize("kind", ["uniform", "zipf", "hot"])
def test_one_item_is_always_the_one(kind: str) -> None:
    assert set(drawn(popularity(Catalogue(skus=1, popularity=kind)), draws=100)) == {0}


def test_zipf_reaches_the_last_of_many_items() -> None:
    class Highest(Random):
        def random(self) -> float:
            return 1 - 2**-53

    draw = popularity(Catalogue(skus=100_000, popularity="zipf", zipf_s=1.1))

    assert draw(Highest()) == 99_999


@pytest.mark.parametrize(
    "think",
    [
        Think("constant", mean_s=2.0),
        Think("uniform", low_s=1.0, high_s=3.0),
        Think("exponential", mean_s=2.0),
        Think("lognormal", mean_s=2.0, sigma=0.8),
    ],
)
def test_wait_has_the_mean_that_was_asked_for(think: Think) -> None:
    values = drawn(waits(think))

    assert fmean(values) == pytest.approx(2.0, rel=0.02)
    assert min(values) >= 0


def test_waits_have_their_shapes() -> None:
    uniform = drawn(waits(Think("uniform", low_s=1.0, high_s=3.0)))
    exponential = drawn(waits(Think("exponential", mean_s=2.0)))
    lognormal = drawn(waits(Think("lognormal", mean_s=2.0, sigma=0.8)))

    assert 1.0 <= min(uniform) < 1.01
    assert 2.99 < max(uniform) <= 3.0
    assert sum(value > 2.0 for value in exponential) / DRAWS == pytest.approx(exp(-1), abs=0.01)
    assert median(lognormal) == pytest.approx(2.0 * exp(-0.32), rel=0.02)


@pytest.mark.parametrize("kind", ["constant", "uniform", "exponential", "lognormal"])
def test_wait_of_nothing_is_nothing(kind: str) -> None:
    assert set(drawn(waits(Think(kind)), draws=10)) == {0.0}


@pytest.mark.parametrize("kind", ["constant", "exponential", "lognormal"])
def test_no_wait_is_longer_than_its_limit(kind: str) -> None:
    values = drawn(waits(Think(kind, mean_s=5.0, sigma=2.0, limit_s=6.0)))

    assert max(values) <= 6.0


@pytest.mark.parametrize("think", [Think("exponential", mean_s=1.0), Think("lognormal", mean_s=1)])
def test_same_seed_draws_the_same(think: Think) -> None:
    assert drawn(waits(think), 7, 100) == drawn(waits(think), 7, 100)
    assert drawn(waits(think), 7, 100) != drawn(waits(think), 8, 100)


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_cart_holds_different_items_however_popular_one_is(skus: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, skus))
    hot = popularity(Catalogue(skus=skus, popularity="hot", hot_share=1.0))

    chosen = several(hot, skus, count, Random(data.draw(st.integers(0, 100))))

    assert len(chosen) == len(set(chosen)) == count
    assert chosen[0] == 0
    assert set(chosen) <= set(range(skus))
