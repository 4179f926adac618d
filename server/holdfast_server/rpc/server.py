"""The gRPC server: options, services, start and graceful stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection

from holdfast.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    stock_pb2,
    stock_pb2_grpc,
)
from holdfast_server.config import ServerConfig
from holdfast_server.engine.batcher import Batcher
from holdfast_server.ledger.history import History
from holdfast_server.ledger.log_reader import LogReader
from holdfast_server.ledger.trail import Trail
from holdfast_server.rpc.call import MALFORMED, Calls
from holdfast_server.rpc.health import SERVICE as HEALTH_SERVICE
from holdfast_server.rpc.health import Health
from holdfast_server.rpc.inventory import InventoryServicer
from holdfast_server.rpc.ledger import LedgerServicer, LedgerSources
from holdfast_server.rpc.proof import Proofs
from holdfast_server.rpc.replay import Kept, Replays
from holdfast_server.rpc.stock import StockServicer
from holdfast_server.rpc.watch import Watch
from holdfast_server.stores.redis.reader import RedisReader
from holdfast_server.watch.hub import Hub
from holdfast_server.watch.tail import Tail
from holdfast_server.watch.watcher import Ending

RECEIVE_BYTES_MAX = 1 << 20
SEND_BYTES_MAX = 16 << 20
METADATA_BYTES_SOFT, METADATA_BYTES_HARD = 16 << 10, 32 << 10
CONNECTION_GRACE_MS = 30_000
ANSWER_GRACE_S = 0.5
WATCHES_END_S_MAX = 5.0
WRITES_BYTES = frozenset({"Watch"})  # their handlers serialise what they send


def options(config: ServerConfig, *, share_port: bool) -> list[tuple[str, int]]:
    """Return the channel arguments: gRPC ignores unknown names, so a test checks each."""
    args = [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
        ("grpc.max_send_message_length", SEND_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_SOFT),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_HARD),
        # By default a client that pings every 20 s is sent away after four minutes.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # By default more than 1,000 pending calls are cancelled, not queued.
        ("grpc.server.max_pending_requests", config.streams_max),
        ("grpc.server.max_pending_requests_hard_limit", config.streams_max),
        ("grpc.max_concurrent_streams", config.streams_max),
    ]
    if config.connection_age_s:
        args.append(("grpc.max_connection_age_ms", config.connection_age_s * 1000))
        # A watch that begins just before its connection is sent away may reach its own age on it.
        grace_ms = config.connection_age_s * 1000 + CONNECTION_GRACE_MS
        args.append(("grpc.max_connection_age_grace_ms", grace_ms))
    return args


class _Registry:
    """Takes services from the generated code and adds each as one generic handler.

    The generated code would register every method by itself, and its parser would answer bytes
    that are no message with a bare UNKNOWN; here they reach the wrapper, which names the fault.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """Wait for the methods by name, which the generated code gives next."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Add the methods of a service."""
        lenient = {
            name: handler._replace(
                request_deserializer=_parser(handler.request_deserializer),
                response_serializer=None if name in WRITES_BYTES else handler.response_serializer,
            )
            for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, lenient)
        self._server.add_generic_rpc_handlers((generic,))


def _parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parser(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return MALFORMED

    return parser


class Backend(NamedTuple):
    """What the services translate calls for."""

    batcher: Batcher
    reader: RedisReader
    history: History
    tail: Tail
    hub: Hub
    log: LogReader
    kept: Kept | None = None
    trail: Trail | None = None


class RpcServer:
    """Serves the three services and health on one port."""

    def __init__(
        self,
        config: ServerConfig,
        calls: Calls,
        backend: Backend,
        *,
        share_port: bool = False,
    ) -> None:
        self._config = config
        self._calls = calls
        batcher, reader, history, tail, hub, log, kept, trail = backend
        self._batcher = batcher
        self._hub = hub
        self.health = Health()
        self._server = grpc.aio.server(options=options(config, share_port=share_port))
        target: Any = _Registry(self._server)
        stock_pb2_grpc.add_StockServiceServicer_to_server(
            StockServicer(calls, batcher, Watch(calls, hub, config.cell, trail), history), target
        )
        inventory_pb2_grpc.add_InventoryServiceServicer_to_server(
            InventoryServicer(calls, batcher, reader, history), target
        )
        proofs = Proofs(log, config.cell)
        replays = Replays(history, kept, config.cell) if kept else None
        sources = LedgerSources(history, tail, proofs, replays)
        ledger_pb2_grpc.add_LedgerServiceServicer_to_server(
            LedgerServicer(calls, sources, config.cell), target
        )
        self._server.add_generic_rpc_handlers((self.health.handler(),))
        if config.reflection:
            names = [
                pb.DESCRIPTOR.services_by_name[name].full_name
                for pb, name in (
                    (stock_pb2, "StockService"),
                    (inventory_pb2, "InventoryService"),
                    (ledger_pb2, "LedgerService"),
                )
            ]
            reflection.enable_server_reflection(
                (*names, HEALTH_SERVICE, reflection.SERVICE_NAME), self._server
            )

    async def start(self) -> str:
        """Bind and serve; return host:port.  Raises OSError when the address is taken."""
        listen = self._config.listen
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError as fault:
            raise OSError(f"cannot listen on {listen}: {fault}") from fault
        await self._server.start()
        return f"{listen.rpartition(':')[0]}:{port}"

    async def drain(self, timeout_s: float) -> None:
        """Refuse new work as DRAINING, finish what was taken, close the port."""
        self.health.set_serving(False)
        self._calls.is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, WATCHES_END_S_MAX)):
                await self._hub.end_all(Ending.DRAINING)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._batcher.drain()
        await self._server.stop(min(ANSWER_GRACE_S, timeout_s))
