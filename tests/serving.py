"""A running server as its callers see it: channels, generated stubs, errors as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from redis.asyncio import Redis

from holdfast.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    stock_pb2,
    stock_pb2_grpc,
    types_pb2,
)
from holdfast_server.app import Running, running
from holdfast_server.config import ServerConfig

HELD = types_pb2.RESERVATION_STATE_HELD
COMMITTED = types_pb2.RESERVATION_STATE_COMMITTED
RELEASED = types_pb2.RESERVATION_STATE_RELEASED
EXPIRED = types_pb2.RESERVATION_STATE_EXPIRED

_CHANNEL = (
    # Channels of one process share a connection unless each is told to keep its own.
    ("grpc.use_local_subchannel_pool", 1),
    # What a test sees is what the server answered, not what the transport made of it.
    ("grpc.enable_retries", 0),
    # A killed server is back sooner than the default back-off of seconds would notice.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)

_cells = count(1_000)
POLL_S = 0.01


def unique(prefix: str = "") -> str:
    """Return a name that nothing else has."""
    return prefix + uuid4().hex[:16]


def new_cell() -> int:
    """Return the number of a cell that no other test of this run uses on a shared store."""
    return next(_cells)


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(value * 1000))
    return duration


def lines(*wanted: tuple[str, int] | tuple[str, int, str]) -> list[types_pb2.Line]:
    return [
        types_pb2.Line(sku=sku, quantity=quantity, location="".join(location))
        for sku, quantity, *location in wanted
    ]


@dataclass(frozen=True)
class Failure:
    """An error as a client reads it: code, ErrorInfo, BadRequest and RetryInfo."""

    code: grpc.StatusCode
    reason: str
    domain: str
    message: str
    metadata: Mapping[str, str]
    violations: Mapping[str, str]
    retry_after_ms: int = 0
    pushback_ms: int = 0

    @property
    def kind(self) -> tuple[grpc.StatusCode, str, str]:
        return self.code, self.reason, self.domain


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def failure_of_status(status: Status, *, pushback_ms: int = 0) -> Failure:
    """Return a google.rpc.Status as a Failure; it carries each kind of detail at most once."""
    details: dict[Any, Any] = {ErrorInfo: ErrorInfo(), BadRequest: BadRequest()}
    details[RetryInfo] = RetryInfo()
    for packed in status.details:
        (kind,) = (kind for kind in details if packed.Is(kind.DESCRIPTOR))
        assert packed.Unpack(details[kind])
    info, retry = details[ErrorInfo], details[RetryInfo]
    return Failure(
        _CODES[status.code],
        info.reason,
        info.domain,
        status.message,
        dict(info.metadata),
        {bad.field: bad.description for bad in details[BadRequest].field_violations},
        retry.retry_delay.ToMilliseconds(),
        pushback_ms,
    )


def failure_of_error(error: grpc.aio.AioRpcError) -> Failure:
    """Return what a failed call says, which its trailing metadata must say too."""
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailers.get("grpc-status-details-bin", b""))
    if not status.details:  # from the transport, not from the server
        return Failure(error.code(), "", "", error.details() or "", {}, {})
    failure = failure_of_status(status, pushback_ms=int(trailers.get("grpc-retry-pushback-ms", 0)))
    assert failure.code is error.code()
    return failure


async def failure(call: Awaitable[Any]) -> Failure:
    """Await a call that must fail, and return its failure."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure_of_error(caught.value)


