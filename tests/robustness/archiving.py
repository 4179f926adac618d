"""Servers with an archive, and what their tests wait for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from holdfast_server.ledger.archive import QUERIES, Archive
from holdfast_server.ledger.archiver import Progress
from holdfast_server.ledger.audit import AuditKind, AuditRecord, read_record
from tests.archives import is_archived, sqlite_url
from tests.serving import Serving, serving, until


@asynccontextmanager
async def archiving(folder: Path, **settings: Any) -> AsyncIterator[Serving]:
    """Run a server with an archive in a folder."""
    async with serving(**{"archive": "sqlite", "data": str(folder), **settings}) as server:
        yield server


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[None]:
    """Keep every other writer from the archive, as a stuck backup would."""
    file = folder / "archive.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        # The server in this loop may be within a transaction, and must be able to end it.
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


async def archived(server: Serving) -> None:
    """Wait until all that was decided is archived."""
    kept = server.server.kept
    assert kept is not None
    assert await kept.progress.wait((await server.head()).sequence, 30)


async def stream_len(url: str) -> int:
    async with Redis.from_url(url) as store:
        return int(await store.xlen("{c0}:ledger"))


async def said(progress: Progress, words: str) -> bool:
    """Tell whether what is wrong is said in some words."""
    return words in progress.fault


async def matches(folder: Path, server: Serving) -> None:
    """Check that archive and store have the same state, when the archive has all."""
    async with Archive.open(sqlite_url(folder)) as archive:
        await is_archived(archive, server.url)


@asynccontextmanager
async def audited(folder: Path, **settings: Any) -> AsyncIterator[tuple[Serving, Archive]]:
    async with (
        serving(archive="sqlite", data=str(folder), **settings) as server,
        Archive.open(sqlite_url(folder)) as archive,
    ):
        yield server, archive


async def records(archive: Archive, count: int) -> list[AuditRecord]:
    """Wait until so many records are archived, and return all there are, without settings."""

    async def are_there() -> bool:
        return (await archive.archived(QUERIES)).sequence >= count

    await until(are_there)
    found = map(read_record, await archive.leaves(QUERIES, 0, 100_000))
    return [record for record in found if record.kind is not AuditKind.CONFIGURATION]
