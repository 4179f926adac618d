"""result.json: everything a run measured, in one object; `result.schema.json` describes it.

Names and units of the whole are ghz's, so that what reads its reports reads these: durations in
ns, `count` calls of all RPCs, whatever their outcome, in `total` seconds: the steady phase.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

from grpc import StatusCode

from holdfast_bench.harness.histogram import Histogram
from holdfast_bench.harness.metrics import OUTCOMES, PERCENTILES
from holdfast_bench.harness.recording import Recorded
from holdfast_bench.harness.run import ABORTED, Run
from holdfast_bench.harness.series import series
from holdfast_bench.harness.tallies import Calls
from holdfast_bench.harness.thresholds import judge
from holdfast_server.rpc.status import CODES

SCHEMA_VERSION = 1
OK, HARNESS_FAULT, FAILED = 0, 1, 99
NS_PER_US = 1_000
DISTRIBUTION = (10, 25, *PERCENTILES.values())

# Reasons of the harness's own, for calls that brought none of the server's.
UNANSWERED = {
    "UNREACHABLE": StatusCode.UNAVAILABLE,
    "UNANSWERED": StatusCode.CANCELLED,
    "TRANSPORT_ERROR": StatusCode.UNKNOWN,
}
STATUSES = {**{code.name: code for code in StatusCode}, **CODES, **UNANSWERED}
NO_UNITS = {"on_sale": None, "sold": None, "oversold": None, "held": None}


def assemble(run: Run, date: datetime) -> dict[str, Any]:
    """Return the result of a run that began at this date."""
    scenario = run.scenario
    result = {
        "schema_version": SCHEMA_VERSION,
        "name": scenario.name,
        "description": scenario.description,
        "date": date.isoformat(timespec="milliseconds"),
        "end_reason": run.end_reason,
        "options": scenario.as_read(),
        "seed": scenario.seed,
        **figures(run.recorded, run.steady_s),
        "generator": _generator(run),
        "verdicts": [verdict._asdict() for verdict in run.verdicts],
        "units": run.units._asdict() if run.units else NO_UNITS,
        "phases": run.phases,
        "series": series(run.recorded, run.phases),
        "resources": run.resources,
        "stock": run.stock,
        "notes": list(run.notes),
    }
    result["thresholds"] = judge(scenario.expressions, result)
    result["exit_code"] = exit_code(result, is_whole=run.is_whole)
    plain: dict[str, Any] = json.loads(json.dumps(result))  # as a reader of the file has it
    return plain


def exit_code(result: Mapping[str, Any], *, is_whole: bool) -> int:
    """Return 99 for a broken promise or threshold, 1 for a run that did not get to its end."""
    if not all(verdict["holds"] for verdict in result["verdicts"]):
        return FAILED
    if result["end_reason"].startswith(ABORTED):
        return FAILED  # even if the calls of its last moment have mended the figure
    if not is_whole:
        return HARNESS_FAULT
    return OK if all(threshold["holds"] for threshold in result["thresholds"]) else FAILED


def schema() -> dict[str, Any]:
    """Return the JSON Schema of result.json."""
    file = files("holdfast_bench.harness") / "result.schema.json"
    described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return described


def figures(recorded: Recorded, steady_s: float) -> dict[str, Any]:
    """Return what is known of calls and sessions, at the end of a run or while it goes."""
    return {
        **_of_all_calls(recorded.steady, steady_s),
        "rpcs": {rpc: _rpc(calls) for rpc, calls in sorted(recorded.rpcs.items())},
        "sessions": _sessions(recorded),
    }


def _of_all_calls(every: Calls, steady_s: float) -> dict[str, Any]:
    response = every.response
    latencies = zip(DISTRIBUTION, response.percentiles_us(DISTRIBUTION), strict=True)
    return {
        "count": every.count,
        "total": steady_s,
        "rps": every.count / steady_s if steady_s > 0 else 0.0,
        "average": round(response.mean_us * NS_PER_US),
        "fastest": response.min_us * NS_PER_US,
        "slowest": response.max_us * NS_PER_US,
        "statusCodeDistribution": _statuses(every),
        "errorDistribution": _errors(every),
        "latencyDistribution": [
            {"percentage": percentage, "latency": us * NS_PER_US} for percentage, us in latencies
        ],
    }


def _statuses(calls: Calls) -> dict[str, int]:
    """Return calls by status, as ghz spells them.  A refusal is a message, and its status OK."""
    statuses: dict[str, int] = {}
    for reason, count in calls.reasons.items():
        if (code := STATUSES.get(reason)) is not None:
            statuses[_ghz(code)] = statuses.get(_ghz(code), 0) + count
    ok = calls.count - sum(statuses.values())
    return {"OK": ok, **statuses} if ok else statuses


def _errors(calls: Calls) -> dict[str, int]:
    """Return calls by the reason of what was no answer: a refusal is not an error."""
    return {reason: count for reason, count in calls.reasons.items() if reason in STATUSES}


def _ghz(code: StatusCode) -> str:
    spelled = "".join(word.capitalize() for word in code.name.split("_"))
    return {"Ok": "OK", "Cancelled": "Canceled"}.get(spelled, spelled)


def _rpc(calls: Calls) -> dict[str, Any]:
    return {
        "count": calls.count,
        "outcomes": {outcome: calls.outcomes.get(outcome, 0) for outcome in OUTCOMES},
        "reasons": calls.reasons,
        "response": times(calls.response),
        "service": times(calls.service),
    }


def times(histogram: Histogram) -> dict[str, int]:
    """Return the percentiles, the maximum and the mean of a histogram, in ns."""
    values = histogram.percentiles_us(tuple(PERCENTILES.values()))
    found = {
        name.replace(".", "_"): us * NS_PER_US for name, us in zip(PERCENTILES, values, strict=True)
    }
    return {
        **found,
        "max": histogram.max_us * NS_PER_US,
        "mean": round(histogram.mean_us * NS_PER_US),
    }


def _sessions(recorded: Recorded) -> dict[str, int]:
    sessions = recorded.sessions
    return {
        "planned": sessions.planned,
        "started": sessions.started,
        "dropped": sessions.dropped,
        "finished": sessions.finished,
        "alive_max": recorded.alive_max,
    }


def _generator(run: Run) -> dict[str, Any]:
    """Return what the generator did to its own measurement; unknown, it is not valid."""
    lag = {"lag": times(run.recorded.lag)}
    if run.health is not None:
        return {**lag, **run.health.as_json()}
    return {
        **lag,
        "loop_lag_ms": {"p99": 0.0, "max": 0.0},
        "cpu_s": 0.0,
        "cpu_wait_s": 0.0,
        "cpu_us_per_operation": 0.0,
        "is_valid": False,
        "reasons": ["the run ended before its generator could be judged"],
    }
