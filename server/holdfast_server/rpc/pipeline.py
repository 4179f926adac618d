"""Pipeline: many operations of many agents on one stream.

A frame is decided as one group.  Frames of a stream enter the engine in the order they arrive,
and each is answered when it is done.  A bad operation fails alone, with its status as its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NamedTuple

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


class _Entry(NamedTuple):
    """One operation of a frame: its tag, which it is, and what it parsed to."""

    tag: int
    kind: str
    parsed: Any


class _Frame:
    """One request: the operations that parsed, and an answer for each of its entries."""

    def __init__(self, request: pb.PipelineRequest, caller: Caller) -> None:
        self._entries = [_parsed(entry, caller) for entry in request.operations]
        self.operations: list[Operation] = [
            entry.parsed for entry in self._entries if not isinstance(entry.parsed, HoldfastError)
        ]

    def response(self, answers: list[Answer]) -> pb.PipelineResponse:
        """Return the results of all entries, given the answers to those that parsed."""
        decided = iter(answers)
        response = pb.PipelineResponse()
        for entry in self._entries:
            is_bad = isinstance(entry.parsed, HoldfastError)
            answer = entry.parsed if is_bad else next(decided)
            _put_result(response.results.add(tag=entry.tag), entry, answer)
        return response


def _parsed(entry: pb.PipelineOperation, caller: Caller) -> _Entry:
    kind = entry.WhichOneof("operation")
    parsed: Operation | HoldfastError
    if kind is None:
        parsed = InvalidArgument.of(("operation", "must be one of " + ", ".join(_PARSERS)))
    else:
        try:
            parsed = _PARSERS[kind](getattr(entry, kind), caller)
        except HoldfastError as error:
            parsed = error
    return _Entry(entry.tag, kind or "", parsed)


def _put_result(result: pb.PipelineResult, entry: _Entry, answer: Any) -> None:
    if isinstance(answer, Outcome) and answer.code >= Code.INVALID:
        answer = error_of(answer)
    if not isinstance(answer, Outcome):
        error = answer if isinstance(answer, HoldfastError) else HoldfastError(repr(answer))
        result.error.CopyFrom(status_of(error))
    elif entry.kind == "get_stock":
        responses.put_get_stock(result.get_stock, entry.parsed, answer)
    else:
        _RESPONSES[entry.kind](getattr(result, entry.kind), answer)


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
