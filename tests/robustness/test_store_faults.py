"""Faults of the store, each told apart from an answer and from the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError

from holdfast.v1 import stock_pb2 as stock
from holdfast_server.errors import StoreUnavailable
from tests.robustness.load import check_promises, stocked, under_load
from tests.servers import redis_binary, valkey_binary
from tests.servers import serving as store_serving
from tests.serving import (
    COMMITTED,
    HELD,
    RELEASED,
    Serving,
    digest,
    failure,
    failure_of_status,
    lines,
    seconds,
    serving,
    unique,
    until,
)

UNGUARDED = ("--enable-protected-configs", "yes", "--enable-debug-command", "yes")
LOAD_US_A_KEY = 3_000
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "holdfast")


@pytest.fixture(params=["redis", "valkey"])
def own_store(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a store that a test may harm."""
    binary = redis_binary() if request.param == "redis" else valkey_binary()
    assert binary is not None
    with store_serving(binary, *UNGUARDED) as url:
        yield url


@pytest.fixture
async def server(own_store: str) -> AsyncIterator[Serving]:
    async with serving(redis_url=own_store) as server:
        yield server


@pytest.fixture
async def redis(own_store: str) -> AsyncIterator[Any]:
    async with Redis.from_url(own_store, decode_responses=True) as client:
        yield client


async def refused_unchanged(server: Serving, sku: str, words: str) -> None:
    """Check that changes are refused for the reason given, and change nothing."""
    before = await digest(server.url)
    for call in (server.reserve(sku), server.adjust(sku, 1)):
        refused = await failure(call)
        assert refused.kind == UNAVAILABLE
        assert words in refused.message
        assert refused.retry_after_ms == refused.pushback_ms > 0
    assert await digest(server.url) == before


async def works(server: Serving, sku: str) -> bool:
    return (await server.reserve(sku)).reservation.state == HELD


async def test_scripts_that_the_store_forgets_are_loaded_again_unnoticed(
    server: Serving, redis: Any
) -> None:
    skus = await stocked(server)
    async with under_load(server, skus=skus) as load:
        for _ in range(10):
            await redis.function_flush()
            await load.after(20)
    assert load.failures == {}
    await check_promises(server, load.acknowledged)


async def test_a_full_memory_refuses_claims_and_still_ends_them(
    server: Serving, redis: Any
) -> None:
    sku = await server.put(10)
    sold, given_back, kept = unique(), unique(), unique()
    for name in (sold, given_back, kept):
        await server.reserve(sku, 2, reservation_id=name)
    await redis.config_set("maxmemory", 1)
    await refused_unchanged(server, sku, "out of memory")
    assert (await server.commit(sold)).reservation.state == COMMITTED
    release = stock.ReleaseRequest(reservation_id=given_back)
    assert (await server.stock.Release(release)).reservation.state == RELEASED
    extend = stock.ExtendRequest(reservation_id=kept, ttl=seconds(60))
    assert (await server.stock.Extend(extend)).reservation.state == HELD
    assert (await server.reservation(kept)).state == HELD
    assert (await server.level(sku)).available == 6
    await redis.config_set("maxmemory", 0)
    assert await works(server, sku)
    await check_promises(server)


async def test_in_a_full_memory_a_frame_is_split_into_what_ends_and_what_claims(
    server: Serving, redis: Any
) -> None:
    operation = stock.PipelineOperation
    sku, name = await server.put(10), unique()
    await server.reserve(sku, 2, reservation_id=name)
    await redis.config_set("maxmemory", 1)
    frame = [
        operation(tag=1, reserve=stock.ReserveRequest(lines=lines((sku, 1)))),
        operation(tag=2, commit=stock.CommitRequest(reservation_id=name)),
        operation(tag=3, reserve=stock.ReserveRequest(lines=lines((sku, 1)))),
        operation(tag=4, get_stock=stock.GetStockRequest(skus=[sku])),
    ]
    call = server.stock.Pipeline(iter([stock.PipelineRequest(operations=frame)]))
    results = {result.tag: result async for response in call for result in response.results}
    assert results[2].commit.reservation.state == COMMITTED
    assert results[4].get_stock.levels[0].committed == 2
    for tag in (1, 3):
        assert failure_of_status(results[tag].error).kind == UNAVAILABLE


async def test_a_store_that_became_a_replica_refuses_until_it_is_master_again(
    server: Serving, redis: Any
) -> None:
    sku = await server.put(10)
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    await refused_unchanged(server, sku, "read-only replica")
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert await works(server, sku)


async def test_a_store_with_too_few_replicas_refuses(server: Serving, redis: Any) -> None:
    sku = await server.put(10)
    await redis.config_set("min-replicas-to-write", 1)
    await refused_unchanged(server, sku, "too few replicas")
    await redis.config_set("min-replicas-to-write", 0)
    assert await works(server, sku)


async def test_a_store_that_cannot_save_refuses(server: Serving, redis: Any) -> None:
    sku = await server.put(10)
    home = (await redis.config_get("dir"))["dir"]
    await redis.config_set("save", "3600 1")
    await redis.config_set("dir", "/sys/kernel")  # where nobody can make a file
    await redis.bgsave()

    async def has_failed() -> bool:
        return bool((await redis.info("persistence"))["rdb_last_bgsave_status"] == "err")

    await until(has_failed)
    await refused_unchanged(server, sku, "cannot write to its disk")
    await redis.config_set("dir", home)
    await redis.config_set("save", "")
    assert await works(server, sku)


async def test_a_store_that_lets_the_server_do_less_says_so(server: Serving, redis: Any) -> None:
    sku = await server.put(10)
    await redis.acl_setuser("default", enabled=True, commands=["-xadd"])
    refused = await failure(server.reserve(sku))
    assert refused.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
    await redis.acl_setuser("default", enabled=True, categories=["+@all"])
    assert await works(server, sku)
    await check_promises(server)


async def test_a_store_that_loads_its_data_is_waited_for(own_store: str, redis: Any) -> None:
    async with serving(redis_url=own_store) as server:
        sku = await server.put(10)
        await redis.mset({f"other {number}": "x" * 200 for number in range(200)})
        await redis.config_set("key-load-delay", LOAD_US_A_KEY)
        await redis.config_set("loading-process-events-interval-bytes", 1024)
        loading = asyncio.create_task(reload(own_store))
        await until(lambda: is_loading(own_store))
        assert (await server.reserve(sku, 2)).reservation.state == HELD
        await loading
        assert (await server.level(sku)).held == 2


async def reload(url: str) -> None:
    client: Any
    async with Redis.from_url(url) as client:
        await client.execute_command("DEBUG", "RELOAD")


async def is_loading(url: str) -> bool:
    async with Redis.from_url(url) as client:
        try:
            return bool((await client.info("persistence"))["loading"])
        except BusyLoadingError:
            return True


async def test_a_store_that_is_gone_at_the_start_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot reach the store"):
        async with serving(redis_url=f"unix://{tmp_path}/nobody"):
            pass


async def test_a_store_that_went_away_is_unavailable() -> None:
    binary = redis_binary() or pytest.skip("redis-server is not on this machine's PATH")
    async with AsyncExitStack() as stack:
        with store_serving(binary) as url:
            server = await stack.enter_async_context(serving(redis_url=url))
            sku = await server.put(1)
        refused = await failure(server.reserve(sku))
        assert refused.kind == UNAVAILABLE
        assert refused.retry_after_ms == refused.pushback_ms > 0
