"""Drive a contestant from a process of its own: closed loops of agents' sessions.

    python -m holdfast_bench.peers.driving TARGET SECONDS LOAD-AS-JSON

A session looks at its SKUs, reserves them, and commits, releases or abandons what it got.  The
next one begins when it is over: that measures how much goes through, and does not show how long a
caller waits at a given load.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from itertools import count
from random import Random
from typing import Any

import grpc
import uvloop
from google.protobuf.duration_pb2 import Duration
from hdrh.histogram import HdrHistogram

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc, types_pb2
from holdfast_bench.peers.processes import Stock
from holdfast_bench.workload import catalogue

TIMEOUT_S = 30.0
US_MAX = 60_000_000
DIGITS = 3


@dataclass(frozen=True)
class Load:
    """What agents do."""

    name: str = "uniform"
    callers: int = 64
    connections: int = 4
    skus: int = 1_000
    units: int = 1_000_000
    lines: int = 1
    hot_share: float = 0.0  # of the sessions, that want SKU-000000
    hot_units: int = 0
    ttl_s: int = 10
    commit: float = 0.80  # of the holds
    release: float = 0.15  # of the holds; the others are left to expire
    warm_up_s: float = 0.5
    seed: int = 7

    def stock(self) -> Stock:
        """Return what is on sale."""
        hot = {catalogue(1)[0]: self.hot_units} if self.hot_share else {}
        return Stock(self.skus, self.units, hot)


LOADS = {
    load.name: load
    for load in (
        Load(),
        Load("flash-sale", hot_share=0.5, hot_units=100),
        Load("cart", lines=3),
    )
}


@dataclass(frozen=True)
class Driven:
    """What came of it; counts of the measured part, and what was sold in all."""

    seconds: float
    operations: int
    operations_all: int  # with those of the warm-up, as the processor time counts them
    outcomes: dict[str, int]
    histogram: HdrHistogram  # us a call
    sold: dict[str, int]  # units by SKU that callers were told are theirs

    @property
    def rate(self) -> float:
        """Return operations a second."""
        return self.operations / self.seconds


def drive(target: str, load: Load, seconds: float) -> Driven:
    """Drive a server for so long from another process.  The seam: any driver of this form will do.

    The client's gRPC is as it comes: what the server's package sets for its own is not passed on.
    """
    words = (target, str(seconds), json.dumps(asdict(load)))
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    command = (sys.executable, "-m", "holdfast_bench.peers.driving", *words)
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout
    found = json.loads(output)
    return Driven(**{**found, "histogram": HdrHistogram.decode(found["histogram"])})


@dataclass
class _Tally:
    """What one process has seen."""

    measures: bool = False
    operations_all: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    sold: Counter[str] = field(default_factory=Counter)
    histogram: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, US_MAX, DIGITS))

    async def call(self, awaited: Awaitable[Any]) -> Any:
        """Return the response, or None for an error; note how long it took."""
        began = time.perf_counter_ns()
        try:
            response = await awaited
        except grpc.aio.AioRpcError as error:
            response, outcome = None, error.code().name
        else:
            is_refused = isinstance(response, pb.ReserveResponse) and response.HasField("refusal")
            outcome = "sold_out" if is_refused else "ok"
        self.operations_all += 1
        if self.measures:
            self.outcomes[outcome] += 1
            self.histogram.record_value((time.perf_counter_ns() - began) // 1_000)
        return response


class _Agent:
    """Lives one session after the other."""

    def __init__(self, load: Load, stub: Any, tally: _Tally, name: str) -> None:
        self._load, self._stub, self._tally = load, stub, tally
        self._random = Random(f"{load.seed} {name}")
        self._ids = (f"{os.getpid()}-{name}-{number}" for number in count())
        self._skus = catalogue(load.skus)
        self._ttl = Duration(seconds=load.ttl_s)

    async def live(self) -> None:
        """Live one session."""
        call, skus, id_ = self._tally.call, self._wanted(), next(self._ids)
        await call(self._stub.GetStock(pb.GetStockRequest(skus=skus), timeout=TIMEOUT_S))
        lines = [types_pb2.Line(sku=sku, quantity=1) for sku in skus]
        request = pb.ReserveRequest(reservation_id=id_, lines=lines, ttl=self._ttl)
        response = await call(self._stub.Reserve(request, timeout=TIMEOUT_S))
        if response is None or response.HasField("refusal"):
            return
        chance = self._random.random()
        if chance < self._load.commit:
            commit = pb.CommitRequest(reservation_id=id_)
            if await call(self._stub.Commit(commit, timeout=TIMEOUT_S)):
                self._tally.sold.update(skus)
        elif chance < self._load.commit + self._load.release:
            release = pb.ReleaseRequest(reservation_id=id_)
            await call(self._stub.Release(release, timeout=TIMEOUT_S))

    def _wanted(self) -> list[str]:
        if self._load.hot_share and self._random.random() < self._load.hot_share:
            return self._skus[:1]
        return self._random.sample(self._skus, self._load.lines)


async def _connected(target: str, stack: AsyncExitStack) -> Any:
    options = [("grpc.use_local_subchannel_pool", 1)]  # or all share one connection
    channel = grpc.aio.insecure_channel(target, options=options)
    return stock_pb2_grpc.StockServiceStub(await stack.enter_async_context(channel))


async def _drive(target: str, seconds: float, load: Load) -> dict[str, Any]:
    tally, stopping = _Tally(), asyncio.Event()

    async def repeat(agent: _Agent) -> None:
        while not stopping.is_set():
            await agent.live()

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        stubs = [await _connected(target, stack) for _ in range(load.connections)]
        for number in range(load.callers):
            agent = _Agent(load, stubs[number % load.connections], tally, str(number))
            group.create_task(repeat(agent))
        await asyncio.sleep(load.warm_up_s)
        tally.measures, began = True, time.perf_counter()
        await asyncio.sleep(seconds)
        tally.measures, took = False, time.perf_counter() - began
        stopping.set()
    return {
        "seconds": took,
        "operations": tally.outcomes.total(),
        "operations_all": tally.operations_all,
        "outcomes": tally.outcomes,
        "histogram": tally.histogram.encode().decode(),
        "sold": tally.sold,
    }


def _main(target: str, seconds: str, load: str) -> None:
    found = uvloop.run(_drive(target, float(seconds), Load(**json.loads(load))))
    print(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
