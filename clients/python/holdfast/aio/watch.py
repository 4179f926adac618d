"""A watch of asyncio: one stream after another, read by one task.

The task hands over a few changes at most, and reads no further while nobody takes them: then the
stream is blocked, and the server merges what is to come.  A read is never cancelled or timed out,
or grpc leaks; a stream is, and that ends its read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import grpc
from google.rpc.status_pb2 import Status

from holdfast.changes import Change, LagCause
from holdfast.delivery import BROKEN, Outbox, passing_error_of
from holdfast.levels import KnownLevels
from holdfast.status import status_of
from holdfast.v1 import stock_pb2 as pb
from holdfast.watching import HEARTBEATS_MISSED_MAX, ChainBroken, Following

Stream = grpc.aio.UnaryStreamCall[pb.WatchRequest, pb.WatchResponse]


class WatchReader:
    """The task behind an AsyncWatch; it knows nothing of it, so that a watch can be forgotten."""

    def __init__(
        self,
        following: Following,
        known: KnownLevels,
        open_stream: Callable[[pb.WatchRequest], Stream],
        opening_max: float,
    ) -> None:
        self.following = following
        self.outbox = Outbox(following.token)
        self.error: Exception | None = None  # why it ended, to raise once
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._known = known
        self._open_stream = open_stream
        self._opening_max = opening_max
        self._stream: Stream | None = None
        self._is_silent = False
        self._closing = asyncio.Event()

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more comes besides what is in the outbox."""
        return self._closing.is_set()

    def start(self) -> None:
        """Open the first stream, in the running event loop."""
        if self.task is None and not self._closing.is_set():
            self._known.attach(self.following.feed)
            self.task = asyncio.create_task(self._run(), name="holdfast-watch")

    def close(self, error: Exception | None = None) -> None:
        """Ask the task to end; `error` is for whoever waits for a change."""
        if not self._closing.is_set():
            self.error = error
        self._closing.set()
        self.wake.set()
        if self._stream is not None:
            self._stream.cancel()

    async def aclose(self, error: Exception | None = None) -> None:
        """End the task, and wait until it has."""
        self.close(error)
        if self.task is not None:
            await asyncio.wait({self.task})

    async def _run(self) -> None:
        try:
            while not self._closing.is_set():
                await self._run_stream()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.following.pause):
                        await self._closing.wait()
        except Exception as error:  # the root of the task: whoever iterates gets it
            self.close(error)
        finally:
            self._known.detach(self.following.feed)
            self.close()

    async def _run_stream(self) -> None:
        """Read one stream until it ends.  Raises the HoldfastError that ends the watch, too."""
        following, error, said = self.following, None, ""
        stream = self._stream = self._open_stream(following.opened())
        try:
            status = await self._read(stream)
            if self._closing.is_set():
                return
            cause = LagCause.SILENT if self._is_silent else LagCause.DISCONNECTED
            if self._is_silent:
                said = f"no message for {HEARTBEATS_MISSED_MAX} heartbeats"
            else:
                error = passing_error_of(status)
        except ChainBroken as broken:
            cause, said = LagCause.CHAIN_BROKEN, str(broken)
        finally:
            stream.cancel()
            self._stream, self._is_silent = None, False
        self._put([following.broke(cause, error, said)])

    async def _read(self, stream: Stream) -> Status:
        patience = max(self.following.patience, self._opening_max)
        try:
            while isinstance(message := await self._next(stream, patience), pb.WatchResponse):
                self._put(self.following.take(message))
                patience = self.following.patience
                while self.outbox.is_full and not self._closing.is_set():
                    self.wake.clear()
                    await self.wake.wait()
        except grpc.aio.AioRpcError as error:
            return status_of(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            is_ours = self._is_silent or self._closing.is_set()
            if not is_ours or (task is not None and task.cancelling()):
                raise
        return BROKEN

    async def _next(self, stream: Stream, patience: float) -> object:
        watchdog = asyncio.get_running_loop().call_later(patience, self._give_up, stream)
        try:
            return await stream.read()
        finally:
            watchdog.cancel()

    def _give_up(self, stream: Stream) -> None:
        self._is_silent = True
        stream.cancel()

    def _put(self, changes: list[Change]) -> None:
        self.outbox.put(changes, self.following.token)
        self.wake.set()


class AsyncWatch:
    """Levels as they change, for as long as one iterates; see `AsyncClient.watch`.

    It closes its stream when nothing refers to it any more, as after a `break`; `async with` and
    `aclose` say when.
    """

    def __init__(self, reader: WatchReader) -> None:
        self._reader = reader
        self._is_closed = False

    @property
    def resume_token(self) -> str:
        """Where to resume after the changes taken so far; it moves with heartbeats, too."""
        return self._reader.outbox.token

    @property
    def violations(self) -> int:
        """How often a stream was given up because a message did not follow from the others."""
        return self._reader.following.violations

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        reader = self._reader
        reader.start()
        while reader.outbox.is_empty and not reader.has_ended:
            reader.wake.clear()
            await reader.wake.wait()
        if self._is_closed:
            raise StopAsyncIteration
        if not reader.outbox.is_empty:
            reader.wake.set()
            return reader.outbox.take()
        error, reader.error = reader.error, None
        raise error or StopAsyncIteration

    async def aclose(self) -> None:
        """Close the stream; iterations over it end."""
        self._is_closed = True
        await self._reader.aclose()

    async def __aenter__(self) -> Self:
        self._reader.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        task = self._reader.task
        if task is not None and not task.done():
            with suppress(RuntimeError):  # the loop has been closed without it
                task.get_loop().call_soon_threadsafe(self._reader.close)
