"""The newest levels in the order of their changes; and random histories of them, as told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast_server.pressure import Pressure
from holdfast_server.watch import watcher as watcher_module
from holdfast_server.watch.levels import EASED_MAX, Levels, mark_of
from holdfast_server.watch.watcher import Update, UpdateKind, Watcher
from tests.unit.shelves import (
    HOT,
    NOW_MS,
    Sent,
    batch,
    empty_levels,
    loaded,
    names,
    row,
    sent,
    taken,
)

SCARCE, LOW, NORMAL = Pressure.SCARCE, Pressure.LOW, Pressure.NORMAL


def test_what_changed_after_a_mark_comes_in_the_order_of_change() -> None:
    levels = loaded(row("a", 1), row("b", 3), row("c", 2))
    assert names(levels.since(0)) == ["a", "c", "b"]
    assert names(levels.since(mark_of(1))) == ["c", "b"]
    levels.apply(batch(row("a", 4)))
    assert names(levels.since(mark_of(2))) == ["b", "a"]
    assert names(levels.since(mark_of(0), {"a", "c"})) == ["c", "a"]
    assert levels.since(mark_of(4)) == []


def test_a_row_older_than_what_is_known_changes_nothing() -> None:
    levels = loaded(row("a", 5))
    levels.load([row("a", 4)], NOW_MS)
    assert levels.apply(batch(row("a", 3), last=3)) == []
    assert sent_now(levels.slot("a"), levels.level_of) == ("a", 5)


def sent_now(slot: object, encode: Callable[..., bytes]) -> tuple[str, int]:
    sku, revision, _pressure = encode(slot).decode().split()
    return sku, int(revision)


def test_a_level_is_serialised_once_until_it_changes() -> None:
    levels = loaded(row("a", 1))
    first = levels.level_of(levels.slot("a"))
    assert levels.level_of(levels.slot("a")) is first
    levels.apply(batch(row("a", 2)))
    assert levels.level_of(levels.slot("a")) is not first


def test_another_history_leaves_nothing_but_who_waits() -> None:
    levels = loaded(row("a", 5), row("b", 6))
    levels.slot("a").watchers.add(object())
    kept, generation = levels.slot("a"), levels.generation
    levels.restart()
    assert (len(levels), levels.mark, levels.generation) == (0, 0, generation + 1)
    levels.load([row("a", 1)], NOW_MS)
    levels.order()
    assert levels.slot("a") is kept
    assert names(levels.since(0)) == ["a"]


def test_an_item_nobody_waits_for_is_forgotten() -> None:
    levels = empty_levels()
    slot = levels.slot("none")
    assert levels.slot("none") is slot
    levels.forget(slot)
    assert levels.slot("none") is not slot


def test_a_signal_eases_step_by_step_without_an_entry() -> None:
    levels = loaded(row("a", 1, demand=HOT), row("b", 2))
    levels.level_of(levels.slot("a"))
    assert levels.ease(NOW_MS) == []
    for after_ms, pressure in ((10_000, LOW), (60_000, NORMAL)):
        assert names(levels.ease(NOW_MS + after_ms)) == ["a"]
        assert levels.sequence == 2
        assert names(levels.since(mark_of(2))) == ["a"]
        assert levels.level_of(levels.slot("a")) == f"a 1 {pressure.value}".encode()
        assert levels.ease(NOW_MS + after_ms) == []
    assert levels.ease(NOW_MS + 3_600_000) == []


def test_a_change_ends_the_easing_of_the_level_before() -> None:
    levels = loaded(row("a", 1, demand=HOT))
    levels.level_of(levels.slot("a"))
    levels.apply(batch(row("a", 2)))
    levels.level_of(levels.slot("a"))
    assert levels.ease(NOW_MS + 60_000) == []


def test_signals_that_ease_never_reach_the_next_sequence() -> None:
    levels = loaded(row("a", 1, demand=HOT))
    levels.level_of(levels.slot("a"))
    levels.mark += EASED_MAX
    assert levels.ease(NOW_MS + 60_000) == []
    assert levels.sequence == 1
    levels.apply(batch(row("b", 2)))
    assert names(levels.ease(NOW_MS + 60_000)) == ["a"]


# ---- Random histories ----

SKUS = tuple("abcdefgh")
PART = 2


@dataclass
class Reader:
    """A watcher, what it was told, and what it must know."""

    watcher: Watcher
    skus: tuple[str, ...]
    through: int = 0
    knows: dict[str, Sent] = field(default_factory=dict)

    def take(self, truth: dict[str, int]) -> None:
        """Take one message, if there is one, and judge it against the ledger."""
        update = self.watcher.take()
        if update is None:
            return
        self._follow(update)
        told = sent(update)
        assert len({one.sku for one in told}) == len(told)
        for one in told:
            assert self.knows.get(one.sku) != one, "told twice"
            assert one.revision == truth[one.sku]
            self.knows[one.sku] = one
        if update.through_sequence > update.from_sequence or update.kind is UpdateKind.HEARTBEAT:
            due = {sku: at for sku, at in truth.items() if not self.skus or sku in self.skus}
            known = {sku: one.revision for sku, one in self.knows.items()}
            assert known == due, "through without a change"

    def _follow(self, update: Update) -> None:
        assert update.from_sequence == self.through
        assert update.through_sequence >= update.from_sequence
        assert update.conflated >= 0
        if update.through_sequence:
            assert update.resume == update.through_sequence
        self.through = update.through_sequence

    def resume(self, levels: Levels) -> None:
        """Go on after the last token, on another stream."""
        self.watcher.close()
        self.watcher = Watcher(levels, self.skus)
        if self.through:
            self.watcher.resume(self.through)
            # What the parts of a message told before the cut may come again, and what has eased
            # since: a token is a sequence, and a signal eases without one.
            old = mark_of(self.through)
            self.knows = {
                sku: one if levels.slot(sku).mark <= old else one._replace(pressure=Pressure(5))
                for sku, one in self.knows.items()
            }
        else:
            self.knows = {}

    def go_on(self, history: History, kind: str, *values: Any) -> None:
        if kind == "beat":
            self.watcher.is_beat_due = True
        elif kind == "resume":
            self.resume(history.levels)
        elif kind == "take":
            for _ in range(values[0]):
                self.take(history.truth)


step = st.one_of(
    st.tuples(st.just("change"), st.sets(st.sampled_from(SKUS), min_size=1), st.booleans()),
    st.tuples(st.just("ease"), st.integers(0, 30_000)),
    st.tuples(st.just("reload"), st.sets(st.sampled_from(SKUS))),
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(st.just("beat")),
    st.tuples(st.just("resume")),
)


class History:
    """Levels that change as a test says, and the ledger beside them."""

    def __init__(self) -> None:
        self.levels = empty_levels()
        self.sequence, self.now_ms = 0, NOW_MS
        self.truth: dict[str, int] = {}
        self.rows: dict[str, tuple[bytes, bytes]] = {}

    def change(self, skus: set[str], *, is_hot: bool) -> None:
        first = self.sequence + 1
        rows = []
        for sku in sorted(skus):
            self.sequence += 1
            self.truth[sku] = self.sequence
            self.rows[sku] = row(sku, self.sequence, demand=HOT if is_hot else 0)
            rows.append(self.rows[sku])
        if self.levels.is_ready:
            news = batch(*rows, first=first, last=self.sequence, now_ms=self.now_ms)
            self.levels.apply(news)

    def go_on(self, kind: str, *values: Any) -> None:
        if kind == "change":
            self.change(values[0], is_hot=values[1])
        elif kind == "ease":
            self.now_ms += values[0]
            self.levels.ease(self.now_ms)
        elif kind == "reload":
            self.reload(values[0])

    def reload(self, missed: set[str]) -> None:
        """Miss the changes of some items, and read all again."""
        self.levels.is_ready = False
        if missed:
            self.change(missed, is_hot=False)
        self.levels.load(self.rows.values(), self.now_ms)
        self.levels.order()
        self.levels.reach(self.sequence)
        self.levels.is_ready = True


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=40))
@example(
    [
        ("change", {"a"}, False),
        ("ease", 4_231),
        ("change", {"a", "b", "c"}, True),
        ("take", 2),
        ("change", {"a"}, False),
        ("ease", 4_230),
        ("take", 1),
        ("resume",),
    ]
)
async def test_no_history_breaks_the_chain_or_hides_a_change(steps: list[Any]) -> None:
    parts, narrow = watcher_module.PART_LEVELS_MAX, watcher_module.NARROW_SKUS_MAX
    watcher_module.PART_LEVELS_MAX, watcher_module.NARROW_SKUS_MAX = PART, 3
    try:
        play(steps)
    finally:
        watcher_module.PART_LEVELS_MAX, watcher_module.NARROW_SKUS_MAX = parts, narrow


def play(steps: list[Any]) -> None:
    history = History()
    filters: list[tuple[str, ...]] = [(), SKUS[:1], SKUS[:3], SKUS[1:7]]
    readers = [Reader(Watcher(history.levels, skus), skus) for skus in filters]
    for kind, *values in steps:
        history.go_on(kind, *values)
        for reader in readers:
            reader.go_on(history, kind, *values)
    for reader in readers:
        while reader.through < history.sequence or reader.watcher.is_within_parts:
            reader.go_on(history, "beat")
            reader.take(history.truth)


async def test_a_reader_without_changes_hears_of_none() -> None:
    levels = loaded(row("a", 1))
    assert taken(Watcher(levels, ("b",)))[:3] == (UpdateKind.SNAPSHOT, 0, 1)
