"""Group commit when callers leave, the queue is full, the store fails, or the server stops."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.errors import Draining, HoldfastError, Overloaded, StoreUnavailable
from holdfast_server.model import BatchResult, Code, Commit, Outcome
from tests.unit.held_store import CALLER, answers, batching, op, send, settled


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
        outcomes: list[Outcome | Exception] = [
            HoldfastError("poisoned"),
            Outcome(Code.OK, 1, 0, detail="fine"),
        ]
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


async def test_a_batch_ends_before_an_operation_on_what_is_in_flight() -> None:
    async with batching(lanes=2, lane_operations_min=1) as (batcher, store):
        tasks = await send(batcher, "a")
        tasks += await send(batcher, "b", "a", "c")
        assert [call.names for call in store.calls] == [["a"], ["b"]]
        store.calls[1].succeed()
        await settled()
        assert len(store.calls) == 2
        store.calls[0].succeed()
        await settled()
        assert [call.names for call in store.calls] == [["a"], ["b"], ["a", "c"]]
        store.calls[2].succeed()
        assert await answers(tasks) == ["a", "b", "a", "c"]


async def test_what_failed_for_want_of_an_undecided_operation_waits_with_it() -> None:
    async with batching(lanes=1) as (batcher, store):
        claim = op("claim")
        sale = Commit("claim", CALLER)
        other = Commit("other", CALLER)
        task = asyncio.create_task(batcher.execute_many([claim, sale, other]))
        call = await store.next()
        call.answer.set_result(
            BatchResult(
                [
                    Outcome(Code.AGAIN, 1, 0),
                    Outcome(Code.UNKNOWN_RESERVATION, 1, 0),
                    Outcome(Code.UNKNOWN_RESERVATION, 1, 0),
                ],
                0,
                1,
                True,
            )
        )
        repeated = await store.next()
        assert repeated.operations == [claim, sale]
        repeated.answer.set_result(
            BatchResult([Outcome(Code.OK, 2, 0), Outcome(Code.OK, 3, 0)], 0, 3, False)
        )
        found = [answer.code for answer in await task if isinstance(answer, Outcome)]
        assert found == [Code.OK, Code.OK, Code.UNKNOWN_RESERVATION]
