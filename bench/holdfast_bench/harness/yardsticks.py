"""The figures that two versions are compared by, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast_bench.harness.report import Run
from holdfast_bench.harness.report.run import FAILURES, TURNED_AWAY

PROCESSES = ("server", "store")


@dataclass(frozen=True)
class Yardstick:
    """One figure of a run, read with the name of an RPC, or "" for all calls."""

    name: str
    unit: str
    more_is_better: bool
    read: Callable[[Run, str], float | None]


def _rate(run: Run, rpc: str) -> float | None:
    if not rpc:
        return _number(run.result.get("rps"))
    count, total = run.part("rpcs").get(rpc, {}).get("count"), run.result.get("total")
    return count / total if count and total else None


def _latency(percentile: float, name: str) -> Callable[[Run, str], float | None]:
    def read(run: Run, rpc: str) -> float | None:
        if rpc:
            ns = run.part("rpcs").get(rpc, {}).get("response", {}).get(name)
        else:
            rows = run.rows("latencyDistribution")
            ns = next((row["latency"] for row in rows if row["percentage"] == percentile), None)
        return ns / 1e6 if ns else None

    return read


def _share(outcomes: tuple[str, ...]) -> Callable[[Run, str], float | None]:
    def read(run: Run, rpc: str) -> float | None:
        counted = run.part("rpcs").get(rpc, {}).get("outcomes", {}) if rpc else run.outcomes
        calls = sum(counted.values())
        return sum(counted.get(name, 0) for name in outcomes) / calls * 100 if calls else None

    return read


def _generator_cpu(run: Run, _rpc: str) -> float | None:
    return _number(run.part("generator").get("cpu_us_per_operation"))


def _server_cpu(run: Run, _rpc: str) -> float | None:
    """Return the processor time of server and store in the measured phase, for each call of it."""
    band, rate = run.measured, run.result.get("rps")
    if band is None or not rate:
        return None
    shares: dict[str, list[float]] = {}
    for second, row in run.timed("resources"):
        if band.began < second <= band.ended and row["process"] in PROCESSES:
            shares.setdefault(row["process"], []).append(float(row["cpu_share"]))
    total = sum(sum(seen) / len(seen) for seen in shares.values())
    return total / float(rate) * 1e6 if shares else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


YARDSTICKS = (
    Yardstick("rate", "op/s", True, _rate),
    Yardstick("p50", "ms", False, _latency(50, "p50")),
    Yardstick("p90", "ms", False, _latency(90, "p90")),
    Yardstick("p99", "ms", False, _latency(99, "p99")),
    Yardstick("p99.9", "ms", False, _latency(99.9, "p99_9")),
    Yardstick("errors", "%", False, _share(FAILURES)),
    Yardstick("turned away", "%", False, _share(TURNED_AWAY)),
    Yardstick("server CPU", "µs/op", False, _server_cpu),
    Yardstick("generator CPU", "µs/op", False, _generator_cpu),
)
