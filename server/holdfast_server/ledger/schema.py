"""Tables of the archive.  A change here is a migration in `migrations/versions` too.

`ledger` and `batches` are what happened, and never change; `items`, `locations` and `reservations`
are their fold as of `positions`, written in the same transaction.  Bytes are kept as they came,
so that state can be built from them again bit for bit; the columns beside them are for queries.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

REVISION = "0002"  # the newest of `migrations/versions`
metadata = MetaData()

# The rowid of a SQLite table is an INTEGER, and only that.
Sequence = BigInteger().with_variant(Integer(), "sqlite")
# As a literal, since SQLite does not use a partial index for a parameter.
IS_HELD = text("state = 'H'")
# SKUs, ids and names are compared by their bytes, as the store does.
Key = Text(collation="C").with_variant(Text(), "sqlite")

positions = Table(  # how far each stream is archived; one row a stream: `ledger`, `queries`
    "positions",
    metadata,
    Column("stream", Key, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column(
        "sequence", BigInteger, nullable=False
    ),  # of the last entry, or number of the last query
    Column("time_ms", BigInteger, nullable=False),  # of that entry
    Column("mark", Text, nullable=False),  # id of the last stream entry
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of that stream entry's bytes
)

batches = Table(
    "batches",
    metadata,
    Column("last", Sequence, primary_key=True, autoincrement=False),
    Column("first", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("rows", LargeBinary, nullable=False),  # msgpack list: fields and rows by turns
    Index("batches_by_time", "time_ms"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    Column("id", Key, nullable=False),  # reservation id, or `~` and a request id
    Column("leaf", LargeBinary, nullable=False),
    Index("ledger_by_id", "id"),
)

touches = Table(  # which batches changed an item
    "touches",
    metadata,
    Column("sku", Key, primary_key=True),
    Column("last", BigInteger, primary_key=True),
    sqlite_with_rowid=False,
)

items = Table(
    "items",
    metadata,
    Column("sku", Key, primary_key=True),
    Column("on_hand", Integer, nullable=False),
    Column("held", Integer, nullable=False),
    Column("committed", Integer, nullable=False),
    Column("backordered", Integer, nullable=False),
    Column("safety_stock", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("row", LargeBinary, nullable=False),
)

locations = Table(
    "locations",
    metadata,
    Column("sku", Key, primary_key=True),
    Column("location", Key, primary_key=True),
    Column("on_hand", Integer, nullable=False),
    Column("held", Integer, nullable=False),
    Column("committed", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("row", LargeBinary, nullable=False),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", Key, primary_key=True),
    Column("state", Text, nullable=False),  # H, C, R or X, as in the record
    Column("principal", Key, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),  # 0 while held
    Column("sequence", BigInteger, nullable=False),  # of its last entry
    Column("record", LargeBinary, nullable=False),
    Index("reservations_held", "expires_ms", sqlite_where=IS_HELD, postgresql_where=IS_HELD),
)

queries = Table(  # what was asked and answered without an entry in the ledger
    "queries",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=False),  # gapless, from 1
    Column("time_ms", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("id", Key, nullable=False),  # query id, or the reservation id of a refusal
    Column("principal", Key, nullable=False),
    Column("session", Key, nullable=False),
    Column("sequence", BigInteger, nullable=False),  # of the ledger, that the answer was as of
    Column("leaf", LargeBinary, nullable=False),
    Index("queries_by_id", "id"),
    Index("queries_by_session", "session", "number"),
    Index("queries_by_time", "time_ms"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=True),
    Column("reason", Text, nullable=False),
    Column("sku", Key, nullable=False),
    Column("reservation_id", Key, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("units", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("resolved_ms", BigInteger, nullable=False),  # 0 while open
    Column("resolution", Text, nullable=False),
)

purges = Table(  # sealed ranges whose leaves are gone by their retention
    "purges",
    metadata,
    Column("stream", Key, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("purged_ms", BigInteger, nullable=False),
)
