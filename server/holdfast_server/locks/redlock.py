"""Redlock: a lock over N independent masters, held while most of them say so.

The algorithm is that of the Redis documentation, "Distributed locks with Redis".  It makes two
leaders at once unlikely, no more: a process may sleep past its validity.  So whatever a leader
writes carries a fencing token, which the store checks (`leadership`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import uniform
from time import monotonic
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from holdfast_server.kernel.source import lua_root

DRIFT_SHARE, DRIFT_S = 0.01, 0.002
NODE_S_MIN, NODE_S_MAX, NODE_SHARE = 0.05, 1.0, 0.05
RETRY_S = (0.05, 0.25)
LATE_S_MAX = 5.0  # how long the answers of slow nodes are waited for, beside the work


class LockMisconfigured(ValueError):
    """Masters that cannot make a majority: an even number, or the same one twice."""


class Ended(Enum):
    """What became of a lock that was given back at a node."""

    HELD, EXPIRED, FOREIGN = 1, 0, -1


class Validity(NamedTuple):
    """From when a lock is held, and until when by the monotonic clock, in seconds."""

    since: float
    until: float

    @classmethod
    def of(cls, asked_at: float, ttl_s: float) -> Validity:
        """Return the validity of a lock that was asked for at a moment.

        Clocks drift: a hundredth of the time to live, and 2 ms for the store's own rounding.
        """
        return cls(asked_at, asked_at + ttl_s - (ttl_s * DRIFT_SHARE + DRIFT_S))

    def left_s(self, now: float) -> float:
        """Return the seconds that are left."""
        return self.until - now


def majority(nodes: int) -> int:
    """Return how many of so many nodes decide."""
    return nodes // 2 + 1


@dataclass
class Node:
    """One master, and whether its vote counts.

    A master that lost its memory may have forgotten who holds the lock; so one that has just
    started has no vote until every lock it can have forgotten has run out.
    """

    redis: Redis
    run_id: str = ""
    mute_until: float = 0.0


@dataclass
class LockCounters:
    """What this lock has seen."""

    acquired: int = 0
    refused: int = 0
    lost: int = 0
    ended: dict[Ended, int] = field(default_factory=dict)


class Redlock:
    """A named lock.  One holder per object; safe to use again after `release`."""

    def __init__(self, urls: Sequence[str], name: str, *, ttl_s: float = 10.0) -> None:
        if len(urls) % 2 == 0:
            raise LockMisconfigured(
                f"lock_urls must name an odd number of masters, not {len(urls)}"
            )
        if len(set(urls)) != len(urls):
            raise LockMisconfigured("lock_urls names a master twice")
        self.name, self.ttl_s = name, ttl_s
        self.counters = LockCounters()
        self._node_s = min(max(ttl_s * NODE_SHARE, NODE_S_MIN), NODE_S_MAX)
        self._nodes = [Node(_client(url, self._node_s)) for url in urls]
        self._value = ""
        self._late: set[asyncio.Task[Any]] = set()
        lua = lua_root() / "redis"
        self._prolong = (lua / "prolong.lua").read_text(encoding="utf-8")
        self._give_back = (lua / "give_back.lua").read_text(encoding="utf-8")

    async def aclose(self) -> None:
        """Close the connections, after late answers have been heard."""
        if self._late:
            await asyncio.wait(self._late, timeout=LATE_S_MAX)
        for node in self._nodes:
            await node.redis.aclose()

    async def acquire(self) -> Validity | None:
        """Try once; return how long the lock is held, or None.

        A try that fails, or is cancelled, gives back what it won.  Raises LockMisconfigured when
        two addresses are one master.
        """
        self._value = secrets.token_hex(16)
        asked_at = monotonic()
        try:
            won = await self._vote(asked_at, self._ask)
        except BaseException:
            self._give_back_later()
            raise
        validity = Validity.of(asked_at, self.ttl_s)
        if won and validity.left_s(monotonic()) > 0:
            self.counters.acquired += 1
            return validity
        self.counters.refused += 1
        await asyncio.shield(self._release_all())
        return None

    async def extend(self) -> Validity | None:
        """Hold the lock for longer; None when most masters know of it no more: it is lost."""
        asked_at = monotonic()
        won = await self._vote(asked_at, self._ask_longer)
        validity = Validity.of(asked_at, self.ttl_s)
        if won and validity.left_s(monotonic()) > 0:
            return validity
        self.counters.lost += 1
        return None

    async def release(self) -> None:
        """Give the lock back everywhere, also where it was never won."""
        await asyncio.shield(self._release_all())

    def pause_s(self) -> float:
        """Return how long to wait before another try: at random, so that rivals part."""
        return uniform(*RETRY_S)

    # ---- Votes ----

    async def _vote(self, asked_at: float, ask: Callable[[Node], Awaitable[bool]]) -> bool:
        """Ask all nodes at once; decide as soon as most agree, or too many do not."""
        asked = [asyncio.create_task(self._vote_of(node, asked_at, ask)) for node in self._nodes]
        waiting, ayes, noes = set(asked), 0, 0
        needed = majority(len(self._nodes))
        try:
            while waiting and ayes < needed and len(asked) - noes >= needed:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                votes = [task.result() for task in done]
                ayes, noes = ayes + sum(votes), noes + votes.count(False)
        finally:
            for task in asked:
                if not task.done():  # it is heard in its own time, and given back if need be
                    self._late.add(task)
                    task.add_done_callback(self._late.discard)
        return ayes >= needed

    async def _vote_of(
        self, node: Node, asked_at: float, ask: Callable[[Node], Awaitable[bool]]
    ) -> bool:
        try:
            if not node.run_id:
                await self._meet(node)
            won = await ask(node)
        except (RedisError, OSError):
            node.run_id = ""  # it may come back as another
            return False
        return won and asked_at >= node.mute_until

    async def _ask(self, node: Node) -> bool:
        ttl_ms = int(self.ttl_s * 1000)
        return bool(await node.redis.set(self.name, self._value, nx=True, px=ttl_ms))

    async def _ask_longer(self, node: Node) -> bool:
        ttl_ms = int(self.ttl_s * 1000)
        answer: Any = node.redis.eval(self._prolong, 1, self.name, self._value, str(ttl_ms))
        return bool(await answer == 1)

    async def _meet(self, node: Node) -> None:
        """Learn which master this is, and since when it runs.  Raises LockMisconfigured."""
        info = await node.redis.info("server")
        run_id = str(info["run_id"])
        if any(other.run_id == run_id for other in self._nodes if other is not node):
            raise LockMisconfigured("lock_urls names a master twice, by two addresses")
        node.run_id = run_id
        fresh_s = self.ttl_s + 1 - int(info["uptime_in_seconds"])
        if len(self._nodes) > 1 and fresh_s > 0 and not await _never_forgets(node.redis):
            node.mute_until = monotonic() + fresh_s

    # ---- Giving back ----

    def _give_back_later(self) -> None:
        task = asyncio.create_task(self._release_all())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _release_all(self) -> None:
        if self._late:  # a slow node may have granted it meanwhile
            others = self._late - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=LATE_S_MAX)
        await asyncio.gather(*(self._release_at(node) for node in self._nodes))

    async def _release_at(self, node: Node) -> None:
        try:
            answer: Any = node.redis.eval(self._give_back, 1, self.name, self._value)
            ended = Ended(await answer)
        except (RedisError, OSError):
            return  # it runs out by itself
        self.counters.ended[ended] = self.counters.ended.get(ended, 0) + 1


def _client(url: str, timeout_s: float) -> Redis:
    return Redis.from_url(
        url, retry=None, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )


async def _never_forgets(redis: Redis) -> bool:
    """Tell whether a master has on disk whatever it answered."""
    found = await redis.config_get("append*")
    return found.get("appendonly") == "yes" and found.get("appendfsync") == "always"
