"""Operations on a Pipeline stream: as the SDK shares its frames, and as plainly as can be."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from holdfast.aio.coalescing import UNAVAILABLE, Coalescer, GoAlone
from holdfast.errors import HoldfastError
from holdfast.retry import NO_RETRY
from holdfast.status import error_of, status_of
from holdfast.v1 import stock_pb2 as pb
from holdfast_bench.harness.answers import Answer, answer_of, failure_of, late
from holdfast_bench.harness.unary import Unary

OPERATIONS_MAX = 256  # in a frame


class _Stamped:
    """A stream of the coalescer's that notes when each operation was written, by its tag."""

    def __init__(self, stream: Any, sent: dict[int, float]) -> None:
        self._stream, self._sent = stream, sent
        self.read, self.cancel = stream.read, stream.cancel
        self.done_writing = stream.done_writing

    async def write(self, frame: pb.PipelineRequest) -> None:
        now = time.perf_counter()
        self._sent.update((operation.tag, now) for operation in frame.operations)
        await self._stream.write(frame)


class Coalesced(Unary):
    """Operations share frames as those of one client of the SDK do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._calls = 0  # the coalescer counts alike, and makes it the tag
        self._sent: dict[int, float] = {}
        self._coalescer = Coalescer(self._open, NO_RETRY)

    def _open(self) -> Any:
        return _Stamped(self.stub.Pipeline(metadata=self.metadata), self._sent)

    async def call(self, kind: str, request: Any) -> Answer:
        """Send the operation with others; alone where the server knows no Pipeline."""
        self._calls = tag = self._calls + 1
        try:
            answer = answer_of(await self._coalescer.execute(kind, request, self.timeout_s))
        except GoAlone:
            return await super().call(kind, request)
        except HoldfastError as error:
            answer = failure_of(error)
        answer.sent = self._sent.pop(tag, 0.0)
        return answer

    async def aclose(self) -> None:
        """Let the frames in flight be answered, then close."""
        await self._coalescer.aclose()
        await super().aclose()


class Pipelined(Unary):
    """One stream for as long as it lasts; a broken one is opened again by the next operation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waiting: deque[pb.PipelineOperation] = deque()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._sent: dict[int, float] = {}
        self._tag = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def call(self, kind: str, request: Any) -> Answer:
        """Send the operation in the next frame."""
        self._tag = tag = self._tag + 1
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()
        self._answers[tag] = waiting
        self._waiting.append(pb.PipelineOperation(tag=tag, **{kind: request}))
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        deadline = loop.call_later(self.timeout_s, self._expire, tag)
        try:
            found = await waiting
        finally:
            deadline.cancel()
        found.sent = self._sent.pop(tag, 0.0)
        return found

    async def aclose(self) -> None:
        """Close the channel, which ends the stream."""
        await super().aclose()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        stream = self.stub.Pipeline(metadata=self.metadata)
        writer = asyncio.create_task(self._write(stream))
        failure = error_of(Status(code=UNAVAILABLE))
        try:
            while (response := await stream.read()) is not grpc.aio.EOF:
                for result in response.results:
                    self._settle(result.tag, _result(result))
        except grpc.aio.AioRpcError as error:
            failure = error_of(status_of(error))
        except asyncio.CancelledError:
            pass  # the channel was closed
        finally:
            writer.cancel()
            await asyncio.wait({writer})
            self._waiting.clear()
            for tag in list(self._answers):
                self._settle(tag, failure_of(failure))

    async def _write(self, stream: Any) -> None:
        try:
            while True:
                while not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                size = min(len(self._waiting), OPERATIONS_MAX)
                taken = (self._waiting.popleft() for _ in range(size))
                frame = [operation for operation in taken if operation.tag in self._answers]
                now = time.perf_counter()
                self._sent.update((operation.tag, now) for operation in frame)
                await stream.write(pb.PipelineRequest(operations=frame))
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the stream has ended, and its reader knows how

    def _expire(self, tag: int) -> None:
        self._settle(tag, late())

    def _settle(self, tag: int, answer: Answer) -> None:
        waiting = self._answers.pop(tag, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


def _result(result: pb.PipelineResult) -> Answer:
    kind = result.WhichOneof("result")
    if kind is None or kind == "error":
        return failure_of(error_of(result.error))
    return answer_of(getattr(result, kind))
