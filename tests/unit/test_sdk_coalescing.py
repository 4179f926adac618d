"""Calls that share a stream, against a server that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from holdfast import (
    AsyncClient,
    ClientClosed,
    DeadlineExceeded,
    NotOwner,
    Overloaded,
    Reserved,
    RetryPolicy,
    TransportError,
    Unauthenticated,
    Unreachable,
)
from holdfast.aio.coalescing import FRAME_BYTES_MAX, FRAMES_IN_FLIGHT_MAX, OPERATIONS_MAX
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc, types_pb2
from holdfast_server import errors
from holdfast_server.rpc.status import code_of, status_of, trailers_of

SOON = RetryPolicy(backoff_min=0.01, backoff_max=0.02)


def answer(reservation_id: str) -> pb.ReserveResponse:
    return pb.ReserveResponse(reservation=types_pb2.Reservation(reservation_id=reservation_id))


def result(operation: pb.PipelineOperation) -> pb.PipelineResult:
    return pb.PipelineResult(tag=operation.tag, reserve=answer(operation.reserve.reservation_id))


def refusal(operation: pb.PipelineOperation, error: errors.HoldfastError) -> pb.PipelineResult:
    return pb.PipelineResult(tag=operation.tag, error=status_of(error))


class Stream:
    """One Pipeline stream, from the server's side."""

    def __init__(self, requests: AsyncIterator[pb.PipelineRequest], context: Any) -> None:
        self._requests = requests
        self.context = context

    async def frames(self) -> AsyncIterator[list[pb.PipelineOperation]]:
        async for request in self._requests:
            yield list(request.operations)

    async def frame(self) -> list[pb.PipelineOperation]:
        return await anext(self.frames())

    async def give(self, *results: pb.PipelineResult) -> None:
        await self.context.write(pb.PipelineResponse(results=results))

    async def answer_all(self) -> None:
        async for frame in self.frames():
            await self.give(*map(result, frame))

    async def cut(self) -> None:
        await self.context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")


Behaviour = Callable[[Stream], Awaitable[None]]


