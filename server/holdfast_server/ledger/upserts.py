"""Whole rows put into a table: new, or in the place of those with their key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

_POSTGRESQL = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # it has no annotations
PART_ROWS = (64, 8, 1)
Row = tuple[Any, ...]
T = TypeVar("T")


def put(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Write rows in the order of the columns.

    SQLite takes some rows a statement: each ends with a fight for the interpreter's lock, which a
    busy server wins.  PostgreSQL takes a set as one array a column.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        cursor = connection.connection.cursor()
        for part in _parts(rows):
            cursor.execute(_for_sqlite(table, len(part)), [*chain.from_iterable(part)])
        cursor.close()
    else:
        columns = tuple(list(column) for column in zip(*rows, strict=True))
        connection.exec_driver_sql(_for_postgresql(table), columns)


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield rows in parts of few sizes, so that few statements are prepared."""
    at = 0
    for size in PART_ROWS:
        while at + size <= len(rows):
            yield rows[at : at + size]
            at += size


@cache
def _for_sqlite(table: Table, rows: int) -> str:
    row = f"({', '.join('?' for _ in table.columns)})"
    return f"{_insert(table)} VALUES {', '.join([row] * rows)} {_replace(table)}"


@cache
def _for_postgresql(table: Table) -> str:
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
