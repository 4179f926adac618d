"""evalsha: one EVALSHA a call on redis-py's asyncio client, a short script an operation.

What a team writes first that knows Redis: each script reads, checks and writes in one atomic
step, a hold is idempotent by its id, and whoever touches an item gives back what is due there.  The
client is as it comes: a connection for each call in flight.

It does not declare its keys, so it cannot run on a cluster; it sends each call by itself; a lost
answer is the caller's affair; the store is the embedded Valkey with an fsync every second.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from holdfast_bench.peers.terms import Answer, Hold, Level, Lines, Peer, Sale, fault
from holdfast_bench.stores import valkey_server
from holdfast_server.model import State

SCAN_COUNT = 1_000


class EvalshaPeer:
    """Stock in Valkey, decided by scripts."""

    def __init__(self, client: Any) -> None:
        self._client = client
        folder = files(__package__) / "lua"
        shared = (folder / "shared.lua").read_text(encoding="utf-8")
        self._reserve, self._finish, self._levels = (
            client.register_script(shared + (folder / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("reserve", "finish", "levels")
        )

    async def put_on_sale(self, stock: Mapping[str, int]) -> None:
        """Make the items."""
        async with self._client.pipeline(transaction=False) as batch:
            for sku, units in stock.items():
                batch.hset(f"item:{sku}", mapping={"on_hand": units, "held": 0, "sold": 0})
            await batch.execute()

    async def reserve(self, reservation_id: str, lines: Lines, ttl_ms: int) -> Answer:
        """Hold every line or none."""
        payload = json.dumps(lines, separators=(",", ":"))
        found = await self._reserve(args=[reservation_id, payload, ttl_ms])
        return _answer(found, reservation_id)

    async def end(self, reservation_id: str, state: State) -> Answer:
        """Commit or release a hold."""
        found = await self._finish(args=[reservation_id, state.name.lower()])
        return _answer(found, reservation_id)

    async def levels(self, skus: Sequence[str]) -> Answer:
        """Return the levels of the SKUs that exist."""
        return _answer(await self._levels(args=list(skus)), "")

    async def sales(self) -> Mapping[str, Sale]:
        """Return what the records of the holds have."""
        seconds, us = await self._client.time()
        now_ms = seconds * 1000 + us // 1000
        sales: dict[str, Sale] = {}
        # A scan may give a key twice.
        for key in {key async for key in self._client.scan_iter("hold:*", count=SCAN_COUNT)}:
            state, lines, expires = await self._client.hmget(key, "state", "lines", "expires")
            is_sold = state == b"committed"
            is_held = state == b"held" and int(expires) > now_ms
            for sku, units in json.loads(lines):
                sold, held = sales.get(sku, Sale(0, 0))
                sales[sku] = Sale(sold + units * is_sold, held + units * is_held)
        return sales


def _answer(text: bytes, reservation_id: str) -> Answer:
    """Return a script's answer, or raise the error it stands for."""
    found = json.loads(text)
    status, now_ms = found["status"], found["now"]
    if status not in ("granted", "replayed", "refused"):
        raise fault(status, reservation_id)
    levels = [Level(*level) for level in found.get("levels", ())]
    hold = _hold(reservation_id, *found["hold"], now_ms) if "hold" in found else None
    return Answer(levels, now_ms, hold, replayed=status == "replayed")


def _hold(reservation_id: str, word: str, payload: str, *times: int) -> Hold:
    created_ms, expires_ms, ended_ms, now_ms = times
    state = State[word.upper()]
    if state is State.HELD and expires_ms <= now_ms:
        state, ended_ms = State.EXPIRED, expires_ms
    lines = tuple((sku, units) for sku, units in json.loads(payload))
    return Hold(reservation_id, state, lines, created_ms, expires_ms, ended_ms)


@asynccontextmanager
async def opened(stock: Mapping[str, int]) -> AsyncIterator[Peer]:
    """Run the peer on a Valkey of its own, with a catalogue on sale."""
    async with valkey_server("second") as url, Redis.from_url(url) as client:
        peer = EvalshaPeer(client)
        await peer.put_on_sale(stock)
        yield peer
