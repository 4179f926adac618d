"""How fast the archive takes the ledger: events a second, on SQLite and on PostgreSQL.

The ledger is Reserve and Commit in batches of 64, decided in this process, so no store has a part
in it; the items they sell are archived before the clock starts.  Each transaction waits for the
disk, as it does in a server.  CPU is that of this process: of PostgreSQL, the client's share.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, islice
from pathlib import Path
from statistics import fmean
from time import perf_counter, process_time
from typing import NamedTuple

import asyncpg
import msgpack

from holdfast_bench.measure import Measurement, Plan, Row, Series, take_turns
from holdfast_bench.peers.postgresql import installation, postgresql
from holdfast_bench.stores import CALLER, ON_HAND, StoreAddress
from holdfast_bench.traffic import operations
from holdfast_bench.workload import catalogue
from holdfast_server.kernel.inprocess import Changes, KernelInProcess, Tables
from holdfast_server.ledger.archive import Archive
from holdfast_server.model import AdjustStock, PutItem

SKUS, BATCH = 1_000, 64
EVENTS, EVENTS_QUICK = 20_000, 2_000
TRANSACTIONS = (1, 64)  # batches in one
OWED = 20_000  # events a second
START_MS = 1_700_000_000_000
READY_S_MAX, POLL_S = 30, 0.05


class _Recording(Tables):
    """Tables that keep what a store would have appended to its ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    def write(self, changes: Changes, now_ms: int) -> None:
        """Write what a batch changed, and keep its stream entry."""
        body = (1, self.epoch, now_ms, self.sequence + 1, changes.events, changes.rows)
        self.bodies.append(msgpack.packb(body))
        super().write(changes, now_ms)


class _Ledger(NamedTuple):
    """Stream entries: of items that are made, and of what is sold then, with its events."""

    made: list[bytes]
    sold: list[bytes]
    events: int


async def run(plan: Plan, _address: StoreAddress) -> list[Row]:
    """Measure events a second, and the CPU that each takes."""
    ledger = recorded(EVENTS if plan.is_judged else EVENTS_QUICK)
    cpu_us: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        urls = {"SQLite": _files(folder)}
        if installation():
            socket = stack.enter_context(postgresql())
            urls["PostgreSQL"] = _databases(socket)
        ways: dict[str, Measurement] = {}
        for name, fresh in urls.items():
            for size in TRANSACTIONS:
                words = f"archived in {name}, {size} batches a transaction"
                cpu_us[words] = []
                ways[words] = _ingest(fresh, ledger, size, cpu_us[words])
        found = await take_turns(ways, plan)
    bound = Series((float(OWED),) * plan.rounds)
    rows = []
    for words, values in found.items():
        owed = None if words.split(", ")[1].startswith("1 ") else 1.0
        rows.append(Row(words, "", "events/s", values, bound, "owed", owed))
        turns = zip(cpu_us[words][::2], cpu_us[words][1::2], strict=True)
        rows.append(Row(f"{words}: CPU an event", "", "us", Series(tuple(map(fmean, turns)))))
    return rows


def recorded(events: int) -> _Ledger:
    """Return a ledger with at least so many events of Reserve and Commit."""
    tables, skus = _Recording(), catalogue(SKUS)
    kernel, now_ms = KernelInProcess(tables), START_MS
    for first in range(0, SKUS, BATCH):
        part = skus[first : first + BATCH]
        kernel.execute([PutItem(f"put-{sku}", CALLER, sku) for sku in part], now_ms=now_ms)
        counts = [AdjustStock(f"in-{sku}", CALLER, sku, ON_HAND) for sku in part]
        kernel.execute(counts, now_ms=now_ms)
    began, at = tables.sequence, len(tables.bodies)
    traffic = operations(skus)
    while tables.sequence < began + events:
        now_ms += 1
        kernel.execute(list(islice(traffic, BATCH)), now_ms=now_ms)
    return _Ledger(tables.bodies[:at], tables.bodies[at:], tables.sequence - began)


def _ingest(
    fresh: AsyncIterator[str], ledger: _Ledger, size: int, cpu_us: list[float]
) -> Measurement:
    async def measure() -> float:
        async with Archive.open(await anext(fresh)) as archive:
            await archive.apply(ledger.made)
            began, used = perf_counter(), process_time()
            for first in range(0, len(ledger.sold), size):
                await archive.apply(ledger.sold[first : first + size])
            took = perf_counter() - began
            cpu_us.append((process_time() - used) / ledger.events * 1e6)
        return ledger.events / took

    return measure


async def _files(folder: Path) -> AsyncIterator[str]:
    for number in count():
        yield f"sqlite+aiosqlite:///{folder / f'{number}.db'}"


async def _databases(socket: str) -> AsyncIterator[str]:
    for number in count():
        async with _connected(socket) as connection:
            await connection.execute(f"CREATE DATABASE archive_{number}")
        yield f"postgresql+asyncpg://postgres@/archive_{number}?host={socket}"


@asynccontextmanager
async def _connected(socket: str) -> AsyncIterator[asyncpg.Connection]:
    async with asyncio.timeout(READY_S_MAX):
        while True:
            try:
                connection = await asyncpg.connect(
                    host=socket, user="postgres", database="postgres"
                )
                break
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(POLL_S)
    try:
        yield connection
    finally:
        await connection.close()
