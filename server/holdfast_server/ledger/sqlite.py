"""SQLite as a database of the archive: one file, one writer, any number of readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from holdfast_server.ledger.faults import ArchiveUnusable

DRIVER = "sqlite+aiosqlite"
BUSY_MS = 5_000
# Ids are random, so a transaction touches pages all over the indexes: 32 MiB of them stay in
# memory, and one that is written again and again goes into the database once in 16 MiB of log.
WRITER_PRAGMAS = ("cache_size = -32768", "wal_autocheckpoint = 4096")
T = TypeVar("T")


def engine_of(parts: URL) -> AsyncEngine:
    """Return an engine of a file, that makes it now and never again: a lost one must be noticed."""
    file = Path(parts.database or "")
    if file.is_dir() or parts.database == ":memory:":
        raise ArchiveUnusable(f"archive must be a file, not {file}")
    if not file.exists():
        file.touch(mode=0o640)
    query = {**parts.query, "mode": "rw", "uri": "true"}
    url = URL.create(DRIVER, database=file.absolute().as_uri(), query=query)
    engine = create_async_engine(url)
    _prepare(engine.sync_engine)
    return engine


class Writer:
    """One connection to a SQLite file, that any thread may use.

    A file that is deleted can be written for as long as it is open, and is then gone; so what is
    written is only kept while the file is still the one that was opened.
    """

    def __init__(self, url: URL) -> None:
        engine = create_engine(
            url.set(drivername="sqlite"), pool_size=1, connect_args={"check_same_thread": False}
        )
        _prepare(engine, WRITER_PRAGMAS)
        self._engine = engine.execution_options(writes=True)
        self._file = Path(unquote(urlsplit(url.database or "").path))
        self._opened = self._identity()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a work in a transaction.  Raises FileNotFoundError where the file was taken away."""
        with self._engine.begin() as connection:
            done = work(connection)
            if self._identity() != self._opened:
                raise FileNotFoundError(f"{self._file} was replaced: restart the server")
            return done

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

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
