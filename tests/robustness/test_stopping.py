"""SIGTERM, and several processes on one port."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from redis.asyncio import Redis

from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.app import HEALTH_INTERVAL_S
from tests.robustness.load import check_promises, stocked, under_load
from tests.robustness.processes import ServerProcess, free_address, server_process
from tests.serving import HELD, Client, connected, failure, failure_of_status, lines, unique, until

PAUSE_MS = 60_000
DRAINING = (grpc.StatusCode.UNAVAILABLE, "DRAINING", "holdfast")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    """A client of a store that a test may pause."""
    client: Any
    async with Redis.from_url(redis_url) as client:
        yield client
        await client.execute_command("CLIENT", "UNPAUSE")


async def pause(redis: Any) -> None:
    """Have the store keep every batch waiting until it is unpaused."""
    await redis.execute_command("CLIENT", "PAUSE", PAUSE_MS, "WRITE")


async def target_of(server: ServerProcess) -> str:
    return str((await server.logged("serving"))["target"])


async def waits_in_store(redis: Any, bytes_min: int) -> bool:
    """Tell whether the store has received a command of that size and not run it."""
    clients = await redis.client_list()
    return any(int(one["argv-mem"]) + int(one["qbuf"]) >= bytes_min for one in clients)


def frame_of(sku: str, count: int) -> stock.PipelineRequest:
    """Return claims of a kilobyte each."""
    large = types.Context(rationale="x" * 1_000)
    claim = stock.ReserveRequest(lines=lines((sku, 1)), context=large)
    return stock.PipelineRequest(
        operations=[stock.PipelineOperation(tag=tag, reserve=claim) for tag in range(count)]
    )


async def test_a_stopping_server_finishes_what_it_took_and_refuses_the_rest(
    redis: Any, redis_url: str
) -> None:
    settings = {"redis_url": redis_url, "store_timeout_ms": 30_000}
    async with (
        server_process(**settings) as server,
        connected(await target_of(server)) as client,
    ):
        sku = await client.put(100)
        await pause(redis)
        taken = client.stock.Pipeline()
        await taken.write(frame_of(sku, 20))
        await until(lambda: waits_in_store(redis, 20_000))
        os.kill(server.pid, signal.SIGTERM)
        await server.logged("draining")
        refused = await failure(client.reserve(sku))
        assert refused.kind == DRAINING
        assert refused.retry_after_ms > 0
        await taken.write(frame_of(sku, 1))
        await taken.done_writing()
        late = await anext(aiter(taken))
        assert [failure_of_status(result.error).kind for result in late.results] == [DRAINING]
        await asyncio.sleep(2 * HEALTH_INTERVAL_S)  # time for a wrong state to come back
        assert await health(client) == health_pb2.HealthCheckResponse.NOT_SERVING
        await redis.execute_command("CLIENT", "UNPAUSE")
        results = [result async for response in taken for result in response.results]
        assert len(results) == 20
        assert all(result.reserve.reservation.state == HELD for result in results)
        assert await server.ended() == 0


async def health(client: Client) -> int:
    check = client.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return int((await check(health_pb2.HealthCheckRequest())).status)


async def test_an_idle_server_stops_at_once_with_status_0(tmp_path: Path) -> None:
    async with server_process(data=str(tmp_path)) as server:
        assert await server.stop() == 0


async def test_a_server_with_open_streams_stops(tmp_path: Path) -> None:
    async with (
        server_process(data=str(tmp_path)) as server,
        connected(await target_of(server)) as client,
    ):
        await client.put(1)
        stream = client.ledger.StreamEntries(ledger.StreamEntriesRequest(follow=True))
        await anext(aiter(stream))
        pipeline = client.stock.Pipeline()
        assert await server.stop() == 0
        for call in (stream, pipeline):
            assert await call.code() is not grpc.StatusCode.OK


async def test_work_that_does_not_end_is_given_up_at_the_drain_timeout(
    redis: Any, redis_url: str
) -> None:
    settings = {"redis_url": redis_url, "store_timeout_ms": 30_000, "drain_timeout_ms": 200}
    async with (
        server_process(**settings) as server,
        connected(await target_of(server)) as client,
    ):
        sku = await client.put(1)
        await pause(redis)
        large = types.Context(rationale="x" * 1_000)
        call = asyncio.create_task(failure(client.reserve(sku, context=large)))
        await until(lambda: waits_in_store(redis, 1_000))
        assert await server.stop() == 0
        assert (await call).code is not grpc.StatusCode.OK


# ---- Workers ----


def workers_of(server: ServerProcess) -> dict[int, psutil.Process]:
    return {
        child.pid: child
        for child in psutil.Process(server.pid).children()
        if "holdfast_server.workers" in child.cmdline()
    }


def has_caller(worker: psutil.Process, port: int) -> bool:
    return any(
        connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for connection in worker.net_connections("tcp")
    )


async def answered(client: Client, sku: str) -> None:
    """Repeat a call with one id until it is answered."""
    name = unique()
    while True:
        try:
            assert (await client.reserve(sku, reservation_id=name)).reservation.state == HELD
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.02)


async def test_workers_share_a_port_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": str(tmp_path), "listen": free_address(), "workers": 2}
    port = int(settings["listen"].rpartition(":")[2])
    async with server_process(**settings) as server, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connected(settings["listen"])) for _ in range(24)
        ]
        sku = await clients[0].put(1_000)
        await asyncio.gather(*(answered(client, sku) for client in clients))
        workers = workers_of(server)
        assert [has_caller(worker, port) for worker in workers.values()] == [True, True]
        victim = next(iter(workers.values()))
        victim.kill()
        await server.logged("serving", times=3)
        await asyncio.gather(*(answered(client, sku) for client in clients))
        replaced = workers_of(server)
        assert len(replaced) == 2
        assert victim.pid not in replaced
        assert (await clients[0].level(sku)).held == 48
        assert await server.stop() == 0
        for worker in replaced.values():
            assert not worker.is_running()


async def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    settings = {"data": str(tmp_path), "workers": 2, "drain_timeout_ms": 0}
    async with server_process(**settings) as server:
        stuck = next(iter(workers_of(server).values()))
        stuck.suspend()
        assert await server.stop() == 0
        assert await all_gone([stuck])


async def test_workers_under_load_keep_every_promise_together(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": str(tmp_path), "listen": free_address(), "workers": 2}
    async with server_process(**settings) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(settings["listen"])) for _ in range(8)]
        skus = await stocked(clients[0])
        async with under_load(*clients, skus=skus) as load:
            await load.after(300)
        await check_promises(clients[0], load.acknowledged)
        assert await server.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_killed_server_leaves_no_process_behind(tmp_path: Path, workers: int) -> None:
    settings = {"data": str(tmp_path), "listen": free_address(), "workers": workers}
    async with server_process(**settings) as server:
        left = psutil.Process(server.pid).children(recursive=True)
        await server.kill()
        await until(lambda: all_gone(left))
    async with server_process(**{**settings, "workers": 1}) as again:
        assert await again.stop() == 0


async def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )
