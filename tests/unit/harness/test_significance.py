"""The U test against what was printed of it, and the bootstrap against what it must be."""

from __future__ import annotations

from itertools import combinations
from random import Random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_bench.harness import significance
from holdfast_bench.harness.significance import difference, doubled_ranks, p_value

# Two-tailed critical values of U at 0.05, by the sizes of the samples, as textbooks print them.
CRITICAL = {
    (4, 4): 0,
    (5, 5): 2,
    (6, 6): 5,
    (7, 7): 8,
    (8, 8): 13,
    (5, 8): 6,
    (10, 10): 23,
    (12, 15): 49,
    (20, 20): 127,
}
VALUES = st.lists(st.integers(0, 20).map(float), min_size=4, max_size=7)


def samples_with_u(n: int, m: int, u: int) -> tuple[list[float], list[float]]:
    """Two samples without ties; u times a value of the first is larger than one of the second."""
    above = [min(m, max(0, u - m * place)) for place in range(n)]
    return [count + (place + 1) / 100 for place, count in enumerate(sorted(above))], [
        position + 0.5 for position in range(m)
    ]


@pytest.mark.parametrize(("sizes", "u"), CRITICAL.items())
def test_exact_p_value_crosses_5_percent_at_the_printed_critical_value(
    sizes: tuple[int, int], u: int
) -> None:
    assert p_value(*samples_with_u(*sizes, u)) <= 0.05 < p_value(*samples_with_u(*sizes, u + 1))


def test_distribution_of_four_and_four_is_that_of_mann_and_whitney() -> None:
    printed = [0.014, 0.029, 0.057, 0.100, 0.171, 0.243, 0.343, 0.443]  # their table I, one tail
    found = [p_value(*samples_with_u(4, 4, u)) / 2 for u in range(len(printed))]
    assert found == pytest.approx(printed, abs=0.0006)


def test_exact_p_value_of_the_permeability_of_membranes() -> None:
    # Hollander & Wolfe 1973, p. 69; R's wilcox.test gives 0.1272 for one tail.
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    assert p_value(term, early) == pytest.approx(2 * 0.1272, abs=1e-4)


def test_normal_approximation_is_that_of_scipys_manual(monkeypatch: pytest.MonkeyPatch) -> None:
    males, females = [19.0, 22, 16, 29, 24], [20.0, 11, 17, 12]
    assert p_value(males, females) == pytest.approx(0.1111, abs=1e-4)
    monkeypatch.setattr(significance, "EXACT_MAX", 0)
    assert p_value(males, females) == pytest.approx(0.11134688653314041)


def test_normal_approximation_meets_the_exact_test_with_ties(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice = Random(7)
    a = [float(dice.randint(0, 9)) for _ in range(20)]
    b = [float(dice.randint(2, 11)) for _ in range(20)]
    exact = p_value(a, b)
    monkeypatch.setattr(significance, "EXACT_MAX", 0)
    assert p_value(a, b) == pytest.approx(exact, abs=0.01)


@given(VALUES, VALUES)
def test_exact_p_value_is_the_share_of_all_deals_as_uneven(a: list[float], b: list[float]) -> None:
    ranks = doubled_ranks([*a, *b])
    sums = [sum(deal) for deal in combinations(ranks, len(a))]
    seen = sum(ranks[: len(a)])
    tails = sum(one <= seen for one in sums), sum(one >= seen for one in sums)
    assert p_value(a, b) == pytest.approx(min(1.0, 2 * min(tails) / len(sums)))


@given(VALUES, VALUES)
def test_p_value_does_not_depend_on_the_order_of_the_sides(a: list[float], b: list[float]) -> None:
    assert p_value(a, b) == pytest.approx(p_value(b, a))


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert doubled_ranks([3.0, 1.0, 3.0, 2.0]) == [7, 2, 7, 4]


def test_three_runs_a_side_cannot_be_significant() -> None:
    assert p_value([1.0, 2.0, 3.0], [7.0, 8.0, 9.0]) == pytest.approx(0.1)
    assert p_value([1.0, 2.0, 3.0, 4.0], [6.0, 7.0, 8.0, 9.0]) == pytest.approx(2 / 70)


@given(VALUES, VALUES)
@settings(max_examples=30, deadline=None)
def test_bounds_surround_the_difference_of_the_medians(a: list[float], b: list[float]) -> None:
    low, high = difference(a, b, seed=3)
    assert min(b) - max(a) <= low <= high <= max(b) - min(a)
    assert low <= median(b) - median(a) <= high


def test_bounds_hold_the_true_difference_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(40):
        dice = Random(seed)
        a = [dice.gauss(100, 10) for _ in range(12)]
        b = [dice.gauss(120, 10) for _ in range(12)]
        low, high = difference(a, b, seed=seed)
        held += low <= 20 <= high
    assert held >= 34


def test_bounds_are_the_same_for_the_same_seed() -> None:
    a, b = [1.0, 2.0, 4.0, 8.0], [2.0, 3.0, 5.0, 9.0]
    assert difference(a, b, seed=1) == difference(a, b, seed=1)
