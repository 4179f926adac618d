"""The ledger of a real store as it grows, and each way in which it breaks off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast_server.model import LedgerBatch, LedgerBreak, Position
from holdfast_server.stores.redis.reader import RedisReader
from holdfast_server.stores.redis.tail import RedisTail
from tests.serving import Serving, serving

LEDGER = "{c0}:ledger"


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(store_url) as client:
        yield client


@pytest.fixture
async def server(store_url: str) -> AsyncIterator[Serving]:
    async with serving(redis_url=store_url, on_rollback="new-epoch") as server:
        yield server


@pytest.fixture
async def tail(store_url: str) -> AsyncIterator[RedisTail]:
    reader = RedisReader(store_url)
    tail = RedisTail(store_url, reader)
    yield tail
    await tail.aclose()
    await reader.aclose()


async def following(server: Serving, tail: RedisTail) -> Any:
    """Return the news after the present end of the ledger, once it has said that it is the end."""
    head = await server.head()
    news = tail.follow(Position(head.epoch, head.sequence))
    quiet = await anext(news)
    assert isinstance(quiet, LedgerBatch)
    assert (quiet.first, quiet.last) == (head.sequence + 1, head.sequence)
    return aclosing(news)  # type: ignore[type-var]  # an iterator by its type, a generator in fact


async def test_each_batch_comes_once_and_in_order(server: Serving, tail: RedisTail) -> None:
    sku = await server.put(1)
    async with await following(server, tail) as news:
        through = (await server.head()).sequence
        for units in (1, 2, 3):
            await server.adjust(sku, units)
            batch = await anext(news)
            assert (batch.first, batch.last) == (through + 1, through + 1)
            ((key, raw),) = batch.rows
            assert tail.level(key.decode(), raw).revision == batch.last
            through = batch.last


async def test_entries_trimmed_before_they_were_read_are_a_break(
    server: Serving, tail: RedisTail, redis: Any
) -> None:
    sku = await server.put(1)
    async with await following(server, tail) as news:
        for _ in range(3):
            await server.adjust(sku, 1)
        await redis.xtrim(LEDGER, maxlen=1, approximate=False)
        # It reads on: what comes next is not what follows.
        assert [one async for one in news] == [LedgerBreak.TRIMMED]


async def test_entries_of_another_epoch_are_a_break(
    server: Serving, tail: RedisTail, redis: Any
) -> None:
    await server.put(1)
    async with await following(server, tail) as news:
        await redis.delete(*await redis.keys("*"))
        for _ in range(5):
            await server.put()  # beyond the sequence that was reached
        assert [one async for one in news] == [LedgerBreak.EPOCH]


@pytest.mark.parametrize("field", ["sequence", "epoch"])
async def test_a_silent_ledger_is_still_looked_at(
    store_url: str, tail: RedisTail, redis: Any, field: str
) -> None:
    async with serving(redis_url=store_url) as server:  # which refuses what lost history
        await server.put(1)
        async with await following(server, tail) as news:
            await redis.hincrby("{c0}:meta", field, -1)
            expected = LedgerBreak.ROLLBACK if field == "sequence" else LedgerBreak.EPOCH
            assert await anext(news) is expected
