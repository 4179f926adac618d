"""What the audit trail costs: GetStock of one SKU on a server with it, and on one without.

Servers in processes of their own over one store, unary and on Pipeline.  The one with a trail also
archives it, on the same processors, and has caught up before the next turn.  So its CPU a query has
all of it: the answer, the record, its way to the store and into an SQLite archive.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from holdfast_bench.benchmarks.rpc import Server, called, served
from holdfast_bench.calling import CALLERS, FRAME, SKUS
from holdfast_bench.measure import Measurement, Plan, Row, Series, take_turns
from holdfast_bench.stores import CELL, StoreAddress, opened
from holdfast_bench.workload import catalogue
from holdfast_server.stores.redis.keys import LedgerKeys

FLUSHED_S = 0.25  # within which the last records have reached the store
POLL_S = 0.01
CAUGHT_UP_S_MAX = 60
Waiting = Callable[[], Awaitable[int]]
"""Says how many groups of records wait to be archived."""

SERVERS = {"off": "no audit trail", "on": "audited"}
CALLS = {
    "query": f"unary GetStock, {CALLERS} callers",
    "query_pipeline": f"GetStock on Pipeline, frames of {FRAME}",
}


class _Runs:
    """Measures queries a second, and keeps the server's CPU beside them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cpu_us: dict[str, list[float]] = defaultdict(list)

    def cpu(self, name: str) -> Series:
        """Return the server's CPU a query, the mean of a round's two turns."""
        turns = self._cpu_us[name]
        pairs = zip(turns[::2], turns[1::2], strict=True)
        return Series(tuple((there + back) / 2 for there, back in pairs))

    def of(self, name: str, kind: str, server: Server, waiting: Waiting) -> Measurement:
        """Return the measurement of one kind of call on one server."""

        async def measure() -> float:
            began = server.cpu_s
            rate, done = await called(kind, server.target, self._plan.seconds)
            await _caught_up(waiting)
            self._cpu_us[name].append((server.cpu_s - began) / done * 1e6)
            return rate

        return measure


async def _caught_up(waiting: Waiting) -> None:
    """Wait until every record is archived, if there are any."""
    await asyncio.sleep(FLUSHED_S)
    async with asyncio.timeout(CAUGHT_UP_S_MAX):
        while await waiting():  # noqa: ASYNC110  # another process archives
            await asyncio.sleep(POLL_S)


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure both servers in turns, with either kind of call."""
    contestants: dict[str, Measurement] = {}
    runs = _Runs(plan)
    async with AsyncExitStack() as stack:
        for number, name in enumerate(SERVERS):
            cell = await stack.enter_async_context(opened(address, CELL + number))
            await cell.put(catalogue(SKUS))
            started = served(address.url, CELL + number, name)
            server = await stack.enter_async_context(started)
            waiting = partial(cell.client.xlen, LedgerKeys.of(CELL + number).queries)
            for kind in CALLS:
                contestants[f"{kind} {name}"] = runs.of(f"{kind} {name}", kind, server, waiting)
        found = await take_turns(contestants, plan)
    return [row for kind in CALLS for row in _rows(kind, address.name, found, runs)]


def _rows(kind: str, store: str, found: dict[str, Series], runs: _Runs) -> list[Row]:
    words, (off, on) = CALLS[kind], (f"{kind} {name}" for name in SERVERS)
    return [
        Row(f"{words}, {SERVERS['on']}", store, "op/s", found[on], found[off], SERVERS["off"]),
        Row(f"server CPU, {words}", store, "us/op", runs.cpu(on), runs.cpu(off), SERVERS["off"]),
    ]
