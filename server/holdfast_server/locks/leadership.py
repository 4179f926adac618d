"""Who does what must be done once: elected by Redlock, fenced by the store it works on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from holdfast_server.errors import StoreFault
from holdfast_server.locks.redlock import LockTaken, LockUnreachable, Redlock

log = structlog.get_logger(__name__)

RETRY_S = 1.0

Work = Callable[[int], Awaitable[None]]
"""Done with a fencing token, until it is cancelled."""


class Leadership:
    """One candidate for a role.  Run it as a task; `work` runs while it leads."""

    def __init__(self, role: str, lock: Redlock, claim: Callable[[], Awaitable[int]]) -> None:
        self._role, self._lock, self._claim = role, lock, claim
        self.token = 0

    @property
    def is_leading(self) -> bool:
        """Tell whether the work runs here."""
        return self.token > 0

    async def run(self, work: Work) -> None:
        """Lead whenever nobody else does, until cancelled.

        `work` is cancelled when the lock is lost or runs out; when it ends by itself, the role is
        given back, and tried for again.  What it raises is raised, but for a StoreFault, after
        which it is tried again.
        """
        said = ""
        while True:
            try:
                await self.run_once(work)
            except StoreFault as fault:
                if str(fault) != said:
                    log.warning("leader failed", role=self._role, fault=str(fault))
                said = str(fault)
                await asyncio.sleep(RETRY_S)
            else:
                said = ""

    async def run_once(self, work: Work) -> None:
        """Wait to lead, and lead until the work ends or the lock is lost.  Raises as it does."""
        while True:
            try:
                await self._lock.acquire()
                break
            except (LockTaken, LockUnreachable):
                await asyncio.sleep(max(self._lock.pause_s(), self._lock.ttl_s / 10))
        try:
            await self._lead(work)
        finally:
            self.token = 0
            await self._lock.release()

    async def _lead(self, work: Work) -> None:
        self.token = await self._claim()
        log.info("leading", role=self._role, token=self.token)
        working = asyncio.ensure_future(work(self.token))
        holding = asyncio.create_task(self._hold())
        try:
            await asyncio.wait({working, holding}, return_when=asyncio.FIRST_COMPLETED)
            if holding.done() and not working.done():
                log.warning("leadership lost", role=self._role, token=self.token)
        finally:
            holding.cancel()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await holding
            with suppress(asyncio.CancelledError):
                await working

    async def _hold(self) -> None:
        """Extend the lock while that goes; return when it is lost, well before it runs out."""
        while await self._lock.extend() is not None:  # noqa: ASYNC110  # time itself is awaited
            await asyncio.sleep(self._lock.ttl_s / 3)
