"""Group commit over a store that answers when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from holdfast_server.engine.batcher import Batcher, BatchLimits
from holdfast_server.errors import Draining, HoldfastError, Overloaded, StoreUnavailable
from holdfast_server.model import (
    BatchResult,
    Caller,
    Code,
    GetStock,
    Line,
    Operation,
    Outcome,
    Reserve,
)

CALLER = Caller("tests")


class Call:
    """One batch that waits for its answer."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = list(operations)
        self.answer: asyncio.Future[BatchResult] = asyncio.get_running_loop().create_future()

    @property
    def names(self) -> list[str]:
        return [name_of(operation) for operation in self.operations]

    def succeed(self, codes: dict[str, Code] | None = None, *, more_due: bool = False) -> None:
        """Answer every operation with its own name, and OK or the code given for it."""
        codes = codes or {}
        outcomes: list[Outcome | Exception] = [
            Outcome(codes.get(name, Code.OK), 1, 0, detail=name) for name in self.names
        ]
        self.answer.set_result(BatchResult(outcomes, 0, 1, more_due))


class HeldStore:
    """A store whose batches wait for the test."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._arrived: asyncio.Queue[Call] = asyncio.Queue()

    async def execute(self, operations: Sequence[Operation]) -> BatchResult:
        call = Call(operations)
        self.calls.append(call)
        self._arrived.put_nowait(call)
        return await call.answer

    async def next(self) -> Call:
        return await self._arrived.get()


def op(name: str, lines: int = 1) -> Reserve:
    return Reserve(name, CALLER, tuple(Line(f"sku{i}", 1) for i in range(lines)))


def name_of(operation: Operation) -> str:
    assert isinstance(operation, Reserve)
    return operation.reservation_id


async def settled() -> None:
    """Let every task run until it waits for something that is not the loop itself."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def batching(**limits: int) -> AsyncIterator[tuple[Batcher, HeldStore]]:
    store = HeldStore()
    batcher = Batcher(store, BatchLimits(**limits))
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher, store
    finally:
        task.cancel()
        await asyncio.wait({task})


async def send(batcher: Batcher, *names: str) -> list[asyncio.Task[Outcome]]:
    """Start one caller for each name, all of them waiting when this returns."""
    tasks = [asyncio.create_task(batcher.execute(op(name))) for name in names]
    await settled()
    return tasks


async def answers(tasks: Sequence[asyncio.Task[Outcome]]) -> list[str]:
    return [(await task).detail for task in tasks]


async def test_an_idle_engine_sends_an_operation_at_once_and_alone() -> None:
    async with batching() as (batcher, store):
        tasks = await send(batcher, "a")
        call = await store.next()
        assert call.names == ["a"]
        call.succeed()
        assert await answers(tasks) == ["a"]
        assert (batcher.counters.batches, batcher.counters.operations) == (1, 1)


async def test_operations_that_arrive_while_lanes_are_in_flight_form_the_next_batch() -> None:
    async with batching(lanes=2, lane_operations_min=1) as (batcher, store):
        tasks = await send(batcher, "a")
        tasks += await send(batcher, "b")
        tasks += await send(batcher, "c", "d", "e")
        assert [call.names for call in store.calls] == [["a"], ["b"]]
        assert batcher.queue_len == 3
        store.calls[1].succeed()
        await settled()
        assert [call.names for call in store.calls] == [["a"], ["b"], ["c", "d", "e"]]
        store.calls[0].succeed()
        store.calls[2].succeed()
        assert await answers(tasks) == ["a", "b", "c", "d", "e"]


async def test_a_second_batch_leaves_only_when_it_is_large_enough() -> None:
    async with batching(lanes=2, lane_operations_min=3) as (batcher, store):
        tasks = await send(batcher, "a")
        tasks += await send(batcher, "b", "c")
        assert [call.names for call in store.calls] == [["a"]]
        tasks += await send(batcher, "d")
        assert [call.names for call in store.calls] == [["a"], ["b", "c", "d"]]
        tasks += await send(batcher, "e")
        store.calls[0].succeed()
        store.calls[1].succeed()
        await settled()
        assert [call.names for call in store.calls[2:]] == [["e"]]
        store.calls[2].succeed()
        assert await answers(tasks) == ["a", "b", "c", "d", "e"]