async def outcome(call: Awaitable[Any]) -> Any:
    """Await a call that may fail, and return its answer or its failure."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return failure_of_error(error)


@dataclass(frozen=True)
class Client:
    """The generated stubs over one connection."""

    target: str
    channel: grpc.aio.Channel
    stock: stock_pb2_grpc.StockServiceAsyncStub = field(init=False)
    inventory: inventory_pb2_grpc.InventoryServiceAsyncStub = field(init=False)
    ledger: ledger_pb2_grpc.LedgerServiceAsyncStub = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stock", stock_pb2_grpc.StockServiceStub(self.channel))
        object.__setattr__(self, "inventory", inventory_pb2_grpc.InventoryServiceStub(self.channel))
        object.__setattr__(self, "ledger", ledger_pb2_grpc.LedgerServiceStub(self.channel))

    async def put(self, units: int = 0, *, sku: str = "", **policy: Any) -> str:
        """Make an item with some units in stock and return its SKU, a new one by default."""
        sku = sku or unique("sku-")
        await self.inventory.PutItem(
            inventory_pb2.PutItemRequest(
                request_id=unique(), item=inventory_pb2.Item(sku=sku, **policy)
            )
        )
        if units:
            await self.adjust(sku, units)
        return sku

    async def adjust(
        self, sku: str, delta: int, location: str = ""
    ) -> inventory_pb2.AdjustStockResponse:
        return await self.inventory.AdjustStock(
            inventory_pb2.AdjustStockRequest(
                request_id=unique(), sku=sku, delta=delta, location=location
            )
        )

    async def reserve(
        self, sku: str, quantity: int = 1, *, reservation_id: str = "", **fields: Any
    ) -> stock_pb2.ReserveResponse:
        return await self.stock.Reserve(
            stock_pb2.ReserveRequest(
                reservation_id=reservation_id or unique(), lines=lines((sku, quantity)), **fields
            )
        )

    async def commit(self, reservation_id: str, **fields: Any) -> stock_pb2.CommitResponse:
        return await self.stock.Commit(
            stock_pb2.CommitRequest(reservation_id=reservation_id, **fields)
        )

    async def reservation(self, reservation_id: str) -> types_pb2.Reservation:
        answer = await self.stock.GetReservation(
            stock_pb2.GetReservationRequest(reservation_id=reservation_id)
        )
        return answer.reservation

    async def level(self, sku: str) -> types_pb2.StockLevel:
        (level,) = (await self.stock.GetStock(stock_pb2.GetStockRequest(skus=[sku]))).levels
        return level

    async def head(self) -> ledger_pb2.CellHead:
        (head,) = (await self.ledger.GetHead(ledger_pb2.GetHeadRequest())).cells
        return head

    async def entries(self, from_sequence: int = 0) -> list[ledger_pb2.LedgerEntry]:
        """Return the ledger from a sequence to its end now."""
        request = ledger_pb2.StreamEntriesRequest(from_sequence=from_sequence)
        return [
            entry async for part in self.ledger.StreamEntries(request) for entry in part.entries
        ]

    async def until(
        self, is_wanted: Callable[[ledger_pb2.LedgerEntry], bool], *, from_sequence: int = 1
    ) -> ledger_pb2.LedgerEntry:
        """Follow the ledger from a sequence until it has a wanted entry."""
        request = ledger_pb2.StreamEntriesRequest(from_sequence=from_sequence, follow=True)
        stream = self.ledger.StreamEntries(request)
        try:
            async for part in stream:
                for entry in part.entries:
                    if is_wanted(entry):
                        return entry
        finally:
            stream.cancel()
        raise AssertionError("a stream that follows does not end by itself")

    async def until_expired(self, reservation_id: str) -> ledger_pb2.LedgerEntry:
        """Wait until the server has ended a reservation whose time ran out."""
        return await self.until(
            lambda entry: entry.id == reservation_id and entry.kind == ledger_pb2.ENTRY_KIND_EXPIRE
        )


@asynccontextmanager
async def connected(target: str, *options: tuple[str, int]) -> AsyncIterator[Client]:
    """Connect to a server, on a connection of its own."""
    async with grpc.aio.insecure_channel(target, options=(*_CHANNEL, *options)) as channel:
        yield Client(target, channel)


@dataclass(frozen=True)
class Serving(Client):
    """A client and the server that it talks to, in one process."""

    server: Running
    url: str


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Serving]:
    """Run a server in this process, by default on an embedded store, and connect to it."""
    config = ServerConfig(**{"listen": "127.0.0.1:0", "archive": "off", **settings})
    async with running(config) as server:
        url = server.embedded.url if server.embedded else config.redis_url
        async with grpc.aio.insecure_channel(server.target, options=_CHANNEL) as channel:
            yield Serving(server.target, channel, server, url)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another process will not tell by itself: ask it until it is so."""
    while not await is_so():  # noqa: ASYNC110  # there is no event to await
        await asyncio.sleep(POLL_S)


async def until_due(url: str, moment_ms: int) -> None:
    """Wait until the clock of the store, which decides, has passed a moment."""
    async with Redis.from_url(url) as client:
        while True:
            now_s, now_us = await client.time()
            left_ms = moment_ms + 1 - (now_s * 1000 + now_us // 1000)
            if left_ms <= 0:
                return
            await asyncio.sleep(left_ms / 1000)


async def digest(url: str) -> dict[Any, Any]:
    """Return everything a store holds."""
    async with Redis.from_url(url, decode_responses=False) as client:
        return {key: await _content(client, key) for key in await client.keys("*")}


async def _content(client: Any, key: Any) -> Any:
    kind = await client.type(key)
    if kind == b"hash":
        return await client.hgetall(key)
    if kind == b"zset":
        return await client.zrange(key, 0, -1, withscores=True)
    if kind == b"list":
        return await client.lrange(key, 0, -1)
    assert kind == b"stream", kind
    return await client.xrange(key)


def raw(client: Client, method: str) -> Callable[[bytes], grpc.aio.UnaryUnaryCall[Any, bytes]]:
    """Return a method as it is without stubs: bytes in, bytes out."""
    call: Any = client.channel.unary_unary(method)
    return cast(Callable[[bytes], grpc.aio.UnaryUnaryCall[Any, bytes]], call)


def metadata(principal: str) -> tuple[tuple[str, str], ...]:
    """Return call metadata that says who calls, as open mode takes it."""
    return (("holdfast-principal", principal),)
