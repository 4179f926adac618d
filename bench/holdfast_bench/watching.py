"""Watch from a process of its own, as many streams as it is told, and say what arrives.

    python -m holdfast_bench.watching TARGET STREAMS CONNECTIONS [SKU HEARTBEAT_S]

With a SKU, or '' for all, the streams are watches; without, those of the bare server.

Commands on standard input, one a line, each answered with one line of JSON:

    open            open the streams; seconds until every one has had its first message
    rounds NUMBER   for each of so many changes, seconds from its start to each arrival

The streams take bytes and decode nothing, so both kinds cost this side the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from typing import Any

import grpc
import uvloop

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc, types_pb2
from holdfast_bench.workload import FANOUT_SERVICE, FOLLOW_METHOD, PUBLISH_METHOD

OPENING_MAX = 500  # streams whose first message is awaited at once
ROUND_S_MAX = 60.0
BARE_SIZE = 160  # bytes: about a WatchResponse of one level

Change = Callable[[], Awaitable[object]]


class Streams:
    """The streams of this process, and when something arrived on them."""

    def __init__(self, calls: Sequence[Callable[[], Any]], change: Change) -> None:
        self._calls, self._change = calls, change
        self._opening = asyncio.Semaphore(OPENING_MAX)
        self._arrivals: list[float] = []
        self._all_arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> float:
        """Open all; return the seconds until each has had its first message."""
        began = time.perf_counter()
        firsts = []
        for call in self._calls:
            first = asyncio.get_running_loop().create_future()
            self._tasks.append(asyncio.create_task(self._read(call, first)))
            firsts.append(first)
        await asyncio.gather(*firsts)
        return time.perf_counter() - began

    async def _read(self, open_call: Callable[[], Any], first: asyncio.Future[None]) -> None:
        async with self._opening:
            call = open_call()
            await call.read()
        first.set_result(None)
        while await call.read() is not grpc.aio.EOF:
            self._arrivals.append(time.perf_counter())
            if len(self._arrivals) >= len(self._calls):
                self._all_arrived.set()

    async def rounds(self, number: int) -> list[list[float]]:
        """Return for each change how long it took to each arrival, until all had it."""
        rounds = []
        for _ in range(number):
            self._arrivals.clear()
            self._all_arrived.clear()
            began = time.perf_counter()
            await self._change()
            async with asyncio.timeout(ROUND_S_MAX):
                await self._all_arrived.wait()
            rounds.append([at - began for at in self._arrivals])
        return rounds


def _watches(channels: list[Any], number: int, sku: str, heartbeat_s: int) -> Streams:
    """Return watches of one SKU, which a Reserve of it changes, or of all."""
    stub: Any = stock_pb2_grpc.StockServiceStub(channels[0])
    ids = (f"01WATCH{os.getpid():08d}{index:011d}" for index in count())
    # No heartbeat in between, so that every arrival is a change.
    request = pb.WatchRequest(skus=[sku] if sku else [])
    request.heartbeat.FromSeconds(heartbeat_s)

    async def change() -> None:
        line = types_pb2.Line(sku=sku, quantity=1)
        await stub.Reserve(pb.ReserveRequest(reservation_id=next(ids), lines=[line]), timeout=30)

    return _streams(channels, number, "/holdfast.v1.StockService/Watch", request, change)


def _bare(channels: list[Any], number: int) -> Streams:
    """Return streams of the bare server, all of which one call has written to."""
    publish = channels[0].unary_unary(f"/{FANOUT_SERVICE}/{PUBLISH_METHOD}")
    request = pb.WatchRequest(resume_token="x" * BARE_SIZE)

    async def change() -> None:
        await publish(b"", timeout=30)

    path = f"/{FANOUT_SERVICE}/{FOLLOW_METHOD}"
    return _streams(channels, number, path, request, change)


def _streams(
    channels: list[Any], number: int, path: str, request: pb.WatchRequest, change: Change
) -> Streams:
    methods = [channel.unary_stream(path, _registered_method=True) for channel in channels]
    data = request.SerializeToString()
    calls = [partial(methods[index % len(methods)], data) for index in range(number)]
    return Streams(calls, change)


async def _obey(streams: Streams, words: list[str]) -> Any:
    match words:
        case ["open"]:
            return await streams.open()
        case ["rounds", number]:
            return await streams.rounds(int(number))
    raise ValueError(words)


async def _main(target: str, number: int, connections: int, *watch: str) -> None:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        channels: list[Any] = [
            await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options))
            for _ in range(connections)
        ]
        if watch:
            streams = _watches(channels, number, watch[0], int(watch[1]))
        else:
            streams = _bare(channels, number)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await _obey(streams, line.split())), flush=True)
        os._exit(0)  # ten thousand calls to cancel in good order would take seconds


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
