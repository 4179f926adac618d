"""The ledger as it grows: one blocking read on a connection of its own.

A reader never asks for "new entries" but for those after the last one it has, so it skips none;
and it looks at the cell's epoch and sequence whenever it connects or nothing comes, so a trimmed,
replaced or rolled back ledger is noticed, and said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgpack
from redis.asyncio import Redis

from holdfast_server.kernel.records import DAMAGE, decode_batch, decode_level, item_rows
from holdfast_server.model import Head, ItemRow, LedgerBatch, LedgerBreak, Level, Position
from holdfast_server.stores.redis.keys import CellKeys
from holdfast_server.stores.redis.reader import RedisReader, read

BLOCK_MS = 1_000
# A read costs as much as many batches.  So a ledger that grows all the time is asked a hundred
# times a second; one that rested is read at once.
PACE_S = 0.01
BATCHES_MAX = 64
ROWS_MAX = 1_000


class RedisTail:
    """Follows one cell's ledger, and reads its items.  Raises StoreUnavailable."""

    def __init__(self, url: str, reader: RedisReader, *, cell: int = 0, timeout_ms: int = 2_000):
        self._keys = CellKeys.of(cell)
        self._reader = reader
        self._redis = Redis.from_url(
            url,
            max_connections=2,
            socket_timeout=(BLOCK_MS + timeout_ms) / 1000,
            socket_connect_timeout=timeout_ms / 1000,
            retry=None,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def head(self) -> Head:
        """Return the end of the ledger."""
        return await self._reader.head()

    async def rows(self) -> AsyncIterator[list[ItemRow]]:
        """Yield all items in pages, each as it was when its page was read; some come twice."""
        cursor = 0
        while True:
            cursor, fields = await read(
                self._redis.hscan(self._keys.items, cursor=cursor, count=ROWS_MAX)
            )
            yield item_rows(fields.items())
            if not cursor:
                return

    def level(self, sku: str, raw: bytes) -> Level:
        """Return the level of an item row."""
        return decode_level(sku, raw)

    async def follow(self, after: Position) -> AsyncIterator[LedgerBatch | LedgerBreak]:
        """Yield what happens after a position, batch by batch; a batch without entries for silence.

        Ends with the break that forbids to go on.
        """
        epoch, last = after
        quiet = await self._quiet(after)
        while not isinstance(quiet, LedgerBreak):
            yield quiet
            asked_at, news = await self._news(last)
            while news:
                for batch in news:
                    if batch is None:
                        yield LedgerBreak.DAMAGED
                        return
                    if batch.epoch != epoch or batch.first != last + 1:
                        is_same = batch.epoch == epoch
                        yield LedgerBreak.TRIMMED if is_same else LedgerBreak.EPOCH
                        return
                    last = batch.last
                    yield batch
                await asyncio.sleep(asked_at + PACE_S - asyncio.get_running_loop().time())
                asked_at, news = await self._news(last)
            quiet = await self._quiet(Position(epoch, last))
        yield quiet

    async def _quiet(self, at: Position) -> LedgerBatch | LedgerBreak:
        """Return that nothing happened, or what makes that a lie."""
        head = await self.head()
        if head.epoch != at.epoch:
            return LedgerBreak.EPOCH
        if head.sequence < at.sequence:
            return LedgerBreak.ROLLBACK
        if head.sequence > at.sequence and head.first_sequence > at.sequence + 1:
            return LedgerBreak.TRIMMED
        return LedgerBatch(at.epoch, at.sequence + 1, at.sequence, head.now_ms)

    async def _news(self, last: int) -> tuple[float, list[LedgerBatch | None]]:
        """Return what came after a sequence, and when the store was asked for it.

        A batch that cannot be read is None.
        """
        asked_at = asyncio.get_running_loop().time()
        answer: Any = await read(
            self._redis.xread({self._keys.ledger: f"{last}-0"}, count=BATCHES_MAX, block=BLOCK_MS)
        )
        return asked_at, [
            _batch(fields) for _key, batches in _streams(answer) for _id, fields in batches
        ]


def _batch(fields: dict[bytes, bytes]) -> LedgerBatch | None:
    try:
        return decode_batch(msgpack.unpackb(fields[b"e"], raw=True))
    except DAMAGE:
        return None


def _streams(answer: Any) -> Any:
    """Return an XREAD answer as (key, entries) pairs, whichever protocol gave it."""
    return answer.items() if isinstance(answer, dict) else answer or ()
