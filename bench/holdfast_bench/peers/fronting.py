"""The gRPC side of a peer: four unary methods of StockService, no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2 as types
from holdfast_bench.peers.terms import Answer, Hold, Lines, Peer
from holdfast_server.config import ServerConfig
from holdfast_server.errors import HoldfastError, InvalidArgument, Unimplemented
from holdfast_server.model import State
from holdfast_server.rpc.server import options
from holdfast_server.rpc.status import code_of, trailers_of

SERVICE = "holdfast.v1.StockService"
TTL_DEFAULT_MS = 10_000

_ENDED = {
    State.COMMITTED: types.ENDED_REASON_COMMITTED,
    State.RELEASED: types.ENDED_REASON_RELEASED,
    State.EXPIRED: types.ENDED_REASON_EXPIRED,
}


def _answering(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Turn an error of a method into the status that Holdfast has for it."""

    @wraps(method)
    async def handler(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request)
        except HoldfastError as error:
            await context.abort(code_of(error), str(error), trailers_of(error))

    return handler


class Front:
    """Translates between messages and a peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @_answering
    async def reserve(self, request: pb.ReserveRequest) -> pb.ReserveResponse:
        """Answer a Reserve: a reservation, or a refusal with the lines that are short."""
        lines = _lines(request)
        ttl = request.ttl
        ttl_ms = ttl.seconds * 1000 + ttl.nanos // 1_000_000 or TTL_DEFAULT_MS
        answer = await self._peer.reserve(request.reservation_id or uuid4().hex, lines, ttl_ms)
        response = pb.ReserveResponse(replayed=answer.replayed)
        if answer.hold:
            _put_hold(response.reservation, answer.hold)
        else:
            _put_refusal(response.refusal, answer, lines)
        _put_levels(response.levels, answer)
        return response

    @_answering
    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        """Answer a Commit of a whole hold."""
        response = pb.CommitResponse()
        await self._end(request, State.COMMITTED, response)
        return response

    @_answering
    async def release(self, request: pb.ReleaseRequest) -> pb.ReleaseResponse:
        """Answer a Release of a whole hold."""
        response = pb.ReleaseResponse()
        await self._end(request, State.RELEASED, response)
        return response

    @_answering
    async def get_stock(self, request: pb.GetStockRequest) -> pb.GetStockResponse:
        """Answer a GetStock, in the order asked."""
        skus = tuple(dict.fromkeys(request.skus))
        answer = await self._peer.levels(skus)
        by_sku = {level.sku: level for level in answer.levels}
        response = pb.GetStockResponse(source=types.SOURCE_STORE)
        response.missing_skus.extend(sku for sku in skus if sku not in by_sku)
        ordered = [by_sku[sku] for sku in skus if sku in by_sku]
        _put_levels(response.levels, answer._replace(levels=ordered))
        return response

    async def _end(self, request: Any, state: State, response: Any) -> None:
        if request.lines:
            raise Unimplemented("a peer ends whole holds only")
        answer = await self._peer.end(request.reservation_id, state)
        assert answer.hold
        response.replayed = answer.replayed
        _put_hold(response.reservation, answer.hold)
        _put_levels(response.levels, answer)


def _lines(request: pb.ReserveRequest) -> Lines:
    if request.allow_partial or request.allow_backorder or request.if_sequence or request.replaces:
        raise Unimplemented("a peer holds all lines or none")
    merged: dict[str, int] = {}
    for line in request.lines:
        if not line.sku or line.quantity < 1:
            raise InvalidArgument.of(("lines", "must each have a SKU and at least one unit"))
        merged[line.sku] = merged.get(line.sku, 0) + line.quantity
    if not merged:
        raise InvalidArgument.of(("lines", "must number at least 1"))
    return tuple(sorted(merged.items()))


def _put_time(message: Timestamp, ms: int) -> None:
    message.seconds, rest = divmod(ms, 1000)
    message.nanos = rest * 1_000_000


def _put_hold(message: types.Reservation, hold: Hold) -> None:
    message.reservation_id = hold.reservation_id
    message.state = hold.state  # type: ignore[assignment]  # the same numbers
    for sku, quantity in hold.lines:
        message.lines.add(sku=sku, quantity=quantity)
    _put_time(message.created_at, hold.created_ms)
    _put_time(message.expires_at, hold.expires_ms)
    if hold.state is not State.HELD:
        message.ended_reason = _ENDED[hold.state]
        _put_time(message.ended_at, hold.ended_ms)


def _put_refusal(message: types.Refusal, answer: Answer, lines: Lines) -> None:
    message.reason = types.REFUSAL_REASON_OUT_OF_STOCK
    message.message = "not enough stock"
    for level, (sku, wanted) in zip(answer.levels, lines, strict=True):
        if level.available < wanted:
            message.lines.add(sku=sku, requested=wanted, available=level.available)


def _put_levels(messages: Any, answer: Answer) -> None:
    for level in answer.levels:
        message = messages.add(
            sku=level.sku,
            available=level.available,
            on_hand=level.on_hand,
            held=level.held,
            committed=level.sold,
        )
        _put_time(message.as_of, answer.now_ms)


@asynccontextmanager
async def served(front: Any) -> AsyncIterator[str]:
    """Serve `reserve`, `commit`, `release` and `get_stock` of an object; yield where."""
    methods: dict[str, tuple[Any, Any, Any]] = {
        "Reserve": (front.reserve, pb.ReserveRequest, pb.ReserveResponse),
        "Commit": (front.commit, pb.CommitRequest, pb.CommitResponse),
        "Release": (front.release, pb.ReleaseRequest, pb.ReleaseResponse),
        "GetStock": (front.get_stock, pb.GetStockRequest, pb.GetStockResponse),
    }
    unary: Any = grpc.unary_unary_rpc_method_handler
    handlers = {
        name: unary(
            method,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        for name, (method, request, response) in methods.items()
    }
    server = grpc.aio.server(options=options(ServerConfig(), share_port=False))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
