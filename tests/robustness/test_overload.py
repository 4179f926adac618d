"""More than the server can take: refused at once, and nobody else is disturbed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from holdfast.v1 import stock_pb2 as stock
from tests.robustness.load import check_promises
from tests.serving import HELD, Serving, failure, lines, serving, unique, until

PAUSE_MS = 60_000
# Longer than any pause of these tests; and a store that is held back is no reason to shed here, or
# a call that comes a moment later than the others would be refused.
PATIENT = {"store_timeout_ms": 30_000, "load_overloaded_ms": 0}


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[Any]:
    client: Any
    async with Redis.from_url(store_url) as client:
        yield client
        await client.execute_command("CLIENT", "UNPAUSE")


async def pause(redis: Any) -> None:
    """Have the store keep every batch waiting until it is unpaused."""
    await redis.execute_command("CLIENT", "PAUSE", PAUSE_MS, "WRITE")


async def unpause(redis: Any) -> None:
    await redis.execute_command("CLIENT", "UNPAUSE")


async def started(server: Serving, *calls: Awaitable[Any]) -> list[asyncio.Task[Any]]:
    """Start calls, all of which have entered the engine when this returns."""
    batcher = server.server.batcher
    before = batcher.queue_len + batcher.counters.operations
    tasks = [asyncio.ensure_future(call) for call in calls]
    await until(has_taken(server, before + len(tasks)))
    return tasks


def has_taken(server: Serving, count: int) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether so many operations have ever entered the engine."""
    batcher = server.server.batcher

    async def is_so() -> bool:
        return batcher.queue_len + batcher.counters.operations >= count

    return is_so


async def test_beyond_the_queue_bound_calls_are_refused_at_once(store_url: str, redis: Any) -> None:
    bounds = {"lanes": 1, "batch_operations_max": 1, "queue_len_max": 4}
    async with serving(redis_url=store_url, **PATIENT, **bounds) as server:
        sku = await server.put(100)
        await pause(redis)
        taken = await started(server, *(server.reserve(sku) for _ in range(5)))
        for _ in range(3):
            refused = await failure(server.reserve(sku))
            assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED", "holdfast")
            assert refused.retry_after_ms == refused.pushback_ms > 0
            assert "the limit is 4" in refused.message
        operation = stock.PipelineOperation(
            tag=1, reserve=stock.ReserveRequest(lines=lines((sku, 1)))
        )
        frame = stock.PipelineRequest(operations=[operation])
        async for response in server.stock.Pipeline(iter([frame])):
            assert "limit" in response.results[0].error.message
        assert not any(task.done() for task in taken)
        await unpause(redis)
        for task in taken:
            assert (await task).reservation.state == HELD
        assert (await server.level(sku)).held == 5


async def test_callers_that_leave_disturb_nobody_in_their_batch(store_url: str, redis: Any) -> None:
    async with serving(redis_url=store_url, **PATIENT) as server:
        sku = await server.put(1_000)
        names = [unique() for _ in range(60)]
        await pause(redis)
        calls = (server.reserve(sku, reservation_id=name) for name in names)
        tasks = await started(server, *calls)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks[::2])
        await unpause(redis)
        for task in tasks[1::2]:
            assert (await task).reservation.state == HELD
        # Those that left were decided or dropped; asking again with their ids settles it.
        for name in names[::2]:
            assert (await server.reserve(sku, reservation_id=name)).reservation.state == HELD
        assert (await server.level(sku)).held == len(names)
        await check_promises(server)


async def test_a_deadline_ends_a_call_and_not_its_operation(store_url: str, redis: Any) -> None:
    async with serving(redis_url=store_url, **PATIENT) as server:
        sku, name = await server.put(5), unique()
        await pause(redis)
        request = stock.ReserveRequest(reservation_id=name, lines=lines((sku, 2)))
        (call,) = await started(server, server.stock.Reserve(request, timeout=2))
        late = await failure(call)
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await unpause(redis)
        await server.until(lambda entry: entry.id == name)
        assert (await server.stock.Reserve(request)).replayed
        assert (await server.level(sku)).held == 2


async def test_a_pipeline_that_is_cancelled_leaves_the_others_alone(
    store_url: str, redis: Any
) -> None:
    async with serving(redis_url=store_url, **PATIENT) as server:
        sku = await server.put(1_000)

        def frame() -> stock.PipelineRequest:
            return stock.PipelineRequest(
                operations=[
                    stock.PipelineOperation(
                        tag=number, reserve=stock.ReserveRequest(lines=lines((sku, 1)))
                    )
                    for number in range(50)
                ]
            )

        await pause(redis)
        gone, stays = (server.stock.Pipeline(iter([frame()])) for _ in range(2))
        await until(has_taken(server, 102))
        gone.cancel()
        await unpause(redis)
        results = [result async for response in stays for result in response.results]
        assert len(results) == 50
        assert all(result.reserve.reservation.state == HELD for result in results)
        await check_promises(server)


async def test_a_store_that_never_answers_ends_in_an_unknown_outcome(
    store_url: str, redis: Any
) -> None:
    impatient = {**PATIENT, "store_timeout_ms": 100}
    async with serving(redis_url=store_url, **impatient) as server:
        sku, name = await server.put(5), unique()
        await pause(redis)
        refused = await failure(server.reserve(sku, 2, reservation_id=name))
        assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN", "holdfast")
        await unpause(redis)
        answer = await server.reserve(sku, 2, reservation_id=name)
        assert answer.reservation.state == HELD
        assert (await server.level(sku)).held == 2
