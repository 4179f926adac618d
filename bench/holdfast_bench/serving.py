"""Run a server to measure in a process of its own, until standard input ends.

    python -m holdfast_bench.serving URL     the whole server, over the store at URL
    python -m holdfast_bench.serving echo    a method that returns its request, same gRPC options

The first line of its output is where it listens.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvloop

from holdfast_bench.stores import CELL
from holdfast_bench.workload import ECHO_METHOD, ECHO_SERVICE
from holdfast_server import logs
from holdfast_server.app import running, settle_heap
from holdfast_server.config import ServerConfig
from holdfast_server.rpc.server import options

LISTEN = "127.0.0.1:0"


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


@asynccontextmanager
async def _echoing() -> AsyncIterator[str]:
    """Serve the least that grpc.aio can: bytes in, the same bytes out."""
    server = grpc.aio.server(options=options(ServerConfig(), share_port=False))
    methods: dict[str, Any] = {ECHO_METHOD: grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO_SERVICE, methods),))
    port = server.add_insecure_port(LISTEN)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def _holdfast(url: str) -> AsyncIterator[str]:
    config = ServerConfig(listen=LISTEN, redis_url=url, cell=CELL)
    logs.configure(level="error", style="console")
    async with running(config) as server:
        settle_heap()
        yield server.target


async def _serve(what: str) -> None:
    async with _echoing() if what == "echo" else _holdfast(what) as target:
        print(target, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
