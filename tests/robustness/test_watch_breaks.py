"""A ledger that breaks off under a watch, and one that several servers follow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.checks import watch_gapless
from tests.robustness.cutter import wired
from tests.robustness.load import stocked, under_load
from tests.serving import Serving, serving
from tests.watching import CHANGES, SNAPSHOT, Watching, check_gapless, timeless

EXPIRED = (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")
EPOCH_CHANGED = stock.WATCH_END_REASON_EPOCH_CHANGED
LEDGER = "{c0}:ledger"


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(store_url) as client:
        yield client


@pytest.fixture
async def server(store_url: str) -> AsyncIterator[Serving]:
    async with serving(redis_url=store_url, on_rollback="new-epoch") as server:
        yield server


def check(
    messages: list[stock.WatchResponse], entries: list[ledger.LedgerEntry], *skus: str
) -> None:
    verdict = watch_gapless([messages], entries, skus=skus)
    assert verdict.holds, verdict


async def lose_everything(redis: Any) -> None:
    await redis.delete(*await redis.keys("{c0}:*"))


# ---- Another epoch ----


async def test_a_new_epoch_comes_as_a_snapshot_on_the_same_stream(
    server: Serving, redis: Any
) -> None:
    kept, lost = await server.put(3), await server.put(5)
    async with Watching(server, kept, lost) as watch:
        await watch.first()
        last = await server.adjust(lost, 1)
        await watch.until(last.level.revision)
        before, told = await server.entries(), len(watch.messages)
        await lose_everything(redis)
        await server.put(2, sku=kept)
        while SNAPSHOT not in watch.kinds[told:] or watch.levels[kept].on_hand != 2:
            await watch.next()
        check(watch.messages[:told], before, kept, lost)
        check(watch.messages[told:], await server.entries(), kept, lost)
        snapshot = watch.messages[told]
        assert snapshot.from_sequence == 0
        assert lost in snapshot.missing_skus
        async with Watching(server, kept, lost, token=watch.token, on_gap=stock.ON_GAP_FAIL) as on:
            await server.adjust(kept, 1)
            await on.until(3)
            await check_gapless(server, watch.messages[told:], on, skus=[kept, lost])


async def test_a_new_epoch_ends_a_stream_that_is_to_fail(server: Serving, redis: Any) -> None:
    sku = await server.put(3)
    async with Watching(server, sku, on_gap=stock.ON_GAP_FAIL) as watch:
        await watch.first()
        before = await server.entries()
        await lose_everything(redis)
        await server.put(2, sku=sku)
        end = await watch.ended()
        assert end.end_reason == EPOCH_CHANGED
        assert watch.failure is not None
        assert watch.failure.kind == EXPIRED
        check(watch.messages, before, sku)
    async with Watching(server, sku, token=watch.token, on_gap=stock.ON_GAP_FAIL) as resumed:
        assert await resumed.read() is None
        assert resumed.failure is not None
        assert resumed.failure.kind == EXPIRED
    async with Watching(server, sku, token=watch.token) as resumed:
        assert (await resumed.next()).kind == SNAPSHOT


async def test_a_ledger_that_went_back_is_told_anew(server: Serving, redis: Any) -> None:
    sku = await server.put(3)
    saved = {key: await redis.dump(key) for key in await redis.keys("*")}
    async with Watching(server, sku) as watch:
        await watch.first()
        last = await server.adjust(sku, 5)
        await watch.until(last.level.revision)
        told = len(watch.messages)
        pipe = redis.pipeline(transaction=True)
        pipe.flushall()
        for key, value in saved.items():
            pipe.restore(key, 0, value)
        await pipe.execute()
        last = await server.adjust(sku, 1)
        while not (watch.levels[sku].on_hand == 4 and watch.through >= last.level.revision):
            await watch.next()
        restarts = [at for at, kind in enumerate(watch.kinds) if kind == SNAPSHOT and at >= told]
        check(watch.messages[restarts[-1] :], await server.entries(), sku)


# ---- What was trimmed before it was read ----


async def test_entries_trimmed_under_the_tail_are_made_up_for(
    store_url: str, redis: Any, tmp_path: Path
) -> None:
    async with (
        wired(store_url, tmp_path) as (wire, near_end),
        serving(redis_url=near_end) as server,
    ):
        skus = [await server.put(9) for _ in range(3)]
        async with (
            Watching(server, *skus, on_gap=stock.ON_GAP_FAIL) as narrow,
            Watching(server, on_gap=stock.ON_GAP_FAIL) as broad,
        ):
            await narrow.first()
            await broad.first()
            wire.lose_answers_to(b"XREAD", times=1_000_000)
            for sku in (skus[0], skus[2], skus[0]):
                await server.reserve(sku, 2)
            await server.put(1)
            entries = await server.entries()
            assert len(narrow.messages) == 1
            await redis.xtrim(LEDGER, maxlen=0, approximate=False)
            wire.mend()
            for watch in (narrow, broad):
                await watch.until(entries[-1].sequence)
                assert set(watch.kinds[1:]) == {CHANGES}
            last = await server.adjust(skus[1], 1)
            entries += await server.entries()
            for watch, wanted in ((narrow, skus), (broad, [])):
                await watch.until(last.level.revision)
                check(watch.messages, entries, *wanted)


# ---- Several servers ----


def told_by(watch: Watching) -> dict[tuple[str, int], types.StockLevel]:
    """Return what was told first of each revision, apart from the snapshot."""
    told: dict[tuple[str, int], types.StockLevel] = {}
    for message in watch.messages[1:]:
        for level in message.levels:
            told.setdefault((level.sku, level.revision), timeless(level))
    return told


async def test_two_servers_tell_the_same_of_every_revision(store_url: str) -> None:
    async with serving(redis_url=store_url) as one, serving(redis_url=store_url) as other:
        skus = await stocked(one, units=150)
        async with Watching(one, *skus) as first, Watching(other, *skus) as second:
            await first.first()
            await second.first()
            async with under_load(one, other, skus=skus, agents=8) as load:
                await load.after(300)
            head = (await one.head()).sequence
            for server, watch in ((one, first), (other, second)):
                await watch.until(head)
                await check_gapless(server, watch, skus=skus)
            at_one, at_other = told_by(first), told_by(second)
            shared = at_one.keys() & at_other.keys()
            assert {key: at_one[key] for key in shared} == {key: at_other[key] for key in shared}
            assert len(shared) > 50
            async with Watching(other, *skus, token=first.token) as moved:
                await other.adjust(skus[0], 1)
                await moved.until((await other.level(skus[0])).revision)
                await check_gapless(other, first, moved, skus=skus)
