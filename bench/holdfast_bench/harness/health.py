"""Whether the generator itself was fast enough: figures of one that was not are its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from holdfast_bench.harness.recording import Recorded

LAG_P99_S_MAX = 0.010
LOOP_LAG_P99_S_MAX = 0.020
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
    lag_s = recorded.lag.percentiles_us((99.0,))[0] / 1e6
    loop_lag_s = _at(loop_lags, 0.99)
    reasons = []
    if lag_s > LAG_P99_S_MAX:
        words = f"calls left late: p99 {lag_s * 1e3:.1f} ms, at most {LAG_P99_S_MAX * 1e3:g} ms"
        reasons.append(words)
    if loop_lag_s > LOOP_LAG_P99_S_MAX:
        most = f"at most {LOOP_LAG_P99_S_MAX * 1e3:g} ms"
        reasons.append(f"an event loop was late: p99 {loop_lag_s * 1e3:.1f} ms, {most}")
    used, waited = [one for one, _ in cpu_s], [one for _, one in cpu_s]
    busiest, delayed = (max(each, default=0.0) / (steady_s or 1.0) for each in (used, waited))
    if busiest > CPU_SHARE_MAX:
        most = f"at most {CPU_SHARE_MAX:.0%}"
        reasons.append(f"a process used {busiest:.0%} of a processor, {most}: add --processes")
    if reasons and delayed > WAIT_SHARE_MAX:
        words = f"a process was ready for {delayed:.0%} of the time and had no processor"
        reasons.append(f"{words}: the machine has others to serve")
    calls = sum(one.count for one in recorded.rpcs.values())
    lags = {"p99": round(loop_lag_s * 1e3, 3), "max": round(_at(loop_lags, 1.0) * 1e3, 3)}
    total = sum(used)
    per_call = round(total / calls * 1e6, 1) if calls else 0.0
    return Health(lags, round(total, 3), round(sum(waited), 3), per_call, reasons)


def _at(values: Sequence[float], share: float) -> float:
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0
