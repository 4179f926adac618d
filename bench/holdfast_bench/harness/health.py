"""Whether the generator itself was fast enough: figures of one that was not are its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from holdfast_bench.harness.recording import Recorded

LAG_P99_MS_MAX = 10.0
LOOP_LAG_P99_MS_MAX = 20.0
WAIT_SHARE_MAX = 0.02  # of the time, ready to go on but without a processor
CPU_SHARE_MAX = 0.9  # of one processor, by one process: it has one thread that works


class Health(NamedTuple):
    """What the generator did to its own measurement."""

    loop_lag_ms: dict[str, float]
    cpu_s: float
    cpu_wait_s: float
    cpu_us_per_operation: float
    reasons: list[str]

    @property
    def is_valid(self) -> bool:
        """Whether the figures are those of the target."""
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        """Return it as result.json has it."""
        return {**self._asdict(), "is_valid": self.is_valid}


def health(
    recorded: Recorded,
    loop_lags: Sequence[float],
    cpu_s: Sequence[tuple[float, float]],
    steady_s: float,
) -> Health:
    """Judge a run by how late its calls left, how late its loops were, and what it computed.

    `loop_lags` are sorted; `cpu_s` is of the steady phase, by process: used, and waited for.
    """
    lags = {"p99": _ms(_at(loop_lags, 0.99)), "max": _ms(_at(loop_lags, 1.0))}
    used, waited = [one for one, _ in cpu_s], [one for _, one in cpu_s]
    busiest, delayed = (max(each, default=0.0) / (steady_s or 1.0) for each in (used, waited))
    reasons = list(_faults(recorded, lags["p99"], busiest))
    if reasons and delayed > WAIT_SHARE_MAX:
        words = f"a process was ready for {delayed:.0%} of the time and had no processor"
        reasons.append(f"{words}: the machine has others to serve")
    calls = sum(one.count for one in recorded.rpcs.values())
    per_call = round(sum(used) / calls * 1e6, 1) if calls else 0.0
    return Health(lags, round(sum(used), 3), round(sum(waited), 3), per_call, reasons)


def _faults(recorded: Recorded, loop_lag_ms: float, busiest: float) -> Iterator[str]:
    lag_ms = recorded.lag.percentiles_us((99.0,))[0] / 1e3
    if lag_ms > LAG_P99_MS_MAX:
        yield f"calls left late: p99 {lag_ms:.1f} ms, at most {LAG_P99_MS_MAX:g} ms"
    if loop_lag_ms > LOOP_LAG_P99_MS_MAX:
        most = f"at most {LOOP_LAG_P99_MS_MAX:g} ms"
        yield f"an event loop was late: p99 {loop_lag_ms:.1f} ms, {most}"
    if busiest > CPU_SHARE_MAX:
        most = f"at most {CPU_SHARE_MAX:.0%}"
        yield f"a process used {busiest:.0%} of a processor, {most}: add --processes"


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _at(values: Sequence[float], share: float) -> float:
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0
