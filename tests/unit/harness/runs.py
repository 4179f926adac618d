"""A run as a conductor brings it, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from holdfast_bench.harness.gate import Units
from holdfast_bench.harness.health import Health
from holdfast_bench.harness.recording import Outcome, Recorder, merge
from holdfast_bench.harness.run import Place, Run
from holdfast_bench.harness.scenario import Phases, Scenario
from holdfast_server.checks import Verdict

DATE = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
EPOCH = 100.0
PHASES = [
    {"name": "connect", "began": -0.5, "ended": 0.0},
    {"name": "warm_up", "began": 0.0, "ended": 1.0},
    {"name": "steady", "began": 1.0, "ended": 5.0},
    {"name": "drain", "began": 5.0, "ended": 6.2},
]
MS = 0.001


def recorder() -> Recorder:
    """100 sessions: 10 in warm-up, the rest in the steady phase; second 3 is without an answer."""
    made = Recorder(EPOCH)
    for number in range(100):
        start = EPOCH + 0.9 + number * 0.01 if number < 10 else EPOCH + 1 + (number - 10) * 0.01
        phase = "warm_up" if number < 10 else "steady"
        made.session_planned(start)
        made.session_started(start)
        took = (number + 1) * MS
        if number % 10 == 9:
            outcome, reason = Outcome.SOLD_OUT, "OUT_OF_STOCK"
        elif number % 10 == 8:
            outcome, reason = Outcome.SHED, "OVERLOADED"
        else:
            outcome, reason = Outcome.OK, ""
        made.record("Reserve", phase, start, start + MS / 10, start + took, outcome, reason)
        if outcome is Outcome.OK:
            made.record("Commit", phase, start, start, start + 2 * MS, Outcome.OK)
        made.session_finished(start + took)
    late = EPOCH + 4.5
    made.session_planned(late)
    made.session_dropped(late)
    made.record("Commit", "steady", late, late, late + 10, Outcome.DEADLINE, "DEADLINE_EXCEEDED")
    return made


def run(**changes: Any) -> Run:
    """A run of 5 s that came to its end, with every promise kept."""
    scenario = Scenario(
        name="made",
        description="A run made by hand",
        phases=Phases(warm_up_s=1.0, steady_s=4.0, drain_s=2.0),
        thresholds=("max < 11s", "oversold == 0"),
    )
    facts: dict[str, Any] = {
        "scenario": scenario,
        "place": Place("127.0.0.1:7420"),
        "run_id": "bench-made",
        "steady_s": 4.0,
        "recorded": merge(recorder().encode()),
        "health": Health({"p99": 1.5, "max": 3.0}, 0.5, 0.1, 42.0, []),
        "verdicts": [Verdict("never_oversold", True, 100, [])],
        "units": Units(1_000, 80, 0, 2),
        "phases": PHASES,
        "resources": [{"t": 1.0, "process": "server", "cpu_share": 0.4, "rss_bytes": 70_000_000}],
        "stock": [{"t": 1.0, "sku": "sku-0", "available": 920, "pressure": "low"}],
        "notes": ["made by hand"],
        **changes,
    }
    return Run(**facts)
