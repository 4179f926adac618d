"""One watch: what its reader has seen, and what to tell it next.

Whatever it is asked, it answers from the levels as they are at that moment, so it keeps no queue: a
slow reader finds newer levels and fewer of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from holdfast_server.watch.levels import Levels, Slot, mark_of

PART_LEVELS_MAX = 500
# A filter up to this size is registered with each of its items; a larger one looks at every change.
NARROW_SKUS_MAX = 64
CATCH_UPS_MAX = 3


class UpdateKind(IntEnum):
    """What an update is; the numbers of `WatchKind` in stock.proto."""

    SNAPSHOT = 1
    CHANGES = 2
    HEARTBEAT = 3
    END = 4


class Ending(IntEnum):
    """Why a watch ends; the numbers of `WatchEndReason` in stock.proto."""

    DRAINING = 1
    MAX_AGE = 2
    EPOCH_CHANGED = 3
    SLOW_CONSUMER = 4
    STORE_UNAVAILABLE = 5


class Update(NamedTuple):
    """One message of a watch; `levels` as they are sent, `resume` None for no token."""

    kind: UpdateKind
    from_sequence: int
    through_sequence: int
    resume: int | None
    levels: Sequence[bytes] = ()
    conflated: int = 0
    ending: Ending | None = None
    missing: Sequence[str] = ()


class Pace(NamedTuple):
    """How often a reader wants to be told something, in seconds."""

    min_interval_s: float = 0.0
    heartbeat_s: float = 5.0


class Watcher:
    """A reader's place in the levels.  `take` says what comes next, `wait` waits for a reason."""

    def __init__(
        self,
        levels: Levels,
        skus: Sequence[str],
        *,
        pace: Pace = Pace(),  # noqa: B008  # a value
        ends_at: float = 0.0,
    ) -> None:
        self._levels = levels
        self._skus = skus
        self.pace = pace
        self.ends_at = ends_at
        self.task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self.is_broad = not skus or len(skus) > NARROW_SKUS_MAX
        self._filter = frozenset(skus) if skus and self.is_broad else None
        self._slots = () if self.is_broad else tuple(levels.slot(sku) for sku in skus)
        for slot in self._slots:
            slot.watchers.add(self)
        self._broad_changes = 0
        self._idle: asyncio.Future[None] | None = None
        self.is_called = False
        self.is_slow = False
        self.is_beat_due = False
        self.ending: Ending | None = None
        self.sent_at = self._told_at = self._loop.time()
        self.writing_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.restart()

    def close(self) -> None:
        """Stop watching."""
        self._stop_timer()
        for slot in self._slots:
            slot.watchers.discard(self)
            self._levels.forget(slot)

    # ---- Where it stands ----

    def restart(self) -> None:
        """Begin with a snapshot, of the levels' present history."""
        self.generation, self.epoch = self._levels.generation, self._levels.epoch
        self._is_snapshot = True
        self._said = 0
        self._resume: int | None = None
        self._begin(mark_of(0))

    def resume(self, sequence: int) -> None:
        """Begin after a sequence of the levels' present history."""
        self.generation, self.epoch = self._levels.generation, self._levels.epoch
        self._is_snapshot = False
        self._said = self._resume = sequence
        self._begin(mark_of(sequence))

    def _begin(self, mark: int) -> None:
        self._seen = mark
        self._pending: Sequence[Slot] | None = None
        self._at = 0  # how many of them are sent
        self._is_first = True
        self._catch_ups = self._sent = 0
        self._early: dict[Slot, int] = {}
        self._counted = self._changes()

    @property
    def is_within_parts(self) -> bool:
        """Tell whether a message has been sent in part."""
        return self._pending is not None

    @property
    def resumes_at(self) -> int | None:
        """Return the sequence to resume after, if there is one."""
        return self._resume

    # ---- Waiting ----

    @property
    def is_idle(self) -> bool:
        """Tell whether it waits to be woken."""
        return self._idle is not None

    async def wait(self) -> None:
        """Wait until something may have changed."""
        self._idle = self._loop.create_future()
        try:
            await self._idle
        finally:
            self._idle = None

    def wake(self) -> None:
        """End the wait, if it waits."""
        self.is_called = False
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def wants(self, changed: Sequence[Slot]) -> bool:
        """Tell whether a broad watch has any of these items, and count them."""
        if self._filter is None:
            return True
        hits = sum(slot.sku in self._filter for slot in changed)
        self._broad_changes += hits
        return hits > 0

    def cut(self) -> None:
        """Break off the write that its reader does not take."""
        self.is_slow, self.writing_since = True, 0.0
        if self.task is not None:
            self.task.cancel()

    # ---- What comes next ----

    def take(self, min_interval_s: float = 0.0) -> Update | None:
        """Return the next message, or None when there is nothing to say yet.

        A large one comes in parts of at most 500 levels.  `min_interval_s` is what the server asks
        for at least.
        """
        if self.ending is not None:
            return self._update(UpdateKind.END, ending=self.ending)
        if not self._levels.is_ready or self.generation != self._levels.generation:
            return None
        if self._pending is None:
            found = self._found()
            if not found and not self._is_snapshot:
                return self._beat(self._levels.sequence)
            if not self._is_first and not self._is_time(max(min_interval_s, self.pace[0])):
                return self._beat(self._said)  # it lives, though changes have to wait
            self._pending, self._at, self._goal = found, 0, self._levels.mark
        return self._part()

    def _found(self) -> Sequence[Slot]:
        if self._is_snapshot:
            if not self.is_broad:
                return [slot for slot in self._slots if slot.raw]
            if self._filter is None:
                return self._levels.everything
            return [self._levels.slot(sku) for sku in self._skus if self._levels.exists(sku)]
        return self._changed(self._seen)

    def _changed(self, mark: int) -> list[Slot]:
        if self.is_broad:
            return self._levels.since(mark, self._filter)
        return [slot for slot in self._slots if slot.mark > mark]

    def _is_time(self, interval_s: float) -> bool:
        """Tell whether changes may be sent again; if not, wake when they may."""
        self._stop_timer()
        due = self._told_at + interval_s
        is_time = not interval_s or self._loop.time() >= due
        if not is_time:
            self._timer = self._loop.call_at(due, self.wake)
        return is_time

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, through: int) -> Update | None:
        if not (self.is_beat_due or self._is_first):
            return None
        return self._update(UpdateKind.HEARTBEAT, through=through)

    def _part(self) -> Update:
        """Send what is pending, up to a part; the last part brings all up to the present."""
        assert self._pending is not None
        part = self._pending[self._at : self._at + PART_LEVELS_MAX]
        self._at += len(part)
        is_last = self._at >= len(self._pending)
        if is_last and self._goal != self._levels.mark:
            # What changed while the parts were sent has to be told too, or through would lie.
            changed = self._changed(self._goal)
            late = dict.fromkeys([*part, *(s for s in changed if self._early.get(s) != s.mark)])
            self._goal = self._levels.mark
            self._catch_ups += 1
            is_last = len(late) <= PART_LEVELS_MAX or self._catch_ups > CATCH_UPS_MAX
            self._pending = part = list(late)
            if not is_last:
                part = part[:PART_LEVELS_MAX]
            self._at = len(part)
        self._sent += len(part)
        kind = UpdateKind.SNAPSHOT if self._is_snapshot else UpdateKind.CHANGES
        levels = [self._levels.level_of(slot) for slot in part]
        if not is_last:
            self._early.update((slot, slot.mark) for slot in part if slot.mark > self._goal)
            return self._update(kind, levels=levels)
        return self._whole(kind, levels)

    def _whole(self, kind: UpdateKind, levels: list[bytes]) -> Update:
        conflated = max(0, self._changes() - self._counted - self._sent)
        self._counted, self._sent, self._catch_ups = self._changes(), 0, 0
        self._pending, self._seen, self._is_snapshot = None, self._goal, False
        self._told_at = self._loop.time()
        self._early.clear()
        through = self._levels.sequence
        return self._update(kind, through=through, levels=levels, conflated=conflated)

    def _update(
        self,
        kind: UpdateKind,
        *,
        through: int | None = None,
        levels: Sequence[bytes] = (),
        conflated: int = 0,
        ending: Ending | None = None,
    ) -> Update:
        said, missing = self._said, self._missing() if through is not None else ()
        if through is not None:
            self._said = self._resume = through
            self._is_first = False
        self.is_beat_due = False
        return Update(kind, said, self._said, self._resume, levels, conflated, ending, missing)

    def _missing(self) -> tuple[str, ...]:
        """Return, for the first message that is whole, which items do not exist."""
        exists = self._levels.exists
        return tuple(sku for sku in self._skus if not exists(sku)) if self._is_first else ()

    def _changes(self) -> int:
        """Return how often what it watches has changed, as far as this process has seen."""
        if self._filter is not None:
            return self._broad_changes
        return self._levels.changes if self.is_broad else sum(s.changes for s in self._slots)
