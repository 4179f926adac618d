"""Every operation a call of its own; what streams fall back to, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from holdfast.status import error_of, status_of
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1.stock_pb2_grpc import StockServiceStub
from holdfast_bench.harness.answers import Answer, answer_of, failure_of, late
from holdfast_bench.harness.recording import Outcome

RPCS = {
    "get_stock": "GetStock",
    "reserve": "Reserve",
    "commit": "Commit",
    "release": "Release",
}


@dataclass
class Unary:
    """Every operation is a call of its own."""

    channel: grpc.aio.Channel
    metadata: Sequence[tuple[str, str]]
    timeout_s: float

    def __post_init__(self) -> None:
        self.stub: Any = StockServiceStub(self.channel)
        self._methods = {kind: getattr(self.stub, name) for kind, name in RPCS.items()}

    async def call(self, kind: str, request: Any) -> Answer:
        """Make the call."""
        method = self._methods[kind]
        try:
            return answer_of(await method(request, timeout=self.timeout_s, metadata=self.metadata))
        except grpc.aio.AioRpcError as error:
            return failure_of(error_of(status_of(error)))

    async def watch(self, request: pb.WatchRequest) -> tuple[Answer, Any]:
        """Open a watch and wait for its first message."""
        call = self.stub.Watch(request, metadata=self.metadata)
        # A read is never cancelled, or grpc leaks: the call is, and that ends its read.
        deadline = asyncio.get_running_loop().call_later(self.timeout_s, call.cancel)
        try:
            message = await call.read()
            if message is not grpc.aio.EOF:
                return Answer(Outcome.OK, "", message), call
            return Answer(Outcome.ERROR, "UNREACHABLE"), call
        except grpc.aio.AioRpcError as error:
            return failure_of(error_of(status_of(error))), call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not call.cancelled() or (task is not None and task.cancelling()):
                raise
            return late(), call
        finally:
            deadline.cancel()

    async def aclose(self) -> None:
        """Close the channel, and end what is under way on it."""
        await self.channel.close()
