"""Pressure and advice follow the table of thresholds."""

import pytest

from holdfast_server.model import Level
from holdfast_server.pressure import Advice, Pressure, signal_of

EMPTY = Level("A", 0, 0, 0, 0, 0, 1, 0, 0, 0, 100, 5, 3, 10_000, 900_000, 7_200_000, 1, 0)


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


def test_item_without_thresholds_is_plenty_until_it_is_gone() -> None:
    bare = EMPTY._replace(plenty_at=0, low_at=0, scarce_at=0)

    assert signal_of(bare._replace(on_hand=1)).pressure is Pressure.PLENTY
    assert signal_of(bare).pressure is Pressure.SOLD_OUT
