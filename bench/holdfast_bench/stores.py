"""The stores to measure on: the embedded Valkey, a redis-server if there is one, or a given URL."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from holdfast_server.engine.batcher import Answer
from holdfast_server.errors import StoreUnavailable
from holdfast_server.model import AdjustStock, Caller, Code, Operation, PutItem
from holdfast_server.stores.redis.embedded import Durability, EmbeddedConfig, EmbeddedValkey
from holdfast_server.stores.redis.keys import CellKeys
from holdfast_server.stores.redis.store import RedisStore, RedisStoreConfig

CALLER = Caller("bench")
CELL = 9_000  # far from the cells of a server that uses the same store
ON_HAND = 1_000_000_000  # more than any run can sell
BATCH = 100
START_TIMEOUT_S = 10


@dataclass(frozen=True)
class StoreAddress:
    """A running store: its name with the version, and where it listens."""

    name: str
    url: str


def check(answer: Answer) -> None:
    """Raise when an operation did not succeed: a rate of failures is no rate."""
    if isinstance(answer, Exception):
        raise answer
    if answer.code != Code.OK:
        raise RuntimeError(f"an operation answered {Code(answer.code).name}")


@dataclass(frozen=True)
class Cell:
    """One cell on a store, opened for measuring: the store's driver and a plain client."""

    keys: CellKeys
    store: RedisStore
    client: Any

    async def put_on_sale(self, skus: Sequence[str]) -> None:
        """Make the items, each with more units than a run can sell, and forget how."""
        await self.put(skus)
        await self.forget()

    async def put(self, skus: Sequence[str]) -> None:
        """Make the items, each with more units than a run can sell."""
        for first in range(0, len(skus), BATCH):
            part = skus[first : first + BATCH]
            await self.decide([PutItem(f"put-{sku}", CALLER, sku) for sku in part])
            await self.decide([AdjustStock(f"in-{sku}", CALLER, sku, ON_HAND) for sku in part])

    async def decide(self, batch: Sequence[Operation]) -> None:
        """Execute a batch in which every operation must succeed."""
        for answer in (await self.store.execute(batch)).outcomes:
            check(answer)

    async def forget(self) -> None:
        """Drop reservations and ledger, so that no contestant pays for what another left."""
        keys = self.keys
        await self.client.unlink(keys.holds, keys.expiry, keys.ended, keys.ledger)

    async def unarchived(self) -> int:
        """Return how many ledger entries a server that archives this cell has still to archive."""
        found = await self.client.hmget(self.keys.meta, "sequence", "archived")
        sequence, archived = (int(value or 0) for value in found)
        return sequence - archived


@asynccontextmanager
async def opened(address: StoreAddress, cell: int) -> AsyncIterator[Cell]:
    """Open a cell of its own, empty, and remove it afterwards."""
    client: Any = Redis.from_url(address.url)
    store = RedisStore(RedisStoreConfig(address.url, cell=cell, timeout_ms=10_000))
    keys = CellKeys.of(cell)
    await client.unlink(*keys)
    await store.open()
    try:
        yield Cell(keys, store, client)
    finally:
        await store.aclose()
        await client.unlink(*keys)
        await client.aclose()


@asynccontextmanager
async def stores(url: str) -> AsyncIterator[list[StoreAddress]]:
    """Run the stores to compare: the one at `url`, or embedded Valkey and any redis-server."""
    async with AsyncExitStack() as stack:
        urls = [url] if url else [await stack.enter_async_context(valkey_server("second"))]
        if not url and shutil.which("redis-server"):
            urls.append(await stack.enter_async_context(redis_server()))
        yield [await addressed(found) for found in urls]


@asynccontextmanager
async def valkey_server(durability: Durability) -> AsyncIterator[str]:
    """Run the embedded Valkey as the server does, in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        valkey = await EmbeddedValkey.start(EmbeddedConfig(Path(folder), durability))
        try:
            yield valkey.url
        finally:
            await valkey.aclose()


@asynccontextmanager
async def redis_server() -> AsyncIterator[str]:
    """Run the installed redis-server with the settings of the embedded Valkey."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        socket = f"{folder}/redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder,
                   "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]  # fmt: skip
        # Popen, because uvloop's own subprocesses fork; it is started before anything is measured.
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:  # noqa: ASYNC220
            try:
                await _until_ready(f"unix://{socket}")
                yield f"unix://{socket}"
            finally:
                server.terminate()


async def _until_ready(url: str) -> None:
    client: Any = Redis.from_url(url)
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            with suppress(RedisConnectionError):
                await client.ping()
                break
            await asyncio.sleep(0.02)
    await client.aclose()


async def addressed(url: str) -> StoreAddress:
    """Return a running store with its name.  Raises StoreUnavailable."""
    try:
        client: Any = Redis.from_url(url)
        info = await client.info("server")
        await client.aclose()
    except (RedisError, OSError, ValueError) as fault:
        raise StoreUnavailable(f"cannot use the store: {fault}") from fault
    if "valkey_version" in info:
        return StoreAddress(f"Valkey {info['valkey_version']}", url)
    return StoreAddress(f"Redis {info['redis_version']}", url)
