"""Compare Holdfast with its peers under one load in one run, in turns.

Noise on a shared machine drifts, so each round measures everyone, every second round backwards, and
each on a server and a store of its own, started for the turn.  The table has medians of the rounds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hdrh.histogram import HdrHistogram

from holdfast_bench.peers.charting import draw
from holdfast_bench.peers.driving import DIGITS, US_MAX, Driven, Load
from holdfast_bench.peers.driving import drive as closed_loop
from holdfast_bench.peers.postgresql import NONE, installation
from holdfast_bench.peers.processes import Contestant, Cpu, Stock, started
from holdfast_bench.peers.terms import PeerUnavailable

Drive = Callable[[str, Load, float], Driven]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Turn:
    """One measurement of one contestant."""

    driven: Driven
    cpu: Cpu
    oversold: int | None  # None: it decides nothing
    units: dict[str, Any] | None


@dataclass(frozen=True)
class Result:
    """All turns of a contestant."""

    name: str
    turns: tuple[Turn, ...]

    @property
    def rates(self) -> list[float]:
        """Return operations a second of each turn."""
        return [turn.driven.rate for turn in self.turns]

    @property
    def oversold(self) -> int | None:
        """Return the units oversold in all turns; None of one that decides nothing."""
        known = [turn.oversold for turn in self.turns if turn.oversold is not None]
        return sum(known) if known else None

    @property
    def errors(self) -> int:
        """Return the calls that got no answer of the contract."""
        answered = {"ok", "sold_out"}
        return sum(
            calls
            for turn in self.turns
            for outcome, calls in turn.driven.outcomes.items()
            if outcome not in answered
        )

    def latency_ms(self, percentile: float) -> float:
        """Return a percentile over the calls of all turns."""
        merged = HdrHistogram(1, US_MAX, DIGITS)
        for turn in self.turns:
            merged.add(turn.driven.histogram)
        return float(merged.get_value_at_percentile(percentile)) / 1_000

    def cpu_ms(self) -> Cpu:
        """Return ms of processor an operation: the same number as seconds for 1,000 of them."""
        shares = [
            [1_000 * seconds / turn.driven.operations_all for seconds in turn.cpu]
            for turn in self.turns
        ]
        return Cpu(*(median(column) for column in zip(*shares, strict=True)))

    def as_json(self) -> dict[str, Any]:
        """Return what the table says, and every turn."""
        return {
            "name": self.name,
            "operations_per_s": median(self.rates),
            "p50_ms": self.latency_ms(50),
            "p99_ms": self.latency_ms(99),
            "oversold": self.oversold,
            "errors": self.errors,
            "cpu_s_per_1000": self.cpu_ms()._asdict(),
            "turns": [
                {
                    "operations_per_s": turn.driven.rate,
                    "outcomes": turn.driven.outcomes,
                    "cpu_s": turn.cpu._asdict(),
                    "oversold": turn.oversold,
                    "units": turn.units,
                }
                for turn in self.turns
            ],
        }


@dataclass(frozen=True)
class Plan:
    """How often to measure, for how long a turn, and with what.

    `drive` sends a load to an address for so many seconds, and returns what came of it: the closed
    loops of `driving`, or another generator.
    """

    rounds: int = 3
    seconds: float = 3.0
    drive: Drive = closed_loop


def run(
    load: Load,
    names: Sequence[str],
    out: Path | None = None,
    *,
    plan: Plan = Plan(),
    tell: Tell = lambda _line: None,
) -> list[Result]:
    """Measure every contestant each round; write peers.json and charts/peers.png into `out`.

    Raises PeerUnavailable when one of them does not start.
    """
    if installation() is None and any(name.startswith("postgres") for name in names):
        raise PeerUnavailable(f"{NONE}; measure without it: --only")
    turns: dict[str, list[Turn]] = defaultdict(list)
    for number in range(plan.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            tell(f"round {number + 1} of {plan.rounds}: {name}")
            with started(name, load.stock()) as contestant:
                turns[name].append(_turn(contestant, load, plan))
    results = [Result(name, tuple(turns[name])) for name in names]
    if out:
        _write(out, load, plan, results)
    return results


def _turn(contestant: Contestant, load: Load, plan: Plan) -> Turn:
    before = contestant.cpu()
    driven = plan.drive(contestant.target, load, plan.seconds)
    used = contestant.cpu().since(before)
    units = contestant.count()
    if units is None:
        return Turn(driven, used, None, None)
    told = oversold(driven.sold, load.stock())
    return Turn(driven, used, max(units["oversold"], told), units)


def oversold(sold: Mapping[str, int], stock: Stock) -> int:
    """Return the units beyond stock that callers were told are theirs."""
    return sum(max(0, units - stock.units_of(sku)) for sku, units in sold.items())


def _write(out: Path, load: Load, plan: Plan, results: Sequence[Result]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "load": asdict(load),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "contestants": [result.as_json() for result in results],
    }
    (out / "peers.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draw(document["contestants"], load.name, out / "charts" / "peers.png")
