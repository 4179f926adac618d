"""The store's side of a recovery: sealed, built anew beside what it has, exchanged, opened again.

Every step that changes what others read is one script that checks the leader's fencing token.
What is built stands under keys of its own, so a crash leaves the old state and rubbish, which the
next try removes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgpack
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from holdfast_server.errors import Fenced, StoreUnavailable
from holdfast_server.kernel.source import flatten, library
from holdfast_server.stores.redis.faults import RETRY_AFTER_MS
from holdfast_server.stores.redis.keeper import ARCHIVER
from holdfast_server.stores.redis.keys import CellKeys, LedgerKeys
from holdfast_server.stores.redis.reader import read

BUILT = ("items", "holds", "expiry", "ended", "skus")
PAGE = 64
TIMEOUT_S = 30.0  # the exchange frees nothing itself, but a rebuild outlasts a slow disk


class Sealed(NamedTuple):
    """A store that nobody writes to: what epoch it will have, and how far its rebuild is."""

    epoch: int
    is_exchanged: bool
    common: int


class RedisRebuilding:
    """Rebuilds one cell.  Raises StoreUnavailable, and Fenced when another one leads."""

    def __init__(self, url: str, *, cell: int = 0) -> None:
        self._keys, self._fences = CellKeys.of(cell), LedgerKeys.of(cell).fences
        self._built = {name: f"{{c{cell}}}:restore:{name}" for name in (*BUILT, "ledger")}
        self._redis = Redis.from_url(
            url, retry=None, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        self._library = library()
        names = ("seal", "restore", "unseal")
        self._scripts = {name: f"#!lua\n{flatten(f'redis/{name}')}" for name in names}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def is_sealed(self) -> bool:
        """Tell whether a rebuild has begun and not ended."""
        command: Any = self._redis.hexists(self._keys.meta, "sealed")
        return bool(await read(command))

    async def seal(self, token: int, epoch: int) -> Sealed:
        """Refuse all batches from here on; the new epoch is above the store's and the given."""
        answer = await self._run("seal", (self._keys.meta, self._fences), token, epoch)
        return Sealed(int(answer[0]), answer[1] == b"applying", int(answer[2]))

    async def discard(self) -> None:
        """Remove what an earlier try has built."""
        await read(self._redis.unlink(*(self._built[name] for name in BUILT)))

    async def put(self, name: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Build a hash further: `items` or `holds`."""
        if pairs:
            command: Any = self._redis.hset(
                self._built[name], items=[part for pair in pairs for part in pair]
            )
            await read(command)

    async def put_scores(self, name: str, scores: dict[bytes, int]) -> None:
        """Build a sorted set further: `expiry` or `skus`."""
        if scores:
            await read(self._redis.zadd(self._built[name], scores))

    async def put_ended(self, elements: Sequence[bytes]) -> None:
        """Build the list of what is to be purged further."""
        if elements:
            command: Any = self._redis.rpush(self._built["ended"], *elements)
            await read(command)

    async def exchange(  # what the state is as of
        self, token: int, epoch: int, *, sequence: int, clock_ms: int, common: int
    ) -> None:
        """Put what was built in the place of what there was, all at once."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hlen(self._built["items"])
        pipe.hlen(self._built["holds"])
        items, holds = await read(pipe.execute())
        keys = (
            self._keys.meta,
            self._fences,
            self._keys.ledger,
            self._built["ledger"],
            *(getattr(self._keys, name) for name in BUILT),
            *(self._built[name] for name in BUILT),
        )
        await self._run("restore", keys, token, epoch, sequence, clock_ms, common, items, holds)

    async def left_over(self, after: int) -> AsyncIterator[bytes]:
        """Yield the batches that the store had after a sequence, until it is opened again."""
        while True:
            found = await read(
                self._redis.xrange(self._built["ledger"], min=f"{after + 1}-0", count=PAGE)
            )
            for name, fields in found:
                after = int(name.partition(b"-")[0])
                yield fields[b"e"]
            if len(found) < PAGE:
                return

    async def decide(
        self, epoch: int, flat: Sequence[Any], count: int, *, budget: int
    ) -> list[Any]:
        """Decide operations in the kernel's form on the sealed store; return their outcomes."""
        await self._load()
        arguments = (epoch, 0, budget, 2**53, count, msgpack.packb(flat, use_bin_type=False))
        command: Any = self._redis.fcall(
            self._library.allow_oom, len(self._keys), *self._keys, *arguments
        )
        outs: list[Any] = msgpack.unpackb(await self._asked(command), raw=True)[3]
        return outs

    async def open(self, token: int, epoch: int) -> None:
        """Let servers write again, under the new epoch."""
        await self._run(
            "unseal", (self._keys.meta, self._fences, self._built["ledger"]), token, epoch
        )

    async def _load(self) -> None:
        try:
            await self._redis.function_load(self._library.text)
        except ResponseError as reply:
            if "already exists" not in str(reply):
                raise StoreUnavailable(str(reply), retry_after_ms=RETRY_AFTER_MS) from reply
        except (RedisError, OSError) as fault:
            raise StoreUnavailable(str(fault), retry_after_ms=RETRY_AFTER_MS) from fault

    async def _run(self, name: str, keys: Sequence[str], *arguments: int) -> Any:
        command: Any = self._redis.eval(
            self._scripts[name], len(keys), *keys, ARCHIVER, *map(str, arguments)
        )
        return await self._asked(command)

    async def _asked(self, command: Any) -> Any:
        try:
            return await command
        except (RedisError, OSError) as fault:
            if str(fault).startswith("FENCED"):
                raise Fenced(f"another one leads: {fault}") from fault
            raise StoreUnavailable(
                f"the store cannot be rebuilt: {fault}", retry_after_ms=RETRY_AFTER_MS
            ) from fault
