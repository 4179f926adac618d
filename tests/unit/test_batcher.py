"""Group commit: what goes into which batch, in what order."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.model import BatchResult, Code, GetStock, Outcome
from tests.unit.held_store import answers, batching, op, send, settled


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
