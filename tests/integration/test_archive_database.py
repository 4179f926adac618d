"""The database of an archive: made, brought up to date, or refused for what it is."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from holdfast_server.errors import StoreUnavailable
from holdfast_server.ledger import schema
from holdfast_server.ledger.archive import Archive, Archived
from holdfast_server.ledger.comparing import compare
from holdfast_server.ledger.database import Database, _engine
from holdfast_server.ledger.faults import (
    ArchiveUnusable,
)
from holdfast_server.ledger.migrations import alembic_config
from tests.archives import (
    archive_with,
    ledger_of,
    sqlite_url,
)

# ---- Schema ----


async def test_the_migrations_make_the_schema(archive: Archive) -> None:
    def differences(connection: Any) -> Any:
        return compare_metadata(MigrationContext.configure(connection), schema.metadata)

    async with archive._database.reading() as connection:
        assert await connection.run_sync(differences) == []

        def head(connection: Any) -> Any:
            return ScriptDirectory.from_config(alembic_config(connection)).get_heads()

        assert await connection.run_sync(head) == [schema.REVISION]


async def test_an_archive_of_an_older_server_is_brought_up_to_date(url: str) -> None:
    tables = ledger_of(3, batches=10)
    database = Database(_engine(url))
    async with database.writing() as connection:
        await connection.run_sync(lambda to: command.upgrade(alembic_config(to), "0001"))
    await Archive(database).apply(tables.bodies)
    await database.aclose()
    async with Archive.open(url) as archive:
        await test_the_migrations_make_the_schema(archive)
        assert (await archive.archived()).sequence == tables.sequence
        assert not (await compare(archive)).differences


async def test_two_servers_may_open_a_new_archive_at_once(url: str) -> None:
    async def opened() -> Archived:
        async with Archive.open(url) as archive:
            return await archive.archived()

    assert await asyncio.gather(opened(), opened(), opened()) == [Archived()] * 3


async def test_an_archive_of_a_newer_server_is_refused(url: str) -> None:
    async with archive_with(url) as archive, archive._database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ArchiveUnusable, match=r"schema is 9999, this server knows up to 0002"):
        async with archive_with(url):
            pass


# ---- What is no archive ----


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("mysql://x/y", "archive must be sqlite, off, or a URL of"),
        ("nonsense", "archive must be sqlite, off, or a URL"),
        ("sqlite:///x.db", "not of 'sqlite'"),
        ("sqlite+aiosqlite:///:memory:", "archive must be a file, not :memory:"),
    ],
)
async def test_a_bad_setting_is_named(setting: str, words: str) -> None:
    with pytest.raises(ArchiveUnusable, match=words):
        async with archive_with(setting):
            pass


async def test_a_directory_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "archive.db").mkdir()
    with pytest.raises(ArchiveUnusable, match="archive must be a file, not"):
        async with archive_with(sqlite_url(tmp_path)):
            pass


async def test_another_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "archive.db").write_bytes(b"a letter to somebody, which is no database" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        async with archive_with(sqlite_url(tmp_path)):
            pass


async def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "archive.db") as other:
        other.execute("CREATE TABLE ledger (amount INTEGER)")
    other.close()
    with pytest.raises(ArchiveUnusable, match="tables of something else"):
        async with archive_with(sqlite_url(tmp_path)):
            pass


async def test_a_server_that_is_away_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="the archive cannot be reached"):
        async with archive_with(f"postgresql+asyncpg://postgres@/x?host={tmp_path}"):
            pass