async def test_no_more_batches_than_lanes_are_in_flight() -> None:
    async with batching(lanes=3, operations_max=1) as (batcher, store):
        tasks = await send(batcher, *"abcdef")
        assert [call.names for call in store.calls] == [["a"], ["b"], ["c"]]
        for index in range(6):
            store.calls[index].succeed()
            await settled()
            assert len(store.calls) == min(index + 4, 6)
        assert await answers(tasks) == list("abcdef")


async def test_a_batch_is_cut_at_the_limit_of_operations() -> None:
    async with batching(lanes=1, operations_max=3) as (batcher, store):
        tasks = await send(batcher, "first")
        tasks += await send(batcher, *"abcdefg")
        for expected in (["first"], ["a", "b", "c"], ["d", "e", "f"], ["g"]):
            call = await store.next()
            assert call.names == expected
            call.succeed()
        await answers(tasks)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([2, 2, 1], [["0", "1"], ["2"]]),
        ([2, 3, 1], [["0"], ["1", "2"]]),
        ([9, 1, 1], [["0"], ["1", "2"]]),  # more lines than a batch may have still go, alone
        ([1, 9, 1], [["0"], ["1"], ["2"]]),
    ],
)
async def test_a_batch_is_cut_at_the_limit_of_lines(
    lines: list[int], expected: list[list[str]]
) -> None:
    async with batching(lanes=1, lines_max=4) as (batcher, store):
        sent = [op(str(index), count) for index, count in enumerate(lines)]
        task = asyncio.create_task(batcher.execute_many(sent))
        for names in expected:
            call = await store.next()
            assert call.names == names
            call.succeed()
        assert len(await task) == len(sent)


async def test_skus_of_a_read_count_as_lines() -> None:
    async with batching(lanes=1, lines_max=4) as (batcher, store):
        read = GetStock(tuple("abcd"))
        task = asyncio.create_task(batcher.execute_many([read, read]))
        for _ in range(2):
            call = await store.next()
            assert call.operations == [read]
            call.answer.set_result(BatchResult([Outcome(Code.OK, 1, 0)], 0, 1, False))
        assert len(await task) == 2


async def test_operations_of_one_call_are_answered_in_order_over_several_batches() -> None:
    async with batching(lanes=2, operations_max=2) as (batcher, store):
        task = asyncio.create_task(batcher.execute_many([op(name) for name in "abcd"]))
        await settled()
        for call in reversed(store.calls):
            call.succeed()
        found = await task
        assert [answer.detail for answer in found if isinstance(answer, Outcome)] == list("abcd")


async def test_a_call_of_no_operations_is_answered_without_a_batch() -> None:
    async with batching() as (batcher, store):
        assert await batcher.execute_many([]) == []
        assert store.calls == []


async def test_a_caller_that_left_before_its_batch_is_not_sent() -> None:
    async with batching(lanes=1) as (batcher, store):
        tasks = await send(batcher, "a")
        gone, stays = await send(batcher, "gone", "stays")
        gone.cancel()
        await settled()
        store.calls[0].succeed()
        await settled()
        assert store.calls[1].names == ["stays"]
        assert batcher.counters.dropped == 1
        store.calls[1].succeed()
        assert await answers([*tasks, stays]) == ["a", "stays"]


async def test_a_queue_of_nothing_but_left_callers_is_emptied_without_a_batch() -> None:
    async with batching(lanes=1) as (batcher, store):
        tasks = await send(batcher, "a")
        for task in await send(batcher, "b", "c"):
            task.cancel()
        await settled()
        store.calls[0].succeed()
        await answers(tasks)
        await settled()
        assert (len(store.calls), batcher.queue_len) == (1, 0)


async def test_a_caller_that_leaves_during_its_batch_cancels_nothing() -> None:
    async with batching(lanes=1) as (batcher, store):
        await send(batcher, "first")
        gone, stays = await send(batcher, "gone", "stays")
        store.calls[0].succeed()
        await settled()
        gone.cancel()
        await settled()
        assert not store.calls[1].answer.cancelled()
        store.calls[1].succeed()
        assert await answers([stays]) == ["stays"]


