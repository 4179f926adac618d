"""How long a lost store is rebuilt from the archive: the state of so many ledger entries.

The ledger is that of `archive`, with a thousandth of its holds still live.  Its state is built into
the store and exchanged, as a recovery does it; the archive is SQLite.  Records that are kept for
retries come on top: the ledger here is of the last few minutes, so it is all of them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

from redis.asyncio import Redis

from holdfast_bench.benchmarks.archive import recorded
from holdfast_bench.measure import Measurement, Plan, Row, take_turns
from holdfast_bench.stores import StoreAddress
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.recovery import Recovery
from holdfast_server.stores.redis.keeper import RedisKeeper
from holdfast_server.stores.redis.reader import RedisReader
from holdfast_server.stores.redis.rebuilding import RedisRebuilding

ENTRIES, ENTRIES_QUICK = 1_000_000, 5_000
CELL = 9_500
BATCHES = 64
RETENTION_MS = 900_000
RECENT_MS = 1_000


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure the seconds of a rebuild, with and without the records that are kept for retries."""
    entries = ENTRIES if plan.is_judged else ENTRIES_QUICK
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        url = f"sqlite+aiosqlite:///{Path(folder) / 'archive.db'}"
        ledger = recorded(entries)
        async with Archive.open(url, CELL) as archive:
            bodies = [*ledger.made, *ledger.sold]
            for first in range(0, len(bodies), BATCHES):
                await archive.apply(bodies[first : first + BATCHES])
            ways = {
                f"{name}, {entries:,} entries": _rebuilt(archive, address.url, retention_ms)
                for name, retention_ms in (
                    ("rebuilt with its last second's records", RECENT_MS),
                    ("rebuilt with every record", RETENTION_MS),
                )
            }
            found = await take_turns(ways, plan)
    return [Row(name, address.name, "s", values) for name, values in found.items()]


def _rebuilt(archive: Archive, url: str, retention_ms: int) -> Measurement:
    async def measure() -> float:
        await _forget(url)
        reader, rebuilding = RedisReader(url, cell=CELL), RedisRebuilding(url, cell=CELL)
        keeper = RedisKeeper(url, cell=CELL)
        recovery = Recovery(reader, rebuilding, archive, cell=CELL, retention_ms=retention_ms)
        try:
            token, began = await keeper.claim(), perf_counter()
            await recovery.mend(token)
            took = perf_counter() - began
            assert await recovery.trouble() is None
        finally:
            for each in (reader, rebuilding, keeper):
                await each.aclose()
            await _forget(url)
        return took

    return measure


async def _forget(url: str) -> None:
    async with Redis.from_url(url) as store:
        if keys := await store.keys(f"{{c{CELL}}}:*"):
            await store.unlink(*keys)
