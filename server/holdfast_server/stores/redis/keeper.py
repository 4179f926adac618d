"""What only the leader may do to a cell, and what everybody hears of it.

Each verb carries the fencing token that the leader was given; the script that does it refuses a
token that is not the newest, so a leader that slept through its successor's election changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgpack
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from holdfast_server.errors import Fenced, StoreUnavailable
from holdfast_server.kernel.source import flatten, lua_root
from holdfast_server.model import Position
from holdfast_server.stores.redis.faults import RETRY_AFTER_MS
from holdfast_server.stores.redis.keys import CellKeys, LedgerKeys
from holdfast_server.stores.redis.reader import read

ARCHIVER = "archiver"
REMEMBERED_MS = 86_400_000  # within which a group of records may be sent again
LISTEN_S = 1.0  # how long the channel may be silent before the position is read


class Waiting(NamedTuple):
    """Audit records that are to be archived, and the id of the last stream entry they are of."""

    mark: str
    records: Sequence[bytes]


class RedisKeeper:
    """Privileged verbs of one cell.  Raises StoreUnavailable."""

    def __init__(self, url: str, *, cell: int = 0, timeout_ms: int = 2_000) -> None:
        self._keys, self._ledger_keys = CellKeys.of(cell), LedgerKeys.of(cell)
        self._redis = Redis.from_url(
            url,
            retry=None,
            socket_timeout=timeout_ms / 1000,
            socket_connect_timeout=timeout_ms / 1000,
        )
        self._claim = (lua_root() / "redis" / "claim.lua").read_text(encoding="utf-8")
        self._archived = f"#!lua\n{flatten('redis/archived')}"
        self._record = (lua_root() / "redis" / "record_queries.lua").read_text(encoding="utf-8")
        self._drop_queries = f"#!lua\n{flatten('redis/drop_queries')}"

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def claim(self) -> int:
        """Return the fencing token of a new leader; those before it are void from here on."""
        return int(await self._eval(self._claim, (self._ledger_keys.fences,), ARCHIVER))

    async def note_archived(self, token: int, epoch: int, sequence: int, *, keep: int) -> None:
        """Note how far the ledger is archived, and drop entries that need not be kept.

        Raises Fenced.
        """
        keys = (self._keys.meta, self._keys.ledger, *self._ledger_keys[::2])
        await self._eval(self._archived, keys, ARCHIVER, token, epoch, sequence, keep)

    async def archived(self) -> Position:
        """Return how far the ledger is archived, as far as this store knows."""
        found: Any = self._redis.hmget(self._keys.meta, ["archived_epoch", "archived"])
        epoch, sequence = await read(found)
        return Position(int(epoch or 0), int(sequence or 0))

    # ---- Audit records ----

    async def add_queries(self, server: str, number: int, records: Sequence[bytes]) -> int:
        """Add audit records as one stream entry; return how many entries wait to be archived.

        Safe to repeat: a server numbers what it adds from 1 on, and a number is added once.
        """
        key = self._ledger_keys.queries
        body = msgpack.packb(list(records)) if records else b""
        arguments: tuple[Any, ...] = (number, body, REMEMBERED_MS)
        answer: Any = self._redis.eval(self._record, 2, key, f"{key}:{server}", *arguments)
        return int(await read(answer))

    async def last_mark(self) -> str:
        """Return the id of the newest entry that was ever added, as far as this store knows."""
        if not await read(self._redis.exists(self._ledger_keys.queries)):
            return ""
        found = await read(self._redis.xinfo_stream(self._ledger_keys.queries))
        return str(found["last-generated-id"].decode())

    async def queries(self, after: str, *, count: int) -> Waiting | None:
        """Return the audit records that came after a stream id, None for none."""
        found = await read(
            self._redis.xrange(
                self._ledger_keys.queries, min=f"({after}" if after else "-", count=count
            )
        )
        if not found:
            return None
        groups = [msgpack.unpackb(fields[b"e"]) for _id, fields in found]
        return Waiting(found[-1][0].decode(), [record for group in groups for record in group])

    async def drop_queries(self, token: int, through: str) -> None:
        """Drop audit records that are archived.  Raises Fenced."""
        keys = (self._ledger_keys.queries, self._ledger_keys.fences)
        await self._eval(self._drop_queries, keys, ARCHIVER, token, through)

    # ---- What all hear ----

    async def hear(self, reach: Callable[[Position], None]) -> None:
        """Tell of each new archived position, until cancelled.  Never raises a fault."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(self._ledger_keys.archived)
                    while True:
                        reach(await self.archived())  # what the channel did not say
                        while heard := await read(
                            channel.get_message(ignore_subscribe_messages=True, timeout=LISTEN_S)
                        ):
                            reach(Position(*map(int, heard["data"].split())))
            except (RedisError, OSError, StoreUnavailable):
                await asyncio.sleep(LISTEN_S)

    async def _eval(self, text: str, keys: tuple[str, ...], *arguments: str | int) -> Any:
        try:
            answer: Any = self._redis.eval(text, len(keys), *keys, *map(str, arguments))
            return await answer
        except ResponseError as reply:
            if str(reply).startswith("FENCED"):
                raise Fenced(f"another one leads: {reply}") from reply
            raise _unreachable(reply) from reply
        except (RedisError, OSError) as fault:
            raise _unreachable(fault) from fault


def _unreachable(fault: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the store cannot be kept: {fault}", retry_after_ms=RETRY_AFTER_MS)
