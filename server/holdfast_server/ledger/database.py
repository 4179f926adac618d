"""The archive's database: how it is reached, brought up to date, and written to."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from holdfast_server.errors import StoreUnavailable
from holdfast_server.ledger import schema, sqlite
from holdfast_server.ledger.faults import ArchiveUnusable
from holdfast_server.ledger.threads import in_thread

DRIVERS = (sqlite.DRIVER, "postgresql+asyncpg")
LOCK = 7_420_001  # of PostgreSQL: whoever migrates holds it
CONNECT_S = 5.0
T = TypeVar("T")
POOL_SIZE = 5
RETRY_AFTER_MS = 500


def archive_url(setting: str, data: Path) -> str:
    """Return the URL that a setting stands for: `sqlite` is a file in the data directory."""
    return f"sqlite+aiosqlite:///{data / 'archive.db'}" if setting == "sqlite" else setting


@contextmanager
def reaching() -> Iterator[None]:
    """Raise StoreUnavailable for whatever keeps the database from doing what it is told."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError) as fault:
        cause = fault.orig if isinstance(fault, DBAPIError) and fault.orig else fault
        words = f"the archive cannot be reached: {cause}"
        raise StoreUnavailable(words, retry_after_ms=RETRY_AFTER_MS) from fault


class Database:
    """A pool of connections.  Open it with `open`, close it with `aclose`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._writes = engine.execution_options(writes=True)
        self._writer = sqlite.Writer(engine.url) if self.is_sqlite else None
        self._is_current = False  # of this schema, as far as is known

    @classmethod
    async def open(cls, url: str, *, is_patient: bool = False) -> Database:
        """Connect, and migrate what is of an older schema.

        Raises ArchiveUnusable for what can never work, StoreUnavailable for what may later: where
        that is waited for patiently, whatever is asked of it raises that until it is there.
        """
        with reaching():
            database = cls(_engine(url))
        try:
            await database._migrate()
        except BaseException as fault:
            if not (is_patient and isinstance(fault, StoreUnavailable)):
                await database.aclose()
                raise
        return database

    async def aclose(self) -> None:
        """Close the connections."""
        if self._writer is not None:
            self._writer.close()
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection that sees one state.  Raises StoreUnavailable."""
        await self._ready()
        async with self._reading() as connection:
            yield connection

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with reaching():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection whose changes are there when the block ends, all or none.

        Raises StoreUnavailable.
        """
        await self._ready()
        async with self._writing() as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        with reaching():
            async with self._writes.connect() as connection, connection.begin():
                yield connection

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a work in a transaction; all it wrote is there, or nothing.  Raises StoreUnavailable.

        On SQLite it runs in a thread: a hop there and back for each statement cost four times as
        much as what the statements of a small transaction do.  Cancelled, it ends all the same.
        """
        if self._writer is None:
            async with self.writing() as connection:
                return await connection.run_sync(work)
        await self._ready()
        with reaching():
            return await in_thread(self._writer.write, work)

    async def _ready(self) -> None:
        if not self._is_current:
            try:
                await self._migrate()
            except ArchiveUnusable as fault:
                raise StoreUnavailable(str(fault), retry_after_ms=RETRY_AFTER_MS) from fault

    async def _migrate(self) -> None:
        async with self._reading() as connection:
            found = await connection.run_sync(_revision)
        if found == schema.REVISION:
            self._is_current = True
            return
        if found and found > schema.REVISION:
            raise ArchiveUnusable(
                f"the archive's schema is {found}, this server knows up to {schema.REVISION}"
            )
        async with self._writing() as connection:
            if not self.is_sqlite:
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            from holdfast_server.ledger.migrations import upgrade  # noqa: PLC0415  # rarely needed

            await connection.run_sync(upgrade)
        self._is_current = True


def _engine(url: str) -> AsyncEngine:
    try:
        parts = make_url(url)
        if parts.drivername not in DRIVERS:
            raise ArchiveUnusable(
                f"archive must be sqlite, off, or a URL of {' or '.join(DRIVERS)}, "
                f"not of {parts.drivername!r}"
            )
        if parts.drivername == DRIVERS[0]:
            return sqlite.engine_of(parts)
        return create_async_engine(
            url, pool_size=POOL_SIZE, pool_pre_ping=True, connect_args={"timeout": CONNECT_S}
        )
    except (ArgumentError, NoSuchModuleError) as fault:
        raise ArchiveUnusable(
            f"archive must be sqlite, off, or a URL: {_first_line(fault)}"
        ) from fault
    except ModuleNotFoundError as missing:
        raise ArchiveUnusable(
            f"archive needs {missing.name}: install holdfast[postgres]"
        ) from missing


def _revision(connection: Any) -> str:
    """Return the schema's revision, empty for a new database.  Raises ArchiveUnusable."""
    dialect = connection.dialect
    if not dialect.has_table(connection, "alembic_version"):
        if dialect.has_table(connection, "ledger"):
            raise ArchiveUnusable("archive: this database holds tables of something else")
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0]
