"""Run a server to measure in a process of its own, until standard input ends.

    python -m holdfast_bench.serving WHAT CELL [ARCHIVE]

WHAT is the URL of a store, for the whole server over a cell of it, which keeps its ledger in an
archive of its own if ARCHIVE is `on`, and lets answers wait for that if it is `archived`; or, with
any cell,

    echo       a method that returns its request, same gRPC options
    fanout     streams on which one call has the same bytes written

The first line of its output is where it listens.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import uvloop

from holdfast_bench.workload import (
    ECHO_METHOD,
    ECHO_SERVICE,
    FANOUT_SERVICE,
    FOLLOW_METHOD,
    PUBLISH_METHOD,
)
from holdfast_server import logs
from holdfast_server.app import running, settle_heap
from holdfast_server.config import ServerConfig
from holdfast_server.rpc.server import options

LISTEN = "127.0.0.1:0"


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


class _Fanout:
    """Streams that wait, and one call that lets each of them write the same bytes."""

    def __init__(self) -> None:
        self._published = asyncio.Event()

    async def follow(self, request: bytes, context: Any) -> None:
        await context.write(request)
        while True:
            await self._published.wait()
            await context.write(request)

    async def publish(self, request: bytes, _context: Any) -> bytes:
        self._published.set()
        self._published = asyncio.Event()
        return request


@asynccontextmanager
async def _bare(service: str, handlers: dict[str, Any]) -> AsyncIterator[str]:
    """Serve the least that grpc.aio can: methods of bytes."""
    server = grpc.aio.server(options=options(ServerConfig(), share_port=False))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port(LISTEN)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def _holdfast(url: str, cell: str, archive: str) -> AsyncIterator[str]:
    config = ServerConfig(listen=LISTEN, redis_url=url, cell=int(cell), archive="off")
    if archive == "archived":
        config = replace(config, durability="archived", archive="sqlite")
    elif archive == "on":
        config = replace(config, archive="sqlite")
    logs.configure(level="error", style="console")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        async with running(replace(config, data=folder)) as server:
            settle_heap()
            yield server.target


def _served(what: str, cell: str, archive: str) -> AbstractAsyncContextManager[str]:
    if what == "echo":
        echo: Any = grpc.unary_unary_rpc_method_handler(_echo)
        return _bare(ECHO_SERVICE, {ECHO_METHOD: echo})
    if what == "fanout":
        fanout = _Fanout()
        follow: Any = grpc.unary_stream_rpc_method_handler(fanout.follow)
        publish: Any = grpc.unary_unary_rpc_method_handler(fanout.publish)
        return _bare(FANOUT_SERVICE, {FOLLOW_METHOD: follow, PUBLISH_METHOD: publish})
    return _holdfast(what, cell, archive)


async def _serve(what: str, cell: str, archive: str = "off") -> None:
    async with _served(what, cell, archive) as target:
        print(target, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
