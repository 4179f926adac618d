"""What the archive costs: servers with none, with one behind them, with answers that wait for it.

Reserve over gRPC, in processes of their own over one store of durability `second`, each server with
a cell and an SQLite archive of its own.  With an archive behind it a server owes 0.85 of what it
does without; with answers that wait for it, 0.4.  A server that archives has caught up before the
next turn, and how long that takes is shown: a rate that the archive does not keep up with is none.
Turns are four times as long as elsewhere, since in a short one much of its work comes afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack

from holdfast_bench.benchmarks.rpc import Server, called, served
from holdfast_bench.calling import CALLERS, FRAME, SKUS
from holdfast_bench.measure import Measurement, Plan, Row, Series, take_turns
from holdfast_bench.stores import CELL, Cell, StoreAddress, opened
from holdfast_bench.workload import catalogue

BEHIND_OWED, WAITING_OWED = 0.85, 0.4
TURNS = 4
POLL_S = 0.005
CAUGHT_UP_S_MAX = 60
SERVERS = {"off": "no archive", "on": "archive behind it", "archived": "durability archived"}
CALLS = {"reserve": f"unary Reserve, {CALLERS} callers", "pipeline": f"Pipeline, frames of {FRAME}"}
OWED = {"on": BEHIND_OWED, "archived": WAITING_OWED}


class _Runs:
    """Measures operations a second, and how long an archive needs afterwards."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lags_ms: dict[str, list[float]] = defaultdict(list)

    def lag(self, name: str) -> Series:
        """Return the time until all was archived, the longer one of a round's two turns."""
        lags = self._lags_ms[name]
        return Series(tuple(map(max, zip(lags[::2], lags[1::2], strict=True))))

    def of(self, name: str, kind: str, server: Server, cell: Cell) -> Measurement:
        """Return the measurement of one kind of call on one server."""

        async def measure() -> float:
            rate, _done = await called(kind, server.target, TURNS * self._plan.seconds)
            if not name.endswith("off"):
                self._lags_ms[name].append(await _caught_up(cell))
            await cell.forget()
            return rate

        return measure


async def _caught_up(cell: Cell) -> float:
    """Wait until a cell is archived; return how many milliseconds that took."""
    began = time.perf_counter()
    async with asyncio.timeout(CAUGHT_UP_S_MAX):
        while await cell.unarchived():  # noqa: ASYNC110  # another process archives
            await asyncio.sleep(POLL_S)
    return (time.perf_counter() - began) * 1000


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure the servers in turns, with either kind of call."""
    contestants: dict[str, Measurement] = {}
    runs = _Runs(plan)
    async with AsyncExitStack() as stack:
        for number, name in enumerate(SERVERS):
            cell = await stack.enter_async_context(opened(address, CELL + number))
            await cell.put(catalogue(SKUS))
            started = served(address.url, CELL + number, name)
            server = await stack.enter_async_context(started)
            if name != "off":
                await _caught_up(cell)
            for kind in CALLS:
                contestants[f"{kind} {name}"] = runs.of(f"{kind} {name}", kind, server, cell)
        found = await take_turns(contestants, plan)
    return [row for kind in CALLS for row in _rows(kind, address.name, found, runs)]


def _rows(kind: str, store: str, found: dict[str, Series], runs: _Runs) -> list[Row]:
    base, rows = found[f"{kind} off"], []
    for name, owed in OWED.items():
        key, words = f"{kind} {name}", f"{CALLS[kind]}, {SERVERS[name]}"
        rows.append(Row(words, store, "op/s", found[key], base, SERVERS["off"], owed))
        rows.append(Row(f"{words}: until all is archived", store, "ms", runs.lag(key)))
    return rows
