"""Calls from threads: the channel, its life, and one call with its deadline and its errors."""

from __future__ import annotations

from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self, TypeVar, Unpack, cast

import grpc

from holdfast.changes import ServerLoad
from holdfast.channel import ClientOptions, Connection, Metadata
from holdfast.errors import ClientClosed, HoldfastError, Unreachable
from holdfast.levels import KnownLevels, LevelView
from holdfast.requests import key_of
from holdfast.responses import load_in
from holdfast.status import EndedCall, error_of, status_of
from holdfast.v1.inventory_pb2_grpc import InventoryServiceStub
from holdfast.v1.ledger_pb2_grpc import LedgerServiceStub
from holdfast.v1.stock_pb2_grpc import StockServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class Stubs(NamedTuple):
    """The generated stubs, for what the client does not wrap; pass them `client.metadata`."""

    stock: StockServiceStub
    inventory: InventoryServiceStub
    ledger: LedgerServiceStub


class Calls:
    """The connection of a Client."""

    def __init__(self, target: str = "", **options: Unpack[ClientOptions]) -> None:
        self._connection = Connection.of(target, options)
        self._opening = Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: Stubs | None = None
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
    def stubs(self) -> Stubs:
        """The generated stubs."""
        channel = self._open()
        if self._stubs is None:
            self._stubs = Stubs(
                StockServiceStub(channel), InventoryServiceStub(channel), LedgerServiceStub(channel)
            )
        return self._stubs

    def connect(self) -> Self:
        """Wait until the server can be reached; without this the first call does.

        Raises Unreachable after `connect_timeout`.
        """
        timeout = self._connection.connect_timeout
        ready = grpc.channel_ready_future(self._open())
        try:
            ready.result(timeout)
        except grpc.FutureTimeoutError:
            ready.cancel()
            raise Unreachable(f"no server at {self.target} in {timeout} s") from None
        return self

    def close(self) -> None:
        """Close the connection; calls that wait raise ClientClosed."""
        with self._opening:
            self._is_closed = True
            channel = self._channel
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        if self._connection.lazy:
            return self
        try:
            return self.connect()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> grpc.Channel:
        with self._opening:
            if self._is_closed:
                raise ClientClosed("the client is closed")
            if self._channel is None:
                self._channel = self._connection.open()
            return self._channel

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Make one call.  Raises the HoldfastError it ended with."""
        seconds = self._connection.timeout if timeout is None else timeout
        try:
            answer, call = method.with_call(request, timeout=seconds, metadata=self.metadata)
            self._known.note_load(load_in(call.trailing_metadata()))
            return answer
        except grpc.RpcError as error:
            self._known.note_load(load_in(cast(EndedCall, error).trailing_metadata()))
            raise self._error_of(error, key_of(request)) from error
        except ValueError:  # how gRPC says that another thread has just closed the channel
            if self._is_closed:
                raise ClientClosed("the client is closed") from None
            raise

    def _error_of(self, error: grpc.RpcError, key: str = "") -> HoldfastError:
        if self._is_closed:
            return ClientClosed("the client was closed")
        return error_of(status_of(cast(EndedCall, error)), key)
