"""The archive goes away and comes back, the server or the store is gone: all is there again."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from holdfast_server.ledger.archive import Archive
from tests.archives import new_database, postgres_folder, sqlite_url
from tests.robustness.processes import server_process
from tests.robustness.test_archiving import archiving, is_archived, stream_len
from tests.serving import Serving, connected, unique, until

FILE_BYTES_MAX = 64 << 10
KEPT_EVER = 100_000


@pytest.fixture
def postgres() -> Iterator[str]:
    with postgres_folder() as folder:
        yield folder


@asynccontextmanager
async def refusing(folder: str, database: str) -> AsyncIterator[None]:
    """Let a PostgreSQL take no connection to a database, and cut those that are there."""
    admin = await asyncpg.connect(host=folder, user="postgres", database="postgres")
    try:
        await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
        )
        yield
    finally:
        await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        await admin.close()


async def reserve_many(server: Serving, sku: str, count: int) -> int:
    """Return the sequence of the last of some reservations."""
    for _ in range(count):
        held = await server.reserve(sku)
    return int(held.sequence)


async def test_a_postgresql_that_was_away_is_brought_up_to_date(
    valkey_url: str, tmp_path: Path, postgres: str
) -> None:
    url = await new_database(postgres)
    settings = {"archive": url, "redis_url": valkey_url, "ledger_keep": 0}
    async with archiving(tmp_path, **settings) as server:
        kept = server.server.kept
        assert kept is not None
        sku = await server.put(1_000)
        assert await kept.progress.wait(2, 10)
        async with refusing(postgres, str(make_url(url).database)):
            last = await reserve_many(server, sku, 20)

            async def is_said() -> bool:
                return "cannot be reached" in kept.progress.fault

            await until(is_said)
            assert kept.progress.sequence < last
            assert await stream_len(valkey_url) >= 20
        assert await kept.progress.wait(last, 30)
        async with Archive.open(url) as archive:
            await is_archived(archive, valkey_url)


async def test_a_disk_that_was_full_costs_nothing(valkey_url: str, tmp_path: Path) -> None:
    settings = {"archive": "sqlite", "data": str(tmp_path), "redis_url": valkey_url}
    async with server_process(**settings) as process:
        target = (await process.logged("serving"))["target"]
        await process.logged("leading")
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        async with connected(target) as client:
            sku = await client.put(10_000)
            full = (FILE_BYTES_MAX, resource.RLIM_INFINITY)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, full)
            for _ in range(100):
                await client.reserve(sku)
            said = await process.logged("cannot archive")
            assert said["kind"] == "StoreUnavailable"
            for _ in range(10):
                await client.reserve(sku)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
            await process.logged("archiving again")
            async with Archive.open(sqlite_url(tmp_path)) as archive:
                await is_archived(archive, valkey_url)


async def test_what_was_acknowledged_outlives_server_and_store(tmp_path: Path) -> None:
    settings = {"archive": "sqlite", "data": str(tmp_path), "durability": "archived"}
    names = [unique() for _ in range(20)]
    async with server_process(**settings) as process:
        async with connected((await process.logged("serving"))["target"]) as client:
            sku = await client.put(100)
            for name in names:
                await client.reserve(sku, reservation_id=name)
        await process.kill()  # and the embedded store with it: nothing is asked of it below
    async with Archive.open(sqlite_url(tmp_path)) as archive:
        entries = await archive.entries(1, limit=KEPT_EVER)
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        for name in names:
            assert await archive.reservation(name) is not None


async def test_of_two_workers_one_archives(valkey_url: str, tmp_path: Path) -> None:
    settings = {"archive": "sqlite", "data": str(tmp_path), "redis_url": valkey_url, "workers": 2}
    async with server_process(**settings) as process:
        async with connected((await process.logged("serving"))["target"]) as client:
            await process.logged("leading")
            sku = await client.put(100)
            for _ in range(20):
                await client.reserve(sku)
        async with Archive.open(sqlite_url(tmp_path)) as archive:
            await is_archived(archive, valkey_url)
        assert [line["event"] for line in process.lines].count("leading") == 1
