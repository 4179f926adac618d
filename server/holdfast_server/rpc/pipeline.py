"""Pipeline: many operations of many agents on one stream.

A frame is decided as one group.  Frames of a stream enter the engine in the order they arrive,
and each is answered when it is done.  A bad operation fails alone, with its status as its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc

from holdfast.v1 import stock_pb2 as pb
from holdfast_server.engine.batcher import Answer, Batcher
from holdfast_server.engine.load import ServerLoad
from holdfast_server.errors import HoldfastError, InvalidArgument, error_of
from holdfast_server.model import Caller, Code, Operation, Outcome
from holdfast_server.rpc import arguments, messages, responses
from holdfast_server.rpc.call import AGENTS, MALFORMED, Calls, Context, check_message
from holdfast_server.rpc.status import status_of

OPERATIONS_MAX = 256
FRAMES_IN_FLIGHT_MAX = 32

_PARSERS: dict[str, Callable[[Any, Caller], Operation]] = {
    "reserve": arguments.reserve,
    "commit": arguments.commit,
    "release": arguments.release,
    "extend": arguments.extend,
    "get_stock": arguments.get_stock,
}
_RESPONSES: dict[str, Callable[[Any, Outcome], Any]] = {
    "reserve": responses.put_reserve,
    "commit": responses.put_commit,
    "release": responses.put_release,
    "extend": responses.put_extend,
}


class _Frame:
    """One request: the operations that parsed, and an answer for each of its entries."""

    def __init__(self, request: pb.PipelineRequest, caller: Caller) -> None:
        self.entries = list(request.operations)
        self.operations: list[Operation] = []
        self._parsed: list[Operation | HoldfastError] = []
        for entry in self.entries:
            parsed = _parse(entry, caller)
            self._parsed.append(parsed)
            if not isinstance(parsed, HoldfastError):
                self.operations.append(parsed)

    def response(self, answers: list[Answer]) -> pb.PipelineResponse:
        """Return the results of all entries, given the answers to those that parsed."""
        decided = iter(answers)
        response = pb.PipelineResponse()
        for entry, parsed in zip(self.entries, self._parsed, strict=True):
            answer = parsed if isinstance(parsed, HoldfastError) else next(decided)
            _put_result(response.results.add(tag=entry.tag), entry, parsed, answer)
        return response


def _parse(entry: pb.PipelineOperation, caller: Caller) -> Operation | HoldfastError:
    kind = entry.WhichOneof("operation")
    if kind is None:
        return InvalidArgument.of(("operation", "must be one of " + ", ".join(_PARSERS)))
    try:
        return _PARSERS[kind](getattr(entry, kind), caller)
    except HoldfastError as error:
        return error


def _put_result(
    result: pb.PipelineResult, entry: pb.PipelineOperation, parsed: Any, answer: Any
) -> None:
    if isinstance(answer, Outcome) and answer.code >= Code.INVALID:
        answer = error_of(answer)
    if not isinstance(answer, Outcome):
        error = answer if isinstance(answer, HoldfastError) else HoldfastError(repr(answer))
        result.error.CopyFrom(status_of(error))
        return
    kind = entry.WhichOneof("operation") or ""
    if kind == "get_stock":
        responses.put_get_stock(result.get_stock, parsed, answer)
    else:
        _RESPONSES[kind](getattr(result, kind), answer)


class Pipeline:
    """Serves streams of frames."""

    def __init__(self, calls: Calls, batcher: Batcher) -> None:
        self._calls = calls
        self._batcher = batcher

    async def serve(self, requests: AsyncIterator[pb.PipelineRequest], context: Context) -> None:
        """Answer every frame of a stream.

        A stream whose caller has gone looks like one that was closed in order: nothing is
        concluded from its end, so frames in flight are decided and their answers dropped.
        """
        async with self._calls.answering("StockServicer.Pipeline", context):
            caller = self._calls.begin(context, AGENTS)
            bad = await self._serve_frames(requests, caller, context)
            if bad is not None:
                check_message(bad)
                limit = f"must number at most {OPERATIONS_MAX} a frame, not {len(bad.operations)}"
                raise InvalidArgument.of(("operations", limit))

    async def _serve_frames(
        self, requests: AsyncIterator[pb.PipelineRequest], caller: Caller, context: Context
    ) -> pb.PipelineRequest | None:
        """Serve until the stream ends, or return a frame that cannot be served."""
        room = asyncio.Semaphore(FRAMES_IN_FLIGHT_MAX)
        writing = asyncio.Lock()
        async with asyncio.TaskGroup() as frames:
            async for request in requests:
                if request is MALFORMED or len(request.operations) > OPERATIONS_MAX:
                    return request
                await room.acquire()
                frame = _Frame(request, caller)
                task = frames.create_task(self._answer(frame, context, writing))
                task.add_done_callback(lambda _task: room.release())
        return None

    async def _answer(self, frame: _Frame, context: Context, writing: asyncio.Lock) -> None:
        try:
            answers = await self._batcher.execute_many(frame.operations)
        except HoldfastError as error:
            answers = [error] * len(frame.operations)
        response = frame.response(answers)
        load = self._batcher.gauge.load
        if load is not ServerLoad.NORMAL:
            response.server_pressure.CopyFrom(messages.server_pressure(load))
        async with writing:  # a stream takes one write at a time
            with suppress(grpc.aio.UsageError, grpc.aio.InternalError):  # the caller has gone
                await context.write(response)
