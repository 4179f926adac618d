"""The first tables of the archive."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def _column(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def upgrade() -> None:
    """Make them."""
    _history()
    _state()
    _beside()


def _history() -> None:
    op.create_table(
        "positions",
        _column("stream", KEY, primary_key=True),
        _column("epoch", sa.BigInteger()),
        _column("sequence", sa.BigInteger()),
        _column("time_ms", sa.BigInteger()),
        _column("mark", sa.Text()),
        _column("digest", sa.LargeBinary()),
    )
    op.create_table(
        "batches",
        _column("last", SEQUENCE, primary_key=True, autoincrement=False),
        _column("first", sa.BigInteger()),
        _column("epoch", sa.BigInteger()),
        _column("time_ms", sa.BigInteger()),
        _column("rows", sa.LargeBinary()),
    )
    op.create_index("batches_by_time", "batches", ["time_ms"])
    op.create_table(
        "ledger",
        _column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
        _column("kind", sa.SmallInteger()),
        _column("id", KEY),
        _column("leaf", sa.LargeBinary()),
    )
    op.create_index("ledger_by_id", "ledger", ["id"])
    op.create_table(
        "touches",
        _column("sku", KEY, primary_key=True),
        _column("last", sa.BigInteger(), primary_key=True),
        sqlite_with_rowid=False,
    )


def _state() -> None:
    op.create_table(
        "items",
        _column("sku", KEY, primary_key=True),
        _column("on_hand", sa.Integer()),
        _column("held", sa.Integer()),
        _column("committed", sa.Integer()),
        _column("backordered", sa.Integer()),
        _column("safety_stock", sa.Integer()),
        _column("revision", sa.BigInteger()),
        _column("row", sa.LargeBinary()),
    )
    op.create_table(
        "locations",
        _column("sku", KEY, primary_key=True),
        _column("location", KEY, primary_key=True),
        _column("on_hand", sa.Integer()),
        _column("held", sa.Integer()),
        _column("committed", sa.Integer()),
        _column("revision", sa.BigInteger()),
        _column("row", sa.LargeBinary()),
    )
    op.create_table(
        "reservations",
        _column("id", KEY, primary_key=True),
        _column("state", sa.Text()),
        _column("principal", KEY),
        _column("created_ms", sa.BigInteger()),
        _column("expires_ms", sa.BigInteger()),
        _column("ended_ms", sa.BigInteger()),
        _column("sequence", sa.BigInteger()),
        _column("record", sa.LargeBinary()),
    )
    op.create_index("reservations_by_state", "reservations", ["state", "expires_ms"])


def _beside() -> None:
    op.create_table(
        "queries",
        _column("number", SEQUENCE, primary_key=True, autoincrement=False),
        _column("time_ms", sa.BigInteger()),
        _column("kind", sa.SmallInteger()),
        _column("id", KEY),
        _column("principal", KEY),
        _column("session", KEY),
        _column("sequence", sa.BigInteger()),
        _column("leaf", sa.LargeBinary()),
    )
    op.create_index("queries_by_id", "queries", ["id"])
    op.create_index("queries_by_session", "queries", ["session", "number"])
    op.create_index("queries_by_time", "queries", ["time_ms"])
    op.create_table(
        "reviews",
        _column("number", SEQUENCE, primary_key=True, autoincrement=True),
        _column("reason", sa.Text()),
        _column("sku", KEY),
        _column("reservation_id", KEY),
        _column("sequence", sa.BigInteger()),
        _column("units", sa.Integer()),
        _column("detail", sa.Text()),
        _column("opened_ms", sa.BigInteger()),
        _column("due_ms", sa.BigInteger()),
        _column("resolved_ms", sa.BigInteger()),
        _column("resolution", sa.Text()),
    )
    op.create_table(
        "purges",
        _column("stream", KEY, primary_key=True),
        _column("first", sa.BigInteger(), primary_key=True),
        _column("last", sa.BigInteger()),
        _column("purged_ms", sa.BigInteger()),
    )
