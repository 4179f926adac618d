"""Too much that is not archived: when it is, and who is still let in."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.engine.backlog import Backlog
from holdfast_server.engine.load import LoadGauge, ServerLoad
from holdfast_server.errors import Overloaded
from holdfast_server.model import (
    AdjustStock,
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
from tests.unit.held_store import CALLER, batching, op
from tests.unit.test_batcher_load import decide

GROWING: list[Operation] = [
    op("a"),
    PutItem("r", CALLER, "mug"),
    AdjustStock("r", CALLER, "mug", 1),
    SetStock("r", CALLER, "mug", 1),
]
ENDING: list[Operation] = [
    Commit("a", CALLER),
    Release("a", CALLER),
    Extend("a", CALLER, 1_000),
    GetReservation("a", CALLER),
    GetStock(("mug",)),
]


def kind(operation: Operation) -> str:
    return type(operation).__name__


def exceeded(*, is_blocking: bool = True) -> Backlog:
    backlog = Backlog(100, is_blocking)
    backlog.observe(101)
    return backlog


def test_a_backlog_is_exceeded_above_its_bound_until_it_is_well_below() -> None:
    backlog = Backlog(100)
    found = []
    for entries in (100, 101, 100, 91, 90, 100):
        backlog.observe(entries)
        found.append(backlog.is_exceeded)
    assert found == [False, True, True, True, False, False]


@pytest.mark.parametrize("operation", GROWING, ids=kind)
async def test_beyond_the_backlog_what_lets_it_grow_is_refused(operation: Operation) -> None:
    async with batching() as (batcher, store):
        batcher.backlog = exceeded()
        with pytest.raises(Overloaded, match="101 ledger entries are not archived") as refusal:
            await batcher.execute(operation)
        assert "the limit is 100" in str(refusal.value)
        assert refusal.value.retry_after_ms == 2_000
        assert (store.calls, batcher.counters.shed) == ([], 1)


@pytest.mark.parametrize("operation", ENDING, ids=kind)
async def test_beyond_the_backlog_what_ends_holds_and_reads_is_taken(operation: Operation) -> None:
    async with batching() as (batcher, store):
        batcher.backlog = exceeded()
        task = asyncio.create_task(batcher.execute(operation))
        decide(await store.next())
        assert (await task).code == Code.OK


async def test_a_backlog_that_only_counts_takes_all_and_counts_what_lets_it_grow() -> None:
    async with batching() as (batcher, store):
        batcher.backlog = exceeded(is_blocking=False)
        frame = [*GROWING, *ENDING]
        task = asyncio.create_task(batcher.execute_many(frame))
        decide(await store.next())
        assert all(isinstance(answer, Outcome) for answer in await task)
        assert batcher.backlog.taken == len(GROWING)
        assert batcher.counters.shed == 0


async def test_an_overloaded_server_with_too_much_to_archive_refuses_for_either() -> None:
    async with batching() as (batcher, _store):
        batcher.backlog = exceeded()
        batcher.gauge = LoadGauge(load=ServerLoad.OVERLOADED)
        found = await batcher.execute_many(GROWING)
        assert [type(answer) for answer in found] == [Overloaded] * len(GROWING)
        assert "new reservations are refused" in str(found[0])
        assert "are not archived" in str(found[1])
