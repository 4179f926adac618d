"""What is looked at once a second in a run: processes, and the stock of the hottest item."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from holdfast import AsyncClient, HoldfastError, Unreachable

INTERVAL_S = 1.0
CALL_S_MAX = 2.0
UNREACHED_MAX = 3

Processes = Callable[[], Mapping[int, str]]


class Resources:
    """Processor time and memory of processes that may come and go, by what they are."""

    def __init__(self, processes: Processes, began: float) -> None:
        self._processes, self._began = processes, began
        self._known: dict[int, psutil.Process] = {}
        self.rows: list[dict[str, Any]] = []

    async def follow(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(INTERVAL_S)

    def sample(self) -> None:
        """Add a row for each kind of process; a share of 1.0 is one processor."""
        sums: dict[str, list[float]] = {}
        for pid, kind in self._processes().items():
            try:
                known = self._known.get(pid) or psutil.Process(pid)
                is_new = pid not in self._known
                self._known[pid] = known
                share, rss = known.cpu_percent(None) / 100, known.memory_info().rss
            except psutil.Error:
                continue  # it has ended
            if is_new:
                continue  # its first share is over no time at all
            row = sums.setdefault(kind, [0.0, 0])
            row[0] += share
            row[1] += rss
        now = round(time.perf_counter() - self._began, 3)
        self.rows += [
            {"t": now, "process": kind, "cpu_share": round(share, 4), "rss_bytes": int(rss)}
            for kind, (share, rss) in sums.items()
        ]


class HotItem:
    """How the stock of one item falls; it is read as an agent reads it."""

    def __init__(self, client: AsyncClient, sku: str, began: float, lost: asyncio.Event) -> None:
        self._client, self._sku, self._began, self._lost = client, sku, began, lost
        self._unreached = 0
        self.rows: list[dict[str, Any]] = []

    async def follow(self) -> None:
        """Sample until cancelled; a second without an answer is left out.

        Several in a row in which nobody could be reached set `lost`.
        """
        while True:
            try:
                stock = await self._client.get_stock(self._sku, timeout=CALL_S_MAX)
                self._unreached = 0
            except HoldfastError as error:
                stock = None
                self._unreached = self._unreached + 1 if isinstance(error, Unreachable) else 0
                if self._unreached >= UNREACHED_MAX:
                    self._lost.set()
            for level in stock.levels if stock else ():
                self.rows.append(
                    {
                        "t": round(time.perf_counter() - self._began, 3),
                        "sku": level.sku,
                        "available": level.available,
                        "pressure": str(level.pressure),
                    }
                )
            await asyncio.sleep(INTERVAL_S)
