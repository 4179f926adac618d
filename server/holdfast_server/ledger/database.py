"""The archive's database: how it is reached, brought up to date, and written to set by set."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from holdfast_server.errors import StoreUnavailable
from holdfast_server.ledger import schema
from holdfast_server.ledger.faults import ArchiveUnusable
from holdfast_server.ledger.threads import in_thread

_POSTGRESQL = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # it has no annotations
DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg")
PART_ROWS = (64, 8, 1)
LOCK = 7_420_001  # of PostgreSQL: whoever migrates holds it
BUSY_MS = 5_000
# Ids are random, so a transaction touches pages all over the indexes: 32 MiB of them stay in
# memory, and one that is written again and again goes into the database once in 16 MiB of log.
WRITER_PRAGMAS = ("cache_size = -32768", "wal_autocheckpoint = 4096")
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
        self._writer = _SqliteWriter(engine.url) if self.is_sqlite else None

    @classmethod
    async def open(cls, url: str) -> Database:
        """Connect, and migrate what is of an older schema.

        Raises ArchiveUnusable for what can never work, StoreUnavailable for what may later.
        """
        with reaching():
            database = cls(_engine(url))
        try:
            await database._migrate()
        except BaseException:
            await database.aclose()
            raise
        return database

    async def aclose(self) -> None:
        """Close the connections."""
        if self._writer is not None:
            self._writer.engine.dispose()
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection that sees one state.  Raises StoreUnavailable."""
        with reaching():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection whose changes are there when the block ends, all or none.

        Raises StoreUnavailable.
        """
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
        with reaching():
            return await in_thread(self._writer.write, work)

    def put(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write whole rows in the order of the columns; where the key is there, it is replaced.

        SQLite takes some rows a statement: each ends with a fight for the interpreter's lock, which
        a busy server wins.  PostgreSQL takes a set as one array a column.
        """
        if not rows:
            return
        if self.is_sqlite:
            cursor = connection.connection.cursor()
            for part in _parts(rows):
                cursor.execute(_put_sqlite(table, len(part)), [*chain.from_iterable(part)])
            cursor.close()
        else:
            columns = tuple(list(column) for column in zip(*rows, strict=True))
            connection.exec_driver_sql(_put_postgresql(table), columns)

    async def _migrate(self) -> None:
        async with self.reading() as connection:
            found = await connection.run_sync(_revision)
        if found == schema.REVISION:
            return
        if found and found > schema.REVISION:
            raise ArchiveUnusable(
                f"the archive's schema is {found}, this server knows up to {schema.REVISION}"
            )
        async with self.writing() as connection:
            if not self.is_sqlite:
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            from holdfast_server.ledger.migrations import upgrade  # noqa: PLC0415  # rarely needed

            await connection.run_sync(upgrade)


def _engine(url: str) -> AsyncEngine:
    try:
        parts = make_url(url)
        if parts.drivername not in DRIVERS:
            raise ArchiveUnusable(
                f"archive must be sqlite, off, or a URL of {' or '.join(DRIVERS)}, "
                f"not of {parts.drivername!r}"
            )
        if parts.drivername == DRIVERS[0]:
            return _sqlite(parts)
        return create_async_engine(
            url, pool_size=POOL_SIZE, pool_pre_ping=True, connect_args={"timeout": BUSY_MS / 1000}
        )
    except (ArgumentError, NoSuchModuleError) as fault:
        raise ArchiveUnusable(
            f"archive must be sqlite, off, or a URL: {_first_line(fault)}"
        ) from fault
    except ModuleNotFoundError as missing:
        raise ArchiveUnusable(
            f"archive needs {missing.name}: install holdfast[postgres]"
        ) from missing


def _sqlite(parts: URL) -> AsyncEngine:
    """Return an engine of a file, that makes it now and never again: a lost one must be noticed."""
    file = Path(parts.database or "")
    if file.is_dir() or parts.database == ":memory:":
        raise ArchiveUnusable(f"archive must be a file, not {file}")
    file.touch(mode=0o640)
    query = {**parts.query, "mode": "rw", "uri": "true"}
    url = URL.create(DRIVERS[0], database=file.absolute().as_uri(), query=query)
    engine = create_async_engine(url)
    _prepare(engine.sync_engine)
    return engine


class _SqliteWriter:
    """One connection to a SQLite file, that any thread may use.

    A file that is deleted can be written for as long as it is open, and is then gone; so what is
    written is only kept while the file is still the one that was opened.
    """

    def __init__(self, url: URL) -> None:
        engine = create_engine(
            url.set(drivername="sqlite"), pool_size=1, connect_args={"check_same_thread": False}
        )
        _prepare(engine, WRITER_PRAGMAS)
        self.engine = engine.execution_options(writes=True)
        self._file = Path(unquote(urlsplit(url.database or "").path))
        self._opened = self._identity()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a work in a transaction.  Raises FileNotFoundError where the file was taken away."""
        with self.engine.begin() as connection:
            done = work(connection)
            if self._identity() != self._opened:
                raise FileNotFoundError(f"{self._file} was replaced: restart the server")
            return done

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            raise FileNotFoundError(f"{self._file} was deleted: put it back") from None
        return found.st_dev, found.st_ino


def _prepare(engine: Engine, pragmas: Sequence[str] = ()) -> None:
    """Let a SQLite database be written while it is read, and synced with each transaction."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # One fsync a transaction: what is archived survives the machine, not only the process.
        cursor.execute("PRAGMA synchronous = FULL")
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: Any) -> str:
    """Return the schema's revision, empty for a new database.  Raises ArchiveUnusable."""
    dialect = connection.dialect
    if not dialect.has_table(connection, "alembic_version"):
        if dialect.has_table(connection, "ledger"):
            raise ArchiveUnusable("archive: this database holds tables of something else")
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield rows in parts of few sizes, so that few statements are prepared."""
    at = 0
    for size in PART_ROWS:
        while at + size <= len(rows):
            yield rows[at : at + size]
            at += size


@cache
def _put_sqlite(table: Table, rows: int) -> str:
    row = f"({', '.join('?' for _ in table.columns)})"
    return f"{_insert(table)} VALUES {', '.join([row] * rows)} {_replace(table)}"


@cache
def _put_postgresql(table: Table) -> str:
    arrays = ", ".join(
        f"${number}::{_plain_type(column.type)}[]"
        for number, column in enumerate(table.columns, start=1)
    )
    return f"{_insert(table)} SELECT * FROM unnest({arrays}) {_replace(table)}"


def _insert(table: Table) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    return f"INSERT INTO {table.name} ({names})"


def _replace(table: Table) -> str:
    keys = ", ".join(f'"{column.name}"' for column in table.primary_key)
    others = ", ".join(
        f'"{column.name}" = excluded."{column.name}"'
        for column in table.columns
        if not column.primary_key
    )
    return f"ON CONFLICT ({keys}) DO " + (f"UPDATE SET {others}" if others else "NOTHING")


def _plain_type(column_type: Any) -> str:
    return re.split(r"[ (]", str(column_type.compile(dialect=_POSTGRESQL)))[0]


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0]
