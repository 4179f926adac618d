"""One watch: the chain of its messages, parts, pace, and what it keeps."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from holdfast_server.watch.levels import mark_of
from holdfast_server.watch.watcher import PART_LEVELS_MAX, Ending, Pace, UpdateKind, Watcher
from tests.unit.shelves import Sent, batch, begun, loaded, row, sent, take_all, taken

MANY = 2 * PART_LEVELS_MAX + 1
SKUS = tuple(f"sku {number}".replace(" ", "-") for number in range(1, MANY + 1))
PACED = Pace(min_interval_s=3600.0)


def spans(updates: list) -> list[tuple[UpdateKind, int, int]]:  # type: ignore[type-arg]
    return [update[:3] for update in updates]


async def test_a_watch_says_what_is_there_once_and_then_nothing() -> None:
    watcher = Watcher(loaded(row("a", 1), row("b", 2)), ())
    assert spans(take_all(watcher)) == [(UpdateKind.SNAPSHOT, 0, 2)]
    assert watcher.take() is None


async def test_changes_follow_on_what_was_said() -> None:
    levels = loaded(row("a", 1), row("b", 2))
    watcher = begun(levels, "a")
    levels.apply(batch(row("b", 3)))
    assert watcher.take() is None
    levels.apply(batch(row("a", 4)))
    levels.apply(batch(row("a", 5)))
    update = taken(watcher)
    assert update[:4] == (UpdateKind.CHANGES, 2, 5, 5)
    assert [(one.sku, one.revision) for one in sent(update)] == [("a", 5)]
    assert update.conflated == 1


async def test_a_heartbeat_due_says_up_to_where_nothing_happened() -> None:
    levels = loaded(row("a", 1), row("b", 2))
    watcher = begun(levels, "a")
    levels.apply(batch(row("b", 3)))
    watcher.is_beat_due = True
    assert taken(watcher)[:4] == (UpdateKind.HEARTBEAT, 2, 3, 3)
    assert watcher.take() is None


async def test_a_change_goes_before_a_heartbeat_that_is_due() -> None:
    levels = loaded(row("a", 1))
    watcher = begun(levels, "a")
    watcher.is_beat_due = True
    levels.apply(batch(row("a", 2)))
    assert taken(watcher).kind is UpdateKind.CHANGES
    assert watcher.take() is None


# ---- Pace ----


async def test_a_heartbeat_is_sent_while_changes_wait_and_promises_nothing() -> None:
    levels = loaded(row("a", 1))
    watcher = begun(levels, "a", pace=PACED)
    levels.apply(batch(row("a", 2)))
    assert watcher.take() is None
    watcher.is_beat_due = True
    assert taken(watcher)[:4] == (UpdateKind.HEARTBEAT, 1, 1, 1)
    assert watcher.take() is None
    watcher.pace = Pace()
    assert taken(watcher)[:3] == (UpdateKind.CHANGES, 1, 2)


async def test_a_heartbeat_does_not_put_off_the_changes_that_wait() -> None:
    levels = loaded(row("a", 1))
    watcher = begun(levels, "a", pace=PACED)
    told_at = watcher.sent_at
    levels.apply(batch(row("a", 2)))
    watcher.sent_at = told_at + 3600.0  # a heartbeat was sent an hour later
    watcher.pace = Pace(min_interval_s=1e-9)
    assert taken(watcher).kind is UpdateKind.CHANGES


async def test_a_watch_that_waits_for_its_time_keeps_one_timer_and_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    begin, timers = loop.call_at, []

    def call_at(*args: object, **kwargs: object) -> asyncio.TimerHandle:
        timers.append(begin(*args, **kwargs))  # type: ignore[arg-type]
        return timers[-1]

    monkeypatch.setattr(loop, "call_at", call_at)
    levels = loaded(row("a", 1))
    watcher = begun(levels, "a", pace=PACED)
    for revision in range(2, 12):
        levels.apply(batch(row("a", revision)))
        assert watcher.take() is None
    assert [timer.cancelled() for timer in timers].count(False) == 1
    watcher.close()
    assert all(timer.cancelled() for timer in timers)


async def test_a_watch_that_was_closed_is_forgotten() -> None:
    levels = loaded(row("a", 1))
    watcher = begun(levels, "a", "later", pace=PACED)
    levels.apply(batch(row("a", 2)))
    watcher.take()
    left = weakref.ref(watcher)
    watcher.close()
    del watcher
    gc.collect()
    assert left() is None
    assert not levels.slot("a").watchers


# ---- Parts ----


async def test_a_large_snapshot_comes_in_parts_of_500() -> None:
    levels = loaded(*(row(sku, number) for number, sku in enumerate(SKUS, 1)))
    updates = take_all(Watcher(levels, SKUS))
    assert spans(updates) == [
        (UpdateKind.SNAPSHOT, 0, 0),
        (UpdateKind.SNAPSHOT, 0, 0),
        (UpdateKind.SNAPSHOT, 0, MANY),
    ]
    assert [update.resume for update in updates] == [None, None, MANY]
    assert [len(update.levels) for update in updates] == [500, 500, 1]
    assert len({one.sku for update in updates for one in sent(update)}) == MANY


async def test_what_changes_during_the_parts_is_in_the_last_one() -> None:
    levels = loaded(*(row(sku, number) for number, sku in enumerate(SKUS, 1)))
    watcher = Watcher(levels, ())
    first = taken(watcher)
    levels.apply(batch(row(sent(first)[0].sku, MANY + 1)))
    rest = take_all(watcher)
    assert rest[-1].through_sequence == MANY + 1
    told = {one.sku: one.revision for update in (first, *rest) for one in sent(update)}
    assert told[sent(first)[0].sku] == MANY + 1
    assert len(told) == MANY


async def test_a_level_that_a_part_sent_in_its_newest_state_is_not_sent_again() -> None:
    levels = loaded(*(row(sku, number) for number, sku in enumerate(SKUS, 1)))
    watcher = Watcher(levels, ())
    first = taken(watcher)
    among_second = SKUS[PART_LEVELS_MAX]
    levels.apply(batch(row(among_second, MANY + 1)))
    told = [one for update in (first, *take_all(watcher)) for one in sent(update)]
    assert [one.revision for one in told if one.sku == among_second] == [MANY + 1]
    assert len(told) == len(set(told)) == MANY


async def test_parts_end_also_while_everything_keeps_changing() -> None:
    levels = loaded(*(row(sku, number) for number, sku in enumerate(SKUS, 1)))
    watcher, revision = Watcher(levels, ()), MANY
    updates = [taken(watcher)]
    while not updates[-1].through_sequence:
        levels.apply(batch(*(row(sku, revision + n) for n, sku in enumerate(SKUS, 1))))
        revision += MANY
        updates.append(taken(watcher))
    assert updates[-1].through_sequence == revision
    assert len(updates) < 12
    told = {one.sku: one.revision for update in updates for one in sent(update)}
    assert set(told.values()) == set(range(revision - MANY + 1, revision + 1))


async def test_parts_of_changes_resume_before_the_first() -> None:
    levels = loaded(*(row(sku, number) for number, sku in enumerate(SKUS, 1)))
    watcher = begun(levels)
    levels.apply(batch(*(row(sku, MANY + n) for n, sku in enumerate(SKUS, 1))))
    updates = take_all(watcher)
    assert [update[:4] for update in updates] == [
        (UpdateKind.CHANGES, MANY, MANY, MANY),
        (UpdateKind.CHANGES, MANY, MANY, MANY),
        (UpdateKind.CHANGES, MANY, 2 * MANY, 2 * MANY),
    ]


# ---- Resume, and the end ----


async def test_a_resume_tells_what_changed_after_the_token() -> None:
    levels = loaded(row("a", 1), row("b", 3), row("c", 2))
    for skus in ((), ("a", "b", "c"), ("c", "no", *SKUS[:70], "b")):
        watcher = Watcher(levels, skus)
        watcher.resume(2)
        update = taken(watcher)
        assert update[:4] == (UpdateKind.CHANGES, 2, 3, 3)
        assert [one.sku for one in sent(update)] == ["b"]


async def test_a_resume_with_nothing_new_says_so_at_once_and_names_what_is_missing() -> None:
    watcher = Watcher(loaded(row("a", 1)), ("a", "none"))
    watcher.resume(1)
    update = taken(watcher)
    assert update[:4] == (UpdateKind.HEARTBEAT, 1, 1, 1)
    assert update.missing == ("none",)
    assert watcher.take() is None


async def test_an_end_goes_before_everything_and_resumes_where_the_reader_is() -> None:
    levels = loaded(row("a", 1))
    watcher = begun(levels, "a")
    levels.apply(batch(row("a", 2)))
    watcher.ending = Ending.DRAINING
    assert taken(watcher)[:4] == (UpdateKind.END, 1, 1, 1)


async def test_levels_that_are_not_ready_say_nothing() -> None:
    levels = loaded(row("a", 1))
    watcher = begun(levels, "a")
    levels.apply(batch(row("a", 2)))
    levels.is_ready = False
    assert watcher.take() is None
    levels.is_ready = True
    assert taken(watcher).kind is UpdateKind.CHANGES


async def test_another_history_needs_a_new_snapshot() -> None:
    levels = loaded(row("a", 5), row("b", 6))
    watcher = begun(levels, "a", "b")
    levels.restart()
    levels.load([row("a", 1)], 0)
    levels.order()
    levels.reach(1)
    assert watcher.take() is None
    watcher.restart()
    update = taken(watcher)
    assert update[:4] == (UpdateKind.SNAPSHOT, 0, 1, 1)
    assert update.missing == ("b",)
    assert levels.mark == mark_of(1)


async def test_each_reader_gets_the_same_bytes() -> None:
    levels = loaded(row("a", 1))
    one, other = taken(Watcher(levels, ("a",))), taken(Watcher(levels, ()))
    assert one.levels[0] is other.levels[0]
    assert sent(one)[0][:2] == Sent("a", 1, sent(one)[0].pressure)[:2]
