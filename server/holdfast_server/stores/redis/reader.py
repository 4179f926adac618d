"""Reads beside the decision path: items, pages of items, and the ledger.

They see what batches have written; they end no due hold.  Each read is one command or one
pipeline on a small pool of its own, so a slow reader never delays a decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, NamedTuple, cast

import msgpack
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from holdfast_server.errors import StoreUnavailable
from holdfast_server.kernel.records import US, decode_entries, decode_item, decode_place
from holdfast_server.model import Head, Item, LedgerEntry, LocationStock
from holdfast_server.stores.redis.faults import RETRY_AFTER_MS
from holdfast_server.stores.redis.keys import CellKeys

POOL_SIZE_MAX = 8
BLOCK_S = 1.0
BATCHES_MAX = 64
LOCATIONS_MAX = 1_000


class ItemPage(NamedTuple):
    """Items in order of SKU bytes; `next_sku` is empty at the end."""

    items: list[tuple[str, Item]]
    next_sku: str


class RedisReader:
    """Reads one cell.  Raises StoreUnavailable when the store cannot be read."""

    def __init__(self, url: str, *, cell: int = 0, timeout_ms: int = 2_000) -> None:
        self._keys = CellKeys.of(cell)
        self._block_s = min(BLOCK_S, timeout_ms / 2000)
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=POOL_SIZE_MAX,
            timeout=timeout_ms / 1000,
            socket_timeout=timeout_ms / 1000,
            retry=None,
        )
        self._redis = Redis(connection_pool=pool)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._redis.aclose()
        await self._redis.connection_pool.aclose()

    async def head(self) -> Head:
        """Return the end of the ledger, the oldest entry that is still there, and the time."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hmget(self._keys.meta, ["epoch", "sequence", "clock"])
        pipe.xrange(self._keys.ledger, count=1)
        pipe.time()
        meta, oldest, (seconds, micros) = await read(pipe.execute())
        epoch, sequence, clock = (int(value or 0) for value in meta)
        first = _first_sequence(oldest[0][1]) if oldest else sequence + 1
        return Head(epoch, sequence, first, max(clock, seconds * 1000 + micros // 1000))

    async def item(self, sku: str) -> tuple[Item, list[LocationStock]] | None:
        """Return an item with its locations in order, or None."""
        low, high = f"[{sku}", f"({sku} "
        fields = await read(
            self._redis.zrange(
                self._keys.skus, low, high, bylex=True, offset=0, num=LOCATIONS_MAX + 1
            )
        )
        if not fields or fields[0] != sku.encode():
            return None
        rows = await read(cast(Awaitable[Any], self._redis.hmget(self._keys.items, fields)))
        places = [
            decode_place(field.decode().partition(US)[2], row)
            for field, row in zip(fields[1:], rows[1:], strict=True)
        ]
        return decode_item(sku, rows[0]), places

    async def items(self, *, after: str, prefix: str, size: int) -> ItemPage:
        """Return up to `size` items whose SKU starts with `prefix` and comes after `after`."""
        low = f"({after} " if after else f"[{prefix}" if prefix else "-"
        high = b"(" + prefix.encode() + b"\xff" if prefix else "+"
        skus: list[bytes] = []
        while len(skus) <= size:
            fields = await read(
                self._redis.zrange(
                    self._keys.skus, low, high, bylex=True, offset=0, num=2 * size + 1
                )
            )
            skus += [field for field in fields if US.encode() not in field]
            if len(fields) <= 2 * size:
                break
            low = b"(" + fields[-1]
        page, more = skus[:size], len(skus) > size
        if not page:
            return ItemPage([], "")
        rows = await read(cast(Awaitable[Any], self._redis.hmget(self._keys.items, page)))
        items = [
            (sku.decode(), decode_item(sku.decode(), row))
            for sku, row in zip(page, rows, strict=True)
        ]
        return ItemPage(items, page[-1].decode() if more else "")

    async def bodies(self, from_sequence: int, *, count: int, through: int = 0) -> list[bytes]:
        """Return the batch that holds a sequence and those after it, as the stream keeps them.

        With `through`, only those that end by then.
        """
        ledger, last = self._keys.ledger, f"{through}-0" if through else "+"
        batches = await read(self._redis.xrange(ledger, f"{from_sequence}-0", last, count=count))
        return [fields[b"e"] for _id, fields in batches]

    async def wait_beyond(self, sequence: int, timeout_s: float) -> bool:
        """Wait until the ledger has gone on past a sequence, at most for so long, and a second.

        Tells whether it has.
        """
        block_ms = max(1, int(1000 * min(timeout_s, self._block_s)))
        after: Any = {self._keys.ledger: f"{sequence}-0"}
        return bool(await read(self._redis.xread(after, count=1, block=block_ms)))

    async def entries(self, from_sequence: int, *, limit: int) -> list[LedgerEntry]:
        """Return up to `limit` ledger entries from a sequence on, gapless and in order."""
        entries: list[LedgerEntry] = []
        start = from_sequence
        while len(entries) < limit:
            batches = await read(
                self._redis.xrange(self._keys.ledger, min=f"{start}-0", count=BATCHES_MAX)
            )
            for _id, fields in batches:
                entries += [entry for entry in _entries(fields) if entry.sequence >= start]
            if len(batches) < BATCHES_MAX:
                break
            start = entries[-1].sequence + 1
        return entries[:limit]


async def read(command: Awaitable[Any]) -> Any:
    """Await a command.  Raises StoreUnavailable for whatever kept it from being answered."""
    try:
        answer = await command
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(
            f"the store cannot be read: {fault}", retry_after_ms=RETRY_AFTER_MS
        ) from fault
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # redis-py sends within asyncio.wait_for, which before Python 3.12 swallows a cancellation
        # that comes just when the command has been sent; whoever reads in a loop would never end.
        raise asyncio.CancelledError
    return answer


def _entries(fields: dict[bytes, bytes]) -> list[LedgerEntry]:
    return decode_entries(msgpack.unpackb(fields[b"e"], raw=True))


def _first_sequence(fields: dict[bytes, bytes]) -> int:
    return int(msgpack.unpackb(fields[b"e"], raw=True)[3])
