"""StockService: agents' calls, translated to operations and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc
from holdfast.v1.types_pb2 import SOURCE_STORE
from holdfast_server.engine.batcher import Batcher
from holdfast_server.errors import error_of
from holdfast_server.model import Caller, Code, Operation, Outcome
from holdfast_server.rpc import arguments, messages, responses
from holdfast_server.rpc.call import AGENTS, READERS, Calls, Context, later, streaming, unary
from holdfast_server.rpc.pipeline import Pipeline


class StockServicer(stock_pb2_grpc.StockServiceServicer):
    """Reserve, Commit, Release, Extend and the reads, one operation a call."""

    def __init__(self, calls: Calls, batcher: Batcher) -> None:
        self.calls = calls
        self._batcher = batcher
        self._pipeline = Pipeline(calls, batcher)

    async def _decide(self, operation: Operation) -> Outcome:
        """Return the outcome; raise the error it stands for."""
        outcome = await self._batcher.execute(operation)
        if outcome.code >= Code.INVALID:
            raise error_of(outcome)
        return outcome

    @unary(AGENTS)
    async def Reserve(self, request: pb.ReserveRequest, caller: Caller) -> pb.ReserveResponse:
        return responses.reserve_response(await self._decide(arguments.reserve(request, caller)))

    @unary(AGENTS)
    async def Commit(self, request: pb.CommitRequest, caller: Caller) -> pb.CommitResponse:
        return responses.commit_response(await self._decide(arguments.commit(request, caller)))

    @unary(AGENTS)
    async def Release(self, request: pb.ReleaseRequest, caller: Caller) -> pb.ReleaseResponse:
        return responses.release_response(await self._decide(arguments.release(request, caller)))

    @unary(AGENTS)
    async def Extend(self, request: pb.ExtendRequest, caller: Caller) -> pb.ExtendResponse:
        return responses.extend_response(await self._decide(arguments.extend(request, caller)))

    @unary(READERS)
    async def GetReservation(
        self, request: pb.GetReservationRequest, caller: Caller
    ) -> pb.GetReservationResponse:
        outcome = await self._decide(arguments.get_reservation(request, caller))
        assert outcome.reservation is not None
        return pb.GetReservationResponse(
            reservation=messages.reservation(outcome.reservation), source=SOURCE_STORE
        )

    @unary(READERS)
    async def GetStock(self, request: pb.GetStockRequest, caller: Caller) -> pb.GetStockResponse:
        operation = arguments.get_stock(request, caller)
        return responses.get_stock_response(operation, await self._decide(operation))

    # It writes instead of yielding, because frames are answered out of order.
    async def Pipeline(  # type: ignore[override]
        self, requests: AsyncIterator[pb.PipelineRequest], context: Context
    ) -> None:
        """Answer frames of operations; see `rpc.pipeline`."""
        await self._pipeline.serve(requests, context)

    @streaming(READERS)
    async def Watch(
        self, request: pb.WatchRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchResponse]:
        for response in later("Watch"):
            yield response
