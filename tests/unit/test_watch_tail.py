"""The one reader of the ledger: where it begins, goes on, and begins again."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.errors import StoreUnavailable
from holdfast_server.model import Head, LedgerBreak, Position
from holdfast_server.watch import tail as tail_module
from tests.unit.scripted import Heard, ScriptedStore, following, settled
from tests.unit.shelves import EPOCH, NOW_MS, batch, row

HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "RETRY_S", 0.0)


async def test_nothing_is_read_before_somebody_wants_it() -> None:
    store = ScriptedStore(sequence=4)
    async with following(store) as tail:
        await settled()
        assert store.followed == []
        tail.want()
        await tail.begun.wait()
        await settled()
        assert store.followed == [Position(EPOCH, 4)]


async def test_every_reader_hears_every_batch_in_order() -> None:
    store, one, other = ScriptedStore(sequence=4), Heard(), Heard()
    batches = [batch(row("a", 5)), batch(row("b", 6), last=8), batch(last=8, first=9)]
    async with following(store) as tail:
        tail.add(one)
        tail.add(other)
        store.say(*batches)
        await settled()
        assert one.told == other.told == batches
        assert tail.position == (EPOCH, 8)


async def test_a_fault_of_the_store_loses_nothing() -> None:
    store, heard = ScriptedStore(sequence=4), Heard()
    async with following(store) as tail:
        tail.add(heard)
        store.say(batch(row("a", 5)), StoreUnavailable("away"), StoreUnavailable("still away"))
        store.say(batch(row("a", 6)))
        await settled()
        assert store.followed == [Position(EPOCH, at) for at in (4, 5, 5)]
        assert [one.last for one in heard.told if not isinstance(one, LedgerBreak)] == [5, 6]


async def test_after_a_break_it_begins_at_the_new_end_and_says_so() -> None:
    store, heard = ScriptedStore(sequence=4), Heard()
    async with following(store) as tail:
        tail.add(heard)
        await tail.begun.wait()
        store.end = Head(EPOCH + 1, 2, 1, NOW_MS)
        store.say(LedgerBreak.EPOCH)
        await settled()
        assert heard.told == [LedgerBreak.EPOCH]
        assert tail.begun.is_set()
        assert store.followed[-1] == tail.position == (EPOCH + 1, 2)


async def test_who_waits_for_a_sequence_is_told_when_it_is_reached() -> None:
    store = ScriptedStore(sequence=4)
    async with following(store) as tail:
        await tail.wait_beyond(4, 0.0)  # not reached, and no time to wait
        waits = [asyncio.create_task(tail.wait_beyond(at, 3600.0)) for at in (3, 4, 5)]
        await tail.begun.wait()
        store.say(batch(row("a", 5)))
        await settled()
        assert [wait.done() for wait in waits] == [True, True, False]
        waits[2].cancel()


async def test_it_is_current_and_knows_the_time_while_the_store_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As on a machine that has been up for long.
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 10 * HOUR_MS)
    store = ScriptedStore(sequence=4)
    async with following(store) as tail:
        assert not tail.is_current  # nothing heard yet
        tail.want()
        await tail.begun.wait()
        assert tail.is_current
        assert NOW_MS <= tail.now_ms < NOW_MS + HOUR_MS
        store.say(batch(last=4, first=5, now_ms=NOW_MS + HOUR_MS))
        await settled()
        assert NOW_MS + HOUR_MS <= tail.now_ms < NOW_MS + 2 * HOUR_MS
    async with following(ScriptedStore(), stale_s=0.0) as tail:
        assert not tail.is_current
