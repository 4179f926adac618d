"""StockService: agents' calls, translated to operations and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc
from holdfast.v1.types_pb2 import SOURCE_AUTHORITY, SOURCE_STORE
from holdfast_server import model
from holdfast_server.engine.batcher import Batcher
from holdfast_server.errors import error_of, not_owner
from holdfast_server.ledger.history import History
from holdfast_server.model import (
    Caller,
    Code,
    Operation,
    Outcome,
    Reservation,
)
from holdfast_server.rpc import arguments, messages, responses
from holdfast_server.rpc.call import AGENTS, READERS, Calls, Context, unary
from holdfast_server.rpc.pipeline import Pipeline
from holdfast_server.rpc.watch import Watch


class StockServicer(stock_pb2_grpc.StockServiceServicer):
    """Reserve, Commit, Release, Extend and the reads, one operation a call."""

    def __init__(self, calls: Calls, batcher: Batcher, watch: Watch, history: History) -> None:
        self.calls = calls
        self._batcher = batcher
        self._pipeline = Pipeline(calls, batcher)
        self._watch = watch
        self._history = history

    async def _decide(self, operation: Operation) -> Outcome:
        """Return the outcome; raise the error it stands for."""
        outcome = await self._batcher.execute(operation)
        if outcome.code >= Code.INVALID:
            raise error_of(outcome)
        return outcome

    @unary(AGENTS)
    async def Reserve(self, request: pb.ReserveRequest, caller: Caller) -> pb.ReserveResponse:
        outcome = await self._decide(arguments.reserve(request, caller))
        return responses.put_reserve(pb.ReserveResponse(), outcome)

    @unary(AGENTS)
    async def Commit(self, request: pb.CommitRequest, caller: Caller) -> pb.CommitResponse:
        outcome = await self._decide(arguments.commit(request, caller))
        return responses.put_commit(pb.CommitResponse(), outcome)

    @unary(AGENTS)
    async def Release(self, request: pb.ReleaseRequest, caller: Caller) -> pb.ReleaseResponse:
        outcome = await self._decide(arguments.release(request, caller))
        return responses.put_release(pb.ReleaseResponse(), outcome)

    @unary(AGENTS)
    async def Extend(self, request: pb.ExtendRequest, caller: Caller) -> pb.ExtendResponse:
        outcome = await self._decide(arguments.extend(request, caller))
        return responses.put_extend(pb.ExtendResponse(), outcome)

    @unary(READERS)
    async def GetReservation(
        self, request: pb.GetReservationRequest, caller: Caller
    ) -> pb.GetReservationResponse:
        operation = arguments.get_reservation(request, caller)
        outcome = await self._batcher.execute(operation)
        found, source = outcome.reservation, SOURCE_STORE
        if outcome.code == Code.UNKNOWN_RESERVATION:
            found, source = await self._kept(operation), SOURCE_AUTHORITY
        if found is None:
            raise error_of(outcome)
        response = pb.GetReservationResponse(source=source)
        messages.put_reservation(response.reservation, found)
        return response

    async def _kept(self, operation: model.GetReservation) -> Reservation | None:
        """Return a reservation that only the archive has.  Raises NotOwner."""
        found = await self._history.reservation(operation.reservation_id)
        principal, is_operator = operation.caller
        if found is not None and not is_operator and found.principal != principal:
            raise not_owner(operation.reservation_id)
        return found

    @unary(READERS)
    async def GetStock(self, request: pb.GetStockRequest, caller: Caller) -> pb.GetStockResponse:
        operation = arguments.get_stock(request, caller)
        outcome = await self._decide(operation)
        return responses.put_get_stock(pb.GetStockResponse(), operation, outcome)

    # It writes instead of yielding, because frames are answered out of order.
    async def Pipeline(  # type: ignore[override]
        self, requests: AsyncIterator[pb.PipelineRequest], context: Context
    ) -> None:
        """Answer frames of operations; see `rpc.pipeline`."""
        await self._pipeline.serve(requests, context)

    # It writes bytes, which many streams share.
    async def Watch(  # type: ignore[override]
        self, request: pb.WatchRequest, context: Context
    ) -> None:
        """Follow the levels of items; see `rpc.watch`."""
        await self._watch.serve(request, context)
