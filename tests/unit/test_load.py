"""The gauge of the server's load: what it is fed, moment by moment, and the level it shows."""

from __future__ import annotations

from itertools import count

import pytest

from holdfast_server.engine.load import Delays, LoadBounds, LoadGauge, ServerLoad
from holdfast_server.rpc import messages

BOUNDS = LoadBounds(high_ms=200, overloaded_ms=1_000)
N, H, O = ServerLoad.NORMAL, ServerLoad.HIGH, ServerLoad.OVERLOADED  # noqa: E741  # a table's words

# name: (delay in ms, ticks of 1/16 s for which it is observed, level after them)...
HISTORIES: dict[str, list[tuple[float, int, ServerLoad]]] = {
    "a calm server is NORMAL": [(0, 80, N), (199, 80, N)],
    "a delay at the bound is HIGH once it has stayed": [(200, 2, N), (200, 1, H)],
    "a delay at the upper bound is OVERLOADED at once": [(1_000, 2, N), (1_000, 1, O)],
    "one pause is not load": [(0, 9, N), (5_000, 1, N), (0, 9, N)],
    "pauses apart do not add up": [(5_000, 1, N), (0, 1, N)] * 9,
    "a pause at HIGH is not OVERLOADED": [(300, 9, H), (1_500, 1, H), (300, 9, H)],
    "a level stays while the delay is over half its bound": [(200, 3, H), (100, 999, H)],
    "a level stays for a second after the delay fell": [(200, 3, H), (99, 15, H), (99, 1, N)],
    "a relapse starts the second again": [
        (200, 3, H),
        (0, 15, H),
        (150, 1, H),
        (0, 15, H),
        (0, 1, N),
    ],
    "OVERLOADED falls one step a second": [
        (2_000, 3, O),
        (0, 15, O),
        (0, 1, H),
        (0, 15, H),
        (0, 1, N),
    ],
    "OVERLOADED falls to HIGH and stays there": [(2_000, 3, O), (300, 16, H), (300, 99, H)],
    "OVERLOADED stays over half of the upper bound": [(1_000, 3, O), (500, 99, O)],
    "a level that fell rises again as before": [(1_000, 3, O), (0, 16, H), (1_000, 3, O)],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
def test_the_level_follows_the_delays(history: list[tuple[float, int, ServerLoad]]) -> None:
    gauge, clock = LoadGauge(BOUNDS), count()
    for delay_ms, ticks, expected in history:
        for _ in range(ticks):
            gauge.observe(next(clock) / 16, Delays(queue_wait_ms=delay_ms))
        assert gauge.load is expected, (delay_ms, clock)


@pytest.mark.parametrize("where", Delays._fields)
def test_each_delay_alone_makes_load(where: str) -> None:
    gauge = LoadGauge(BOUNDS)
    for tick in range(3):
        gauge.observe(tick / 20, Delays(**{where: 1_000.0}))
    assert gauge.load is O


def test_an_upper_bound_of_0_means_never_overloaded() -> None:
    gauge = LoadGauge(LoadBounds(high_ms=200, overloaded_ms=0))
    for tick in range(200):
        gauge.observe(tick / 20, Delays(round_trip_ms=60_000.0))
    assert gauge.load is H


@pytest.mark.parametrize(
    ("delay_ms", "draw", "retry_after_ms"),
    [
        (1_000, 0.0, 250),
        (1_000, 0.5, 500),
        (1_000, 1.0, 750),
        (3_000, 0.5, 1_500),
        (600_000, 0.5, 10_000),
        (20, 0.5, 500),  # the queue is short again, but the level has not fallen yet
    ],
)
def test_a_refusal_asks_for_a_longer_wait_the_more_is_waiting(
    delay_ms: float, draw: float, retry_after_ms: int
) -> None:
    gauge = LoadGauge(BOUNDS, draw=lambda: draw, load=O, delays=Delays(queue_wait_ms=delay_ms))
    refusal = gauge.refusal()
    assert refusal.retry_after_ms == retry_after_ms
    assert f"less than 500 ms; they wait {delay_ms} ms" in str(refusal)


def test_refused_callers_do_not_come_back_at_the_same_moment() -> None:
    gauge = LoadGauge(BOUNDS, load=O)
    assert len({gauge.refusal().retry_after_ms for _ in range(100)}) > 10


@pytest.mark.parametrize(("load", "interval_ms"), [(N, 0), (H, 100), (O, 1_000)])
def test_a_loaded_server_asks_for_fewer_messages(load: ServerLoad, interval_ms: int) -> None:
    message = messages.server_pressure(load)
    assert message.load == load
    assert message.HasField("suggested_min_interval") is bool(interval_ms)
    assert message.suggested_min_interval.ToMilliseconds() == interval_ms
