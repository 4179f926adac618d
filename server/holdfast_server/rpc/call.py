"""The one wrapper around every call: who calls, by when, what went wrong, how often.

One function instead of a chain of interceptors: each interceptor costs an await a call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from holdfast_server.engine.load import LoadGauge, ServerLoad
from holdfast_server.errors import Draining, HoldfastError, InvalidArgument, Unimplemented
from holdfast_server.model import Caller
from holdfast_server.rpc.identity import Identities, Role
from holdfast_server.rpc.status import code_of, trailers_of

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")

# A caller without a deadline is given one, or its calls would pile up behind a store that is away.
DEADLINE_DEFAULT_S = 30.0

# Trailing metadata of the calls of a loaded server.
LOAD_KEY = "holdfast-load"

AGENTS = frozenset({Role.AGENT})
CONNECTORS = frozenset({Role.CONNECTOR})
AUDITORS = frozenset({Role.AUDITOR})
READERS = frozenset({Role.AGENT, Role.CONNECTOR, Role.AUDITOR})


MALFORMED = object()
"""Stands for a request whose bytes are no message of its type."""


def check_message(request: object) -> None:
    """Raise InvalidArgument for a request that could not be parsed."""
    if request is MALFORMED:
        raise InvalidArgument.of(("request", "must be a protobuf message of this call"))


@dataclass(eq=False)
class Calls:
    """What all calls of a server share."""

    identities: Identities
    gauge: LoadGauge
    counters: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_draining: bool = False
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, context: Context, allowed: frozenset[Role], request: object = None) -> Caller:
        """Return who calls.  Raises Draining, Unauthenticated, NotOwner or InvalidArgument."""
        if self.is_draining:
            raise Draining("the server is shutting down", retry_after_ms=100)
        caller = self.identities.caller(context.invocation_metadata(), allowed)
        check_message(request)
        return caller

    @asynccontextmanager
    async def answering(self, name: str, context: Context) -> AsyncIterator[None]:
        """Turn an error inside into the call's status, and count how the call ended."""
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:  # the RPC boundary
            await self.fail(name, context, error)
        else:
            self.counters[name, "OK"] += 1

    async def fail(self, name: str, context: Context, error: BaseException) -> NoReturn:
        """End a call with the status of its error.  A bug answers INTERNAL and is logged."""
        if isinstance(error, asyncio.CancelledError | grpc.aio.AbortError):
            self.counters[name, "CANCELLED"] += 1
            raise error
        if isinstance(error, TimeoutError):
            self.counters[name, "DEADLINE_EXCEEDED"] += 1
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            await context.abort(code, "no answer in time", self.load_trailers())
        if not isinstance(error, HoldfastError):
            log.error("call failed", method=name, exc_info=error)
            error = HoldfastError(f"internal error: {type(error).__name__}")
        self.counters[name, error.reason] += 1
        trailers = trailers_of(error) + self.load_trailers()
        await context.abort(code_of(error), str(error), trailers)
        raise AssertionError("abort() always raises")  # pragma: no cover

    def load_trailers(self) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata that tells how loaded the server is, if it is."""
        load = self.gauge.load
        return () if load is ServerLoad.NORMAL else ((LOAD_KEY, load.name.lower()),)


def later(rpc: str) -> Any:
    """Refuse an RPC that the contract names and this version does not serve yet."""
    raise Unimplemented(f"{rpc} is not served by this version")


Method = Callable[[Any, Request, Caller], Awaitable[Response]]
Streaming = Callable[[Any, Request, Caller], AsyncIterator[Response]]


def unary(
    allowed: frozenset[Role],
) -> Callable[[Method[Request, Response]], Callable[[Any, Request, Context], Awaitable[Response]]]:
    """Make `method(self, request, caller)` a gRPC handler; `self.calls` is the server's Calls."""

    def wrap(
        method: Method[Request, Response],
    ) -> Callable[[Any, Request, Context], Awaitable[Response]]:
        name = method.__qualname__

        @wraps(method)
        async def handler(self: Any, request: Request, context: Context) -> Response:
            calls: Calls = self.calls
            try:  # as `answering`, which costs 2 us a call
                caller = calls.begin(context, allowed, request)
                if context.time_remaining() is not None:  # gRPC cancels the handler by then
                    response = await method(self, request, caller)
                else:
                    async with asyncio.timeout(DEADLINE_DEFAULT_S):
                        response = await method(self, request, caller)
            except (Exception, asyncio.CancelledError) as error:  # the RPC boundary
                await calls.fail(name, context, error)
            calls.counters[name, "OK"] += 1
            if calls.gauge.load is not ServerLoad.NORMAL:
                context.set_trailing_metadata(calls.load_trailers())
            return response

        return handler

    return wrap


def streaming(
    allowed: frozenset[Role],
) -> Callable[[Streaming[Request, Response]], Callable[[Any, Request, Context], Any]]:
    """Make an async generator `method(self, request, caller)` a gRPC stream handler."""

    def wrap(
        method: Streaming[Request, Response],
    ) -> Callable[[Any, Request, Context], Any]:
        name = method.__qualname__

        @wraps(method)
        async def handler(self: Any, request: Request, context: Context) -> AsyncIterator[Response]:
            calls: Calls = self.calls
            async with calls.answering(name, context):
                caller = calls.begin(context, allowed, request)
                async for response in method(self, request, caller):
                    yield response

        return handler

    return wrap
