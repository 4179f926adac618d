"""Thresholds: what they can say, where they go wrong, and what they make of a result."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_bench.harness.metrics import named
from holdfast_bench.harness.thresholds import ThresholdError, judge, parse

MS = 1_000_000


def times(p50: int) -> dict[str, int]:
    names = ("p50", "p75", "p90", "p95", "p99", "p99_9", "p99_99", "max", "mean")
    return {name: (number + 1) * p50 for number, name in enumerate(names)}


def rpc(count: int, p50: int, **outcomes: int) -> dict[str, Any]:
    return {
        "count": count,
        "outcomes": outcomes,
        "response": times(p50),
        "service": times(p50 // 2),
    }


RESULT: dict[str, Any] = {
    "count": 2_000,
    "rps": 1_000.0,
    "average": 9 * MS,
    "slowest": 800 * MS,
    "latencyDistribution": [
        {"percentage": 50, "latency": 5 * MS},
        {"percentage": 99, "latency": 49 * MS},
        {"percentage": 99.9, "latency": 120 * MS},
    ],
    "rpcs": {
        "Reserve": rpc(1_200, 10 * MS, ok=800, sold_out=396, error=1, deadline=3),
        "GetStock": rpc(800, 4 * MS, ok=800),
    },
    "sessions": {"planned": 9, "started": 8, "dropped": 1, "finished": 7, "alive_max": 5},
    "units": {"on_sale": 900, "sold": 800, "oversold": 0, "held": 3},
    "generator": {
        "lag": times(MS),
        "loop_lag_ms": {"p99": 4.0, "max": 8.0},
        "cpu_us_per_operation": 70.5,
    },
    "verdicts": [{"holds": True}, {"holds": False}],
}

VALUES = [
    ("p50", 5 * MS),
    ("p99", 49 * MS),
    ("p99.9", 120 * MS),
    ("max", 800 * MS),
    ("mean", 9 * MS),
    ("reserve.p50", 10 * MS),
    ("reserve.p99.9", 60 * MS),
    ("Reserve.mean", 90 * MS),
    ("get_stock.p50", 4 * MS),
    ("GetStock.service.p50", 2 * MS),
    ("lag.p99", 5 * MS),
    ("loop_lag.p99", 4 * MS),
    ("loop_lag.max", 8 * MS),
    ("count", 2_000),
    ("reserve.count", 1_200),
    ("ok", 1_600),
    ("reserve.sold_out", 396),
    ("shed", 0),
    ("error_rate", 4 / 2_000),
    ("reserve.error_rate", 4 / 1_200),
    ("deadline_rate", 3 / 2_000),
    ("sold_out_rate", 396 / 2_000),
    ("rate", 1_000.0),
    ("goodput", 800.0),
    ("dropped", 1),
    ("planned", 9),
    ("alive_max", 5),
    ("sold", 800),
    ("oversold", 0),
    ("refused_oversold", 0),
    ("violations", 1),
    ("cpu_us_per_operation", 70.5),
]


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_figure_is_read_from_the_result(name: str, value: float) -> None:
    metric = named(name.lower())

    assert metric is not None
    assert metric.of(RESULT) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("p99 < 50ms", True),
        ("p99 < 0.049s", False),
        ("p99 <= 49000us", True),
        ("p99<=49000000ns", True),
        ("reserve.p99.9 <= 200ms", True),
        ("  Reserve.P99  >  200 ms ", False),
        ("refused_oversold == 0", True),
        ("error_rate < 0.1%", False),
        ("error_rate <= 0.2 %", True),
        ("error_rate <= 0.002", True),
        ("rate >= 1000", True),
        ("rate > 1000", False),
        ("dropped == 0", False),
        ("dropped != 0", True),
        ("violations == 0", False),
    ],
)
def test_threshold_is_judged(expression: str, holds: bool) -> None:
    [judged] = judge([expression], RESULT)

    assert judged["expression"] == expression
    assert judged["holds"] is holds
    assert judged["value"] is not None


@pytest.mark.parametrize("expression", ["release.p99 < 1s", "release.ok >= 0", "p75 < 1s"])
def test_figure_without_a_value_does_not_hold(expression: str) -> None:
    assert judge([expression], RESULT) == [
        {"expression": expression, "value": None, "holds": False}
    ]


def test_nothing_measured_meets_no_expectation() -> None:
    nothing = {**RESULT, "count": 0, "rpcs": {}, "units": {"oversold": None}}

    for expression in ("p99 < 1s", "mean < 1s", "oversold == 0", "reserve.error_rate < 1%"):
        assert judge([expression], nothing)[0] == {
            "expression": expression,
            "value": None,
            "holds": False,
        }


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", "'', character 1: expected a figure, such as p99 or error_rate"),
        ("< 5ms", "'< 5ms', character 1: expected a figure"),
        ("p98 < 5ms", "'p98 < 5ms', character 1: no figure is called 'p98'"),
        ("  speed > 1", "'  speed > 1', character 3: no figure is called 'speed'"),
        ("p99.999 < 5ms", "character 1: no figure is called 'p99.999'"),
        ("service.p99 < 5ms", "character 1: no figure is called 'service.p99'"),
        ("lag.ok == 0", "character 1: no figure is called 'lag.ok'"),
        ("loop_lag.p50 < 5ms", "character 1: no figure is called 'loop_lag.p50'"),
        ("reserve.dropped == 0", "character 1: no figure is called 'reserve.dropped'"),
        ("reserve.service.ok == 0", "character 1: no figure is called 'reserve.service.ok'"),
        ("reserve. < 5ms", "character 1: no figure is called 'reserve.'"),
        (".p99 < 5ms", "character 1: expected a figure"),
        ("a..p99 < 5ms", "character 1: no figure is called 'a..p99'"),
        ("p99", "'p99', character 4: expected one of <= >= == != < >"),
        ("p99 = 5ms", "character 5: expected one of <= >= == != < >"),
        ("p99 <", "character 6: expected a duration: a number with ns, us, ms or s"),
        ("p99 < fast", "character 7: expected a duration"),
        ("p99 < -5ms", "character 7: expected a duration"),
        ("p99 < 5", "character 7: p99 is compared with a duration: a number with ns, us, ms or s"),
        ("p99 < 5%", "character 7: p99 is compared with a duration"),
        ("p99 < 5min", "character 7: p99 is compared with a duration"),
        ("rate > 5ms", "character 8: rate is compared with a number without a unit"),
        ("error_rate < 5", "character 14: error_rate is compared with a share: a number with %"),
        ("error_rate < 101%", "character 14: error_rate is compared with a share"),
        ("p99 < 5ms or so", "character 11: expected the end"),
        ("p99 < 1e3ms", "character 7: p99 is compared with a duration"),
    ],
)
def test_expression_that_is_no_threshold_is_refused_by_its_place(
    expression: str, problem: str
) -> None:
    with pytest.raises(ThresholdError) as refused:
        parse(expression)

    assert problem in str(refused.value)
