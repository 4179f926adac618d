"""The standard health service (grpc.health.v1).

Our own: the stock aio servicer holds its lock while it writes, so one stalled watcher blocks the
others and the switch to NOT_SERVING.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb

SERVICE = "grpc.health.v1.Health"
SERVICES = (
    "",
    "holdfast.v1.StockService",
    "holdfast.v1.InventoryService",
    "holdfast.v1.LedgerService",
)
Context = grpc.aio.ServicerContext[Any, Any]


class Health:
    """One state for every service: they share the store."""

    def __init__(self) -> None:
        self._is_serving = False
        self._changed = asyncio.Event()

    def set_serving(self, is_serving: bool) -> None:
        """Change the state and tell every watcher."""
        if is_serving != self._is_serving:
            self._is_serving = is_serving
            self._changed.set()
            self._changed = asyncio.Event()

    @property
    def _status(self) -> Any:
        response = pb.HealthCheckResponse
        return response.SERVING if self._is_serving else response.NOT_SERVING

    async def check(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        """Return the state now; NOT_FOUND for a service that is not here."""
        if request.service not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return pb.HealthCheckResponse(status=self._status)

    async def watch(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """Yield the state now and each time it changes."""
        if request.service not in SERVICES:
            yield pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
            return
        while True:
            changed = self._changed
            yield pb.HealthCheckResponse(status=self._status)
            await changed.wait()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for `grpc.aio.Server.add_generic_rpc_handlers`."""
        codec: dict[str, Any] = {
            "request_deserializer": pb.HealthCheckRequest.FromString,
            "response_serializer": pb.HealthCheckResponse.SerializeToString,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.check, **codec),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **codec),
            },
        )
