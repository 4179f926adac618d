"""The figures of a result that a threshold can name, and where they stand in result.json.

    p50 p75 p90 p95 p99 p99.9 p99.99 max mean    response time of all calls, or of one RPC:
                                                 `reserve.p99`, `reserve.service.p99`
    lag.p99 ...   loop_lag.p99 loop_lag.max      how late the generator was
    ok sold_out refused throttled shed deadline error count
                                                 calls; with `_rate`, their share of all calls;
                                                 of all RPCs, or of one: `commit.error_rate`
    planned started dropped finished alive_max   sessions
    on_sale sold oversold held                   units; `refused_oversold` is oversold too
    rate goodput                                 calls, and calls that were ok, a second
    violations                                   promises that did not hold
    cpu_us_per_operation                         of the generator

`error_rate` counts what got no answer in time too: errors and deadlines.  Units, violations, the
loop's lag and the CPU are known when a run is over, everything else while it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

DURATION, SHARE, NUMBER = "duration", "share", "number"
NS_PER_MS = 1e6

PERCENTILES = {
    "p50": 50,
    "p75": 75,
    "p90": 90,
    "p95": 95,
    "p99": 99,
    "p99.9": 99.9,
    "p99.99": 99.99,
}
TIMES = (*PERCENTILES, "max", "mean")
OUTCOMES = ("ok", "sold_out", "refused", "throttled", "shed", "deadline", "error")
CALLS = (*OUTCOMES, "count")
SESSIONS = ("planned", "started", "dropped", "finished", "alive_max")
UNITS = ("on_sale", "sold", "oversold", "held")
OTHERS = ("rate", "goodput", "violations", "cpu_us_per_operation", "refused_oversold")
LAGS = ("lag", "loop_lag")
KNOWN_AT_THE_END = {*UNITS, "refused_oversold", "violations", "cpu_us_per_operation"}

Result = Mapping[str, Any]


class Metric(NamedTuple):
    """One figure: `scope` is an RPC, a kind of lag, or empty for the whole run."""

    scope: str
    is_service: bool
    figure: str

    @property
    def kind(self) -> str:
        """What the figure is: a duration in ns, a share of 1, or a plain number."""
        if self.figure in TIMES:
            return DURATION
        return SHARE if self.figure.endswith("_rate") else NUMBER

    @property
    def is_live(self) -> bool:
        """Whether it is known while a run goes."""
        return self.scope != "loop_lag" and self.figure not in KNOWN_AT_THE_END

    def of(self, result: Result) -> float | None:
        """Return the value in a result, None if it has none: an RPC that was not called."""
        if self.scope in LAGS:
            return _lag(result["generator"], self)
        if self.figure in TIMES:
            return _time(result, self)
        if not self.scope and self.figure not in CALLS and self.kind is not SHARE:
            return _of_run(result, self.figure)
        rpcs = [rpc for name, rpc in result["rpcs"].items() if self._is_of(name)]
        return _calls(rpcs, self.figure) if rpcs or not self.scope else None

    def _is_of(self, rpc: str) -> bool:
        return not self.scope or plain(rpc) == plain(self.scope)


def plain(rpc: str) -> str:
    """Return an RPC's name as all spellings of it have it: GetStock, get_stock."""
    return rpc.replace("_", "").lower()


def named(name: str) -> Metric | None:
    """Return the metric of this name, None if there is none."""
    scope, figure = "", name
    for time in sorted(TIMES, key=len, reverse=True):  # p99.9 has a dot of its own
        if name == time or name.endswith(f".{time}"):
            scope, figure = name[: -len(time)].removesuffix("."), time
            break
    else:
        scope, _, figure = name.rpartition(".")
    scope, is_service = scope.removesuffix(".service"), scope.endswith(".service")
    metric = Metric(scope, is_service, figure)
    return metric if _exists(metric) else None


def _exists(metric: Metric) -> bool:
    scope, is_service, figure = metric
    if scope and not scope.replace("_", "").isalnum():
        return False
    if scope == "loop_lag":
        return figure in {"p99", "max"} and not is_service
    if figure in TIMES:
        return scope != "service" and not (scope == "lag" and is_service)
    if scope in LAGS or is_service:
        return False
    if figure in CALLS or figure.removesuffix("_rate") in OUTCOMES:
        return True
    return not scope and figure in {*SESSIONS, *UNITS, *OTHERS}


def _lag(generator: Result, metric: Metric) -> float | None:
    if metric.scope == "loop_lag":
        value: float = generator["loop_lag_ms"][metric.figure]
        return value * NS_PER_MS
    found: float | None = generator["lag"].get(metric.figure.replace(".", "_"))
    return found


def _time(result: Result, metric: Metric) -> float | None:
    if metric.scope:
        rpcs = [rpc for name, rpc in result["rpcs"].items() if plain(name) == plain(metric.scope)]
        times = rpcs[0]["service" if metric.is_service else "response"] if rpcs else {}
        return times.get(metric.figure.replace(".", "_"))
    if not result["count"]:
        return None
    if metric.figure in PERCENTILES:
        latencies = {row["percentage"]: row["latency"] for row in result["latencyDistribution"]}
        return latencies.get(PERCENTILES[metric.figure])
    found: float = result["slowest" if metric.figure == "max" else "average"]
    return found


def _calls(rpcs: list[Result], figure: str) -> float:
    count: int = sum(rpc["count"] for rpc in rpcs)
    if figure == "count":
        return count
    name = figure.removesuffix("_rate")
    counted = ("error", "deadline") if figure == "error_rate" else (name,)
    total: int = sum(rpc["outcomes"].get(each, 0) for rpc in rpcs for each in counted)
    return total / max(count, 1) if figure.endswith("_rate") else total


def _of_run(result: Result, figure: str) -> float | None:
    if figure in SESSIONS:
        found: float | None = result["sessions"][figure]
    elif figure in UNITS or figure == "refused_oversold":
        found = result["units"]["oversold" if figure == "refused_oversold" else figure]
    elif figure == "violations":
        found = sum(not verdict["holds"] for verdict in result["verdicts"])
    elif figure == "cpu_us_per_operation":
        found = result["generator"][figure]
    else:
        ok: int = _calls(list(result["rpcs"].values()), "ok")  # type: ignore[assignment]
        found = result["rps"] if figure == "rate" else result["rps"] * ok / max(result["count"], 1)
    return found
