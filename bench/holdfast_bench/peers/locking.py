"""Redlock: a lock over N independent masters, as its description has it.

Set a random value where there is none on every master at once, each with a short time-out; the
lock is had where a majority agreed in less than its time to live, less the drift of clocks.
Otherwise it is undone everywhere and tried again after a random pause.  Only who set the value
deletes it.

("Distributed Locks with Redis", of the Redis documentation.  A library that is kept, takes asyncio
and goes with this redis-py was not to be found.)  It hands out no fencing token: who is paused
beyond `valid_until` while writing, writes without the lock.  A restarted master may have forgotten
a lock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from redis.exceptions import RedisError

from holdfast_server.errors import Overloaded

TTL_MS = 10_000
NODE_TIMEOUT_S = 0.1
DRIFT_S = TTL_MS / 1000 * 0.01 + 0.002
# Libraries pause 50 to 250 ms.  A hold takes far less than that, so the pauses are short here.
PAUSE_S = (0.002, 0.020)
WAIT_S_MAX = 10.0

_DELETE_MINE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Lease(NamedTuple):
    """Locks that are had until a moment of the monotonic clock."""

    valid_until: float

    def check(self) -> None:
        """Raise Overloaded where the time has run out: nothing may be written any more."""
        if time.monotonic() >= self.valid_until:
            raise Overloaded("the lock ran out before the write", retry_after_ms=100)


class Redlock:
    """Locks names on some masters."""

    def __init__(self, masters: Sequence[Any]) -> None:
        if len(masters) % 2 == 0:
            raise ValueError("a majority takes an odd number of masters")
        self._masters = masters
        self._scripts = [master.register_script(_DELETE_MINE) for master in masters]

    @asynccontextmanager
    async def locked(self, names: Sequence[str]) -> AsyncIterator[Lease]:
        """Hold the locks of some names, taken in the order given.  Raises Overloaded."""
        async with AsyncExitStack() as stack:
            leases = [await stack.enter_async_context(self._held(name)) for name in names]
            yield Lease(min(lease.valid_until for lease in leases))

    @asynccontextmanager
    async def _held(self, name: str) -> AsyncIterator[Lease]:
        key, token = f"lock:{name}", uuid4().hex
        try:
            yield await self._acquired(key, token)
        finally:
            await asyncio.shield(self._undo(key, token))

    async def _acquired(self, key: str, token: str) -> Lease:
        began = time.monotonic()
        while time.monotonic() < began + WAIT_S_MAX:
            lease = await self._tried(key, token)
            if lease:
                return lease
            await self._undo(key, token)
            await asyncio.sleep(random.uniform(*PAUSE_S))
        raise Overloaded(f"{key} was not free for {WAIT_S_MAX:g} s", retry_after_ms=100)

    async def _tried(self, key: str, token: str) -> Lease | None:
        until = time.monotonic() + TTL_MS / 1000 - DRIFT_S
        votes = await asyncio.gather(
            *(_vote(master.set(key, token, nx=True, px=TTL_MS)) for master in self._masters)
        )
        has_majority = 2 * sum(votes) > len(self._masters)
        return Lease(until) if has_majority and time.monotonic() < until else None

    async def _undo(self, key: str, token: str) -> None:
        await asyncio.gather(*(_vote(script([key], [token])) for script in self._scripts))


async def _vote(answer: Awaitable[Any]) -> bool:
    try:
        async with asyncio.timeout(NODE_TIMEOUT_S):
            return bool(await answer)
    except (RedisError, OSError, TimeoutError):
        return False
