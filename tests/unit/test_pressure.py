"""Pressure and advice: thresholds, hysteresis, and the early rise of what sells fast."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.model import Level
from holdfast_server.pressure import (
    Advice,
    Pressure,
    Signal,
    cover_ms,
    faded,
    is_passing,
    pressure_of,
)
from holdfast_server.pressure import signal_of as signal_at
from tests.contract.oracle.books import Stock

EMPTY = Stock("A").level()
MARGIN_AT_100 = 10


def signal_of(level: Level) -> Signal:
    """Return the signal of an item that rests: nothing sold of late, no backlash."""
    return signal_at(level._replace(damped=level.available), 0)


class Shelf:
    """An item whose stock moves as time goes by, with the memory that the kernel keeps of it."""

    def __init__(self, on_hand: int) -> None:
        self.item, self.now_ms = Stock("A", on_hand=on_hand), 0
        self.item.outlook.follow(0, 0, on_hand)

    def claim(self, units: int, *, after_ms: int = 0) -> Pressure:
        """Hold some units, or give some back, after a time."""
        self.now_ms += after_ms
        self.item.held += units
        self.item.outlook.follow(self.now_ms, units, self.item.available)
        return self.pressure()

    def pressure(self, *, after_ms: int = 0) -> Pressure:
        """Return the pressure, with nothing happening for a time."""
        self.now_ms += after_ms
        return pressure_of(self.item.level(), self.now_ms)

    def rest(self) -> Pressure:
        """Let an hour pass, so that no unit counts as sold of late."""
        return self.pressure(after_ms=3_600_000)


@pytest.mark.parametrize(
    ("available", "pressure", "advice"),
    [
        (1_000, Pressure.PLENTY, Advice.PROCEED),
        (100, Pressure.PLENTY, Advice.PROCEED),
        (99, Pressure.NORMAL, Advice.PROCEED),
        (6, Pressure.NORMAL, Advice.PROCEED),
        (5, Pressure.LOW, Advice.SLOW_DOWN),
        (4, Pressure.LOW, Advice.SLOW_DOWN),
        (3, Pressure.SCARCE, Advice.OFFER_ALTERNATIVE),
        (1, Pressure.SCARCE, Advice.OFFER_ALTERNATIVE),
        (0, Pressure.SOLD_OUT, Advice.STOP),
        (-7, Pressure.SOLD_OUT, Advice.STOP),
    ],
)
def test_thresholds_decide_pressure_and_advice(
    available: int, pressure: Pressure, advice: Advice
) -> None:
    signal = signal_of(EMPTY._replace(on_hand=available))

    assert (pressure, advice) == signal[:2]


def test_sold_out_item_that_allows_oversell_advises_backorder() -> None:
    signal = signal_of(EMPTY._replace(oversell_limit=2))

    assert signal[:2] == (Pressure.SOLD_OUT, Advice.BACKORDER)


def test_sold_out_item_with_its_allowance_used_up_advises_stop() -> None:
    signal = signal_of(EMPTY._replace(oversell_limit=2, held=2, backordered=2))

    assert signal.advice is Advice.STOP


def test_pause_grows_as_stock_falls() -> None:
    pauses = [signal_of(EMPTY._replace(on_hand=units)).retry_after_ms for units in (5, 4, 3, 2, 1)]

    assert sorted(set(pauses)) == pauses


def test_sold_out_item_with_nothing_held_gives_no_hope() -> None:
    assert signal_of(EMPTY).retry_after_ms == 0


def test_sold_out_item_with_units_held_says_when_to_ask_again() -> None:
    assert signal_of(EMPTY._replace(on_hand=1, held=1)).retry_after_ms > 0


def test_one_unit_given_back_does_not_flap_the_signal() -> None:
    shelf = Shelf(7)
    for _ in range(4):
        shelf.claim(1)
    assert shelf.rest() is Pressure.SCARCE
    shelf.claim(-1)
    assert shelf.rest() is Pressure.SCARCE
    shelf.claim(1)
    assert shelf.rest() is Pressure.SCARCE
    shelf.claim(-2)
    assert shelf.rest() is Pressure.LOW


def test_the_margin_grows_with_the_stock() -> None:
    shelf = Shelf(200)
    shelf.claim(101)
    assert shelf.rest() is Pressure.NORMAL
    shelf.claim(-MARGIN_AT_100)
    assert shelf.rest() is Pressure.NORMAL
    shelf.claim(-MARGIN_AT_100)
    assert shelf.rest() is Pressure.PLENTY


def test_what_was_just_delivered_counts_in_full() -> None:
    shelf = Shelf(2)
    assert shelf.pressure() is Pressure.SCARCE
    for on_hand, expected in ((6, Pressure.NORMAL), (100, Pressure.PLENTY), (4, Pressure.LOW)):
        shelf.item.on_hand = on_hand
        shelf.item.outlook.follow(shelf.now_ms, 0, shelf.item.available)
        assert shelf.pressure() is expected


def test_sold_out_is_exact_in_both_directions() -> None:
    shelf = Shelf(1)
    assert shelf.claim(1) is Pressure.SOLD_OUT
    assert shelf.claim(-1) is Pressure.SCARCE


def test_the_signal_rises_early_while_the_item_sells_fast_and_eases_with_time() -> None:
    shelf = Shelf(90)
    seen = [shelf.claim(1, after_ms=500) for _ in range(40)]
    assert seen[0] is Pressure.NORMAL
    assert seen[-1] is Pressure.LOW
    assert sorted(seen) == seen
    assert shelf.item.available > shelf.item.policy["low_at"]
    assert is_passing(shelf.item.level(), shelf.now_ms)
    assert shelf.rest() is Pressure.NORMAL
    assert not is_passing(shelf.item.level(), shelf.now_ms)


def test_a_rush_is_scarce_within_a_third_of_the_horizon() -> None:
    shelf = Shelf(100)
    assert max(shelf.claim(2, after_ms=100) for _ in range(35)) is Pressure.SCARCE


def test_a_slow_sale_never_rises_early() -> None:
    shelf = Shelf(90)
    assert max(shelf.claim(1, after_ms=5_000) for _ in range(80)) is Pressure.NORMAL


def test_an_early_signal_does_not_flap_between_one_sale_and_the_next() -> None:
    """At a steady rate it changes once a direction, although the demand fades after each sale."""
    shelf, seen = Shelf(400), []
    for _ in range(300):
        seen += [shelf.claim(1, after_ms=300), shelf.pressure(after_ms=250)]
    changes = [old for old, new in pairwise(seen) if old is not new]
    assert changes == sorted(set(changes))


def test_units_given_back_are_no_sale() -> None:
    shelf = Shelf(90)
    for _ in range(40):
        shelf.claim(20, after_ms=50)
        shelf.claim(-20, after_ms=50)
    assert shelf.pressure(after_ms=1) is Pressure.NORMAL


def test_without_a_horizon_only_the_units_count() -> None:
    shelf = Shelf(90)
    shelf.item.policy["sellout_horizon_ms"] = 0
    assert max(shelf.claim(1, after_ms=100) for _ in range(80)) is Pressure.NORMAL


def test_without_a_horizon_even_the_last_units_of_a_rush_count_alone() -> None:
    shelf = Shelf(20_000)
    shelf.item.policy.update(sellout_horizon_ms=0, low_at=0, scarce_at=0)
    assert shelf.claim(19_999) is Pressure.NORMAL
    assert shelf.item.outlook.cover_ms == 0


@given(demand=st.integers(0, 2_000_000_000), ms=st.integers(-5, 400_000))
def test_a_demand_fades_as_the_kernel_lets_it_fade(demand: int, ms: int) -> None:
    shelf = Stock("A", on_hand=10)
    shelf.outlook.demand = demand
    shelf.outlook.follow(ms, 0, 10)
    assert faded(demand, ms) == shelf.outlook.demand


@given(st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 40_000)), max_size=40))
def test_cover_is_the_one_stored_at_a_change_and_only_grows_until_the_next(
    moves: list[tuple[int, int]],
) -> None:
    shelf = Shelf(50)
    for units, after_ms in moves:
        shelf.claim(units, after_ms=after_ms)
        level, now = shelf.item.level(), shelf.now_ms
        if level.demand:
            assert cover_ms(level, now) == level.cover_ms
        later = [cover_ms(level, now + ms) for ms in (0, 1, 999, 10_000, 60_000, 400_000)]
        assert later == sorted(later)


def test_item_without_thresholds_is_plenty_until_it_is_gone() -> None:
    bare = EMPTY._replace(plenty_at=0, low_at=0, scarce_at=0)

    assert signal_of(bare._replace(on_hand=1)).pressure is Pressure.PLENTY
    assert signal_of(bare).pressure is Pressure.SOLD_OUT
