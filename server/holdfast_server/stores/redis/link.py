"""One connection to the store on which batches are in flight in order.

redis-py gives the connection (handshake, TLS, parser); its clients allow one command in flight,
retry on their own and close the connection when a waiter is cancelled.  A link keeps several
commands in flight, first in first out, resends nothing, and detaches a waiter that leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError


class NotSent(Exception):
    """No connection could be made: the command never left."""


class AnswerLost(Exception):
    """The connection broke after the command was sent: it may have run."""


class Link:
    """A connection that is made on demand and remade after a failure.

    `greet` runs on each new connection, before anything else is sent on it.
    """

    def __init__(
        self, url: str, *, timeout_ms: int, greet: Callable[[Connection], Awaitable[None]]
    ) -> None:
        self._pool: Any = ConnectionPool.from_url(
            url, retry=None, socket_timeout=None, socket_connect_timeout=timeout_ms / 1000
        )
        self._timeout_s = timeout_ms / 1000
        self._greet = greet
        self._connection: Connection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._gate = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        """Tell whether a connection stands."""
        return self._connection is not None

    async def call(self, *command: str | bytes | int) -> Any:
        """Send a command and return its answer.

        Commands run in the order of their calls.  Raises NotSent, AnswerLost, or the store's
        ResponseError.  A caller that is cancelled leaves its answer to be read and dropped.
        """
        async with self._gate:
            connection = await self._connected()
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting.append(answer)
            try:
                await connection.send_packed_command(_packed(command), check_health=False)
            except (RedisError, OSError) as fault:
                await self._drop(fault)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as fault:
            await self._drop(fault)
            raise AnswerLost(f"no answer within {self._timeout_s} s") from fault

    async def aclose(self) -> None:
        """Close the connection; whoever still waits gets AnswerLost."""
        await self._drop(RedisConnectionError("closed"))
        await self._pool.aclose()

    async def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        connection: Connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # theirs
                await self._greet(connection)
        except (RedisError, OSError, TimeoutError) as fault:
            await self._close(connection)
            raise NotSent(f"cannot reach the store: {fault}") from fault
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection), name="store-link-reader")
        return connection

    async def _read(self, connection: Connection) -> None:
        while True:
            try:
                answer = await connection.read_response(disable_decoding=True)
            except ResponseError as refusal:
                answer = refusal
            except (RedisError, OSError) as fault:
                await self._drop(fault, reader_ended=True)
                return
            waiter = self._waiting.popleft()
            if waiter.done():
                continue
            if isinstance(answer, ResponseError):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)

    async def _drop(self, fault: BaseException, *, reader_ended: bool = False) -> None:
        """Give up the connection: what was sent on it has an unknown outcome."""
        connection, self._connection = self._connection, None
        reader, self._reader = self._reader, None
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(AnswerLost(f"connection lost: {fault}"))
        if reader is not None and not reader_ended:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
        if connection is not None:
            await self._close(connection)

    async def _close(self, connection: Connection) -> None:
        with suppress(RedisError, OSError, RedisTimeoutError):
            await connection.disconnect(nowait=True)


def _packed(command: Sequence[str | bytes | int]) -> bytes:
    """Return a command as the protocol's array of strings; redis-py takes three times as long."""
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        data = part if isinstance(part, bytes) else str(part).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