class Script(stock_pb2_grpc.StockServiceServicer):
    """Does with each stream what its behaviour says, the last one with all that follow."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = behaviours
        self.streams = 0
        self.alone: list[str] = []

    async def Pipeline(self, requests: AsyncIterator[pb.PipelineRequest], context: Any) -> None:
        behave = self._behaviours[min(self.streams, len(self._behaviours) - 1)]
        self.streams += 1
        await behave(Stream(requests, context))

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        self.alone.append(request.reservation_id)
        return answer(request.reservation_id)


@asynccontextmanager
async def client_of(script: Script, **options: Any) -> AsyncIterator[AsyncClient]:
    server = grpc.aio.server()
    stock_pb2_grpc.add_StockServiceServicer_to_server(script, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        options = {"timeout": 10.0, "retry": SOON, **options}
        async with AsyncClient(f"127.0.0.1:{port}", **options) as client:
            yield client
    finally:
        await server.stop(0)


async def reserve_many(client: AsyncClient, number: int) -> list[Reserved]:
    return await asyncio.gather(
        *(client.reserve("A", reservation_id=f"r{index}") for index in range(number))
    )


async def test_concurrent_calls_share_frames() -> None:
    sizes: list[int] = []

    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            sizes.append(len(frame))
            await stream.give(*map(result, frame))

    script = Script(behave)
    async with client_of(script) as client:
        answers = await reserve_many(client, 1_000)
    assert [one.reservation.reservation_id for one in answers] == [f"r{n}" for n in range(1_000)]
    assert sum(sizes) == 1_000
    assert max(sizes) == OPERATIONS_MAX
    assert (script.streams, script.alone) == (1, [])


async def test_the_next_frame_fills_while_the_others_are_in_flight() -> None:
    arrived: asyncio.Queue[list[pb.PipelineOperation]] = asyncio.Queue()
    streams: list[Stream] = []

    async def behave(stream: Stream) -> None:
        streams.append(stream)
        async for frame in stream.frames():
            arrived.put_nowait(frame)

    async with client_of(Script(behave)) as client:
        calls, held = [], []
        for _ in range(FRAMES_IN_FLIGHT_MAX):
            calls.append(asyncio.create_task(client.reserve("A")))
            held.append(await arrived.get())
        calls += [asyncio.create_task(client.reserve("A")) for _ in range(9)]
        await asyncio.sleep(0)  # they wait now, and may not be sent
        assert arrived.empty()
        for frame in held:
            await streams[0].give(*map(result, frame))
        together = await arrived.get()
        assert len(together) == 9
        await streams[0].give(*map(result, together))
        await asyncio.gather(*calls)


async def test_results_may_come_in_any_order_and_in_parts() -> None:
    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            for operation in reversed(frame):
                await stream.give(result(operation))

    async with client_of(Script(behave)) as client:
        answers = await reserve_many(client, 10)
    assert [one.reservation.reservation_id for one in answers] == [f"r{n}" for n in range(10)]


async def test_an_unknown_tag_is_ignored() -> None:
    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            await stream.give(pb.PipelineResult(tag=999_999), *map(result, frame))

    async with client_of(Script(behave)) as client:
        assert len(await reserve_many(client, 3)) == 3


async def test_what_a_broken_stream_left_is_sent_again_with_the_same_ids() -> None:
    first: list[str] = []

    async def break_off(stream: Stream) -> None:
        frame = await stream.frame()
        first.extend(operation.reserve.reservation_id for operation in frame)
        await stream.give(result(frame[0]))
        await stream.cut()

    second: list[str] = []

    async def go_on(stream: Stream) -> None:
        async for frame in stream.frames():
            second.extend(operation.reserve.reservation_id for operation in frame)
            await stream.give(*map(result, frame))

    script = Script(break_off, go_on)
    async with client_of(script) as client:
        answers = await asyncio.gather(*(client.reserve("A") for _ in range(5)))
    assert second == first[1:]
    assert {one.reservation.reservation_id for one in answers} == set(first)
    assert script.streams == 2


@pytest.mark.parametrize("end", ["cut", "orderly end"])
async def test_a_server_that_always_breaks_off_is_unreachable(end: str) -> None:
    async def behave(stream: Stream) -> None:
        await stream.frame()
        if end == "cut":
            await stream.cut()

    script = Script(behave)
    async with client_of(script) as client:
        with pytest.raises(Unreachable) as caught:
            await client.reserve("A", reservation_id="mine")
    assert caught.value.idempotency_key == "mine"
    assert script.streams == SOON.attempts_max


async def test_nothing_is_repeated_where_repeating_is_off() -> None:
    script = Script(lambda stream: stream.cut())
    async with client_of(script, retry=None) as client:
        with pytest.raises(Unreachable):
            await client.reserve("A")
    assert script.streams == 1


async def test_an_idle_stream_that_ends_fails_nobody() -> None:
    ended = asyncio.Event()

    async def answer_once(stream: Stream) -> None:
        await stream.give(*map(result, await stream.frame()))
        ended.set()

    script = Script(answer_once)
    async with client_of(script) as client:
        for _ in range(3):
            await client.reserve("A")
            await ended.wait()
    assert script.streams >= 3


@pytest.mark.parametrize("failures", [1, 3])
async def test_an_operation_that_the_server_puts_off_is_repeated(failures: int) -> None:
    ids: list[str] = []

    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            (operation,) = frame
            ids.append(operation.reserve.reservation_id)
            error = errors.Overloaded("busy", retry_after_ms=5)
            is_late = len(ids) > failures
            await stream.give(result(operation) if is_late else refusal(operation, error))

    script = Script(behave)
    async with client_of(script) as client:
        await client.reserve("A")
    assert len(ids) == failures + 1
    assert len(set(ids)) == 1
    assert script.streams == 1


async def test_an_operation_is_put_off_only_so_often() -> None:
    count = 0

    async def behave(stream: Stream) -> None:
        nonlocal count
        async for frame in stream.frames():
            count += len(frame)
            error = errors.Overloaded("busy", retry_after_ms=5)
            await stream.give(*(refusal(operation, error) for operation in frame))

    async with client_of(Script(behave)) as client:
        with pytest.raises(Overloaded) as caught:
            await client.reserve("A")
    assert count == SOON.attempts_max
    assert caught.value.retry_after == 0.005


async def test_a_fault_of_the_caller_fails_alone_and_at_once() -> None:
    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            bad, *good = frame
            await stream.give(refusal(bad, errors.NotOwner("no")), *map(result, good))

    async with client_of(Script(behave)) as client:
        calls = [client.reserve("A", reservation_id=f"r{n}") for n in range(5)]
        first, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, NotOwner)
    assert first.idempotency_key == "r0"
    assert all(isinstance(one, Reserved) for one in others)


async def test_a_result_that_says_nothing_is_an_error() -> None:
    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            await stream.give(pb.PipelineResult(tag=frame[0].tag))

    async with client_of(Script(behave)) as client:
        with pytest.raises(TransportError):
            await client.reserve("A")


async def test_a_caller_that_left_before_sending_is_not_sent() -> None:
    sent: list[str] = []

    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            sent.extend(operation.reserve.reservation_id for operation in frame)
            await stream.give(*map(result, frame))

    async with client_of(Script(behave)) as client:
        leaving = asyncio.create_task(client.reserve("A", reservation_id="leaving"))
        staying = asyncio.create_task(client.reserve("A", reservation_id="staying"))
        await asyncio.sleep(0)  # both wait now, and nothing has been written
        leaving.cancel()
        await staying
        assert leaving.cancelled() or (await asyncio.wait({leaving}))
    assert sent == ["staying"]


async def test_a_caller_that_left_after_sending_does_not_disturb_the_others() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def behave(stream: Stream) -> None:
        frame = await stream.frame()
        arrived.set()
        await go_on.wait()
        await stream.give(*map(result, frame))
        await stream.answer_all()

    async with client_of(Script(behave)) as client:
        leaving = asyncio.create_task(client.reserve("A"))
        staying = asyncio.create_task(client.reserve("A", reservation_id="staying"))
        await arrived.wait()
        leaving.cancel()
        await asyncio.wait({leaving})
        go_on.set()
        assert (await staying).reservation.reservation_id == "staying"
        assert await client.reserve("A")


async def test_a_call_without_an_answer_in_time_raises_and_its_late_answer_is_forgotten() -> None:
    go_on = asyncio.Event()

    async def behave(stream: Stream) -> None:
        first = await stream.frame()
        await go_on.wait()
        await stream.give(*map(result, first))
        await stream.answer_all()

    async with client_of(Script(behave)) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.reserve("A", reservation_id="mine", timeout=0.05)
        assert caught.value.idempotency_key == "mine"
        go_on.set()
        assert (await client.reserve("A", reservation_id="r")).reservation.reservation_id == "r"


@pytest.mark.parametrize(
    "error",
    [errors.NotOwner("this role sends no operations"), errors.Unimplemented("no Pipeline here")],
)
async def test_who_may_open_no_stream_calls_alone(error: errors.HoldfastError) -> None:
    async def refuse(stream: Stream) -> None:
        await stream.context.abort(code_of(error), str(error), trailers_of(error))

    script = Script(refuse)
    async with client_of(script) as client:
        assert len(await reserve_many(client, 20)) == 20
        # A write that meets the refused stream hides why it ended; then one more stream tells it.
        opened = script.streams
        await client.reserve("A", reservation_id="later")
    assert script.streams == opened
    assert script.alone[-1] == "later"
    assert len(script.alone) == 21


async def test_who_is_not_known_is_told_so_at_each_call() -> None:
    async def refuse(stream: Stream) -> None:
        error = errors.Unauthenticated("who?")
        await stream.context.abort(code_of(error), str(error), trailers_of(error))

    script = Script(refuse)
    async with client_of(script) as client:
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await client.reserve("A")
    assert (script.streams, script.alone) == (2, [])


async def test_frames_are_bounded_in_bytes_and_what_is_larger_goes_alone() -> None:
    sizes: list[int] = []

    async def behave(stream: Stream) -> None:
        async for frame in stream.frames():
            sizes.append(sum(operation.ByteSize() for operation in frame))
            await stream.give(*map(result, frame))

    script = Script(behave)
    async with client_of(script) as client:
        large = [f"{number:0100}" for number in range(FRAME_BYTES_MAX // 250)]
        await asyncio.gather(*(client.reserve(large) for _ in range(10)))
        await client.reserve(large * 3, reservation_id="alone")
    assert len(sizes) == 5
    assert max(sizes) <= FRAME_BYTES_MAX
    assert script.alone == ["alone"]


async def test_closing_waits_for_the_answers_and_takes_no_more() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def behave(stream: Stream) -> None:
        frame = await stream.frame()
        arrived.set()
        await go_on.wait()
        await stream.give(*map(result, frame))
        await stream.answer_all()

    async with client_of(Script(behave)) as client:
        sent = asyncio.create_task(client.reserve("A"))
        await arrived.wait()
        waiting = asyncio.create_task(client.reserve("A"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(client.aclose())
        await asyncio.sleep(0)
        with pytest.raises(ClientClosed):
            await client.reserve("A")
        go_on.set()
        await asyncio.gather(sent, waiting, closing)
        with pytest.raises(ClientClosed):
            await client.get_stock("A")


async def test_closing_gives_up_on_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.aio.coalescing.CLOSE_GRACE_S", 0.05)
    arrived, never = asyncio.Event(), asyncio.Event()

    async def behave(stream: Stream) -> None:
        await stream.frame()
        arrived.set()
        await never.wait()

    async with client_of(Script(behave)) as client:
        call = asyncio.create_task(client.reserve("A"))
        await arrived.wait()
        await client.aclose()
        with pytest.raises(ClientClosed):
            await call


async def test_closing_twice_does_nothing() -> None:
    async with client_of(Script(Stream.answer_all)) as client:
        await client.reserve("A")
        await client.aclose()
        await client.aclose()
