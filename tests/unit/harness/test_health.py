"""A generator that was too slow is told, by what made it so: its figures are its own."""

from __future__ import annotations

import pytest

from holdfast_bench.harness.health import (
    CPU_SHARE_MAX,
    LAG_P99_MS_MAX,
    LOOP_LAG_P99_MS_MAX,
    health,
)
from holdfast_bench.harness.recording import Outcome, Recorded, Recorder, merge


def recorded(*, lag_s: float, late: int = 100, calls: int = 100) -> Recorded:
    """Calls of which so many left this late, and the others at once."""
    recorder = Recorder(0.0)
    for number in range(calls):
        sent = lag_s if number < late else 0.0
        recorder.record("Reserve", "steady", 0.0, sent, sent + 0.001, Outcome.OK)
    return merge(recorder.encode())


def test_generator_in_time_is_valid_and_tells_its_cost() -> None:
    judged = health(recorded(lag_s=0.001), [0.001] * 199 + [0.5], [(0.02, 0.1), (0.03, 0.2)], 4.0)

    assert judged.as_json() == {
        "loop_lag_ms": {"p99": 1.0, "max": 500.0},
        "cpu_s": 0.05,
        "cpu_wait_s": 0.3,
        "cpu_us_per_operation": 500.0,
        "is_valid": True,
        "reasons": [],
    }


@pytest.mark.parametrize(
    ("lag_s", "loop_lag_s", "cpu_s", "reason"),
    [
        (LAG_P99_MS_MAX / 500, 0.0, 1.0, "calls left late: p99 20.0 ms, at most 10 ms"),
        (0.0, LOOP_LAG_P99_MS_MAX / 500, 1.0, "an event loop was late: p99 40.0 ms, at most 20 ms"),
        (0.0, 0.0, 9.5, "a process used 95% of a processor, at most 90%: add --processes"),
    ],
)
def test_slow_generator_is_not_valid_and_says_why(
    lag_s: float, loop_lag_s: float, cpu_s: float, reason: str
) -> None:
    judged = health(recorded(lag_s=lag_s), [loop_lag_s] * 100, [(cpu_s, 0.0)], 10.0)

    assert judged.is_valid is False
    [told] = judged.reasons
    assert told.startswith(reason)


def test_every_reason_is_told() -> None:
    judged = health(recorded(lag_s=1.0), [1.0] * 10, [(10.0, 0.0)], 10.0)

    assert len(judged.reasons) == 3


def test_one_late_call_of_a_thousand_is_no_reason() -> None:
    assert health(recorded(lag_s=1.0, late=1, calls=1_000), [0.0], [(1.0, 0.0)], 10.0).is_valid


def test_busiest_process_counts_not_all_together() -> None:
    each = (CPU_SHARE_MAX * 10 * 0.9, 0.0)

    assert health(recorded(lag_s=0.0), [], [each, each, each], 10.0).is_valid


def test_run_without_a_steady_second_is_judged_without_a_fault() -> None:
    judged = health(Recorded(), [], [], 0.0)

    assert judged.cpu_us_per_operation == 0.0
    assert judged.loop_lag_ms == {"p99": 0.0, "max": 0.0}


def test_a_slow_generator_that_waited_for_a_processor_says_so() -> None:
    waited = health(recorded(lag_s=1.0), [], [(1.0, 2.0)], 10.0).reasons
    assert waited[-1].startswith("a process was ready for 20% of the time and had no processor")
    assert health(recorded(lag_s=0.0), [], [(1.0, 2.0)], 10.0).is_valid, "it kept up all the same"
