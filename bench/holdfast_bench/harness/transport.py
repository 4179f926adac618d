"""Three ways to one server, behind one call: what a session asks, and how it was answered.

    unary       each operation a call of its own
    pipeline    a Pipeline stream on each connection; a frame is what waits when it can be written
    coalesced   as the SDK does it: what arrives while two frames are in flight forms the next one

Nothing is ever repeated here: an outcome is what the first attempt brought.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from holdfast.channel import Connection
from holdfast.v1 import stock_pb2 as pb
from holdfast_bench.harness.answers import Answer
from holdfast_bench.harness.streams import Coalesced, Pipelined
from holdfast_bench.harness.unary import Unary

CONNECTING_MAX = 64  # connections that are made at once
CONNECT_S_MAX = 60.0


class Transport(Protocol):
    """One connection to the server, for many sessions."""

    async def call(self, kind: str, request: Any) -> Answer:
        """Send a request once and return how it was answered; raises nothing of the server."""
        ...

    async def watch(self, request: pb.WatchRequest) -> tuple[Answer, Any]:
        """Open a watch; return its first message, and the call, to read on or to cancel."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


TRANSPORTS: dict[str, type[Unary]] = {
    "unary": Unary,
    "pipeline": Pipelined,
    "coalesced": Coalesced,
}


async def connect(target: str, kind: str, count: int, *, timeout_s: float) -> list[Transport]:
    """Make so many connections, each TCP of its own, and wait until all are ready.

    Raises TimeoutError, having closed those that were.
    """
    settings = Connection.of(target, {"retry": None})
    free = asyncio.Semaphore(CONNECTING_MAX)
    made: list[Transport] = []

    async def one() -> None:
        async with free:
            channel = settings.open_async()
            made.append(TRANSPORTS[kind](channel, settings.metadata, timeout_s))
            await channel.channel_ready()

    try:
        async with asyncio.timeout(CONNECT_S_MAX), asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())
    except BaseException:
        await asyncio.gather(*(transport.aclose() for transport in made), return_exceptions=True)
        raise
    return made
