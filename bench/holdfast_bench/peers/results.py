"""What the turns of a comparison brought: rates, times, units oversold, processor time."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from holdfast_bench.harness.recording import Outcome
from holdfast_bench.harness.run import COMPLETED, Run
from holdfast_bench.harness.tallies import Calls, total
from holdfast_bench.peers.processes import Cpu

ANSWERED = frozenset({Outcome.OK, Outcome.SOLD_OUT})


class Turn(NamedTuple):
    """One run against one contestant."""

    run: Run
    cpu: Cpu  # of the contestant, from the first start of a session to the end of the last
    units: dict[str, Any] | None  # by the contestant's own records; None: it decides nothing

    @property
    def calls(self) -> Calls:
        """Return the calls of the steady phase."""
        return self.run.recorded.steady

    @property
    def rate(self) -> float:
        """Return operations a second."""
        return self.calls.count / self.run.steady_s if self.run.steady_s else 0.0

    @property
    def oversold(self) -> int | None:
        """Return the larger of what its records and what agents were told is beyond stock."""
        if self.units is None:
            return None
        told = self.run.units.oversold if self.run.units else 0
        return max(int(self.units["oversold"]), told)

    @property
    def broken(self) -> list[str]:
        """Return the promises that did not hold; none is expected of what decides nothing."""
        if self.units is None:
            return []
        return [verdict.name for verdict in self.run.verdicts if not verdict.holds]

    @property
    def doubts(self) -> list[str]:
        """Return why its figures are not the contestant's; an empty list: they are."""
        doubts = list(self.run.health.reasons) if self.run.health else []
        if not self.run.is_whole:
            is_over = self.run.end_reason == COMPLETED
            doubts.append("not judged" if is_over else self.run.end_reason)
        return doubts

    def as_json(self) -> dict[str, Any]:
        """Return everything but the calls one by one."""
        run = self.run
        return {
            "operations_per_s": self.rate,
            "outcomes": self.calls.outcomes,
            "sessions": vars(run.recorded.sessions),
            "cpu_s": self.cpu._asdict(),
            "oversold": self.oversold,
            "broken": self.broken,
            "units": self.units,
            "units_told": run.units._asdict() if run.units else None,
            "generator": run.health.as_json() if run.health else None,
            "doubts": self.doubts,
        }


@dataclass(frozen=True)
class Result:
    """All turns of a contestant."""

    name: str
    turns: tuple[Turn, ...]

    @property
    def rates(self) -> list[float]:
        """Return operations a second of each turn."""
        return [turn.rate for turn in self.turns]

    @property
    def oversold(self) -> int | None:
        """Return the units oversold in all turns; None of one that decides nothing."""
        known = [turn.oversold for turn in self.turns if turn.oversold is not None]
        return sum(known) if known else None

    @property
    def errors(self) -> int:
        """Return the calls of the steady phase that were neither done nor sold out."""
        outcomes = self._calls.outcomes
        return sum(count for outcome, count in outcomes.items() if outcome not in ANSWERED)

    @property
    def valid(self) -> int:
        """Return how many turns have figures of the contestant's, not of the generator's."""
        return sum(not turn.doubts for turn in self.turns)

    @property
    def is_broken(self) -> bool:
        """Tell whether a promise was broken in any turn."""
        return any(turn.oversold or turn.broken for turn in self.turns)

    @property
    def _calls(self) -> Calls:
        return total(turn.calls for turn in self.turns)

    def service_ms(self, *percentiles: float) -> list[float]:
        """Return percentiles of the service time, over the steady calls of all turns."""
        return [us / 1_000 for us in self._calls.service.percentiles_us(percentiles)]

    def cpu_ms(self) -> Cpu:
        """Return ms of processor an operation: the same number as seconds for 1,000 of them."""
        shares = [
            [1_000 * seconds / max(turn.run.recorded.count, 1) for seconds in turn.cpu]
            for turn in self.turns
        ]
        return Cpu(*(median(column) for column in zip(*shares, strict=True)))

    def as_json(self) -> dict[str, Any]:
        """Return what the table says, and every turn."""
        p50, p99 = self.service_ms(50.0, 99.0)
        return {
            "name": self.name,
            "operations_per_s": median(self.rates),
            "p50_ms": p50,
            "p99_ms": p99,
            "oversold": self.oversold,
            "errors": self.errors,
            "cpu_s_per_1000": self.cpu_ms()._asdict(),
            "valid_turns": self.valid,
            "turns": [turn.as_json() for turn in self.turns],
        }
