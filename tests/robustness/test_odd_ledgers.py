"""A ledger that is not as it should be: its clock went back, or an entry is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from structlog.testing import capture_logs

from holdfast.v1 import ledger_pb2, stock_pb2
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.comparing import compare
from holdfast_server.ledger.rechecking import decide_again
from tests.archives import is_archived, sqlite_url
from tests.robustness.archiving import (
    archived,
    archiving,
    said,
)
from tests.robustness.load import check_promises
from tests.serving import (
    seconds,
    serving,
    unique,
    until,
)

KEPT_EVER = 1_000


# ---- A clock that is set back ----


async def test_a_clock_that_is_set_back_disturbs_nothing(store_url: str, tmp_path: Path) -> None:
    async with (
        archiving(tmp_path, redis_url=store_url) as server,
        Redis.from_url(store_url) as client,
    ):
        store: Any = client
        sku, name = await server.put(10), unique()
        await server.reserve(sku, 2, reservation_id=name, ttl=seconds(600))
        ahead_ms = int(await store.hget("{c0}:meta", "clock")) + 60_000
        await store.hset("{c0}:meta", "clock", ahead_ms)  # as if it had been that late before
        await server.level(sku)
        await server.commit(name)
        async with Archive.open(sqlite_url(tmp_path)) as archive:
            await is_archived(archive, store_url)
            entries = await archive.entries(1, limit=KEPT_EVER)
            assert not (await compare(archive)).differences
            assert not (await decide_again(archive)).differences
        assert [entry.time_ms >= ahead_ms for entry in entries] == [False, False, False, True]
        request = ledger_pb2.ReplayDecisionRequest(reservation_id=name)
        told = (await server.ledger.ReplayDecision(request)).decisions
        assert [each.reproduced for each in told] == [True, True]
        await check_promises(server)


# ---- A damaged ledger ----


async def damage(url: str, sequence: int) -> None:
    """Cut the bytes of the batch that ends with an entry short, as a bad disk may."""
    async with Redis.from_url(url) as client:
        store: Any = client
        pipe = store.pipeline(transaction=True)
        entries = await store.xrange("{c0}:ledger")
        pipe.delete("{c0}:ledger")
        for name, fields in entries:
            body = fields[b"e"]
            is_meant = name == f"{sequence}-0".encode()
            pipe.xadd("{c0}:ledger", {b"e": body[: len(body) // 2] if is_meant else body}, id=name)
        await pipe.execute()


async def test_a_damaged_entry_is_said_and_nothing_else_stops(
    store_url: str, tmp_path: Path
) -> None:
    async with serving(redis_url=store_url) as server:
        sku = await server.put(10)
        held = [await server.reserve(sku, ttl=seconds(600)) for _ in range(3)]
    await damage(store_url, held[1].sequence)
    async with archiving(tmp_path, redis_url=store_url, ledger_keep=0) as server:
        kept = server.server.kept
        assert kept is not None
        await until(lambda: said(kept.progress, f"entry {held[1].sequence} cannot be read"))
        assert kept.progress.sequence == held[0].sequence
        assert (await server.commit(held[2].reservation.reservation_id)).reservation
        assert (await server.level(sku)).held == 2
        assert kept.progress.sequence == held[0].sequence
        async with Archive.open(sqlite_url(tmp_path)) as archive:
            assert not (await compare(archive)).differences


async def test_one_where_the_archive_ends_is_said_and_stock_is_served(
    store_url: str, tmp_path: Path
) -> None:
    async with archiving(tmp_path, redis_url=store_url) as server:
        sku = await server.put(10)
        await archived(server)
        last = (await server.head()).sequence
    await damage(store_url, last)
    with capture_logs() as logs:
        async with archiving(tmp_path, redis_url=store_url) as server:
            assert (await server.reserve(sku)).reservation
    said_of = "served without comparing store and archive"
    (warning,) = [line for line in logs if line["event"] == said_of]
    assert "ledger cannot be read" in warning["fault"]
    async with Archive.open(sqlite_url(tmp_path)) as archive:
        assert (await archive.archived()).sequence == last


async def test_a_watch_goes_on_beyond_a_damaged_entry(store_url: str) -> None:
    async with serving(redis_url=store_url) as server:
        sku = await server.put(10)
        watch = server.stock.Watch(stock_pb2.WatchRequest(skus=[sku]))
        follow = aiter(watch)
        await anext(follow)
        async with Redis.from_url(store_url) as store:
            sequence = (await server.head()).sequence
            pipe = store.pipeline(transaction=True)
            pipe.hset("{c0}:meta", "sequence", sequence + 1)
            pipe.xadd("{c0}:ledger", {b"e": b"\xc1"}, id=f"{sequence + 1}-0")
            await pipe.execute()
        await server.reserve(sku)
        async for message in follow:
            if any(level.held == 1 for level in message.levels):
                break
        watch.cancel()
