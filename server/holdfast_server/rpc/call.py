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
from typing import Any, TypeVar

import grpc
import structlog

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
        except HoldfastError as error:
            self.counters[name, error.reason] += 1
            await context.abort(code_of(error), str(error), trailers_of(error))
        except (asyncio.CancelledError, grpc.aio.AbortError):
            self.counters[name, "CANCELLED"] += 1
            raise
        except TimeoutError:
            self.counters[name, "DEADLINE_EXCEEDED"] += 1
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")
        except Exception as fault:  # the RPC boundary: a bug answers INTERNAL and is logged
            log.exception("call failed", method=name)
            self.counters[name, "INTERNAL"] += 1
            bug = HoldfastError(f"internal error: {type(fault).__name__}")
            await context.abort(code_of(bug), str(bug), trailers_of(bug))
        else:
            self.counters[name, "OK"] += 1


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
            async with calls.answering(name, context):
                caller = calls.begin(context, allowed, request)
                if context.time_remaining() is not None:  # gRPC cancels the handler by then
                    return await method(self, request, caller)
                async with asyncio.timeout(DEADLINE_DEFAULT_S):
                    return await method(self, request, caller)
            raise AssertionError("answering() always raises")  # pragma: no cover

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
