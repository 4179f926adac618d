"""Watches of the harness: how they open, what they record, and how they fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc, types_pb2
from holdfast_bench.harness.recording import Outcome, Recorded, Recorder, merge
from holdfast_bench.harness.transport import Transport, connect
from holdfast_bench.harness.watchers import RPC, Watchers

LATE_S = 30.0  # a delivery that took so long cannot be mistaken for another


class Watched(stock_pb2_grpc.StockServiceServicer):
    """Sends a snapshot, and one change when it is told to; then it ends the stream."""

    def __init__(self, *, is_refusing: bool = False, is_silent: bool = False) -> None:
        self._is_refusing, self._is_silent = is_refusing, is_silent
        self.changed = asyncio.Event()
        self.asked: list[pb.WatchRequest] = []

    async def Watch(
        self, request: pb.WatchRequest, context: Any
    ) -> AsyncIterator[pb.WatchResponse]:
        self.asked.append(request)
        if self._is_refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no more watches")
        if self._is_silent:
            await asyncio.Event().wait()
        yield pb.WatchResponse(kind=pb.WATCH_KIND_SNAPSHOT, levels=[self._level(0.0)])
        await self.changed.wait()
        yield pb.WatchResponse(kind=pb.WATCH_KIND_HEARTBEAT)
        levels = [self._level(1.0), self._level(LATE_S)]
        yield pb.WatchResponse(kind=pb.WATCH_KIND_CHANGES, levels=levels)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "it is over")

    def _level(self, ago_s: float) -> types_pb2.StockLevel:
        as_of = Timestamp()
        as_of.FromNanoseconds(round((time.time() - ago_s) * 1e9))
        return types_pb2.StockLevel(sku="A", as_of=as_of)


@asynccontextmanager
async def watching(watched: Watched, *, timeout_s: float = 10.0) -> AsyncIterator[list[Transport]]:
    server = grpc.aio.server()
    stock_pb2_grpc.add_StockServiceServicer_to_server(watched, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transports = await connect(f"127.0.0.1:{port}", "coalesced", 2, timeout_s=timeout_s)
    try:
        yield transports
    finally:
        await asyncio.gather(*(transport.aclose() for transport in transports))
        await server.stop(0)


async def test_a_delivery_takes_as_long_as_its_oldest_level() -> None:
    watched, recorder = Watched(), Recorder(time.perf_counter())
    async with watching(watched) as transports:
        watchers = Watchers(transports, ["A", "B"], lambda _rng: 0)
        await watchers.open(range(0, 6, 2), 1)
        watchers.follow(recorder, lambda _moment: "steady")
        watched.changed.set()
        await watchers.ended()
    calls = recorded(recorder).rpcs[RPC]
    assert dict(calls.outcomes) == {Outcome.OK: 3, Outcome.ERROR: 3}
    assert calls.reasons == {"UNREACHABLE": 3}
    assert calls.response.max_us >= LATE_S * 1e6
    assert [list(request.skus) for request in watched.asked] == [["A"]] * 3


def recorded(recorder: Recorder) -> Recorded:
    return merge(recorder.encode())


async def test_a_watch_that_cannot_be_opened_stops_the_run() -> None:
    async with watching(Watched(is_refusing=True)) as transports:
        watchers = Watchers(transports, ["A"], lambda _rng: 0)
        with pytest.raises(ExceptionGroup, match="unhandled") as raised:
            await watchers.open(range(1), 1)
    assert "a watch could not be opened: UNREACHABLE" in str(raised.value.exceptions[0])


async def test_a_watch_without_a_first_message_is_a_deadline() -> None:
    async with watching(Watched(is_silent=True), timeout_s=0.2) as transports:
        answer, _call = await transports[0].watch(pb.WatchRequest(skus=["A"]))
    assert (answer.outcome, answer.reason) == (Outcome.DEADLINE, "DEADLINE_EXCEEDED")
