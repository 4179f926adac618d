"""A stock service that keeps no stock, with known delays: what a harness must report, and catch.

    python -m tests.fake_stock JSON      settings of `Behaviour`

It prints its port, serves until standard input ends, and then prints how long each call took it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count, cycle
from typing import Any

import grpc

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc, types_pb2

END_S_MAX = 20.0


@dataclass(frozen=True)
class Behaviour:
    """How it answers: after each of `delays_s` in turn, and once not at all for a while."""

    delays_s: Sequence[float] = (0.0,)
    freezes_at: int = 0  # the call at which everything stands still; 0: never
    freezes_s: float = 1.0
    units: int = 10**9  # of each item; what is reserved beyond is refused
    oversells: bool = False  # ... unless it does not care
    fails: bool = False  # whether a reserve, sent by itself, gets an error for an answer


class FakeStock(stock_pb2_grpc.StockServiceServicer):
    """Answers everybody, and remembers what it took."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._delays = cycle(behaviour.delays_s)
        self._calls, self._sequence = count(1), count(1)
        self._left: dict[str, int] = {}
        self.took_s: list[float] = []

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        await self._take_time()
        if self._behaviour.fails:
            await context.abort(grpc.StatusCode.INTERNAL, "as it was told")
        if not self._behaviour.oversells and not self._grant(request):
            reason = types_pb2.REFUSAL_REASON_OUT_OF_STOCK
            return pb.ReserveResponse(refusal=types_pb2.Refusal(reason=reason))
        return pb.ReserveResponse(reservation=self._record(request.reservation_id))

    async def Commit(self, request: pb.CommitRequest, _context: Any) -> pb.CommitResponse:
        await self._take_time()
        return pb.CommitResponse(reservation=self._record(request.reservation_id))

    async def Release(self, request: pb.ReleaseRequest, _context: Any) -> pb.ReleaseResponse:
        await self._take_time()
        return pb.ReleaseResponse(reservation=self._record(request.reservation_id))

    async def GetStock(self, request: pb.GetStockRequest, _context: Any) -> pb.GetStockResponse:
        levels = [types_pb2.StockLevel(sku=sku, available=1) for sku in request.skus]
        return pb.GetStockResponse(levels=levels)

    async def Pipeline(self, frames: Any, context: Any) -> None:
        writing = asyncio.Lock()

        async def answer(operation: pb.PipelineOperation) -> None:
            result = await self._result(operation)
            async with writing:
                await context.write(pb.PipelineResponse(results=[result]))

        async with asyncio.TaskGroup() as group:
            async for frame in frames:
                for operation in frame.operations:
                    group.create_task(answer(operation))

    async def _result(self, operation: pb.PipelineOperation) -> pb.PipelineResult:
        kind = operation.WhichOneof("operation")
        methods = {"reserve": self.Reserve, "commit": self.Commit, "release": self.Release}
        method: Any = {**methods, "get_stock": self.GetStock}[kind]
        answer = await method(getattr(operation, kind), None)
        return pb.PipelineResult(tag=operation.tag, **{kind: answer})

    async def _take_time(self) -> None:
        began, number = time.perf_counter(), next(self._calls)
        if number == self._behaviour.freezes_at:
            time.sleep(self._behaviour.freezes_s)  # noqa: ASYNC251  # everybody is to wait
        await asyncio.sleep(next(self._delays))
        self.took_s.append(time.perf_counter() - began)

    def _grant(self, request: pb.ReserveRequest) -> bool:
        left = {
            line.sku: self._left.get(line.sku, self._behaviour.units) - line.quantity
            for line in request.lines
        }
        if min(left.values()) < 0:
            return False
        self._left |= left
        return True

    def _record(self, reservation_id: str) -> types_pb2.Reservation:
        return types_pb2.Reservation(reservation_id=reservation_id, sequence=next(self._sequence))


class FakeProcess:
    """The service in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, target: str) -> None:
        self.process, self.target = process, target

    async def took_s(self) -> list[float]:
        """End it; return the seconds each call took it, sorted."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        async with asyncio.timeout(END_S_MAX):
            took: list[float] = json.loads(await self.process.stdout.read())
        return sorted(took)


@asynccontextmanager
async def fake_stock(behaviour: Behaviour) -> AsyncIterator[FakeProcess]:
    """Run the service until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.fake_stock", json.dumps(asdict(behaviour))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield FakeProcess(process, f"127.0.0.1:{int(await process.stdout.readline())}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _serve(behaviour: Behaviour) -> None:
    server, stock = grpc.aio.server(), FakeStock(behaviour)
    stock_pb2_grpc.add_StockServiceServicer_to_server(stock, server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(stock.took_s))
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(_serve(Behaviour(**json.loads(sys.argv[1]))))
