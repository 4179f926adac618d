"""Call a server from a process of its own; print operations a second, and how many in all.

    python -m holdfast_bench.calling echo|reserve|pipeline|query|query_pipeline TARGET SECONDS

Closed loops over raw stubs, without the SDK, over 4 connections: 128 callers of unary methods, or
a Pipeline stream on each with one frame of 128 operations in flight.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import grpc
import uvloop

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc
from holdfast_bench.workload import ECHO_METHOD, ECHO_SERVICE, WARM_S, catalogue, drawn

CHANNELS = 4
CALLERS = 128
TIMEOUT_S = 10.0  # far off, but a deadline as every call of the SDK has one
FRAME = 128
SKUS = 1_000

Call = Callable[[], Awaitable[int]]
_ids = (f"01RPC{os.getpid():08d}{number:013d}" for number in count())
_skus = drawn(catalogue(SKUS))


def _fill(request: pb.ReserveRequest) -> pb.ReserveRequest:
    request.reservation_id = next(_ids)
    request.lines.add(sku=next(_skus), quantity=1)
    return request


def _request() -> pb.ReserveRequest:
    return _fill(pb.ReserveRequest())


def _ask(request: pb.GetStockRequest) -> pb.GetStockRequest:
    request.skus.append(next(_skus))
    return request


def echo(channel: Any) -> list[Call]:
    """Return callers of a method that returns a Reserve's request: the same work on this side."""
    method = channel.unary_unary(
        f"/{ECHO_SERVICE}/{ECHO_METHOD}",
        request_serializer=pb.ReserveRequest.SerializeToString,
        response_deserializer=pb.ReserveRequest.FromString,
        _registered_method=True,  # as generated stubs do
    )

    async def call() -> int:
        await method(_request(), timeout=TIMEOUT_S)
        return 1

    return [call] * (CALLERS // CHANNELS)


def reserve(channel: grpc.aio.Channel) -> list[Call]:
    """Return callers of Reserve, each time with a new id."""
    stub: Any = stock_pb2_grpc.StockServiceStub(channel)

    async def call() -> int:
        response = await stub.Reserve(_request(), timeout=TIMEOUT_S)
        if not response.HasField("reservation"):
            raise RuntimeError(f"not reserved: {response}")
        return 1

    return [call] * (CALLERS // CHANNELS)


def query(channel: grpc.aio.Channel) -> list[Call]:
    """Return callers of GetStock, each time of one SKU."""
    stub: Any = stock_pb2_grpc.StockServiceStub(channel)

    async def call() -> int:
        response = await stub.GetStock(_ask(pb.GetStockRequest()), timeout=TIMEOUT_S)
        if not response.levels:
            raise RuntimeError(f"not answered: {response}")
        return 1

    return [call] * (CALLERS // CHANNELS)


def pipeline(channel: Any) -> list[Call]:
    """Return the caller of a stream: the next frame goes out when the last one is answered."""
    return _streamed(channel, lambda operation: _fill(operation.reserve), "reserve.reservation")


def query_pipeline(channel: Any) -> list[Call]:
    """Return the same of GetStock."""
    return _streamed(channel, lambda operation: _ask(operation.get_stock), "get_stock")


def _streamed(channel: Any, fill: Callable[[Any], Any], wanted: str) -> list[Call]:
    stream: Any = stock_pb2_grpc.StockServiceStub(channel).Pipeline()
    kind, _, part = wanted.partition(".")

    def is_wanted(result: Any) -> bool:
        return bool(result.HasField(kind) and (not part or getattr(result, kind).HasField(part)))

    async def call() -> int:
        frame = pb.PipelineRequest()
        for tag in range(FRAME):  # filled in where it stands: half the cost on this side
            fill(frame.operations.add(tag=tag))
        await stream.write(frame)
        response = await stream.read()
        if not all(map(is_wanted, response.results)):
            raise RuntimeError("a frame held an operation that failed")
        return len(response.results)

    return [call]


KINDS: dict[str, Callable[[grpc.aio.Channel], list[Call]]] = {
    "echo": echo,
    "reserve": reserve,
    "pipeline": pipeline,
    "query": query,
    "query_pipeline": query_pipeline,
}


async def _repeat(calls: list[Call], seconds: float) -> tuple[int, float]:
    """Repeat every call without a pause; return the operations done and the seconds they took."""
    done, began = 0, time.perf_counter()

    async def repeat(call: Call) -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            answered = await call()
            done += answered  # one step: `done += await` would add to what was read before it

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(repeat(call))
    return done, time.perf_counter() - began


async def _main(kind: str, target: str, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        calls: list[Call] = []
        for _ in range(CHANNELS):
            options = [("grpc.use_local_subchannel_pool", 1)]  # or all share one connection
            channel = grpc.aio.insecure_channel(target, options=options)
            await stack.enter_async_context(channel)
            calls += KINDS[kind](channel)
        warmed, _ = await _repeat(calls, WARM_S)
        done, took = await _repeat(calls, seconds)
        print(done / took, warmed + done)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
