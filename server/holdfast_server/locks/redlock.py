"""Redlock: a lock over N independent masters, held while most of them say so.

The algorithm is that of the Redis documentation, "Distributed locks with Redis".  It makes two
leaders at once unlikely, no more: a process may sleep past its validity.  So whatever a leader
writes carries a fencing token, which the store checks (`leadership`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from random import uniform
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from holdfast_server.kernel.source import lua_root

T = TypeVar("T")

DRIFT_SHARE, DRIFT_S = 0.01, 0.002
NODE_S_MIN, NODE_S_MAX, NODE_SHARE = 0.05, 1.0, 0.05
RETRY_S = (0.05, 0.25)
LATE_S_MAX = 5.0  # how long the answers of slow nodes are waited for, beside the work


class LockMisconfigured(ValueError):
    """Masters that cannot make a majority: an even number, or the same one twice."""


class LockTaken(Exception):
    """Most masters answered, and too few gave the lock: others have it, or want it too."""


class LockUnreachable(Exception):
    """Too few masters answered in time to make a majority."""


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
    """One master, and the process that last answered for it."""

    redis: Redis
    run_id: str = ""


class Votes(NamedTuple):
    """What the masters said, as far as it was waited for."""

    nodes: int
    ayes: int
    noes: int

    @property
    def is_won(self) -> bool:
        """Tell whether a majority agreed."""
        return self.ayes >= majority(self.nodes)

    @property
    def is_heard(self) -> bool:
        """Tell whether a majority said anything."""
        return self.ayes + self.noes >= majority(self.nodes)


class Redlock:
    """A named lock.  One holder per object; safe to use again after `release`.

    `counters` says how its tries, extensions and releases ended.
    """

    def __init__(self, urls: Sequence[str], name: str, *, ttl_s: float = 10.0) -> None:
        if len(urls) % 2 == 0:
            raise LockMisconfigured(
                f"lock_urls must name an odd number of masters, not {len(urls)}"
            )
        if len(set(urls)) != len(urls):
            raise LockMisconfigured("lock_urls names a master twice")
        self.name, self.ttl_s = name, ttl_s
        self.counters: Counter[str] = Counter()
        self._node_s = min(max(ttl_s * NODE_SHARE, NODE_S_MIN), NODE_S_MAX)
        self._nodes = [Node(_client(url, self._node_s)) for url in urls]
        self._value = ""
        self._late: set[asyncio.Task[Any]] = set()  # votes, and locks being given back
        lua = lua_root() / "redis"
        self._prolong = (lua / "prolong.lua").read_text(encoding="utf-8")
        self._give_back = (lua / "give_back.lua").read_text(encoding="utf-8")

    async def aclose(self) -> None:
        """Close the connections, after late answers have been heard."""
        if self._late:
            await asyncio.wait(self._late, timeout=LATE_S_MAX)
        for node in self._nodes:
            await node.redis.aclose()

    async def acquire(self) -> Validity:
        """Try once; return how long the lock is held.

        A try that fails, or is cancelled, gives back what it won.  Raises LockTaken,
        LockUnreachable, or LockMisconfigured when two addresses are one master.
        """
        value, asked_at = secrets.token_hex(16), monotonic()
        validity, asked = Validity.of(asked_at, self.ttl_s), self._ask_all(self._ask, value)
        is_mine = False
        try:
            votes = await self._votes(asked)
            is_mine = votes.is_won and validity.left_s(monotonic()) > 0
        finally:
            if not is_mine:
                await asyncio.shield(self._later(self._undo(asked, value)))
        if not is_mine:
            raise self._failed(votes)
        self._value = value
        self.counters["acquired"] += 1
        return validity

    async def extend(self) -> Validity | None:
        """Hold the lock for longer; None when most masters know of it no more: it is lost."""
        asked_at = monotonic()
        votes = await self._votes(self._ask_all(self._ask_longer, self._value))
        validity = Validity.of(asked_at, self.ttl_s)
        if votes.is_won and validity.left_s(monotonic()) > 0:
            return validity
        self.counters["lost"] += 1
        return None

    async def release(self) -> Ended:
        """Give the lock back everywhere, also where it was never won; tell what was found.

        HELD if a majority still had it; else FOREIGN if it is another's, or EXPIRED.
        """
        found = await asyncio.shield(self._later(self._release(self._value)))
        held, foreign = found.count(Ended.HELD), found.count(Ended.FOREIGN)
        is_held = held >= majority(len(self._nodes))
        ended = Ended.HELD if is_held else Ended.FOREIGN if foreign else Ended.EXPIRED
        self.counters[f"released {ended.name.lower()}"] += 1
        return ended

    def pause_s(self) -> float:
        """Return how long to wait before another try: at random, so that rivals part."""
        return uniform(*RETRY_S)

    def _failed(self, votes: Votes) -> LockTaken | LockUnreachable:
        told = f"{self.name}: {votes.ayes} of {votes.nodes} masters gave it, {votes.noes} did not"
        is_taken = votes.is_heard and not votes.is_won
        self.counters["taken" if is_taken else "unreachable"] += 1
        return LockTaken(told) if is_taken else LockUnreachable(told)

    # ---- Votes ----

    def _refuse_twins(self) -> None:
        known = [node.run_id for node in self._nodes if node.run_id]
        if len(set(known)) != len(known):
            raise LockMisconfigured("lock_urls names a master twice, by two addresses")

    def _ask_all(self, ask: Ask, value: str) -> list[asyncio.Task[bool | None]]:
        self._refuse_twins()  # one that was late to say who it is
        return [self._later(self._vote_of(node, ask, value)) for node in self._nodes]

    async def _votes(self, asked: Sequence[asyncio.Task[bool | None]]) -> Votes:
        """Decide as soon as most agree, or too many do not; the rest is heard in its own time."""
        waiting, votes = set(asked), Votes(len(asked), 0, 0)
        while waiting and not votes.is_won and votes.ayes + len(waiting) >= majority(votes.nodes):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            said = [task.result() for task in done]
            votes = Votes(
                votes.nodes, votes.ayes + said.count(True), votes.noes + said.count(False)
            )
        return votes

    async def _vote_of(self, node: Node, ask: Ask, value: str) -> bool | None:
        """Return the vote of a master, None where it has none."""
        try:
            return await ask(node, value)
        except (RedisError, OSError):
            return None

    async def _ask(self, node: Node, value: str) -> bool | None:
        """Ask for the lock, and in the same step which process answers and since when it runs.

        One that has just started may have forgotten who holds the lock, so it has no vote until
        every lock that it can have forgotten has run out.  One master alone has no others to
        contradict: there the fence decides, with or without a wait.
        """
        async with node.redis.pipeline(transaction=True) as pipe:
            pipe.info("server")
            pipe.set(self.name, value, nx=True, px=int(self.ttl_s * 1000))
            info, is_won = await pipe.execute()
        node.run_id = str(info["run_id"])
        self._refuse_twins()
        is_fresh = len(self._nodes) > 1 and int(info["uptime_in_seconds"]) < self.ttl_s + 1
        if is_fresh and not await _never_forgets(node.redis):
            return None
        return bool(is_won)

    async def _ask_longer(self, node: Node, value: str) -> bool:
        ttl_ms = int(self.ttl_s * 1000)
        answer: Any = node.redis.eval(self._prolong, 1, self.name, value, str(ttl_ms))
        return bool(await answer == 1)

    # ---- Giving back ----

    async def _undo(self, asked: Sequence[asyncio.Task[Any]], value: str) -> None:
        """Give back what a try has won, at slow nodes too: their answer is waited for."""
        await asyncio.wait(asked, timeout=LATE_S_MAX)
        await self._release(value)

    async def _release(self, value: str) -> list[Ended]:
        found = await asyncio.gather(*(self._release_at(node, value) for node in self._nodes))
        return [ended for ended in found if ended is not None]

    async def _release_at(self, node: Node, value: str) -> Ended | None:
        try:
            answer: Any = node.redis.eval(self._give_back, 1, self.name, value)
            return Ended(await answer)
        except (RedisError, OSError):
            return None  # it runs out by itself

    def _later(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin what goes on when its caller leaves."""
        task = asyncio.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._heard)
        return task

    def _heard(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # a vote that nobody waits for any more may fail


Ask = Callable[[Node, str], Awaitable[bool | None]]


def _client(url: str, timeout_s: float) -> Redis:
    return Redis.from_url(
        url, retry=None, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )


async def _never_forgets(redis: Redis) -> bool:
    """Tell whether a master has on disk whatever it answered."""
    found = await redis.config_get("append*")
    return found.get("appendonly") == "yes" and found.get("appendfsync") == "always"
