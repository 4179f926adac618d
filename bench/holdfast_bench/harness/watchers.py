"""Watches that stay open beside the sessions: how long a change takes to each of them.

A level says when it was decided, to the millisecond and by the clock of the server's machine.  So
the time of a delivery is known where generator and server share a machine, and there only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import grpc

from holdfast.status import error_of, status_of
from holdfast.v1 import stock_pb2 as pb
from holdfast_bench.harness.answers import failure_of
from holdfast_bench.harness.recording import Outcome, Recorder
from holdfast_bench.harness.transport import Transport

RPC = "WatchDelivery"
OPENING_MAX = 200  # watches whose first message is awaited at once
HEARTBEAT_S = 60  # the longest there is: silence is not what is measured
SEEDS_APART = 7_000_003


class Watchers:
    """The watches of one process, each of one item, drawn as agents draw theirs."""

    def __init__(
        self, transports: Sequence[Transport], skus: Sequence[str], draw: Callable[[Random], int]
    ) -> None:
        self._transports, self._skus, self._draw = transports, skus, draw
        self._calls: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, numbers: range, seed: int) -> None:
        """Open them, and wait for the first message of each.  Raises RuntimeError."""
        free = asyncio.Semaphore(OPENING_MAX)

        async def one(number: int) -> None:
            sku = self._skus[self._draw(Random(seed * SEEDS_APART + number))]
            request = pb.WatchRequest(skus=[sku])
            request.heartbeat.FromSeconds(HEARTBEAT_S)
            async with free:
                transport = self._transports[number % len(self._transports)]
                answer, call = await transport.watch(request)
            if answer.outcome is not Outcome.OK:
                raise RuntimeError(f"a watch could not be opened: {answer.reason}")
            self._calls.append(call)

        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(one(number))

    def follow(self, recorder: Recorder, phase_at: Callable[[float], str]) -> None:
        """Record every delivery from now on."""
        ahead = time.time() - time.perf_counter()  # of the wall clock, which levels are dated by
        self._tasks = [
            asyncio.create_task(_follow(call, recorder, phase_at, ahead)) for call in self._calls
        ]

    async def ended(self) -> None:
        """Wait until the server has ended every one of them."""
        await asyncio.gather(*self._tasks)


async def _follow(
    call: Any, recorder: Recorder, phase_at: Callable[[float], str], ahead: float
) -> None:
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            now = time.perf_counter()
            if message.kind != pb.WATCH_KIND_CHANGES or not message.levels:
                continue
            # Of levels that come together the first to be decided has waited longest.
            decided = min(level.as_of.ToNanoseconds() for level in message.levels) / 1e9 - ahead
            recorder.record(RPC, phase_at(decided), decided, decided, now, Outcome.OK)
    except grpc.aio.AioRpcError as error:
        now, failure = time.perf_counter(), failure_of(error_of(status_of(error)))
        recorder.record(RPC, phase_at(now), now, now, now, failure.outcome, failure.reason)