async def test_beyond_the_queue_limit_callers_are_refused_at_once() -> None:
    async with batching(lanes=1, queue_len_max=2) as (batcher, store):
        tasks = await send(batcher, "a")
        tasks += await send(batcher, "b", "c")
        with pytest.raises(Overloaded) as refusal:
            await batcher.execute(op("d"))
        assert refusal.value.retry_after_ms > 0
        assert batcher.counters.overloaded == 1
        for _ in range(2):
            (await store.next()).succeed()
        assert await answers(tasks) == ["a", "b", "c"]


async def test_a_call_too_large_for_the_queue_is_refused_whole() -> None:
    async with batching(lanes=1, queue_len_max=2) as (batcher, store):
        with pytest.raises(Overloaded):
            await batcher.execute_many([op(name) for name in "abc"])
        await settled()
        assert (store.calls, batcher.queue_len) == ([], 0)


async def test_an_answer_of_again_is_asked_again_before_what_waits() -> None:
    async with batching(lanes=1, operations_max=3) as (batcher, store):
        tasks = await send(batcher, "first")
        tasks += await send(batcher, *"abcde")
        store.calls[0].succeed()
        await settled()
        store.calls[1].succeed({"a": Code.AGAIN, "c": Code.AGAIN})
        await settled()
        assert store.calls[2].names == ["a", "c", "d"]
        assert batcher.counters.again == 2
        store.calls[2].succeed()
        await settled()
        store.calls[3].succeed()
        assert await answers(tasks) == ["first", *"abcde"]


async def test_a_fault_reaches_every_caller_of_its_batch_and_no_other() -> None:
    async with batching(lanes=1) as (batcher, store):
        before = await send(batcher, "before")
        inside = await send(batcher, "a", "b")
        store.calls[0].succeed()
        await settled()
        after = await send(batcher, "after")
        fault = StoreUnavailable("gone")
        store.calls[1].answer.set_exception(fault)
        await settled()
        store.calls[2].succeed()
        assert await answers(before + after) == ["before", "after"]
        for task in inside:
            with pytest.raises(StoreUnavailable):
                await task


async def test_a_bug_in_the_store_fails_its_batch_and_leaves_the_engine_running() -> None:
    async with batching(lanes=1) as (batcher, store):
        (broken,) = await send(batcher, "a")
        store.calls[0].answer.set_exception(ValueError("a bug"))
        with pytest.raises(HoldfastError, match="a bug"):
            await broken
        tasks = await send(batcher, "b")
        store.calls[1].succeed()
        assert await answers(tasks) == ["b"]


async def test_an_operation_that_failed_alone_raises_for_its_caller_alone() -> None:
    async with batching(lanes=1) as (batcher, store):
        await send(batcher, "first")
        poisoned, fine = await send(batcher, "poisoned", "fine")
        store.calls[0].succeed()
        await settled()
        outcomes: list[Outcome | Exception] = [HoldfastError("poisoned"), Outcome(Code.OK, 1, 0, detail="fine")]
        store.calls[1].answer.set_result(BatchResult(outcomes, 0, 1, False))
        with pytest.raises(HoldfastError, match="poisoned"):
            await poisoned
        assert await answers([fine]) == ["fine"]


async def test_draining_finishes_what_was_taken_and_refuses_the_rest() -> None:
    async with batching(lanes=1, operations_max=1) as (batcher, store):
        tasks = await send(batcher, "a", "b")
        drain = asyncio.create_task(batcher.drain())
        await settled()
        with pytest.raises(Draining):
            await batcher.execute(op("c"))
        for _ in range(2):
            assert not drain.done()
            (await store.next()).succeed()
            await settled()
        await drain
        assert await answers(tasks) == ["a", "b"]


async def test_an_idle_engine_drains_at_once() -> None:
    async with batching() as (batcher, _store):
        await batcher.drain()


@pytest.mark.parametrize("more_due", [True, False])
async def test_a_sweep_is_an_empty_batch_that_tells_whether_more_is_due(more_due: bool) -> None:
    async with batching() as (batcher, store):
        sweep = asyncio.create_task(batcher.sweep())
        call = await store.next()
        assert call.operations == []
        call.succeed(more_due=more_due)
        assert await sweep is more_due
