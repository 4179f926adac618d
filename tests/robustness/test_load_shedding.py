"""A server whose store is slow: new claims are refused, what frees stock is taken, all are told.

How long a level stays after the delay fell is a matter of the gauge's own tests.  Here a level
stays until the test says `calm`, so that nothing depends on how fast a machine is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from holdfast.v1 import stock_pb2 as stock
from holdfast_server.engine import load
from holdfast_server.engine.load import ServerLoad
from tests.robustness.load import check_promises
from tests.serving import (
    COMMITTED,
    HELD,
    RELEASED,
    Serving,
    digest,
    failure,
    failure_of_status,
    lines,
    serving,
    unique,
    until,
)

PAUSE_MS, TIMEOUT_MS = 60_000, 30_000
BOUNDS = {"load_high_ms": 100, "load_overloaded_ms": 200}
NEVER_SHED = {"load_high_ms": 100, "load_overloaded_ms": 0}
Calm = Callable[[Serving], Awaitable[None]]
SHED = (grpc.StatusCode.UNAVAILABLE, "OVERLOADED", "holdfast")


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[Any]:
    client: Any
    async with Redis.from_url(store_url) as client:
        yield client
        await client.execute_command("CLIENT", "UNPAUSE")


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> Calm:
    """Have levels stay as they are; return what lets them fall, to NORMAL."""
    monkeypatch.setattr(load, "FALL_S", math.inf)

    async def to_normal(server: Serving) -> None:
        monkeypatch.setattr(load, "FALL_S", 0.0)
        await until(lambda: has_load(server, ServerLoad.NORMAL))

    return to_normal


@asynccontextmanager
async def slow(redis: Any, server: Serving, wanted: ServerLoad) -> AsyncIterator[None]:
    """Hold the store back, from a Reserve that waits for it, until the server notices.

    When the store goes on, that Reserve is held all the same: it was taken.
    """
    sku = await server.put(1)
    await redis.execute_command("CLIENT", "PAUSE", PAUSE_MS, "WRITE")
    waiting = asyncio.ensure_future(server.reserve(sku))
    await until(lambda: has_load(server, wanted))
    yield
    await redis.execute_command("CLIENT", "UNPAUSE")
    assert (await waiting).reservation.state == HELD


async def has_load(server: Serving, wanted: ServerLoad) -> bool:
    return server.server.batcher.gauge.load is wanted


async def has_shed(server: Serving, count: int) -> bool:
    return server.server.batcher.counters.shed == count


async def trailer_of(call: Any) -> str | None:
    """Return what a call that succeeds says of the server's load."""
    await call
    value = dict(await call.trailing_metadata()).get("holdfast-load")
    return None if value is None else str(value)


def reserving(sku: str, name: str = "") -> stock.ReserveRequest:
    return stock.ReserveRequest(reservation_id=name or unique(), lines=lines((sku, 1)))


async def taken(server: Serving, *calls: Awaitable[Any]) -> list[asyncio.Future[Any]]:
    """Start calls, all of which wait in the engine when this returns."""
    wanted = server.server.batcher.queue_len + len(calls)
    futures = [asyncio.ensure_future(call) for call in calls]

    async def is_so() -> bool:
        return server.server.batcher.queue_len >= wanted

    await until(is_so)
    return futures


async def test_an_overloaded_server_refuses_claims_and_takes_what_frees_stock(
    store_url: str, redis: Any
) -> None:
    async with serving(redis_url=store_url, store_timeout_ms=TIMEOUT_MS, **BOUNDS) as server:
        sku = await server.put(10)
        sold, freed = unique(), unique()
        for name in (sold, freed):
            await server.reserve(sku, reservation_id=name)
        async with slow(redis, server, ServerLoad.OVERLOADED):
            before = await digest(store_url)
            for _ in range(3):
                refused = await failure(server.reserve(sku))
                assert refused.kind == SHED
                assert refused.retry_after_ms == refused.pushback_ms > 0
            assert await digest(store_url) == before
            finishing = await taken(
                server,
                server.commit(sold),
                server.stock.Release(stock.ReleaseRequest(reservation_id=freed)),
            )
            assert not any(future.done() for future in finishing)
        states = [(await future).reservation.state for future in finishing]
        assert states == [COMMITTED, RELEASED]
        level = await server.level(sku)
        assert (level.held, level.committed, level.available) == (0, 1, 9)
        assert await has_shed(server, 3)
        await check_promises(server)


@pytest.mark.parametrize(
    ("bounds", "reached"), [(BOUNDS, ServerLoad.OVERLOADED), (NEVER_SHED, ServerLoad.HIGH)]
)
async def test_calls_of_a_loaded_server_say_so_until_it_is_calm(
    store_url: str, redis: Any, calm: Calm, bounds: dict[str, int], reached: ServerLoad
) -> None:
    async with serving(redis_url=store_url, store_timeout_ms=TIMEOUT_MS, **bounds) as server:
        read = stock.GetStockRequest(skus=[await server.put(10)])
        assert await trailer_of(server.stock.GetStock(read)) is None
        async with slow(redis, server, reached):
            call: Any = server.stock.GetStock(stock.GetStockRequest())
            await failure(call)
            assert dict(await call.trailing_metadata())["holdfast-load"] == reached.name.lower()
        assert await trailer_of(server.stock.GetStock(read)) == reached.name.lower()
        await calm(server)
        assert await trailer_of(server.stock.GetStock(read)) is None


async def test_a_frame_of_an_overloaded_server_is_answered_in_part(
    store_url: str, redis: Any, calm: Calm
) -> None:
    async with serving(redis_url=store_url, store_timeout_ms=TIMEOUT_MS, **BOUNDS) as server:
        sku, held = await server.put(10), unique()
        await server.reserve(sku, reservation_id=held)
        frame = stock.PipelineRequest(
            operations=[
                stock.PipelineOperation(tag=1, reserve=reserving(sku)),
                stock.PipelineOperation(tag=2, commit=stock.CommitRequest(reservation_id=held)),
                stock.PipelineOperation(tag=3, reserve=reserving(sku)),
            ]
        )
        stream: Any = server.stock.Pipeline()
        async with slow(redis, server, ServerLoad.OVERLOADED):
            await stream.write(frame)
            await until(lambda: has_shed(server, 2))
        response = await stream.read()
        assert [result.tag for result in response.results] == [1, 2, 3]
        first, second, third = response.results
        assert second.commit.reservation.state == COMMITTED
        for result in (first, third):
            refused = failure_of_status(result.error)
            assert refused.kind == SHED
            assert refused.retry_after_ms > 0
        pressure = response.server_pressure
        assert pressure.load == stock.SERVER_LOAD_OVERLOADED
        assert pressure.suggested_min_interval.ToMilliseconds() == 1_000
        await calm(server)
        await stream.write(frame)
        calm = await stream.read()
        assert not calm.HasField("server_pressure")
        assert calm.results[0].reserve.reservation.state == HELD
        await stream.done_writing()


async def test_a_server_that_may_not_shed_load_takes_claims_from_a_slow_store(
    store_url: str, redis: Any
) -> None:
    async with serving(redis_url=store_url, store_timeout_ms=TIMEOUT_MS, **NEVER_SHED) as server:
        sku = await server.put(10)
        async with slow(redis, server, ServerLoad.HIGH):
            (claim,) = await taken(server, server.reserve(sku))
        assert (await claim).reservation.state == HELD
