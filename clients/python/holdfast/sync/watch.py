"""A watch of threads: one stream after another, read by whoever iterates.

While nobody iterates nothing is read: then the stream is blocked, and the server merges what is to
come.  A thread of its own notices a stream that has fallen silent, and cancels it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, cast

import grpc
from google.rpc.status_pb2 import Status

from holdfast.changes import Change, LagCause
from holdfast.delivery import BROKEN, Outbox, passing_error_of
from holdfast.errors import HoldfastError
from holdfast.levels import KnownLevels
from holdfast.status import EndedCall, status_of
from holdfast.v1 import stock_pb2 as pb
from holdfast.watching import HEARTBEATS_MISSED_MAX, ChainBroken, Following

IDLE_S = 60.0


class Stream(Protocol):
    """What gRPC returns for a call whose answer is a stream."""

    def __next__(self) -> pb.WatchResponse: ...
    def cancel(self) -> object: ...


class Watchdog:
    """Cancels the stream that its watch waits for, once it has been silent for too long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stream: Stream | None = None
        self._deadline = 0.0
        self._is_idle = True  # waiting for no time in particular
        self._is_over = False
        self._thread: threading.Thread | None = None

    def watch(self, stream: Stream, seconds: float) -> None:
        """Cancel a stream in so many seconds, unless called off before."""
        deadline = time.monotonic() + seconds
        with self._changed:
            # Its thread looks again at the time it has; it is woken for an earlier one only.
            must_wake = self._is_idle or deadline < self._deadline
            self._stream, self._deadline = stream, deadline
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="holdfast-watch", daemon=True
                )
                self._thread.start()
            elif must_wake:
                self._changed.notify()

    def call_off(self) -> bool:
        """Tell whether it was too late: the stream is cancelled."""
        with self._changed:
            has_bitten, self._stream = self._stream is None, None
            return has_bitten

    def stop(self) -> None:
        """End the thread; at the latest after IDLE_S, if it is just busy.

        It waits for no lock: the collector may call it anywhere.
        """
        self._is_over = True
        if self._changed.acquire(blocking=False):
            self._changed.notify()
            self._changed.release()

    def _run(self) -> None:
        with self._changed:
            while not self._is_over:
                left = self._deadline - time.monotonic()
                if left <= 0 and self._stream is not None:
                    self._stream.cancel()
                    self._stream = None
                self._is_idle = left <= 0
                self._changed.wait(IDLE_S if self._is_idle else left)


class Watch:
    """Levels as they change, for as long as one iterates; see `Client.watch`.

    It closes its stream when nothing refers to it any more, as after a `break`; `with` and `close`
    say when.  Only iterating reads: a watch that nobody iterates over is neither kept up to date
    nor noticed to be cut off.
    """

    def __init__(
        self,
        following: Following,
        known: KnownLevels,
        open_stream: Callable[[pb.WatchRequest], Stream],
        opening_max: float,
    ) -> None:
        self._following = following
        self._outbox = Outbox(following.token)
        self._known = known
        self._open_stream = open_stream
        self._opening_max = opening_max
        self._patience = opening_max
        self._stream: Stream | None = None
        self._watchdog = Watchdog()
        self._reading = threading.Lock()
        self._closing = threading.Event()
        self._error: HoldfastError | None = None  # why it was closed, to raise once
        known.attach(following.feed)

    @property
    def resume_token(self) -> str:
        """Where to resume after the changes taken so far; it moves with heartbeats, too."""
        return self._outbox.token

    @property
    def violations(self) -> int:
        """How often a stream was given up because a message did not follow from the others."""
        return self._following.violations

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        with self._reading:
            try:
                while self._outbox.is_empty and not self._closing.is_set():
                    self._advance()
            except BaseException as error:
                if isinstance(error, Exception):  # not an interrupt, after which one may go on
                    self.close()
                raise
            if not self._closing.is_set():
                return self._outbox.take()
            error_of_close, self._error = self._error, None
            raise error_of_close or StopIteration

    def close(self, error: HoldfastError | None = None) -> None:
        """Close the stream; iterations over it end, by raising `error` if one is given."""
        if not self._closing.is_set():
            self._error = error
        self._closing.set()
        self._watchdog.stop()
        self._known.detach(self._following.feed)
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _advance(self) -> None:
        """Read one message, or note that the stream ended.  Raises what ends the watch, too."""
        following = self._following
        stream = self._stream or self._opened()
        if stream is None:
            return
        error, cause, said = None, LagCause.DISCONNECTED, ""
        try:
            message = self._next(stream)
            if isinstance(message, pb.WatchResponse):
                changes = following.take(message)
                self._outbox.put(changes, following.token)
                self._patience = following.patience
                return
            if self._closing.is_set():
                return
            if message is None:
                cause, said = LagCause.SILENT, f"no message for {HEARTBEATS_MISSED_MAX} heartbeats"
            else:
                error = passing_error_of(message)
        except ChainBroken as broken:
            cause, said = LagCause.CHAIN_BROKEN, str(broken)
        stream.cancel()
        self._stream = None
        self._outbox.put([following.broke(cause, error, said)], following.token)

    def _opened(self) -> Stream | None:
        """Return the next stream after a pause, None if the watch was closed meanwhile."""
        if self._closing.wait(self._following.pause):
            return None
        try:
            stream = self._stream = self._open_stream(self._following.opened())
        except ValueError:  # how gRPC says that another thread has just closed the channel
            if self._closing.is_set():
                return None
            raise
        self._patience = max(self._following.patience, self._opening_max)
        if self._closing.is_set():  # too late for `close` to see the stream
            stream.cancel()
        return stream

    def _next(self, stream: Stream) -> pb.WatchResponse | Status | None:
        """Return the next message, how the stream ended, or None if it has fallen silent."""
        self._watchdog.watch(stream, self._patience)
        found: pb.WatchResponse | Status
        try:
            found = next(stream)
        except StopIteration:
            found = BROKEN
        except grpc.RpcError as error:
            found = status_of(cast(EndedCall, error))
        finally:
            is_silent = self._watchdog.call_off()
        return None if is_silent else found
