"""Watch as its contract promises it, on each store: what it tells, when, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast.v1 import types_pb2 as types
from tests.serving import Serving, connected, seconds, serving, unique
from tests.watching import CHANGES, HEARTBEAT, SNAPSHOT, Watching, check_gapless, put_many, timeless

pytestmark = pytest.mark.asyncio(loop_scope="module")

NARROW_MAX = 64  # a filter beyond this is followed in another way
ITEMS_LARGE = 2_001  # five parts


# ---- What it tells ----


@pytest.mark.parametrize("count", [1, 3, NARROW_MAX + 6], ids=["one", "several", "many"])
async def test_a_watch_tells_what_is_there_and_then_what_changes(
    server: Serving, count: int
) -> None:
    skus = await put_many(server, count)
    other = await server.put(1)
    async with Watching(server, *skus) as watch:
        await watch.first()
        assert watch.kinds == [SNAPSHOT]
        assert set(watch.levels) == set(skus)
        held = (await server.adjust(skus[-1], 7)).level
        await server.adjust(other, 1)
        change = await watch.next()
        assert (change.kind, len(change.levels)) == (CHANGES, 1)
        assert change.levels[0].revision == held.revision
        assert change.levels[0].on_hand == 7
        assert change.conflated_count == 0
        await check_gapless(server, watch, skus=skus)


async def test_a_watch_without_a_filter_tells_of_every_item(server: Serving) -> None:
    first, second = await server.put(1), await server.put(2)
    async with Watching(server) as watch:
        await watch.first()
        assert {first, second} <= watch.levels.keys()
        third = await server.put(3)
        await watch.until((await server.level(third)).revision)
        assert watch.levels[third].on_hand == 3
        await check_gapless(server, watch)


async def test_a_sku_named_twice_is_told_once(server: Serving) -> None:
    sku = await server.put(1)
    async with Watching(server, sku, sku, "no such", sku, "no such") as watch:
        snapshot = await watch.next()
        assert [level.sku for level in snapshot.levels] == [sku]
        assert list(snapshot.missing_skus) == ["no such"]
        await server.adjust(sku, 1)
        assert [level.sku for level in (await watch.next()).levels] == [sku]


@pytest.mark.parametrize("others", [0, NARROW_MAX + 6], ids=["few", "many"])
async def test_an_item_that_is_missing_is_followed_from_its_creation(
    server: Serving, others: int
) -> None:
    skus = [unique("later-"), *(await put_many(server, others))]
    async with Watching(server, *skus) as watch:
        assert list((await watch.next()).missing_skus) == [skus[0]]
        await server.put(5, sku=skus[0])
        await watch.until((await server.level(skus[0])).revision)
        assert watch.levels[skus[0]].on_hand == 5
        assert not any(message.missing_skus for message in watch.messages[1:])
        await check_gapless(server, watch, skus=skus)


async def test_a_watch_of_an_empty_store_waits_for_its_first_item(store: dict[str, Any]) -> None:
    async with serving(**store) as server, Watching(server, heartbeat=seconds(1)) as watch:
        snapshot = await watch.next()
        assert (snapshot.kind, snapshot.through_sequence, len(snapshot.levels)) == (SNAPSHOT, 0, 0)
        assert snapshot.resume_token
        sku = await server.put(1)
        await watch.until(2)
        assert watch.levels[sku].on_hand == 1
        await check_gapless(server, watch)


async def test_ten_thousand_skus_may_be_watched(server: Serving) -> None:
    skus = [f"none-{number}" for number in range(9_999)]
    async with Watching(server, *skus, await server.put()) as watch:
        snapshot = await watch.next()
        assert (len(snapshot.levels), list(snapshot.missing_skus)) == (1, skus)


async def test_a_large_snapshot_comes_in_parts_and_misses_nothing_meanwhile(
    server: Serving,
) -> None:
    # Long names and a small window, so that not all parts are sent before the first is read.
    skus = await put_many(server, ITEMS_LARGE, length=128)
    async with (
        connected(server.target, ("grpc.http2.bdp_probe", 0)) as client,
        Watching(client, *skus) as watch,
    ):
        part = await watch.next()
        early, late = part.levels[0].sku, next(iter(set(skus) - watch.levels.keys()))
        for sku in (early, late, early):
            await server.adjust(sku, 1)
        await watch.first()
        head = await server.head()
        assert watch.kinds[:5] == [SNAPSHOT] * 5
        assert max(len(message.levels) for message in watch.messages) == 500
        assert not any(message.through_sequence for message in watch.messages[:4])
        await watch.until(head.sequence)
        assert (watch.levels[early].on_hand, watch.levels[late].on_hand) == (2, 1)
        await check_gapless(server, watch, skus=skus)


# ---- Pace ----


async def test_changes_within_min_interval_are_merged_and_counted(server: Serving) -> None:
    sku = await server.put(1)
    async with Watching(server, sku, min_interval=seconds(1)) as watch:
        await watch.first()
        for _ in range(5):
            last = await server.adjust(sku, 1)
        await watch.until(last.level.revision)
        changes = watch.messages[1:]
        assert len(changes) < 5
        assert sum(len(message.levels) + message.conflated_count for message in changes) == 5
        assert watch.levels[sku].on_hand == 6
        await check_gapless(server, watch, skus=[sku])


async def test_a_silent_stream_sends_heartbeats_also_before_any_event(server: Serving) -> None:
    sku = await server.put(1)
    async with Watching(server, sku, heartbeat=seconds(1)) as watch:
        await watch.first()
        kept = await server.adjust(await server.put(), 1)
        beat = await watch.next()
        assert (beat.kind, list(beat.levels)) == (HEARTBEAT, [])
        # It says that nothing happened to the watched item, up to what happened to others.
        assert beat.through_sequence >= kept.level.revision
        async with Watching(server, sku, token=beat.resume_token) as resumed:
            await server.adjust(sku, 1)
            await resumed.until((await server.level(sku)).revision)
            await check_gapless(server, watch, resumed, skus=[sku])


async def test_a_heartbeat_never_overtakes_a_change(server: Serving) -> None:
    sku = await server.put()
    async with Watching(server, sku, heartbeat=seconds(1), min_interval=seconds(1.2)) as watch:
        await watch.first()
        while HEARTBEAT not in watch.kinds:
            reading = asyncio.create_task(watch.next())
            while not reading.done():
                last = await server.adjust(sku, 1)
        await watch.until(last.level.revision)
        await check_gapless(server, watch, skus=[sku])


async def test_a_stream_whose_changes_wait_is_not_silent(server: Serving) -> None:
    sku = await server.put()
    async with Watching(server, sku, heartbeat=seconds(1), min_interval=seconds(60)) as watch:
        await watch.first()
        await server.adjust(sku, 1)
        beat = await watch.next()
        assert beat.kind == HEARTBEAT
        assert beat.through_sequence == beat.from_sequence == watch.messages[0].through_sequence


# ---- Signals ----


async def test_a_watch_tells_the_same_of_an_item_as_get_stock(server: Serving) -> None:
    sku = await server.put(100, oversell_limit=3)
    async with Watching(server, sku) as watch:
        await watch.first()
        for units in (5, 55, 30, 7, 3):
            await server.reserve(sku, units)
            level = await server.level(sku)
            await watch.until(level.revision)
            assert timeless(watch.levels[sku]) == timeless(level)
        assert level.pressure == types.PRESSURE_SOLD_OUT
        async with Watching(server, sku) as other:
            await other.first()
            assert timeless(other.levels[sku]) == timeless(level)


async def test_a_pressure_that_rose_early_eases_with_time_and_is_told(
    store: dict[str, Any],
) -> None:
    async with serving(**store) as server:
        sku, idle = await server.put(100), await server.put(1)
        async with Watching(server, sku, idle) as watch:
            await watch.first()
            sold = (await server.reserve(sku, 60)).reservation
            await server.commit(sold.reservation_id)
            await watch.until((await server.level(sku)).revision)
            assert watch.levels[sku].pressure == types.PRESSURE_SCARCE
            async with Redis.from_url(server.url) as redis:
                meta = f"{{c{store.get('cell', 0)}}}:meta"
                later = watch.levels[sku].as_of.ToMilliseconds() + 600_000
                await redis.hset(meta, "clock", later)  # type: ignore[misc]
            eased = await watch.next()
            assert (eased.kind, eased.from_sequence) == (CHANGES, eased.through_sequence)
            assert [level.sku for level in eased.levels] == [sku]
            assert eased.levels[0].pressure == types.PRESSURE_NORMAL
            assert timeless(eased.levels[0]) == timeless(await server.level(sku))
            async with Watching(server, sku, token=eased.resume_token) as resumed:
                await server.adjust(sku, 1)
                await resumed.until((await server.level(sku)).revision)
                await check_gapless(server, watch, resumed, skus=[sku, idle])


async def test_a_change_tells_the_level_that_it_left(server: Serving) -> None:
    sku = await server.put(9, safety_stock=2)
    async with Watching(server, sku) as watch:
        await watch.first()
        name = (await server.reserve(sku, 3)).reservation.reservation_id
        sold = await server.commit(name)
        await watch.until(sold.reservation.sequence)
        level = watch.levels[sku]
        assert (level.on_hand, level.held, level.committed, level.available) == (9, 0, 3, 4)
        assert level.HasField("as_of")
