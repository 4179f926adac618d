"""What generating load costs a process, through the steady phase: lateness and processor time."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from holdfast_bench.harness.alarm import Alarm

LAG_S = 0.02
LAGS_MAX = 100_000
SCHEDSTAT = Path("/proc/thread-self/schedstat")  # time on a processor, and waiting for one, in ns


def waited_s() -> float:
    """Return how long this thread was ready and had no processor; 0.0 where it cannot be told."""
    try:
        return int(SCHEDSTAT.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Toll:
    """Samples one process from one moment to another."""

    def __init__(self, begins: float, ends: float) -> None:
        self._begins, self._ends = begins, ends
        self._lags: deque[float] = deque(maxlen=LAGS_MAX)
        self._cpu: dict[float, tuple[float, float]] = {}

    async def sample_lag(self, alarm: Alarm) -> None:
        """Note how late the event loop is."""
        due = self._begins
        while due < self._ends:
            await alarm.until(due)
            now = time.perf_counter()
            self._lags.append(now - due)
            due = max(due + LAG_S, now)

    async def sample_cpu(self, alarm: Alarm) -> None:
        """Note processor time at both moments."""
        for moment in (self._begins, self._ends):
            await alarm.until(moment)
            self._cpu[moment] = (time.process_time(), waited_s())

    def cpu_s(self) -> tuple[float, float]:
        """Return processor seconds, used and waited for, as far as it got."""
        used, waited = self._cpu.get(self._ends) or (time.process_time(), waited_s())
        used_before, waited_before = self._cpu.get(self._begins, (used, waited))
        return used - used_before, waited - waited_before

    def lags(self) -> list[float]:
        """Return how late the event loop was, in seconds."""
        return [round(lag, 6) for lag in self._lags]
