"""The highest rate that a server sustains: more, step by step, until the objective breaks.

Each step is a run of its own on the same server, not judged by the gate.  The highest rate that
kept the objective is then run once more, for as long as the scenario says, and that run is the
result, with the objective among its thresholds: a figure that does not repeat is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from holdfast_bench.harness.conductor import Conductor
from holdfast_bench.harness.live import Screen
from holdfast_bench.harness.results import assemble
from holdfast_bench.harness.run import Place, Run
from holdfast_bench.harness.scenario import Phases, Saturate, Scenario
from holdfast_bench.harness.thresholds import parse

NS_PER_MS = 1e6


async def search(
    scenario: Scenario, place: Place, screen: Screen, interrupted: asyncio.Event
) -> tuple[Run, dict[str, Any]]:
    """Return the run at the highest rate sustained, and under `saturation` every step."""
    assert scenario.saturate is not None
    steps: list[dict[str, Any]] = []
    for rate in _rates(scenario.arrivals.rate, scenario.saturate):
        step = await _step(_at(scenario, scenario.saturate, rate), place, screen, interrupted)
        steps.append(step)
        screen.note(_words(step))
        if not step["holds"] or interrupted.is_set():
            break
    sustained = max((step["rate"] for step in steps if step["holds"]), default=0.0)
    screen.note(f"highest rate that kept {scenario.saturate.objective}: {sustained:g} starts/s")
    last = _confirming(scenario, scenario.saturate, sustained or scenario.arrivals.rate)
    ran = await Conductor(last, place, screen, interrupted).run()
    objective = scenario.saturate.objective
    ran.notes.append(f"highest rate that kept {objective}: {sustained:g} starts/s")
    found = {"objective": objective, "sustained_rate": sustained, "steps": steps}
    return ran, {"saturation": found}


def _rates(first: float, saturate: Saturate) -> Iterator[float]:
    rate = first
    while rate <= saturate.rate_max:
        yield rate
        rate += saturate.step


def _at(scenario: Scenario, saturate: Saturate, rate: float) -> Scenario:
    """Return the scenario of one step."""
    return replace(
        scenario,
        saturate=None,
        thresholds=(saturate.objective,),
        arrivals=replace(scenario.arrivals, rate=rate),
        phases=Phases(saturate.settle_s, saturate.step_s, scenario.phases.drain_s),
    )


def _confirming(scenario: Scenario, saturate: Saturate, rate: float) -> Scenario:
    return replace(
        scenario,
        saturate=None,
        thresholds=(*scenario.thresholds, saturate.objective),
        arrivals=replace(scenario.arrivals, rate=rate),
    )


async def _step(
    scenario: Scenario, place: Place, screen: Screen, interrupted: asyncio.Event
) -> dict[str, Any]:
    ran = await Conductor(scenario, place, screen, interrupted, is_to_judge=False).run()
    result = assemble(ran, datetime.now(UTC))
    judged = parse(scenario.expressions[0]).judge(result)
    latencies = {row["percentage"]: row["latency"] for row in result["latencyDistribution"]}
    return {
        "rate": scenario.arrivals.rate,
        "rps": round(result["rps"], 1),
        "p50": latencies[50],
        "p99": latencies[99],
        "dropped": result["sessions"]["dropped"],
        "value": judged["value"],
        "holds": judged["holds"] and ran.is_whole and not result["sessions"]["dropped"],
        "is_valid": result["generator"]["is_valid"],
        "reasons": result["generator"]["reasons"],
    }


def _words(step: dict[str, Any]) -> str:
    p50, p99 = (step[name] / NS_PER_MS for name in ("p50", "p99"))
    kept = "kept" if step["holds"] else "BROKEN"
    valid = "" if step["is_valid"] else ", generator not valid"
    return (
        f"{step['rate']:g} starts/s: {step['rps']:.0f} calls/s, p50 {p50:.1f} ms, "
        f"p99 {p99:.1f} ms: {kept}{valid}"
    )
