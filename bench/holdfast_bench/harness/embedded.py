"""A server of the run's own: a process over a private store in a directory that goes with it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from holdfast_bench.harness.faults import WorkerFault
from holdfast_server.config import ServerConfig
from holdfast_server.stores.redis.data_dir import recorded_socket

START_S_MAX = 30.0
STOP_S_MAX = 30.0
LAST_WORDS = 20  # lines of its log that are kept
_LINE_BYTES_MAX = 1 << 20


class EmbeddedServer:
    """A running server process, and what its log has told of it."""

    def __init__(self, process: asyncio.subprocess.Process, config: ServerConfig) -> None:
        self.process, self.config = process, config
        self.target = ""
        self.store_pid = 0
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._serving = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name="harness-server-log")

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    @property
    def store_url(self) -> str:
        """Where its store listens."""
        if self.config.redis_url:
            return self.config.redis_url
        return f"unix://{quote(os.fsencode(recorded_socket(Path(self.config.data))))}"

    async def start(self, settings: str) -> None:
        """Wait until it serves.  Raises WorkerFault with what it said last."""
        assert self.process.stdin is not None
        self.process.stdin.write(settings.encode() + b"\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S_MAX):
                await self._serving.wait()
        if not self.target:
            said = " | ".join(self.last_words)
            raise WorkerFault(f"the embedded server did not start: {said or 'it said nothing'}")

    async def ended(self) -> None:
        """Wait until the process has ended."""
        await self.process.wait()

    async def aclose(self) -> None:
        """Let it drain; kill it when that takes too long."""
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()  # it ends with the standard input of its parent
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            text = line.decode(errors="replace").rstrip()
            try:
                self._note(json.loads(text))
            except ValueError:
                self.last_words.append(text)
        self._serving.set()

    def _note(self, event: Any) -> None:
        match event:
            case {"event": "serving", "target": str(target)}:
                self.target = target
                self._serving.set()
            case {"event": "embedded store", "kind": "started" | "restarted", "pid": int(pid)}:
                self.store_pid = pid
            case {"level": "warning" | "error" | "critical"}:
                self.last_words.append(json.dumps(event))


@asynccontextmanager
async def embedded_server(**settings: Any) -> AsyncIterator[EmbeddedServer]:
    """Run a server until the block ends; `settings` are those of ServerConfig.

    It is a session of its own, so that Ctrl-C reaches the harness alone.  Raises WorkerFault.
    """
    with TemporaryDirectory(prefix="holdfast-bench-") as folder:
        config = ServerConfig(
            **{"listen": "127.0.0.1:0", "data": folder, "log_format": "json", **settings}
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "holdfast_server.workers"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
            start_new_session=True,
        )
        server = EmbeddedServer(process, config)
        try:
            await server.start(json.dumps(asdict(config)))
            yield server
        finally:
            await server.aclose()
