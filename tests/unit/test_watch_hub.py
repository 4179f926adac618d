"""Who is woken by what, how the levels are read, and what a tick looks after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from holdfast_server.errors import Overloaded, StoreUnavailable
from holdfast_server.model import Head, LedgerBreak, Position
from holdfast_server.watch import hub as hub_module
from holdfast_server.watch import tail as tail_module
from holdfast_server.watch.hub import Hub, HubLimits
from holdfast_server.watch.watcher import Ending, Pace, Update, UpdateKind, Watcher
from tests.unit.scripted import ScriptedStore, hub_of, settled
from tests.unit.shelves import EPOCH, HOT, NOW_MS, batch, row, sent, take_all, taken

MANY = tuple(f"sku-{number}" for number in range(100))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries come at once, and ticks only when a test makes one."""
    monkeypatch.setattr(hub_module, "RETRY_S", 0.0)
    monkeypatch.setattr(tail_module, "RETRY_S", 0.0)
    monkeypatch.setattr(hub_module, "TICK_S", 3600.0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def watching(hub: Hub, stack: ExitStack, *skus: str, pace: Pace | None = None) -> Watcher:
    return stack.enter_context(hub.watching(skus, pace or Pace()))


def revisions(updates: list[Update]) -> dict[str, int]:
    return {one.sku: one.revision for update in updates for one in sent(update)}


# ---- How the levels are read ----


async def test_what_changes_while_the_items_are_read_is_not_lost(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1)], [row("b", 2)], sequence=2)
    store.is_open.clear()
    async with hub_of(store) as hub:
        ready = asyncio.create_task(hub.ready())
        await store.is_paging.wait()
        # After its page was read; the other page is older than what the ledger says.
        store.say(batch(row("a", 3)), batch(row("b", 4)))
        await settled()
        store.is_open.set()
        await ready
        update = taken(watching(hub, stack))
        assert update[:3] == (UpdateKind.SNAPSHOT, 0, 4)
        assert revisions([update]) == {"a": 3, "b": 4}


async def test_levels_newer_than_the_tail_wait_for_it(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 3)], sequence=1)
    store.is_open.clear()
    async with hub_of(store) as hub:
        ready = asyncio.create_task(hub.ready())
        await store.is_paging.wait()
        store.end = Head(EPOCH, 3, 1, NOW_MS)
        store.is_open.set()
        store.say(batch(row("b", 2)))
        await settled()
        assert not ready.done()
        store.say(batch(row("a", 3)))
        await ready
        update = taken(watching(hub, stack))
        assert (update.through_sequence, revisions([update])) == (3, {"a": 3, "b": 2})


async def test_items_of_another_history_are_never_told(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 5)], sequence=5)
    store.is_open.clear()
    async with hub_of(store) as hub:
        ready = asyncio.create_task(hub.ready())
        await store.is_paging.wait()
        store.end = Head(EPOCH + 1, 1, 1, NOW_MS)
        store.is_open.set()
        await settled()
        assert not ready.done()  # the tail still follows the history that is gone
        store.pages = [[row("b", 1)]]
        store.say(LedgerBreak.EPOCH)
        await ready
        update = taken(watching(hub, stack))
        assert (hub.levels.epoch, update[:3]) == (EPOCH + 1, (UpdateKind.SNAPSHOT, 0, 1))
        assert revisions([update]) == {"b": 1}


async def test_trimmed_entries_are_made_up_for_on_the_same_stream(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1), row("b", 2)], sequence=2)
    async with hub_of(store) as hub:
        await hub.ready()
        watchers = [watching(hub, stack, "a", "b"), watching(hub, stack)]
        for watcher in watchers:
            take_all(watcher)
        store.pages, store.end = [[row("a", 7), row("b", 2)]], Head(EPOCH, 7, 8, NOW_MS)
        store.say(LedgerBreak.TRIMMED)
        await settled()
        for watcher in watchers:
            update = taken(watcher)
            assert update[:4] == (UpdateKind.CHANGES, 2, 7, 7)
            assert revisions([update]) == {"a": 7}


async def test_a_store_that_cannot_be_read_is_asked_again(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    heads = iter([Head(EPOCH, 1, 1, NOW_MS), StoreUnavailable("away"), StoreUnavailable("away")])

    async def head() -> Head:
        answer = next(heads, store.end)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    store.head = head  # type: ignore[method-assign]
    async with hub_of(store) as hub:
        await hub.ready()
        assert revisions([taken(watching(hub, stack))]) == {"a": 1}


async def test_a_watch_that_the_store_keeps_waiting_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "READY_S_MAX", 0.01)
    store = ScriptedStore([row("a", 1)], sequence=1)
    store.is_open.clear()
    async with hub_of(store) as hub:
        with pytest.raises(StoreUnavailable):
            await hub.ready()


async def test_ready_means_ready_when_the_caller_runs_again() -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store) as hub:
        await hub.ready()
        store.is_open.clear()
        hub.on_break(LedgerBreak.EPOCH)
        again = asyncio.create_task(hub.ready())
        await settled()
        hub._ready.set()
        hub._ready.clear()  # the next break, before the caller ran again
        await settled()
        assert not again.done()
        store.is_open.set()
        await again
        assert hub.levels.is_ready


