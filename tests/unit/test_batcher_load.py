"""Group commit of an overloaded server: who is still let in, and how the delays are known."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.engine.batcher import Answer, Batcher
from holdfast_server.engine.load import Delays, LoadGauge, ServerLoad
from holdfast_server.errors import Draining, Overloaded
from holdfast_server.model import (
    AdjustStock,
    BatchResult,
    Code,
    Commit,
    Extend,
    GetReservation,
    GetStock,
    Operation,
    Outcome,
    PutItem,
    Release,
    SetStock,
)
from tests.unit.held_store import CALLER, Call, answers, batching, op, send, settled

FREEING: list[Operation] = [
    Commit("a", CALLER),
    Release("a", CALLER),
    Extend("a", CALLER, 1_000),
    GetReservation("a", CALLER),
    GetStock(("mug",)),
    PutItem("r", CALLER, "mug"),
    AdjustStock("r", CALLER, "mug", 1),
    SetStock("r", CALLER, "mug", 1),
]


def overload(batcher: Batcher) -> None:
    batcher.gauge = LoadGauge(draw=lambda: 0.5, load=ServerLoad.OVERLOADED)


def decide(call: Call) -> None:
    """Answer each operation with its place in the batch as its sequence."""
    outcomes: list[Answer] = [Outcome(Code.OK, place, 0) for place in range(len(call.operations))]
    call.answer.set_result(BatchResult(outcomes, 0, 1, False))


@pytest.mark.parametrize("load", [ServerLoad.NORMAL, ServerLoad.HIGH])
async def test_a_server_that_is_not_overloaded_takes_reserves(load: ServerLoad) -> None:
    async with batching() as (batcher, store):
        batcher.gauge = LoadGauge(load=load)
        tasks = await send(batcher, "a")
        store.calls[0].succeed()
        assert await answers(tasks) == ["a"]
        assert batcher.counters.shed == 0


async def test_an_overloaded_server_refuses_a_reserve_before_it_waits() -> None:
    async with batching() as (batcher, store):
        overload(batcher)
        with pytest.raises(Overloaded) as refusal:
            await batcher.execute(op("a"))
        assert refusal.value.retry_after_ms == 500
        assert (store.calls, batcher.queue_len, batcher.counters.shed) == ([], 0, 1)
        assert batcher.counters.overloaded == 0  # which counts a queue that was full


@pytest.mark.parametrize("operation", FREEING, ids=lambda operation: type(operation).__name__)
async def test_an_overloaded_server_takes_all_else(operation: Operation) -> None:
    async with batching() as (batcher, store):
        overload(batcher)
        task = asyncio.create_task(batcher.execute(operation))
        decide(await store.next())
        assert (await task).code == Code.OK
        assert batcher.counters.shed == 0


async def test_of_a_frame_the_reserves_are_refused_and_the_rest_is_decided_in_order() -> None:
    async with batching() as (batcher, store):
        overload(batcher)
        commit, release = Commit("x", CALLER), Release("y", CALLER)
        frame: list[Operation] = [op("a"), commit, op("b"), op("c"), release]
        task = asyncio.create_task(batcher.execute_many(frame))
        call = await store.next()
        assert call.operations == [commit, release]
        decide(call)
        found = await task
        refused, decided = found[:1] + found[2:4], [found[1], found[4]]
        assert all(isinstance(answer, Overloaded) for answer in refused)
        assert [answer.sequence for answer in decided if isinstance(answer, Outcome)] == [0, 1]
        assert batcher.counters.shed == 3


async def test_a_frame_of_nothing_but_reserves_is_answered_without_a_batch() -> None:
    async with batching() as (batcher, store):
        overload(batcher)
        found = await batcher.execute_many([op("a"), op("b")])
        assert [type(answer) for answer in found] == [Overloaded, Overloaded]
        assert store.calls == []


async def test_what_an_overloaded_server_takes_keeps_the_bound_of_the_queue() -> None:
    async with batching(lanes=1, queue_len_max=1) as (batcher, store):
        overload(batcher)
        tasks = []
        for _ in range(2):
            tasks.append(asyncio.create_task(batcher.execute(FREEING[0])))
            await settled()
        with pytest.raises(Overloaded, match="the limit is 1"):
            await batcher.execute(FREEING[0])
        for task in tasks:
            decide(await store.next())
            await task


async def test_an_overloaded_server_that_stops_says_so() -> None:
    async with batching() as (batcher, _store):
        overload(batcher)
        await batcher.drain()
        with pytest.raises(Draining):
            await batcher.execute(op("a"))


async def test_an_idle_engine_has_no_delays() -> None:
    async with batching() as (batcher, store):
        tasks = await send(batcher, "a")
        store.calls[0].succeed()
        await answers(tasks)
        await settled()
        assert batcher.delays_at(asyncio.get_running_loop().time() + 60) == Delays()


async def test_delays_are_those_of_the_oldest_that_waits_and_of_the_oldest_in_flight() -> None:
    async with batching(lanes=2, lane_operations_min=1) as (batcher, store):
        began_s = asyncio.get_running_loop().time()
        tasks = await send(batcher, "a", "b")
        tasks += await send(batcher, "c")
        tasks += await send(batcher, "d")
        ended_s = asyncio.get_running_loop().time()
        assert len(store.calls) == 2
        delays = batcher.delays_at(began_s + 60)
        least_ms = (60 - (ended_s - began_s)) * 1000
        assert least_ms <= delays.queue_wait_ms <= delays.round_trip_ms <= 60_000
        for index in range(3):
            store.calls[index].succeed()
            await settled()
        await answers(tasks)


async def test_a_batch_that_landed_tells_the_round_trip_while_the_next_is_in_flight() -> None:
    async with batching(lanes=1) as (batcher, store):
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        tasks = await send(batcher, "a")
        tasks += await send(batcher, "b")
        store.calls[0].succeed()
        await settled()
        assert len(store.calls) == 2
        round_trip_ms = batcher.delays_at(began_s).round_trip_ms
        assert 0 < round_trip_ms <= (loop.time() - began_s) * 1000
        store.calls[1].succeed()
        await answers(tasks)
