"""A server whose watches do what the test says, and clients of both kinds behind one surface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from holdfast import AsyncClient, Client, RetryPolicy
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc
from holdfast.v1 import types_pb2 as types
from holdfast_server import errors
from holdfast_server.rpc.status import code_of, trailers_of

SOON = RetryPolicy(backoff_min=0.01, backoff_max=0.02)


def level(sku: str, available: int, revision: int, **more: Any) -> types.StockLevel:
    return types.StockLevel(sku=sku, available=available, revision=revision, **more)


def snapshot(through: int, *levels: types.StockLevel, **more: Any) -> pb.WatchResponse:
    """Return a whole snapshot, or with `through` 0 a part of one."""
    kind, token = pb.WATCH_KIND_SNAPSHOT, f"t{through}" if through else ""
    return pb.WatchResponse(
        **{
            "kind": kind,
            "through_sequence": through,
            "levels": levels,
            "resume_token": token,
            **more,
        }
    )


def changes(origin: int, through: int, *levels: types.StockLevel, **more: Any) -> pb.WatchResponse:
    return pb.WatchResponse(
        **{
            "kind": pb.WATCH_KIND_CHANGES,
            "from_sequence": origin,
            "through_sequence": through,
            "levels": levels,
            "resume_token": f"t{through}",
            **more,
        }
    )


def heartbeat(origin: int, through: int | None = None, **more: Any) -> pb.WatchResponse:
    through = origin if through is None else through
    return changes(origin, through, **{"kind": pb.WATCH_KIND_HEARTBEAT, **more})


def end(origin: int, reason: str, **more: Any) -> pb.WatchResponse:
    reason_number = pb.WatchEndReason.Value(f"WATCH_END_REASON_{reason}")
    return heartbeat(origin, kind=pb.WATCH_KIND_END, end_reason=reason_number, **more)


class Stream:
    """One Watch, from the server's side."""

    def __init__(self, request: pb.WatchRequest, context: Any) -> None:
        self.request = request
        self.context = context

    async def give(self, *messages: pb.WatchResponse) -> None:
        for message in messages:
            await self.context.write(message)

    async def cut(self) -> None:
        await self.context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")

    async def fail(self, error: errors.HoldfastError) -> None:
        await self.context.abort(code_of(error), str(error), trailers_of(error))

    async def hang(self) -> None:
        await asyncio.Event().wait()


Behaviour = Callable[[Stream], Awaitable[None]]


def giving(*messages: pb.WatchResponse) -> Behaviour:
    """Say some messages, then nothing more."""

    async def behave(stream: Stream) -> None:
        await stream.give(*messages)
        await stream.hang()

    return behave


def cutting(*messages: pb.WatchResponse) -> Behaviour:
    """Say some messages, then lose the connection."""

    async def behave(stream: Stream) -> None:
        await stream.give(*messages)
        await stream.cut()

    return behave


def ending(*messages: pb.WatchResponse) -> Behaviour:
    """Say some messages, then end the stream."""

    async def behave(stream: Stream) -> None:
        await stream.give(*messages)

    return behave


def failing(error: errors.HoldfastError, *messages: pb.WatchResponse) -> Behaviour:
    """Say some messages, then end with an error."""

    async def behave(stream: Stream) -> None:
        await stream.give(*messages)
        await stream.fail(error)

    return behave


class Script(stock_pb2_grpc.StockServiceServicer):
    """Does with each stream what its behaviour says, the last one with all that follow."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = behaviours
        self.requests: list[pb.WatchRequest] = []
        self.open = 0
        self.closed = asyncio.Event()

    @property
    def tokens(self) -> list[str]:
        return [request.resume_token for request in self.requests]

    async def Watch(self, request: pb.WatchRequest, context: Any) -> None:
        behave = self._behaviours[min(len(self.requests), len(self._behaviours) - 1)]
        self.requests.append(request)
        self.open += 1
        try:
            await behave(Stream(request, context))
        finally:
            self.open -= 1
            self.closed.set()


@asynccontextmanager
async def serving(
    script: stock_pb2_grpc.StockServiceServicer, address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    server = grpc.aio.server()
    stock_pb2_grpc.add_StockServiceServicer_to_server(script, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


class ThreadedWatch:
    """A Watch whose methods run in threads."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watch, name)

    def __aiter__(self) -> ThreadedWatch:
        return self

    async def __anext__(self) -> Any:
        nothing = object()
        found = await asyncio.to_thread(next, self._watch, nothing)
        if found is nothing:
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        await asyncio.to_thread(self._watch.close)


class ThreadedClient:
    """A Client whose methods run in threads."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.client, name)
        if name == "watch":
            return lambda *given, **options: ThreadedWatch(member(*given, **options))
        if not callable(member):
            return member
        return lambda *given, **options: asyncio.to_thread(member, *given, **options)

    async def aclose(self) -> None:
        await asyncio.to_thread(self.client.close)


KINDS: dict[str, Callable[..., Any]] = {
    "asyncio": AsyncClient,
    "threads": lambda *given, **options: ThreadedClient(Client(*given, **options)),
}


@asynccontextmanager
async def client_of(
    kind: str, script: stock_pb2_grpc.StockServiceServicer, **options: Any
) -> AsyncIterator[Any]:
    """Serve a script, and connect a client of a kind to it."""
    async with serving(script) as target:
        client = KINDS[kind](target, **{"timeout": 10.0, "retry": SOON, "lazy": True, **options})
        try:
            yield client
        finally:
            await client.aclose()


async def first(watch: Any, number: int) -> list[Any]:
    """Return the first changes that a watch yields."""
    return [await anext(watch) for _ in range(number)]
