"""Archives for tests: on SQLite and PostgreSQL, and the ledgers that go into them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import asyncpg
from redis.asyncio import Redis

from holdfast_bench.peers.postgresql import postgresql
from holdfast_server.kernel.inprocess import KernelInProcess, Tables
from holdfast_server.kernel.records import US_BYTE
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.database import archive_url
from holdfast_server.model import (
    AdjustStock,
    Caller,
    Commit,
    Line,
    Operation,
    PutItem,
    Release,
    Reserve,
)
from holdfast_server.model.operations import Context, Policy
from tests.recorded import RecordedTables
from tests.serving import POLL_S

AGENT, OPERATOR = Caller("agent", False), Caller("operator", True)
SKUS = ("apple", "banana", "cherry")
PLACES = ("", "east", "west")
BEGAN_MS = 1_700_000_000_000


def ledger_of(seed: int, *, batches: int = 40) -> RecordedTables:
    """Return the tables and the stream of a random history: holds, sales, returns, expiries."""
    random, tables = Random(seed), RecordedTables()
    kernel = KernelInProcess(tables)
    now_ms = BEGAN_MS
    put: list[Operation] = [
        PutItem(f"put-{sku}", OPERATOR, sku, Policy(safety_stock=1, oversell_limit=2))
        for sku in SKUS
    ]
    counted: list[Operation] = [
        AdjustStock(f"count-{sku}-{place}", OPERATOR, sku, 20, place, "count", "")
        for sku in SKUS
        for place in PLACES
    ]
    kernel.execute(put + counted, now_ms=now_ms)
    for number in range(batches):
        now_ms += random.randrange(4_000)
        kernel.execute(_some(random, number, tables), now_ms=now_ms)
    return tables


def _some(random: Random, number: int, tables: RecordedTables) -> list[Operation]:
    context = Context("a", "s", random.choice(("web", "")), f"ref-{number}", "because it is red")
    operations: list[Operation] = []
    for index in range(random.randrange(1, 8)):
        lines = tuple(
            Line(sku, random.randrange(1, 4), random.choice(PLACES))
            for sku in random.sample(SKUS, random.randrange(1, 3))
        )
        operations.append(Reserve(f"r-{number}-{index}", AGENT, lines, 5_000, context))
    for key in random.sample(sorted(tables.holds), min(4, len(tables.holds))):
        name = key.decode()
        if not name.startswith("~"):
            kind = random.choice((Commit, Release))
            operations.append(kind(name, AGENT))
    operations.append(
        AdjustStock(f"more-{number}", OPERATOR, random.choice(SKUS), 5, "", "found", "")
    )
    return operations


def items_of(tables: Tables) -> dict[str, bytes]:
    """Return the rows of all items."""
    return {field.decode(): row for field, row in tables.items.items() if US_BYTE not in field}


def places_of(tables: Tables) -> dict[tuple[str, ...], bytes]:
    """Return the rows of all locations."""
    return {
        tuple(field.decode().split("\x1f")): row
        for field, row in tables.items.items()
        if US_BYTE in field and not field.startswith(US_BYTE)
    }


def held_by(tables: Tables) -> dict[str, bytes]:
    """Return the records of all reservations that are held."""
    return {key.decode(): raw for key, raw in tables.holds.items() if raw[:1] == b"H"}


@contextmanager
def postgres_folder() -> Iterator[str]:
    """Run a PostgreSQL; yield the folder of its socket, when it answers."""
    with postgresql(fsync="off") as folder:
        asyncio.run(until_ready(folder))
        yield folder


async def until_ready(folder: str) -> None:
    """Wait until a PostgreSQL answers."""
    while True:
        try:
            connection = await asyncpg.connect(host=folder, user="postgres", database="postgres")
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            await asyncio.sleep(0.05)
            continue
        await connection.close()
        return


async def new_database(folder: str) -> str:
    """Make a database; return the URL of an archive in it."""
    name = f"archive_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(host=folder, user="postgres", database="postgres")
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return f"postgresql+asyncpg://postgres@/{name}?host={folder}"


def sqlite_url(folder: Path) -> str:
    """Return the URL of an archive in a folder."""
    return archive_url("sqlite", folder)


@asynccontextmanager
async def archive_with(url: str, *bodies: bytes) -> AsyncIterator[Archive]:
    """Open an archive, and put batches into it."""
    async with Archive.open(url) as archive:
        if bodies:
            await archive.apply(bodies)
        yield archive


async def is_archived(archive: Archive, url: str) -> None:
    """Wait until all of a store is archived, and compare both, byte for byte."""
    while True:  # holds may still run out
        sequence, rows, holds = await stored(url)
        is_there = (await archive.archived()).sequence == sequence
        items = {sku.encode(): row async for sku, row in archive.items()}
        places = {f"{sku}\x1f{at}".encode(): row async for sku, at, row in archive.locations()}
        live = {name.encode(): record async for name, record in archive.held()}
        if is_there and (await archive.archived()).sequence == sequence:
            break
        await asyncio.sleep(POLL_S)
    assert items == {field: row for field, row in rows.items() if US_BYTE not in field}
    assert places == {
        f: row for f, row in rows.items() if US_BYTE in f and not f.startswith(US_BYTE)
    }
    assert live == {name: record for name, record in holds.items() if record[:1] == b"H"}
    numbers = [entry.sequence for entry in await archive.entries(1, limit=sequence)]
    assert numbers == list(range(1, sequence + 1))


async def stored(url: str) -> tuple[int, dict[bytes, bytes], dict[bytes, bytes]]:
    """Return sequence, rows and holds of a store as of one moment."""
    async with Redis.from_url(url) as store:
        cell: Any = store.pipeline(transaction=True)
        cell.hget("{c0}:meta", "sequence")
        cell.hgetall("{c0}:items")
        cell.hgetall("{c0}:holds")
        sequence, rows, holds = await cell.execute()
    return int(sequence), rows, holds
