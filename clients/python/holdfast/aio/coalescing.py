"""Many concurrent calls on one stream: group commit on the client's side.

Operations that arrive while frames are in flight form the next frame: no timer, so one caller
waits for nothing, and a thousand share a few frames.  A caller that leaves takes nothing with it:
an operation not yet sent is dropped, the answer to one already sent is forgotten.  When a stream
breaks, what it has not answered is sent again on the next one, with the same ids.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from holdfast.changes import ServerLoad
from holdfast.errors import ClientClosed, DeadlineExceeded
from holdfast.responses import load_of, min_interval_of
from holdfast.retry import RetryPolicy, RetryThrottle
from holdfast.status import error_of, status_of
from holdfast.v1 import stock_pb2 as pb

OPERATIONS_MAX = 256
FRAMES_IN_FLIGHT_MAX = 2
# An answer is up to 30 times as large as its operation, and the client takes 16 MiB.
FRAME_BYTES_MAX = 256 << 10
CLOSE_GRACE_S = 2.0

Stream = grpc.aio.StreamStreamCall[pb.PipelineRequest, pb.PipelineResponse]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
# How a stream ends whose connection broke or whose server stopped: without details of ours.  gRPC
# makes it INTERNAL when a write meets a stream that has ended, whatever it ended with.
BROKEN = frozenset(
    {UNAVAILABLE, grpc.StatusCode.CANCELLED.value[0], grpc.StatusCode.INTERNAL.value[0]}
)
# How it ends where this server, or this principal, has no use for streams.
UNWANTED = frozenset(
    {grpc.StatusCode.PERMISSION_DENIED.value[0], grpc.StatusCode.UNIMPLEMENTED.value[0]}
)


class GoAlone(Exception):
    """The call cannot go on the stream; nothing was done."""


class _Frame:
    """Operations that were sent together; `left` of them are not answered."""

    def __init__(self, left: int) -> None:
        self.left = left


class _Operation:
    """One call that waits for its answer."""

    __slots__ = ("answer", "attempts", "frame", "message", "size", "tag")

    def __init__(self, tag: int, message: pb.PipelineOperation) -> None:
        self.tag = tag
        self.message = message
        self.size = message.ByteSize()
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.attempts = 0
        self.frame: _Frame | None = None

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless the caller has gone."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def expire(self, timeout: float) -> None:
        """Answer that there was no answer in time."""
        self.fail(DeadlineExceeded(f"no answer in {timeout} s"))


class Coalescer:
    """Sends the operations of one client through one stream after another.

    Its task starts with the first operation and ends in `aclose`.
    """

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        policy: RetryPolicy,
        note_load: Callable[[ServerLoad, float], None] = lambda _load, _min_interval: None,
    ) -> None:
        self._open_stream = open_stream
        self._note_load = note_load
        self._policy = policy
        self._throttle = RetryThrottle(policy)
        self._waiting: deque[_Operation] = deque()
        self._sent: dict[int, _Operation] = {}
        self._frames_in_flight = 0
        self._failures = 0
        self._last_tag = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stream: Stream | None = None
        self._is_unwanted = False
        self._is_closing = False

    async def execute(self, kind: str, request: Any, timeout: float) -> Any:
        """Return the response to a request.

        Raises the HoldfastError it failed with, DeadlineExceeded after `timeout` seconds, or
        GoAlone for a request that is too large, or whose principal may open no stream.
        """
        self._last_tag += 1
        message = pb.PipelineOperation(tag=self._last_tag, **{kind: request})
        operation = _Operation(self._last_tag, message)
        if self._is_unwanted or operation.size > FRAME_BYTES_MAX:
            raise GoAlone
        self._enqueue(operation)
        # To the same effect as asyncio.timeout, at half its cost.
        deadline = asyncio.get_running_loop().call_later(timeout, operation.expire, timeout)
        try:
            return await operation.answer
        finally:
            deadline.cancel()

    async def aclose(self) -> None:
        """Take no more operations, and wait a little for the answers to the others."""
        self._is_closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_GRACE_S)
            if self._stream is not None:
                self._stream.cancel()
            await asyncio.wait({self._task})

    def _enqueue(self, operation: _Operation) -> None:
        if self._is_closing:
            operation.fail(ClientClosed("the client is closed"))
            return
        self._waiting.append(operation)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="holdfast-pipeline")

    # ---- The task: one stream after another ----

    async def _run(self) -> None:
        try:
            await self._run_streams()
        except Exception as fault:
            bug = fault  # the root of the task: it fails those who wait, and not those to come
            self._fail_all(lambda: bug)
            raise
        finally:
            self._fail_all(lambda: ClientClosed("the client was closed"))

    async def _run_streams(self) -> None:
        while not self._is_closing:
            await self._until(lambda: bool(self._waiting) or self._is_closing)
            if not self._waiting:
                return
            status = await self._run_stream()
            if status.code in UNWANTED:
                self._is_unwanted = True
                self._fail_all(GoAlone)
                return
            self._repeat_all(status)
            if self._waiting and not self._is_closing:
                await asyncio.sleep(self._policy.backoff(max(self._failures, 1)))

    async def _run_stream(self) -> Status:
        """Use one stream until it ends; return how it ended."""
        stream = self._stream = self._open_stream()
        writer = asyncio.create_task(self._write(stream), name="holdfast-pipeline-writer")
        try:
            return await self._read(stream)
        finally:
            writer.cancel()
            await asyncio.wait({writer})

    async def _read(self, stream: Stream) -> Status:
        # A read is never cancelled, or grpc leaks: a stream is, and that ends its last read.
        try:
            while isinstance(response := await stream.read(), pb.PipelineResponse):
                self._failures = 0
                self._settle_all(response)
        except grpc.aio.AioRpcError as error:
            self._failures += 1
            return status_of(error)
        except asyncio.CancelledError:
            if not self._is_closing:  # it was not `aclose` that cancelled the stream
                raise
        return Status(code=UNAVAILABLE, message="the stream ended")

    async def _write(self, stream: Stream) -> None:
        try:
            while self._waiting or not self._is_closing:
                await self._until(self._may_write)
                if frame := self._next_frame():
                    await stream.write(pb.PipelineRequest(operations=frame))
            await stream.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the stream has ended, and its reader knows how

    async def _until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            self._wake.clear()
            await self._wake.wait()

    def _may_write(self) -> bool:
        if self._waiting:
            return self._frames_in_flight < FRAMES_IN_FLIGHT_MAX
        return self._is_closing

    # ---- Frames and their results ----

    def _next_frame(self) -> list[pb.PipelineOperation]:
        """Take what fits into a frame, but not the operations whose callers have gone."""
        taken: list[_Operation] = []
        room = FRAME_BYTES_MAX
        while self._waiting and len(taken) < OPERATIONS_MAX and self._waiting[0].size <= room:
            operation = self._waiting.popleft()
            if not operation.answer.done():
                taken.append(operation)
                room -= operation.size
        if taken:
            self._frames_in_flight += 1
        frame = _Frame(len(taken))
        for operation in taken:
            operation.frame = frame
            self._sent[operation.tag] = operation
        return [operation.message for operation in taken]

    def _settle_all(self, response: pb.PipelineResponse) -> None:
        pressure = response.server_pressure
        self._note_load(load_of(pressure), min_interval_of(pressure))
        # A frame counts as one call: what was put off together goes again together.
        if any(result.error.code == UNAVAILABLE for result in response.results):
            self._throttle.failed()
        else:
            self._throttle.succeeded()
        for result in response.results:
            self._settle(result)
        self._wake.set()

    def _settle(self, result: pb.PipelineResult) -> None:
        operation = self._sent.pop(result.tag, None)
        if operation is None or operation.frame is None:
            return
        operation.frame.left -= 1
        if not operation.frame.left:
            self._frames_in_flight -= 1
        kind = result.WhichOneof("result")
        if kind is None or kind == "error":
            self._repeat_or_fail(operation, result.error)
        elif not operation.answer.done():
            operation.answer.set_result(getattr(result, kind))

    def _repeat_or_fail(self, operation: _Operation, status: Status) -> None:
        error = error_of(status)
        if status.code == UNAVAILABLE:
            operation.attempts += 1
            if self._throttle.allows(operation.attempts):
                delay = max(error.retry_after, self._policy.backoff(operation.attempts))
                asyncio.get_running_loop().call_later(delay, self._enqueue, operation)
                return
        operation.fail(error)

    def _repeat_all(self, status: Status) -> None:
        """Put what a stream left unanswered back to the front, or fail it."""
        left = [*self._sent.values(), *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        self._frames_in_flight = 0
        is_broken = status.code == UNAVAILABLE or (status.code in BROKEN and not status.details)
        if left and is_broken:
            self._throttle.failed()
        for operation in left:
            operation.attempts += 1
            if is_broken and self._throttle.allows(operation.attempts):
                self._waiting.append(operation)
            else:
                operation.fail(error_of(status))

    def _fail_all(self, error: Callable[[], Exception]) -> None:
        for operation in (*self._sent.values(), *self._waiting):
            operation.fail(error())
        self._sent.clear()
        self._waiting.clear()
