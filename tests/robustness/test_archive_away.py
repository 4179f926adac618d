"""The archive goes away and comes back, the server or the store is gone: all is there again."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from holdfast_server.errors import StoreUnavailable
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.comparing import compare
from tests.archives import is_archived, new_database, sqlite_url, until_ready
from tests.robustness.archiving import archiving, said, stream_len
from tests.robustness.load import check_promises, stocked, under_load
from tests.robustness.processes import server_process
from tests.serving import Serving, connected, serving, unique, until

FILE_BYTES_MAX = 64 << 10
KILLS, STEPS = 3, 150
KEPT_EVER = 100_000


@asynccontextmanager
async def refusing(folder: str, database: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Let a PostgreSQL take no connection to a database, and cut those that are there.

    Yields what lets it take them again before the end.
    """
    admin = await asyncpg.connect(host=folder, user="postgres", database="postgres")

    async def let() -> None:
        await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

    try:
        await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
        )
        yield let
    finally:
        await let()
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

            await until(lambda: said(kept.progress, "cannot be reached"))
            assert kept.progress.sequence < last
            assert await stream_len(valkey_url) >= 20
        assert await kept.progress.wait(last, 30)
        async with Archive.open(url) as archive:
            await is_archived(archive, valkey_url)


async def test_a_server_starts_while_its_archive_is_away(
    valkey_url: str, tmp_path: Path, postgres: str
) -> None:
    url = await new_database(postgres)
    settings = {"archive": url, "redis_url": valkey_url, "ledger_keep": 0}
    async with refusing(postgres, str(make_url(url).database)):
        with pytest.raises(StoreUnavailable, match="the archive cannot be reached"):
            async with archiving(tmp_path, **settings):
                pass
        async with serving(redis_url=valkey_url) as server:
            sku = await server.put(1_000)
    async with (
        refusing(postgres, str(make_url(url).database)) as let,
        archiving(tmp_path, **settings) as server,
    ):
        last = await reserve_many(server, sku, 20)
        assert await stream_len(valkey_url) >= 20
        await let()
        kept = server.server.kept
        assert kept is not None
        assert await kept.progress.wait(last, 30)
        async with Archive.open(url) as archive:
            await is_archived(archive, valkey_url)
        await check_promises(server)


async def test_a_postgresql_that_is_killed_under_load_has_each_entry_once(
    valkey_url: str, tmp_path: Path, postgres: str
) -> None:
    url = await new_database(postgres)
    async with archiving(tmp_path, archive=url, redis_url=valkey_url, ledger_keep=0) as server:
        skus = await stocked(server)
        async with under_load(server, skus=skus) as load:
            for _ in range(KILLS):
                await load.after(STEPS)
                await killed(postgres, str(make_url(url).database))
            await load.after(STEPS)
        async with Archive.open(url) as archive:
            await is_archived(archive, valkey_url)
            assert not (await compare(archive)).differences
        await check_promises(server, load.acknowledged)


async def killed(folder: str, database: str) -> None:
    """Kill who works on a database: PostgreSQL ends all, and recovers as from a crash."""
    admin = await asyncpg.connect(host=folder, user="postgres", database="postgres")
    found = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE datname = $1", database)
    ended = asyncio.Event()
    admin.add_termination_listener(lambda _connection: ended.set())
    os.kill(found[0]["pid"], signal.SIGKILL)
    await ended.wait()
    await until_ready(folder)


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


async def test_an_archive_that_is_deleted_takes_nothing_with_it(
    valkey_url: str, tmp_path: Path
) -> None:
    settings = {"archive": "sqlite", "redis_url": valkey_url, "ledger_keep": 0}
    file, away = tmp_path / "archive.db", tmp_path / "away"
    async with archiving(tmp_path, **settings) as server:
        kept = server.server.kept
        assert kept is not None
        sku = await server.put(1_000)
        assert await kept.progress.wait(2, 10)
        file.rename(away)
        for words in ("was deleted: put it back", "was replaced: restart the server"):
            last = await reserve_many(server, sku, 5)
            await until(lambda words=words: said(kept.progress, words))
            assert kept.progress.sequence == 2
            file.write_bytes(b"")
        assert await stream_len(valkey_url) >= 10
        away.rename(file)
        assert await kept.progress.wait(last, 30)
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
