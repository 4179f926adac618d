"""Servers as processes of their own, to be killed and stopped like real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

_SERVE = """
import json, sys, uvloop
from holdfast_server import logs
from holdfast_server.app import serve
from holdfast_server.config import ServerConfig
from holdfast_server.workers import serve_with_workers

config = ServerConfig(**json.loads(sys.argv[1]))
logs.configure(level=config.log_level, style=config.log_format)
uvloop.run(serve(config) if config.workers == 1 else serve_with_workers(config))
"""
STOP_S_MAX = 30


def free_address() -> str:
    """Return an address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class ServerProcess:
    """A server that logs as JSON, and what it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._has_ended = False
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.decode().rstrip()})
            async with self._news:
                self._news.notify_all()
        self._has_ended = True
        async with self._news:
            self._news.notify_all()

    async def logged(self, event: str, *, times: int = 1) -> dict[str, Any]:
        """Wait until an event has been logged so many times; return the last of them."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if line.get("event") == event]

        async with self._news:
            await self._news.wait_for(lambda: len(found()) >= times or self._has_ended)
        assert len(found()) >= times, f"it ended without {event!r}: {self.lines}"
        return found()[times - 1]

    async def kill(self) -> None:
        """End it as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop; return its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait until it has ended; return its exit status."""
        async with asyncio.timeout(STOP_S_MAX):
            status = await self.process.wait()
            await self._reading
        return status


@asynccontextmanager
async def server_process(**settings: Any) -> AsyncIterator[ServerProcess]:
    """Run a server process until the block ends; it serves when this yields."""
    defaults = {"listen": "127.0.0.1:0", "log_format": "json", "archive": "off"}
    config = json.dumps({**defaults, **settings})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVE, config, stderr=asyncio.subprocess.PIPE
    )
    server = ServerProcess(process)
    try:
        await server.logged("serving", times=settings.get("workers", 1))
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await server.ended()
