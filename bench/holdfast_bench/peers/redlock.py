"""redlock: a lock a SKU, then read, decide in Python, and write.

What a team writes first that was told to use a distributed lock: all that an operation may change
is read in one round trip under the locks of its SKUs, decided here, and written in one MULTI.

It has no fence, so it is as safe as its locks are (see `locking`); callers who wait for a lock wait
by trying again.  `unlocked` is the same without the lock: what goes wrong there is what the lock is
for.  The store is the embedded Valkey with an fsync every second; times are this process's.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf
from typing import Any

from redis.asyncio import Redis

from holdfast_bench.peers.locking import Lease, Redlock
from holdfast_bench.peers.terms import (
    Answer,
    Hold,
    Level,
    Lines,
    Peer,
    Sale,
    after_end,
    after_hold,
    check_known,
    fault,
    is_replay,
    is_short,
    same,
)
from holdfast_bench.stores import valkey_server
from holdfast_server.model import State

SCAN_COUNT = 1_000

Locked = Callable[[Sequence[str]], AbstractAsyncContextManager[Lease]]


class RedisPeer:
    """Stock in Valkey, decided here.

    item:<sku> is on_hand, held and sold; due:<sku> has "units:id" by expiry; hold:<id> a record.
    """

    def __init__(self, client: Any, locked: Locked) -> None:
        self._client, self._locked = client, locked

    async def put_on_sale(self, stock: Mapping[str, int]) -> None:
        """Make the items."""
        async with self._client.pipeline(transaction=False) as batch:
            for sku, units in stock.items():
                batch.set(f"item:{sku}", json.dumps([units, 0, 0]))
            await batch.execute()

    async def reserve(self, reservation_id: str, lines: Lines, ttl_ms: int) -> Answer:
        """Hold every line or none."""
        skus = [sku for sku, _wanted in lines]
        async with self._locked(skus) as lease:
            hold, levels, due, now_ms = await self._read(reservation_id, skus)
            check_known(levels, skus)
            if hold:
                return Answer(levels, now_ms, same(hold, lines, now_ms), replayed=True)
            if is_short(levels, lines):
                return Answer(levels, now_ms)
            hold = Hold(reservation_id, State.HELD, lines, now_ms, now_ms + ttl_ms)
            after = after_hold(levels, lines)
            lease.check()
            await self._write(hold, after, due)
        return Answer(after, now_ms, hold)

    async def end(self, reservation_id: str, state: State) -> Answer:
        """Commit or release a hold."""
        known = _hold(await self._client.get(f"hold:{reservation_id}"))
        if not known:
            raise fault("unknown", reservation_id)
        skus = [sku for sku, _units in known.lines]
        async with self._locked(skus) as lease:
            hold, levels, due, now_ms = await self._read(reservation_id, skus)
            assert hold
            if is_replay(hold, state, now_ms):
                return Answer(levels, now_ms, hold, replayed=True)
            hold = hold._replace(state=state, ended_ms=now_ms)
            after = after_end(levels, hold)
            lease.check()
            await self._write(hold, after, due)
        return Answer(after, now_ms, hold)

    async def levels(self, skus: Sequence[str]) -> Answer:
        """Return the levels of the SKUs that exist, read without a lock."""
        _hold, levels, _due, now_ms = await self._read("", skus)
        return Answer(levels, now_ms)

    async def sales(self) -> Mapping[str, Sale]:
        """Return what the records of the holds have."""
        sales: dict[str, Sale] = {}
        # A scan may give a key twice.
        for key in {key async for key in self._client.scan_iter("hold:*", count=SCAN_COUNT)}:
            hold = _hold(await self._client.get(key))
            assert hold
            is_sold = hold.state is State.COMMITTED
            is_held = hold.state is State.HELD and hold.expires_ms > _now_ms()
            for sku, units in hold.lines:
                sold, held = sales.get(sku, Sale(0, 0))
                sales[sku] = Sale(sold + units * is_sold, held + units * is_held)
        return sales

    async def _read(
        self, reservation_id: str, skus: Sequence[str]
    ) -> tuple[Hold | None, list[Level], dict[str, list[bytes]], int]:
        """Return the hold, the levels without what is due, and what is due, as of now."""
        now_ms = _now_ms()
        async with self._client.pipeline(transaction=False) as batch:
            batch.get(f"hold:{reservation_id}")
            for sku in skus:
                batch.get(f"item:{sku}")
                batch.zrangebyscore(f"due:{sku}", "-inf", now_ms)
            found, *rest = await batch.execute()
        levels, due = [], {}
        for sku, item, members in zip(skus, rest[::2], rest[1::2], strict=True):
            if item:
                on_hand, held, sold = json.loads(item)
                freed = sum(int(member.partition(b":")[0]) for member in members)
                levels.append(Level(sku, on_hand, held - freed, sold))
                due[sku] = members
        return _hold(found), levels, due, now_ms

    async def _write(
        self, hold: Hold, levels: Sequence[Level], due: Mapping[str, list[bytes]]
    ) -> None:
        async with self._client.pipeline(transaction=True) as batch:
            batch.set(f"hold:{hold.reservation_id}", json.dumps(hold))
            for sku, on_hand, held, sold in levels:
                batch.set(f"item:{sku}", json.dumps([on_hand, held, sold]))
                if due[sku]:
                    batch.zrem(f"due:{sku}", *due[sku])
            for sku, units in hold.lines:
                member = f"{units}:{hold.reservation_id}"
                if hold.state is State.HELD:
                    batch.zadd(f"due:{sku}", {member: hold.expires_ms})
                else:
                    batch.zrem(f"due:{sku}", member)
            await batch.execute()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _hold(text: bytes | None) -> Hold | None:
    if text is None:
        return None
    id_, state, lines, *times = json.loads(text)
    return Hold(id_, State(state), tuple((sku, units) for sku, units in lines), *times)


@asynccontextmanager
async def _unlocked(_names: Sequence[str]) -> AsyncIterator[Lease]:
    yield Lease(inf)


@asynccontextmanager
async def opened(stock: Mapping[str, int], *, masters: int) -> AsyncIterator[Peer]:
    """Run the peer with locks on so many Valkeys, its data on the first; 0 is without locks."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(max(1, masters)):
            url = await stack.enter_async_context(valkey_server("second"))
            clients.append(await stack.enter_async_context(Redis.from_url(url)))
        locked = Redlock(clients).locked if masters else _unlocked
        peer = RedisPeer(clients[0], locked)
        await peer.put_on_sale(stock)
        yield peer


one_master = partial(opened, masters=1)
three_masters = partial(opened, masters=3)
unlocked = partial(opened, masters=0)
