"""postgres: SELECT ... FOR UPDATE in a transaction, on asyncpg's pool.

What a team writes first that trusts its database: a call is one transaction of five statements,
which locks its items in order of SKU, so that no two calls wait for each other in a circle.  What
is due is given back when an item is short; until then `held` of an answered level may count it.

It does not retry, partition a hot item's row, or decide in a stored procedure.  Durability is
synchronous_commit: on, PostgreSQL's default (an answer waits for the disk), or off (it may lose
about half a second, which compares with Valkey's fsync every second).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any

import asyncpg

from holdfast_bench.peers.postgresql import postgresql
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
from holdfast_server.model import State

CONNECTIONS = 16  # more of them on few cores only wait for each other's locks
START_S_MAX, POLL_S = 20.0, 0.02
USER = "postgres"

_LOCK = "SELECT sku, on_hand, held, sold FROM items WHERE sku = ANY($1) ORDER BY sku FOR UPDATE"
_LOCK_OF = """
SELECT i.sku, on_hand, held, sold FROM items i JOIN lines l USING (sku)
WHERE reservation_id = $1 ORDER BY sku FOR UPDATE OF i
"""
_FIND = """
SELECT now_ms(), id, state, created_ms, expires_ms, ended_ms,
    ARRAY(SELECT (sku, quantity) FROM lines WHERE reservation_id = $1 ORDER BY sku)
FROM (VALUES ($1)) AS asked (asked_id) LEFT JOIN reservations ON id = asked_id
"""
_SWEEP = """
WITH due AS (UPDATE lines SET is_held = false
    WHERE sku = ANY($1) AND is_held AND expires_ms <= $2 RETURNING sku, quantity)
UPDATE items SET held = held - freed
FROM (SELECT sku, sum(quantity) AS freed FROM due GROUP BY sku) AS total
WHERE items.sku = total.sku
"""
_HOLD = """
WITH wanted AS (SELECT * FROM unnest($4::text[], $5::bigint[]) AS w (sku, quantity)),
made AS (INSERT INTO reservations (id, state, created_ms, expires_ms) VALUES ($1, 1, $2, $3)),
put AS (INSERT INTO lines (reservation_id, sku, quantity, expires_ms)
    SELECT $1, sku, quantity, $3 FROM wanted)
UPDATE items SET held = held + quantity FROM wanted WHERE items.sku = wanted.sku
"""
_END = """
WITH ended AS (UPDATE reservations SET state = $2, ended_ms = $3 WHERE id = $1),
freed AS (UPDATE lines SET is_held = false WHERE reservation_id = $1 RETURNING sku, quantity)
UPDATE items SET held = held - quantity, sold = sold + CASE $2 WHEN 2 THEN quantity ELSE 0 END
FROM freed WHERE items.sku = freed.sku
"""
_LEVELS = """
SELECT now_ms(), sku, on_hand, held - coalesce((SELECT sum(quantity) FROM lines
    WHERE lines.sku = items.sku AND is_held AND expires_ms <= now_ms()), 0)::bigint, sold
FROM items WHERE sku = ANY($1)
"""
_SALES = """
SELECT sku, coalesce(sum(quantity) FILTER (WHERE state = 2), 0)::bigint,
    coalesce(sum(quantity) FILTER (WHERE state = 1 AND r.expires_ms > now_ms()), 0)::bigint
FROM lines JOIN reservations r ON r.id = reservation_id GROUP BY sku
"""


class PostgresPeer:
    """Stock in three tables, decided under row locks."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def reserve(self, reservation_id: str, lines: Lines, ttl_ms: int) -> Answer:
        """Hold every line or none."""
        skus, units = [sku for sku, _ in lines], [wanted for _, wanted in lines]
        async with self._pool.acquire() as db, db.transaction():
            levels = _levels(await db.fetch(_LOCK, skus))
            check_known(levels, skus)
            hold, now_ms = await _found(db, reservation_id)
            if hold:
                return Answer(levels, now_ms, same(hold, lines, now_ms), replayed=True)
            if is_short(levels, lines):
                await db.execute(_SWEEP, skus, now_ms)
                levels = _levels(await db.fetch(_LOCK, skus))
                if is_short(levels, lines):
                    return Answer(levels, now_ms)
            hold = Hold(reservation_id, State.HELD, lines, now_ms, now_ms + ttl_ms)
            try:
                await db.execute(_HOLD, reservation_id, now_ms, hold.expires_ms, skus, units)
            except asyncpg.UniqueViolationError as error:  # at the same time, for other items
                raise fault("reused", reservation_id) from error
        return Answer(after_hold(levels, lines), now_ms, hold)

    async def end(self, reservation_id: str, state: State) -> Answer:
        """Commit or release a hold."""
        async with self._pool.acquire() as db, db.transaction():
            levels = _levels(await db.fetch(_LOCK_OF, reservation_id))
            hold, now_ms = await _found(db, reservation_id)
            if not hold:
                raise fault("unknown", reservation_id)
            if is_replay(hold, state, now_ms):
                return Answer(levels, now_ms, hold, replayed=True)
            await db.execute(_END, reservation_id, state, now_ms)
        ended = hold._replace(state=state, ended_ms=now_ms)
        return Answer(after_end(levels, ended), now_ms, ended)

    async def levels(self, skus: Sequence[str]) -> Answer:
        """Return the levels of the SKUs that exist."""
        rows = await self._pool.fetch(_LEVELS, list(skus))
        return Answer([Level(*row[1:]) for row in map(tuple, rows)], rows[0][0] if rows else 0)

    async def sales(self) -> Mapping[str, Sale]:
        """Return what the reservations of each SKU have."""
        return {sku: Sale(sold, held) for sku, sold, held in await self._pool.fetch(_SALES)}


def _levels(rows: Sequence[Any]) -> list[Level]:
    return [Level(*row) for row in rows]


async def _found(db: Any, reservation_id: str) -> tuple[Hold | None, int]:
    now_ms, id_, state, created_ms, expires_ms, ended_ms, lines = await db.fetchrow(
        _FIND, reservation_id
    )
    if id_ is None:
        return None, now_ms
    pairs = tuple((sku, quantity) for sku, quantity in lines)
    return Hold(id_, State(state), pairs, created_ms, expires_ms, ended_ms), now_ms


@asynccontextmanager
async def opened(stock: Mapping[str, int], *, synchronous_commit: str) -> AsyncIterator[Peer]:
    """Run the peer on a PostgreSQL of its own, with a catalogue on sale."""
    with postgresql(synchronous_commit=synchronous_commit) as folder:
        await _until_ready(folder)
        async with asyncpg.create_pool(
            host=folder, user=USER, database=USER, min_size=CONNECTIONS, max_size=CONNECTIONS
        ) as pool:
            await pool.execute((files(__package__) / "schema.sql").read_text(encoding="utf-8"))
            rows = list(stock.items())
            await pool.copy_records_to_table("items", records=rows, columns=["sku", "on_hand"])
            yield PostgresPeer(pool)


async def _until_ready(folder: str) -> None:
    async with asyncio.timeout(START_S_MAX):
        while True:
            try:
                db = await asyncpg.connect(host=folder, user=USER, database=USER)
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(POLL_S)
            else:
                return await db.close()


durable = partial(opened, synchronous_commit="on")
quick = partial(opened, synchronous_commit="off")
