"""Every way in which the server ends a watch: with a reason, a token, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import stock_pb2 as stock
from tests.robustness.processes import server_process
from tests.servers import serving as store_serving
from tests.servers import valkey_binary
from tests.serving import Client, Serving, connected, seconds, serving, unique, until
from tests.watching import HEARTBEAT, Watching, check_gapless, put_many

ITEMS, NAME_LENGTH = 1_001, 128
ROUNDS = 5
# By default a connection takes megabytes for a stream that nobody reads.
TAKES_LITTLE = ("grpc.http2.bdp_probe", 0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    settings = {"data": str(tmp_path), "durability": "memory", "watch_blocked_ms": 150}
    async with serving(**settings) as server:
        yield server


async def change_all(client: Client, skus: list[str]) -> None:
    """Change some items, each once."""
    rows = [
        inventory.ImportRow(row=number, item=inventory.Item(sku=sku, title=unique()))
        for number, sku in enumerate(skus)
    ]
    for first in range(0, len(rows), 1_000):
        part = rows[first : first + 1_000]
        request = inventory.ImportRequest(request_id=unique(), rows=part)
        await client.inventory.Import(iter([request]))


async def all_over(server: Serving, *, watches: int = 0) -> None:
    """Wait until the server serves only so many watches."""

    async def is_so() -> bool:
        ended = sum(
            count
            for (name, _reason), count in server.server.calls.counters.items()
            if name == "StockServicer.Watch"
        )
        return ended >= 1 and len(server.server.hub) == watches

    await until(is_so)


# ---- A reader that takes nothing ----


async def test_a_reader_that_never_reads_is_told_so_when_it_does(server: Serving) -> None:
    await put_many(server, ITEMS, length=NAME_LENGTH)
    async with connected(server.target, TAKES_LITTLE) as slow, Watching(slow) as watch:
        await all_over(server)
        with pytest.raises(AssertionError, match="SLOW_CONSUMER"):
            await watch.first()
        assert watch.failure is not None
        assert watch.failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert watch.failure.metadata == {}  # it has been nowhere yet


async def test_a_reader_that_stops_reading_resumes_without_a_gap(server: Serving) -> None:
    skus = await put_many(server, ITEMS, length=NAME_LENGTH)
    other = await server.put(1)
    async with (
        connected(server.target, TAKES_LITTLE) as slow,
        Watching(slow, *skus) as watch,
        Watching(server, other) as quick,
    ):
        await watch.first()
        await quick.first()
        for _ in range(ROUNDS):
            await change_all(slow, skus)
            # Nobody else waits for it.
            last = await server.adjust(other, 1)
            await quick.until(last.level.revision)
        await all_over(server, watches=1)
        while await watch.read() is not None:
            pass
        assert watch.failure is not None
        assert watch.failure.reason == "SLOW_CONSUMER"
        # It has been kept a message or two, not every change.
        kept = sum(message.ByteSize() for message in watch.messages[3:])
        assert kept < 3 * ITEMS * 2 * NAME_LENGTH < ROUNDS * ITEMS * 2 * NAME_LENGTH
        token = watch.failure.metadata["resume_token"]
        async with Watching(slow, *skus, token=token, on_gap=stock.ON_GAP_FAIL) as resumed:
            await resumed.until((await server.head()).sequence)
            await check_gapless(server, watch, resumed, skus=skus)
        await check_gapless(server, quick, skus=[other])


# ---- Limits ----


async def test_more_watches_than_the_server_takes_are_refused_until_one_ends(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"data": str(tmp_path), "durability": "memory", "watches_max": 2}
    async with serving(**settings) as server, Watching(server) as kept:
        await kept.first()
        async with Watching(server) as second:
            await second.first()
            async with Watching(server) as third:
                assert await third.read() is None
                assert third.failure is not None
                assert third.failure.kind == (
                    grpc.StatusCode.UNAVAILABLE,
                    "OVERLOADED",
                    "holdfast",
                )
                assert third.failure.retry_after_ms > 0
        await all_over(server, watches=1)
        async with Watching(server) as fourth:
            await fourth.first()
        await server.put(1)
        await kept.until(2)


async def test_a_watch_ends_before_its_connection_is_sent_away(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": str(tmp_path), "connection_age_s": 1}
    async with serving(**settings) as server:
        sku = await server.put(1)
        async with Watching(server, sku) as watch:
            await watch.first()
            await server.adjust(sku, 1)
            async with Watching(server, sku) as late:  # on a connection that is older
                for one in (watch, late):
                    end = await one.ended()
                    assert end.end_reason == stock.WATCH_END_REASON_MAX_AGE
                    assert one.failure is None
        await server.adjust(sku, 1)
        async with Watching(server, sku, token=watch.token) as resumed:
            await resumed.until((await server.level(sku)).revision)
            await check_gapless(server, watch, resumed, skus=[sku])


async def test_a_stopping_server_ends_every_watch_with_a_token_and_status_0(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(server_process(data=str(tmp_path)))
        target = str((await server.logged("serving"))["target"])
        client = await stack.enter_async_context(connected(target))
        sku = await client.put(5)
        paced: dict[str, Any] = {"min_interval": seconds(60)}
        filters = [skus for skus in ((), (sku,), ("none",)) for _ in range(2)]
        watches = [
            await stack.enter_async_context(Watching(client, *skus, **fields))
            for skus, fields in zip(filters, 3 * ({}, paced), strict=True)
        ]
        for watch in watches:
            await watch.first()
        last = await client.adjust(sku, 1)
        await watches[0].until(last.level.revision)
        stopping = asyncio.create_task(server.stop())
        for watch in watches:
            end = await watch.ended()
            assert end.end_reason == stock.WATCH_END_REASON_DRAINING
            assert watch.failure is None
        assert await stopping == 0
    async with (
        server_process(data=str(tmp_path)) as server,
        connected(str((await server.logged("serving"))["target"])) as client,
    ):
        await client.adjust(sku, 1)
        for watch, skus in zip(watches, filters, strict=True):
            resume: dict[str, Any] = {"token": watch.token, "on_gap": stock.ON_GAP_FAIL}
            async with Watching(client, *skus, **resume) as resumed:
                await resumed.until((await client.head()).sequence)
                await check_gapless(client, watch, resumed, skus=skus)


# ---- A store that is out of reach ----


async def test_a_store_out_of_reach_ends_a_watch_that_cannot_tell_what_is_current() -> None:
    binary = valkey_binary()
    assert binary is not None
    with store_serving(binary) as url:
        settings = {"redis_url": url, "watch_stale_ms": 2_000, "store_timeout_ms": 300}
        async with serving(**settings) as server, Redis.from_url(url) as redis:
            sku = await server.put(1)
            async with Watching(server, sku, heartbeat=seconds(1)) as watch:
                await watch.first()
                pid = int((await redis.info("server"))["process_id"])
                os.kill(pid, signal.SIGSTOP)
                end = await watch.ended()
                os.kill(pid, signal.SIGCONT)
                assert end.end_reason == stock.WATCH_END_REASON_STORE_UNAVAILABLE
                assert watch.failure is not None
                assert watch.failure.kind == (
                    grpc.StatusCode.UNAVAILABLE,
                    "STORE_UNAVAILABLE",
                    "holdfast",
                )
                assert watch.failure.retry_after_ms > 0
            last = await server.adjust(sku, 1)
            async with Watching(server, sku, token=watch.token, heartbeat=seconds(1)) as resumed:
                await resumed.until(last.level.revision)
                # It does not end again: the server knows that the store is back.
                await resumed.until_kind(HEARTBEAT)
                await check_gapless(server, watch, resumed, skus=[sku])
