"""What the gate and the health check catch, and what they let pass."""

from __future__ import annotations

import base64
from array import array
from datetime import UTC, datetime

import pytest

from holdfast import Advice, Pressure, StockLevel
from holdfast_bench.harness import gate
from holdfast_bench.harness.gate import Sold
from holdfast_bench.harness.health import health
from holdfast_bench.harness.recording import Outcome, Recorded, Recorder, merge
from holdfast_server.checks import Acknowledged

AT = datetime(2026, 1, 1, tzinfo=UTC)


def level(sku: str, committed: int, held: int = 0, on_hand: int = 10) -> StockLevel:
    available = on_hand - held - committed
    return StockLevel(
        sku, available, on_hand, held, committed, 0, 0, 1,
        Pressure.NORMAL, Advice.PROCEED, 0.0, AT,
    )  # fmt: skip


def test_more_sold_than_there_was_is_oversold() -> None:
    sold = Sold(["A", "B"], 10, {"A": 10, "B": 11})
    verdict = gate.agents_not_oversold(sold)
    assert (verdict.holds, verdict.violations) == (False, ["B: 11 units sold, 10 on sale"])
    assert gate.units_of(sold, {}) == (20, 21, 1, 0)


def test_claims_beyond_stock_are_oversold_though_nobody_bought() -> None:
    levels = {"A": level("A", committed=6, held=5)}
    assert gate.units_of(Sold(["A"], 10, {"A": 6}), levels).oversold == 1


@pytest.mark.parametrize(
    ("committed", "bought", "unknown", "holds"),
    [(3, 3, 0, True), (4, 3, 0, False), (2, 3, 0, False), (4, 3, 1, True), (5, 3, 1, False)],
)
def test_books_balance_but_for_lost_answers(
    committed: int, bought: int, unknown: int, holds: bool
) -> None:
    sold = Sold(["A"], 10, {"A": bought}, {"A": unknown})
    assert gate.books_balance(sold, {"A": level("A", committed)}).holds is holds


def test_what_agents_were_told_comes_back_with_their_ids() -> None:
    told = base64.b64encode(array("q", [7, 1, 100, 8, 2, 101]).tobytes()).decode()
    assert gate.acknowledged_of("run", ["", told]) == [
        Acknowledged(1, "run-7", 100),
        Acknowledged(2, "run-8", 101),
    ]


def recorded(lag_s: float) -> Recorded:
    recorder = Recorder(0.0)
    recorder.record("Reserve", "steady", 1.0, 1.0 + lag_s, 2.0, Outcome.OK)
    return merge(recorder.encode())


def test_a_generator_in_good_health_is_valid() -> None:
    found = health(recorded(0.001), [0.001] * 100, [(1.0, 0.0), (2.0, 0.1)], 10.0)
    assert (found.is_valid, found.cpu_s, found.cpu_us_per_operation) == (True, 3.0, 3_000_000.0)


@pytest.mark.parametrize(
    ("lag_s", "loop_lag_s", "cpu_s", "reason"),
    [
        (0.05, 0.001, 1.0, "calls left late"),
        (0.001, 0.05, 1.0, "an event loop was late"),
        (0.001, 0.001, 9.5, "used 95% of a processor"),
    ],
)
def test_a_generator_that_was_the_bottleneck_is_not(
    lag_s: float, loop_lag_s: float, cpu_s: float, reason: str
) -> None:
    found = health(recorded(lag_s), [loop_lag_s] * 100, [(cpu_s, 0.0), (1.0, 0.0)], 10.0)
    assert not found.is_valid
    assert [reason in words for words in found.reasons] == [True]


def test_a_late_generator_that_had_no_processor_says_so() -> None:
    found = health(recorded(0.05), [], [(1.0, 1.0)], 10.0)
    assert "ready for 10% of the time and had no processor" in found.reasons[-1]


def test_waiting_for_the_server_is_not_the_generators_fault() -> None:
    recorder = Recorder(0.0)
    recorder.record("Reserve", "steady", 1.0, 3.0, 4.0, Outcome.OK, "", 2.0)
    assert health(merge(recorder.encode()), [], [(1.0, 0.0)], 10.0).is_valid
