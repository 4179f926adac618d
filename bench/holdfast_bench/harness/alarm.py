"""Wake at a moment, not at the next tick of a millisecond.

The timers of an event loop have a grain of 1 ms, and wake half of it late: as much as a fast call
takes.  One kernel timer for all who wait wakes within some 50 us, and costs less than a timer of
the loop for each.  Where there is no such timer (not Linux), the loop's own do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from heapq import heappop, heappush
from itertools import count
from types import TracebackType
from typing import Self

_CLOCK_MONOTONIC = 1  # what time.perf_counter reads on Linux
_NONBLOCK = 0o4000 | 0o2000000  # and closed in children
_ABSOLUTE = 1


class _Moment(ctypes.Structure):
    """struct itimerspec of timerfd_create(2)."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """Lets the tasks of one event loop sleep until moments of time.perf_counter."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._set_to = float("inf")
        self._timer = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK)

    def __enter__(self) -> Self:
        if self._timer >= 0:
            self._loop.add_reader(self._timer, self._ring)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer >= 0:
            self._loop.remove_reader(self._timer)
            os.close(self._timer)

    async def until(self, moment: float) -> None:
        """Sleep until a moment; one that is over costs a turn of the loop."""
        left = moment - time.perf_counter()
        if left <= 0 or self._timer < 0:
            await asyncio.sleep(max(left, 0))
            return
        rung: asyncio.Future[None] = self._loop.create_future()
        heappush(self._waiting, (moment, next(self._numbers), rung))
        if moment < self._set_to:
            self._set(moment)
        await rung

    def _set(self, moment: float) -> None:
        self._set_to = moment
        seconds, rest = divmod(moment, 1)
        at = _Moment(0, 0, int(seconds), max(int(rest * 1e9), 1))
        self._libc.timerfd_settime(self._timer, _ABSOLUTE, ctypes.byref(at), None)

    def _ring(self) -> None:
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            return  # it was set anew between the wake-up and here
        waiting, now = self._waiting, time.perf_counter()
        while waiting and waiting[0][0] <= now:
            rung = heappop(waiting)[2]
            if not rung.done():
                rung.set_result(None)
        self._set_to = float("inf")
        if waiting:
            self._set(waiting[0][0])
