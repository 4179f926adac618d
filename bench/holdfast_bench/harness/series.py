"""One row for each second of a run: sessions, calls by outcome, and response times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast_bench.harness.metrics import OUTCOMES
from holdfast_bench.harness.recording import CONNECT, DRAIN, Recorded
from holdfast_bench.harness.tallies import Calls, Second

NS_PER_US = 1_000
TIMES = (50, 99)
COLUMNS = ("t", "phase", "offered", "started", "finished", *OUTCOMES, "p50", "p99", "max")

Phases = Sequence[Mapping[str, Any]]


def series(recorded: Recorded, phases: Phases) -> list[dict[str, Any]]:
    """Return a row for every second from the first to the last, those without an event too.

    `t` counts seconds from the first planned start; connecting is before it.  offered, started and
    finished are sessions; the outcomes are calls answered in that second, and so are p50, p99 and
    max, in ns: null when there was no answer, for that is not a fast second.
    """
    if not recorded.seconds:
        return []
    first, last = min(recorded.seconds), max(recorded.seconds)
    return [
        row(second, recorded.seconds.get(second, Second()), phases)
        for second in range(first, last + 1)
    ]


def row(t: int, second: Second, phases: Phases) -> dict[str, Any]:
    """Return one second as a row."""
    calls = Calls()
    for by_rpc in (second.measured, second.unmeasured):
        for more in by_rpc.values():
            calls.merge(more)
    p50, p99 = calls.response.percentiles_us(TIMES)
    times = {"p50": p50, "p99": p99, "max": calls.response.max_us}
    return {
        "t": t,
        "phase": phase_of(t, phases),
        "offered": second.sessions.planned,
        "started": second.sessions.started,
        "finished": second.sessions.finished,
        **{outcome: calls.outcomes.get(outcome, 0) for outcome in OUTCOMES},
        **{name: us * NS_PER_US if calls.count else None for name, us in times.items()},
    }


def phase_of(t: float, phases: Phases) -> str:
    """Return the phase that a second begins in."""
    for phase in phases:
        if phase["began"] <= t < phase["ended"]:
            return str(phase["name"])
    return CONNECT if t < 0 else DRAIN
