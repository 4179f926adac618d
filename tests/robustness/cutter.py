"""A wire between a server and its store, or a client and its server, that can be cut."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

CHUNK_BYTES = 1 << 16
FIRST_COMMAND = b"\r\nFCALL\r\n"  # what comes before is the handshake
FIRST_READ = b"\r\nXREAD\r\n"  # the same of whoever follows the ledger


Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


class Wire:
    """Carries bytes both ways until it is cut, which ends a connection without a word."""

    def __init__(self, connect: Connect, first: bytes) -> None:
        self._connect = connect
        self.first = first
        self._connections: dict[asyncio.Task[Any], tuple[asyncio.WriteTransport, ...]] = {}
        self._marker = b""
        self._times = 0
        self._random: Callable[[], int] | None = None
        self.cuts = 0

    def lose_answers_to(self, marker: bytes, *, times: int) -> None:
        """Cut the connection instead of the answer to what contains a marker, so many times."""
        self._marker, self._times = marker, times

    def cut_at_random(self, seed: int, *, bytes_max: int) -> None:
        """Cut each connection after a random number of bytes, often within a message.

        Its handshake does not count, or none would ever get beyond it.
        """
        random = Random(seed)
        self._random = lambda: random.randrange(1, bytes_max)
        self._cut_all()

    def mend(self) -> None:
        """Cut nothing any more."""
        self._random, self._times = None, 0

    async def carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Join one connection to the store."""
        store_reader, store_writer = await self._connect()
        connection = _Connection(self, self._random() if self._random else 0)
        ends = (writer.transport, store_writer.transport)
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(connection.forth(reader, store_writer))
                group.create_task(connection.back(store_reader, writer))
        except* (_Cut, ConnectionError):
            pass
        finally:
            del self._connections[task]
            for end in ends:
                end.abort()

    def is_to_be_lost(self, request: bytes) -> bool:
        """Tell whether the answer to a request is to be lost, and count it."""
        if self._times and self._marker in request:
            self._times -= 1
            self.cuts += 1
            return True
        return False

    async def aclose(self) -> None:
        """Cut every connection."""
        self._cut_all()
        await asyncio.gather(*self._connections)

    def _cut_all(self) -> None:
        for ends in self._connections.values():
            for end in ends:
                end.abort()


class _Cut(Exception):
    """Ends both directions of a connection."""


class _Connection:
    def __init__(self, wire: Wire, bytes_left: int) -> None:
        self._wire = wire
        self._bytes_left = bytes_left
        self._is_deaf = False
        self._has_begun = False

    async def forth(self, reader: StreamReader, writer: StreamWriter) -> None:
        async for data in self._metered(reader):
            self._is_deaf = self._is_deaf or self._wire.is_to_be_lost(data)
            writer.write(data)
            await writer.drain()
        raise _Cut

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        async for data in self._metered(reader):
            if self._is_deaf:
                raise _Cut
            writer.write(data)
            await writer.drain()
        raise _Cut

    async def _metered(self, reader: StreamReader) -> AsyncIterator[bytes]:
        """Read until the connection ends or has carried as much as it may."""
        while data := await reader.read(CHUNK_BYTES):
            self._has_begun = self._has_begun or self._wire.first in data
            if not (self._bytes_left and self._has_begun):
                yield data
                continue
            yield data[: self._bytes_left]
            if len(data) >= self._bytes_left:
                self._wire.cuts += 1
                raise _Cut
            self._bytes_left -= len(data)


@asynccontextmanager
async def wired(
    far_end: str, folder: Path, *, first: bytes = FIRST_COMMAND
) -> AsyncIterator[tuple[Wire, str]]:
    """Lay a wire to a unix socket or a host:port; yields it and the URL of its near end.

    Cuts at random begin with the first data that holds `first`.
    """
    wire, path = Wire(partial(_connected, far_end), first), folder / "w"
    server = await asyncio.start_unix_server(wire.carry, path)
    try:
        yield wire, f"unix://{path}"
    finally:
        server.close()
        await wire.aclose()
        with suppress(FileNotFoundError):
            path.unlink()


async def _connected(far_end: str) -> tuple[StreamReader, StreamWriter]:
    if far_end.startswith("unix://"):
        return await asyncio.open_unix_connection(far_end.removeprefix("unix://"))
    host, _, port = far_end.rpartition(":")
    return await asyncio.open_connection(host, int(port))
