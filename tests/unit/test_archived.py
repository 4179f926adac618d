"""Answers that wait for the archive: who waits, for what, and what is not held up meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from holdfast_server.engine.archived import ArchivedBatcher
from holdfast_server.engine.batcher import Answer, BatchLimits
from holdfast_server.errors import HoldfastError, OutcomeUnknown
from holdfast_server.ledger.archiver import Progress
from holdfast_server.model import (
    BatchResult,
    Code,
    GetReservation,
    GetStock,
    Operation,
    Outcome,
    Position,
)
from tests.unit.held_store import CALLER, Call, HeldStore, answers, op, send, settled


class Decided:
    """How far the store is."""

    position = Position(1, 1)


@asynccontextmanager
async def archiving(
    timeout_s: float = 60,
) -> AsyncIterator[tuple[ArchivedBatcher, HeldStore, Progress]]:
    store, progress = HeldStore(), Progress()
    batcher = ArchivedBatcher(
        store=store,
        limits=BatchLimits(lanes=1),
        progress=progress,
        decided=lambda: Decided.position,
        timeout_s=timeout_s,
    )
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher, store, progress
    finally:
        task.cancel()
        await asyncio.wait({task})


def answer(call: Call, *found: Answer) -> None:
    call.answer.set_result(BatchResult(list(found), 0, 1, False))


async def test_an_answer_waits_until_the_archive_has_what_is_decided() -> None:
    async with archiving() as (batcher, store, progress):
        (task,) = await send(batcher, "a")
        store.calls[0].succeed()
        await settled()
        assert not task.done()
        progress.reach(Position(1, 1))
        assert await answers([task]) == ["a"]


async def test_the_wait_for_the_archive_holds_up_no_batch() -> None:
    async with archiving() as (batcher, store, progress):
        tasks = []
        for index, name in enumerate("aaa"):  # the same id, and a single lane
            tasks += await send(batcher, name)
            store.calls[index].succeed()
            await settled()
        assert not any(task.done() for task in tasks)
        progress.reach(Position(1, 1))
        assert await answers(tasks) == ["a", "a", "a"]


@pytest.mark.parametrize("operation", [GetStock(("mug",)), GetReservation("a", CALLER)])
async def test_a_read_does_not_wait_for_the_archive(operation: Operation) -> None:
    async with archiving() as (batcher, store, _progress):
        task = asyncio.create_task(batcher.execute(operation))
        answer(await store.next(), Outcome(Code.OK, 1, 0))
        assert (await task).code == Code.OK


async def test_what_is_not_archived_in_time_is_unknown() -> None:
    async with archiving(timeout_s=0) as (batcher, store, _progress):
        (task,) = await send(batcher, "a")
        store.calls[0].succeed()
        with pytest.raises(OutcomeUnknown, match="decided by 1, and not archived within 0 s"):
            await task


async def test_of_a_frame_only_what_may_have_changed_something_is_unknown() -> None:
    async with archiving(timeout_s=0) as (batcher, store, _progress):
        frame: list[Operation] = [op("a"), GetStock(("mug",)), op("b")]
        task = asyncio.create_task(batcher.execute_many(frame))
        failed = HoldfastError("it cannot be decided")
        read = Outcome(Code.OK, 1, 0)
        answer(await store.next(), Outcome(Code.OK, 1, 0), read, failed)
        unknown, *others = await task
        assert isinstance(unknown, OutcomeUnknown)
        assert others == [read, failed]


async def test_the_delay_tells_how_long_the_oldest_answer_waits_for_the_archive() -> None:
    async with archiving() as (batcher, store, progress):
        began_s = asyncio.get_running_loop().time()
        tasks = await send(batcher, "a")
        store.calls[0].succeed()
        await settled()
        ended_s = asyncio.get_running_loop().time()
        waited_ms = batcher.delays_at(began_s + 60).archive_ms
        assert (60 - (ended_s - began_s)) * 1000 <= waited_ms <= 60_000
        progress.reach(Position(1, 1))
        await answers(tasks)
        assert batcher.delays_at(began_s + 60).archive_ms == 0


async def test_an_entry_of_a_later_history_is_not_what_was_decided() -> None:
    async with archiving() as (batcher, store, progress):
        (task,) = await send(batcher, "a")
        store.calls[0].succeed()
        await settled()
        progress.reach(Position(2, 1))  # rebuilt without it, and its sequence given to another
        with pytest.raises(OutcomeUnknown):
            await task


async def test_what_was_decided_while_history_began_anew_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with archiving() as (batcher, store, progress):
        progress.reach(Position(2, 1))
        (task,) = await send(batcher, "a")
        monkeypatch.setattr(Decided, "position", Position(2, 1))
        store.calls[0].succeed()
        with pytest.raises(OutcomeUnknown):
            await task
