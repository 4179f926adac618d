"""Run directories as the load harness leaves them, made up from a seed: a sale that sells out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from math import exp
from pathlib import Path
from random import Random
from typing import Any

from hdrh.histogram import HdrHistogram

OUTCOMES = ("ok", "sold_out", "refused", "throttled", "shed", "deadline", "error")
NAMED = {
    "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99, "p99_9": 99.9, "p99_99": 99.99
}  # fmt: skip
CONNECT_S, WARM_UP_S, DRAIN_S = 1.5, 5, 3
RPCS = {"Reserve": 1.0, "GetStock": 0.55, "Commit": 1.15, "Release": 1.1}  # how slow each is

Document = dict[str, Any]


@dataclass
class Load:
    """What a made-up run is like."""

    seed: int = 1
    rate: float = 400.0  # sessions a second
    steady_s: int = 40
    median_ms: float = 3.0
    units: int = 6_000
    name: str = "flash-sale"
    is_fine: bool = True  # whether it leaves .hgrm files, which take a while to make
    rpcs: dict[str, float] = field(default_factory=lambda: dict(RPCS))


class MadeUp:
    """One run, second by second."""

    def __init__(self, load: Load) -> None:
        self.load, self.dice = load, Random(load.seed)
        self.response: dict[str, list[int]] = {rpc: [] for rpc in load.rpcs}  # us
        self.service: dict[str, list[int]] = {rpc: [] for rpc in load.rpcs}
        self.outcomes: dict[str, Counter[str]] = {rpc: Counter() for rpc in load.rpcs}
        self.left, self.dropped, self.planned = load.units, 0, 0
        self.series: list[Document] = []
        self.resources: list[Document] = []
        self.stock: list[Document] = []
        self.end = WARM_UP_S + load.steady_s + DRAIN_S
        for second in range(self.end):
            self._second(second)

    def phase(self, second: int) -> str:
        if second < WARM_UP_S:
            return "warm_up"
        return "steady" if second < WARM_UP_S + self.load.steady_s else "drain"

    def _second(self, second: int) -> None:
        phase, dice = self.phase(second), self.dice
        pace = {"warm_up": (second + 1) / WARM_UP_S, "steady": 1.0, "drain": 0.0}[phase]
        planned = round(self.load.rate * pace * dice.uniform(0.94, 1.06))
        is_slow = second % 17 == 12  # the store rewrites its log
        dropped = round(planned * 0.03) if is_slow else 0
        started = planned - dropped
        calls = started if phase != "drain" else round(self.load.rate * exp(-2.0 * (second % 5)))
        ended, taken = Counter[str](), []
        for rpc, slowness in self.load.rpcs.items():
            taken += self._calls(rpc, calls, slowness * (3.0 if is_slow else 1.0), phase, ended)
        taken.sort()
        times = {"p50": None, "p99": None, "max": None}
        if taken:
            places = {"p50": len(taken) // 2, "p99": int(len(taken) * 0.99), "max": -1}
            times = {name: taken[place] * 1_000 for name, place in places.items()}
        row = {"t": second, "phase": phase, "offered": planned, "started": started}
        row |= {"finished": calls, **{name: ended[name] for name in OUTCOMES}, **times}
        self.series.append(row)
        self.planned, self.dropped = self.planned + planned, self.dropped + dropped
        self._levels(second, calls)

    def _calls(
        self, rpc: str, calls: int, slowness: float, phase: str, ended: Counter[str]
    ) -> Iterator[int]:
        for _ in range(calls):
            service = self.dice.lognormvariate(0, 0.55) * self.load.median_ms * 1_000 * slowness
            waited = self.dice.expovariate(1 / 400) if self.dice.random() < 0.3 else 0.0
            outcome = self._outcome(rpc)
            ended[outcome] += 1
            yield round(service + waited)
            if phase == "steady":
                self.outcomes[rpc][outcome] += 1
                self.service[rpc].append(round(service))
                self.response[rpc].append(round(service + waited))

    def _outcome(self, rpc: str) -> str:
        dice = self.dice.random()
        if dice < 0.0006:
            return "deadline" if dice < 0.0004 else "error"
        if rpc == "Reserve":
            if not self.left:
                return "sold_out"
            self.left -= self.dice.random() < 0.7
        return "shed" if dice > 0.995 else "refused" if dice > 0.99 else "ok"

    def _levels(self, second: int, calls: int) -> None:
        steps = ("SOLD_OUT", "SCARCE", "LOW", "NORMAL", "PLENTY")
        share = self.left / self.load.units
        step = 0 if not self.left else 1 + sum(share > edge for edge in (0.1, 0.3, 0.6))
        sku = {"t": second + 0.02, "sku": "sku-000000", "available": self.left}
        self.stock.append({**sku, "pressure": steps[step]})
        busy = calls / max(self.load.rate, 1)
        for process, share, mib in (
            ("server", 0.7, 96),
            ("store", 0.2, 41),
            ("generator", 0.8, 120),
        ):
            self.resources.append(
                {
                    "t": round(second + self.dice.uniform(0.01, 0.3), 3),
                    "process": process,
                    "cpu_share": round(share * busy * self.dice.uniform(0.9, 1.1), 4),
                    "rss_bytes": int((mib + 0.4 * second) * 1024 * 1024),
                }
            )

    def rpc(self, name: str) -> Document:
        outcomes = self.outcomes[name]
        failed = {"DEADLINE_EXCEEDED": outcomes["deadline"], "STORE_UNAVAILABLE": outcomes["error"]}
        return {
            "count": sum(outcomes.values()),
            "outcomes": {outcome: outcomes[outcome] for outcome in OUTCOMES},
            "reasons": {reason: count for reason, count in failed.items() if count},
            "response": times(self.response[name]),
            "service": times(self.service[name]),
        }


def at(taken: list[int], percentile: float) -> int:
    """Return a percentile of sorted times in us, in ns."""
    return taken[min(len(taken) - 1, int(len(taken) * percentile / 100))] * 1_000


def times(taken: list[int]) -> Document:
    """Return the percentiles of times in us, in ns and as result.json has them."""
    taken = sorted(taken)
    found = {name: at(taken, percentile) for name, percentile in NAMED.items()}
    return {**found, "max": taken[-1] * 1_000, "mean": sum(taken) * 1_000 // len(taken)}


def hgrm(taken: list[int]) -> bytes:
    """Return times in us as a percentile spectrum in ms."""
    histogram, output = HdrHistogram(1, 60_000_000, 3), BytesIO()
    for us in taken:
        histogram.record_value(us)
    histogram.output_percentile_distribution(output, 1_000)
    return output.getvalue()


def result_of(run: MadeUp) -> Document:
    """Return the result.json of a run."""
    load, taken = run.load, sorted(us for times in run.response.values() for us in times)
    count, sold = len(taken), load.units - run.left
    percentages = (10, 25, *NAMED.values())
    cpu_s = 0.62 * load.steady_s
    latencies = {p: at(taken, p) for p in percentages}
    p99 = latencies[99]
    return {
        "schema_version": 1,
        "name": load.name,
        "description": "Everybody wants one item: ten thousand agents, one SKU, few units.",
        "date": "2026-03-14T09:26:53.589+00:00",
        "end_reason": "completed",
        "options": {
            "name": load.name,
            "sessions_max": 10_000,
            "transport": "coalesced",
            "connections": 8,
            "catalogue": {"skus": 1, "units": load.units, "popularity": "hot"},
            "arrivals": {"kind": "constant", "rate": load.rate},
            "life": {"lines": [1, 1], "ends": {"commit": 0.7, "release": 0.2, "die": 0.1}},
            "phases": {"warm_up_s": WARM_UP_S, "steady_s": load.steady_s, "drain_s": DRAIN_S},
        },
        "seed": load.seed,
        "count": count,
        "total": float(load.steady_s),
        "rps": count / load.steady_s,
        "average": sum(taken) * 1_000 // count,
        "fastest": taken[0] * 1_000,
        "slowest": taken[-1] * 1_000,
        "statusCodeDistribution": {"OK": count},
        "errorDistribution": {},
        "latencyDistribution": [
            {"percentage": p, "latency": latency} for p, latency in latencies.items()
        ],
        "rpcs": {name: run.rpc(name) for name in load.rpcs},
        "sessions": {
            "planned": run.planned,
            "started": run.planned - run.dropped,
            "dropped": run.dropped,
            "finished": run.planned - run.dropped,
            "alive_max": round(load.rate * 2.4),
        },
        "generator": {
            "lag": times([90] * 980 + [1_800] * 19 + [9_700]),
            "loop_lag_ms": {"p99": 2.1, "max": 14.8},
            "cpu_s": cpu_s,
            "cpu_us_per_operation": round(cpu_s / count * 1e6, 1),
            "is_valid": True,
            "reasons": [],
        },
        "verdicts": [
            {"name": name, "holds": True, "looked_at": looked_at, "violations": []}
            for name, looked_at in (
                ("never_oversold", sold * 3),
                ("exactly_one_end", sold * 2),
                ("ledger_gapless", sold * 3),
                ("replay_equals_state", 1),
                ("books_balance", 1),
            )
        ],
        "thresholds": [
            {"expression": "p99 < 50ms", "value": p99, "holds": p99 < 50e6},
            {"expression": "error_rate < 0.5%", "value": 0.0006, "holds": True},
            {"expression": "refused_oversold == 0", "value": 0, "holds": True},
        ],
        "units": {"on_sale": load.units, "sold": sold, "oversold": 0, "held": 0},
        "phases": [
            {"name": "connect", "began": -CONNECT_S, "ended": 0.0},
            {"name": "warm_up", "began": 0.0, "ended": float(WARM_UP_S)},
            {"name": "steady", "began": float(WARM_UP_S), "ended": float(run.end - DRAIN_S)},
            {"name": "drain", "began": float(run.end - DRAIN_S), "ended": float(run.end)},
        ],
        "series": run.series,
        "resources": run.resources,
        "stock": run.stock,
        "exit_code": 0,
        "notes": ["generator, server and store share two cores"],
    }


ENVIRONMENT: Document = {
    "hardware": {"machine": "x86_64", "cpu_model": "A Processor", "cpus": 2, "governor": None},
    "kernel": "Linux 6.1",
    "limits": {"open_files": 20_000, "local_ports": "32768\t60999"},
    "versions": {"python": "CPython 3.11.7", "holdfast": "0.1.0", "grpcio": "1.83.2"},
    "commit": "1c7ab58d3f0e9f7a4a8b1c2d3e4f5a6b7c8d9e0f",
    "dirty": True,
    "server": {"durability": "second", "workers": 1},
    "seed": 1,
    "command": ["holdfast", "bench", "run", "flash-sale"],
    "colocated": True,
}


def make_run(
    folder: Path, load: Load | None = None, change: Callable[[Document], object] | None = None
) -> Path:
    """Write the directory of a run, its result changed first if so wished, and return it."""
    run = MadeUp(load or Load())
    result = result_of(run)
    if change is not None:
        change(result)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "env.json").write_text(json.dumps(ENVIRONMENT), encoding="utf-8")
    for rpc, taken in run.response.items() if run.load.is_fine else ():
        (folder / f"{rpc.replace('/', '_')}.hgrm").write_bytes(hgrm(taken))
    return folder