async def test_a_watch_begins_with_what_this_process_has_answered() -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store) as hub:
        await hub.ready()
        store.known = Position(EPOCH, 2)  # answered, and the tail has not heard of it
        begins = asyncio.create_task(hub.ready())
        await settled()
        assert not begins.done()
        store.say(batch(row("a", 2)))
        await begins
        assert hub.levels.sequence == 2


async def test_a_watch_does_not_wait_for_another_history() -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store) as hub:
        await hub.ready()
        store.known = Position(EPOCH + 1, 2)
        begins = asyncio.create_task(hub.ready())
        await settled()
        assert begins.done()


# ---- Who is woken ----


async def woken(hub: Hub, store: ScriptedStore, *watchers: Watcher, change: str) -> list[bool]:
    """Return which watchers a change of an item wakes."""
    waits = [asyncio.create_task(watcher.wait()) for watcher in watchers]
    await settled()
    store.say(batch(row(change, hub.levels.sequence + 1)))
    await settled()
    done = [wait.done() for wait in waits]
    for wait in waits:
        wait.cancel()
    await settled()
    return done


async def test_a_change_wakes_only_who_watches_the_item(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1), row("b", 2)], sequence=2)
    async with hub_of(store) as hub:
        await hub.ready()
        watchers = [
            watching(hub, stack, "a"),
            watching(hub, stack, "b", "none"),
            watching(hub, stack),
            watching(hub, stack, *MANY, "b"),
        ]
        assert await woken(hub, store, *watchers, change="a") == [True, False, True, False]
        assert await woken(hub, store, *watchers, change="b") == [False, True, True, True]
        assert await woken(hub, store, *watchers, change="none") == [False, True, True, False]
        assert await woken(hub, store, *watchers, change=MANY[3]) == [False, False, True, True]


async def test_a_crowd_is_woken_to_the_last_one(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store) as hub:
        await hub.ready()
        crowd = [watching(hub, stack, "a") for _ in range(3 * hub_module.WAKE_SLICE + 1)]
        assert all(await woken(hub, store, *crowd, change="a"))


# ---- Limits, ticks and the end ----


async def test_a_watch_beyond_the_limit_is_refused_and_one_that_left_makes_room() -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store, HubLimits(watches_max=1)) as hub:
        await hub.ready()
        with hub.watching((), Pace()):
            assert len(hub) == 1
            with pytest.raises(Overloaded), hub.watching(("a",), Pace()):
                pass
        with hub.watching(("a",), Pace()):
            pass
        assert len(hub) == 0


async def test_a_tick_beats_for_who_was_silent_and_ends_who_is_old(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store, HubLimits(age_s_max=100.0)) as hub:
        await hub.ready()
        store.say(batch(last=1, first=2))
        await settled()
        watchers = [watching(hub, stack, "a", pace=Pace(0.0, beat)) for beat in (5.0, 50.0)]
        for watcher in watchers:
            take_all(watcher)
        now = asyncio.get_running_loop().time()
        hub._tick(now + 6.0)
        assert [watcher.take() is None for watcher in watchers] == [False, True]
        hub._tick(now + 96.0)
        for watcher in watchers:
            assert taken(watcher).ending is Ending.MAX_AGE


async def test_a_tick_ends_every_watch_of_a_store_that_says_nothing(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store, stale_s=0.0) as hub:
        await hub.ready()
        watcher = watching(hub, stack, "a")
        take_all(watcher)
        now = asyncio.get_running_loop().time()
        hub._ticked_at = now - 4.1 * hub_module.TICK_S
        hub._tick(now)  # late: the process itself was held up, and heard nothing for that
        assert watcher.take() is None
        hub._tick(now + 0.1)
        assert taken(watcher).ending is Ending.STORE_UNAVAILABLE


async def test_a_tick_cuts_only_a_write_that_takes_too_long(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store, HubLimits(blocked_s_max=30.0)) as hub:
        await hub.ready()
        now = asyncio.get_running_loop().time()

        async def write() -> None:
            with hub.watching(("a",), Pace()) as watcher:
                watcher.writing_since = now
                await asyncio.Event().wait()

        writing = asyncio.create_task(write())
        await settled()
        hub._tick(now + 30.0)
        await settled()
        assert not writing.done()
        hub._tick(now + 30.1)
        await asyncio.wait({writing})
        assert writing.cancelled()
        assert len(hub) == 0


async def test_a_signal_that_passes_with_time_wakes_its_reader(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1, demand=HOT)], sequence=1)
    async with hub_of(store) as hub:
        await hub.ready()
        watcher = watching(hub, stack, "a")
        take_all(watcher)
        eased = hub.levels.ease(NOW_MS + 60_000)
        hub._tell(eased)
        update = taken(watcher)
        assert update[:3] == (UpdateKind.CHANGES, 1, 1)


async def test_the_end_of_all_waits_until_each_was_told(stack: ExitStack) -> None:
    store = ScriptedStore([row("a", 1)], sequence=1)
    async with hub_of(store) as hub:
        await hub.ready()

        async def serve() -> Ending | None:
            with hub.watching(("a",), Pace()) as watcher:
                while (update := watcher.take()) is None or update.ending is None:
                    if update is None:
                        await watcher.wait()
                return update.ending

        serving = [asyncio.create_task(serve()) for _ in range(3)]
        await settled()
        ending = asyncio.create_task(hub.end_all(Ending.DRAINING))
        assert [await one for one in serving] == [Ending.DRAINING] * 3
        await ending
        late = watching(hub, stack)
        assert taken(late).ending is Ending.DRAINING
