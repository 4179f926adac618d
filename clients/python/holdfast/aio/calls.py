"""Calls from asyncio: the channel, its life, and one call with its deadline and its errors."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar, Unpack

import grpc

from holdfast.changes import ServerLoad
from holdfast.channel import ClientOptions, Connection, Metadata
from holdfast.errors import ClientClosed, Unreachable
from holdfast.levels import KnownLevels, LevelView
from holdfast.requests import key_of
from holdfast.responses import load_in
from holdfast.status import error_of, status_of
from holdfast.v1.inventory_pb2_grpc import InventoryServiceStub
from holdfast.v1.ledger_pb2_grpc import LedgerServiceStub
from holdfast.v1.stock_pb2_grpc import StockServiceStub

if TYPE_CHECKING:  # they exist for type checkers only
    from holdfast.v1.inventory_pb2_grpc import InventoryServiceAsyncStub
    from holdfast.v1.ledger_pb2_grpc import LedgerServiceAsyncStub
    from holdfast.v1.stock_pb2_grpc import StockServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class AsyncStubs(NamedTuple):
    """The generated stubs, for what the client does not wrap; pass them `client.metadata`."""

    stock: StockServiceAsyncStub
    inventory: InventoryServiceAsyncStub
    ledger: LedgerServiceAsyncStub


class AsyncCalls:
    """The connection of an AsyncClient."""

    def __init__(self, target: str = "", **options: Unpack[ClientOptions]) -> None:
        self._connection = Connection.of(target, options)
        self._channel: grpc.aio.Channel | None = None
        self._stubs: AsyncStubs | None = None
        self._is_closed = False
        self._known = KnownLevels()

    @property
    def levels(self) -> LevelView:
        """The newest levels that answers and watches have told, to read without a call."""
        return self._known.view

    @property
    def server_load(self) -> ServerLoad:
        """How loaded the server is, as far as it has said so in the last 10 s."""
        return self._known.load

    @property
    def target(self) -> str:
        """Where the server is."""
        return self._connection.target

    @property
    def metadata(self) -> Metadata:
        """What every call says about who calls."""
        return self._connection.metadata

    @property
    def stubs(self) -> AsyncStubs:
        """The generated stubs."""
        if self._stubs is None or self._is_closed:
            channel = self._open()
            self._stubs = AsyncStubs(
                StockServiceStub(channel), InventoryServiceStub(channel), LedgerServiceStub(channel)
            )
        return self._stubs

    async def connect(self) -> Self:
        """Wait until the server can be reached; without this the first call does.

        Raises Unreachable after `connect_timeout`.
        """
        timeout = self._connection.connect_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._open().channel_ready()
        except TimeoutError:
            raise Unreachable(f"no server at {self.target} in {timeout} s") from None
        return self

    async def aclose(self) -> None:
        """Close the connection; calls that wait raise ClientClosed."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        if self._connection.lazy:
            return self
        try:
            return await self.connect()
        except BaseException:
            await self.aclose()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _open(self) -> grpc.aio.Channel:
        if self._is_closed:
            raise ClientClosed("the client is closed")
        if self._channel is None:
            self._channel = self._connection.open_async()
        return self._channel

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Make one call.  Raises the HoldfastError it ended with."""
        seconds = self._seconds(timeout)
        try:
            call = method(request, timeout=seconds, metadata=self.metadata)
            answer = await call
            self._known.note_load(load_in(await call.trailing_metadata()))
            return answer
        except grpc.aio.AioRpcError as error:
            self._known.note_load(load_in(error.trailing_metadata()))
            raise error_of(status_of(error), key_of(request)) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_closed and task is not None and not task.cancelling():
                raise ClientClosed("the client was closed") from None
            raise

    def _seconds(self, timeout: float | None) -> float:
        return self._connection.timeout if timeout is None else timeout
