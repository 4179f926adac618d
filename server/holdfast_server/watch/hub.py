"""Who watches what, and when each is woken.

A change touches only the watchers that are idle: it wakes them, a few at a time, so that ten
thousand of them do not hold up the calls in between.  A watcher that is busy writing finds by
itself what came since, when it is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import uniform
from typing import NamedTuple, Protocol
from weakref import ReferenceType, ref

import structlog

from holdfast_server.errors import Overloaded, StoreFault, StoreUnavailable
from holdfast_server.model import Head, ItemRow, LedgerBatch, LedgerBreak, Position
from holdfast_server.watch.levels import Levels, Slot
from holdfast_server.watch.tail import RETRY_S, Tail
from holdfast_server.watch.watcher import Ending, Pace, Watcher

log = structlog.get_logger(__name__)

TICK_S = 0.25
LOOK_S_MIN, LOOK_S_MAX = 0.05, 2.0  # how soon, and how late, a watch is looked after again
WAKE_SLICE = 64
READY_S_MAX = 5.0
CATCH_UP_S_MAX = 1.0


class Shelves(Protocol):
    """What the hub needs of a store: all items, and where the ledger ends."""

    async def head(self) -> Head:
        """Return the end of the ledger."""
        ...

    def rows(self) -> AsyncIterator[list[ItemRow]]:
        """Yield all items in pages, each as it was when its page was read."""
        ...


class Answered(Protocol):
    """Who answers the calls of this process."""

    @property
    def known(self) -> Position:
        """Return the newest position that was answered."""
        ...


class _Due(NamedTuple):
    """When to look after a watch; the number keeps two of one moment in order."""

    at: float
    number: int
    watcher: ReferenceType[Watcher]  # one that has gone leaves nothing here but this


@dataclass(frozen=True)
class HubLimits:
    """Bounds of the watches of a process; an age of 0 is no limit."""

    watches_max: int = 20_000
    age_s_max: float = 0.0
    blocked_s_max: float = 30.0


class Hub:
    """Keeps the levels of a cell, and wakes who watches them.  Run it as a task."""

    def __init__(
        self,
        shelves: Shelves,
        tail: Tail,
        levels: Levels,
        *,
        answered: Answered,
        limits: HubLimits | None = None,
    ) -> None:
        self._shelves = shelves
        self._tail = tail
        self._answered = answered
        self._limits = limits or HubLimits()
        self.levels = levels
        self._watchers: set[Watcher] = set()
        self._broad: set[Watcher] = set()
        self._due: list[_Due] = []
        self._numbers = count()
        self._to_wake: deque[Watcher] = deque()
        self._has_calls = asyncio.Event()
        self._wanted = asyncio.Event()
        self._must_load = asyncio.Event()
        self._ready = asyncio.Event()
        self._ending: Ending | None = None
        self._ticked_at = 0.0
        self._deserted = asyncio.Event()

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def now_ms(self) -> int:
        """Return the time by the store's clock."""
        return self._tail.now_ms

    async def ready(self) -> None:
        """Wait until the levels are those of the store, with all that this process has answered.

        So whoever changes an item and then watches it begins with that change.  A tail that lags
        by more than a second is not waited for.  Raises StoreUnavailable.
        """
        self._wanted.set()
        try:
            async with asyncio.timeout(READY_S_MAX):
                while not self.levels.is_ready:  # it may have passed before this task runs again
                    await self._ready.wait()
        except TimeoutError:
            raise StoreUnavailable("the store cannot be followed", retry_after_ms=500) from None
        await self.reached(self._answered.known)

    async def reached(self, position: Position) -> None:
        """Wait until the levels are as of a position of their history, at most for a second."""
        if position.epoch == self.levels.epoch:
            await self._tail.wait_beyond(position.sequence - 1, CATCH_UP_S_MAX)

    @contextmanager
    def watching(self, skus: Sequence[str], pace: Pace) -> Iterator[Watcher]:
        """Follow some items, or all, inside the block.  Raises Overloaded."""
        limits = self._limits
        if len(self._watchers) >= limits.watches_max:
            words = f"{len(self._watchers)} watches are open, the limit is {limits.watches_max}"
            raise Overloaded(words, retry_after_ms=1_000)
        now = asyncio.get_running_loop().time()
        ends_at = now + limits.age_s_max * uniform(0.8, 0.95) if limits.age_s_max else 0.0
        watcher = Watcher(self.levels, skus, pace=pace, ends_at=ends_at)
        watcher.ending = self._ending
        self._watchers.add(watcher)
        if watcher.is_broad:
            self._broad.add(watcher)
        self._look_later(watcher, now)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._broad.discard(watcher)
            watcher.close()
            if not self._watchers:
                self._deserted.set()

    async def end_all(self, ending: Ending) -> None:
        """End every watch, and each that begins later; wait until their readers were told."""
        self._ending = ending
        for watcher in self._watchers:
            self._end(watcher, ending)
        if self._watchers:
            self._deserted.clear()
            await self._deserted.wait()

    # ---- What the tail says ----

    def on_batch(self, batch: LedgerBatch) -> None:
        """Take what a batch changed, and wake who watches it."""
        if changed := self.levels.apply(batch):
            self._tell(changed)

    def on_break(self, kind: LedgerBreak) -> None:
        """Read everything anew: what was missed, or another history."""
        self.levels.is_ready = False
        self._ready.clear()
        if kind in {LedgerBreak.EPOCH, LedgerBreak.ROLLBACK}:
            self.levels.restart()
        self._must_load.set()

    def _tell(self, changed: Sequence[Slot]) -> None:
        for slot in changed:
            self._call(slot.watchers)
        self._call([watcher for watcher in self._broad if watcher.wants(changed)])

    def _call(self, watchers: Iterable[Watcher]) -> None:
        """Wake those that wait, soon."""
        for watcher in watchers:
            if watcher.is_idle and not watcher.is_called:
                watcher.is_called = True
                self._to_wake.append(watcher)
        if self._to_wake:
            self._has_calls.set()

    def _end(self, watcher: Watcher, ending: Ending) -> None:
        watcher.ending = watcher.ending or ending
        self._call((watcher,))

    # ---- Tasks ----

    async def run(self) -> None:
        """Follow until cancelled.  It begins with the first watch."""
        await self._wanted.wait()
        self._must_load.set()
        self._tail.add(self)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load_forever())
            group.create_task(self._wake_forever())
            group.create_task(self._tick_forever())

    async def _load_forever(self) -> None:
        while True:
            await self._must_load.wait()
            self._must_load.clear()
            try:
                await self._load()
            except StoreFault as fault:
                log.warning("cannot read the items", fault=str(fault))
                self._must_load.set()
                await asyncio.sleep(RETRY_S)

    async def _load(self) -> None:
        """Read all items, and wait until the tail has reached what was then the end."""
        await self._tail.begun.wait()  # from here on no change escapes
        async for rows in self._shelves.rows():
            if self._must_load.is_set():
                return  # the ledger broke off meanwhile: what was read is of the past
            self.levels.load(rows, self._tail.now_ms)
        head = await self._shelves.head()
        if head.epoch != self._tail.position.epoch:  # of another history: the tail will notice
            self._must_load.set()
            await asyncio.sleep(RETRY_S)
            return
        while self._tail.position.sequence < head.sequence and not self._must_load.is_set():
            await self._tail.wait_beyond(head.sequence - 1, RETRY_S)
        if self._must_load.is_set():
            return
        self.levels.order()
        self.levels.epoch = self._tail.position.epoch
        self.levels.reach(self._tail.position.sequence)
        self.levels.is_ready = True
        self._ready.set()
        self._call(self._watchers)

    async def _wake_forever(self) -> None:
        while True:
            await self._has_calls.wait()
            for _ in range(min(WAKE_SLICE, len(self._to_wake))):
                self._to_wake.popleft().wake()
            if not self._to_wake:
                self._has_calls.clear()
            await asyncio.sleep(0)

    async def _tick_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            self._tick(loop.time())
            if self.levels.is_ready and (eased := self.levels.ease(self._tail.now_ms)):
                self._tell(eased)

    def _tick(self, now: float) -> None:
        """Look after every watch: its heartbeat, its age, whether its reader still reads."""
        # A process that was held up itself has not heard of anything either.
        is_current = self._tail.is_current or now - self._ticked_at > 4 * TICK_S
        self._ticked_at = now
        if not is_current:
            for watcher in self._watchers:
                if not watcher.writing_since:
                    self._end(watcher, Ending.STORE_UNAVAILABLE)
        while self._due and self._due[0].at <= now:
            found = heappop(self._due).watcher()
            if found is not None and found in self._watchers:
                self._look_after(found, now)
                self._look_later(found, now)

    def _look_after(self, watcher: Watcher, now: float) -> None:
        if watcher.writing_since:
            if now - watcher.writing_since > self._limits.blocked_s_max:
                watcher.cut()
        elif watcher.ends_at and now > watcher.ends_at:
            self._end(watcher, Ending.MAX_AGE)
        elif now - watcher.sent_at >= watcher.pace.heartbeat_s:
            watcher.is_beat_due = True
            self._call((watcher,))

    def _look_later(self, watcher: Watcher, now: float) -> None:
        """Note when to look after a watch again: at its next heartbeat, or sooner."""
        beat_at = watcher.sent_at + watcher.pace.heartbeat_s
        if beat_at <= now:  # it is called for this one
            beat_at = now + watcher.pace.heartbeat_s
        if watcher.writing_since:
            beat_at = watcher.writing_since + self._limits.blocked_s_max
        ends_at = watcher.ends_at or inf
        at = max(min(beat_at, ends_at, now + LOOK_S_MAX), now + LOOK_S_MIN)
        heappush(self._due, _Due(at, next(self._numbers), ref(watcher)))
