"""Batches of the ledger to rows of the archive's tables.

What happened gets a row each; of what is now, the last row of a key wins, so a transaction writes
an item that sold a thousand times once.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
from sqlalchemy import Table

from holdfast_server.kernel.records import GS, HOLD, LINE, PLACE, US_BYTE, decode_level
from holdfast_server.ledger import schema
from holdfast_server.ledger.leaf import EVENT_SIZE, StoredBatch, leaves_of
from holdfast_server.ledger.upserts import Row
from holdfast_server.model import Kind

_GS = GS.encode()


class Folding:
    """Rows of some batches, one after the other."""

    def __init__(self, cell: int) -> None:
        self._cell = cell
        self._batches: list[Row] = []
        self._ledger: list[Row] = []
        self._touches: list[Row] = []
        self._fields: dict[bytes, bytes] = {}
        self._holds: dict[bytes, bytes] = {}

    def add(self, batch: StoredBatch) -> None:
        """Take a batch; its entries follow on those of the one before."""
        epoch, time_ms, first, events, rows = batch
        last = batch.last
        self._batches.append((last, first, epoch, time_ms, msgpack.packb(list(rows))))
        leaves = leaves_of(batch, self._cell)
        for index, leaf in enumerate(leaves):
            at = index * EVENT_SIZE
            kind, key = events[at], events[at + 1]
            self._ledger.append((first + index, kind, key.decode(), leaf))
            if kind < Kind.PUT_ITEM:
                self._holds[key] = events[at + 2]
        for field, row in zip(rows[::2], rows[1::2], strict=True):
            self._fields[field] = row
            if US_BYTE not in field:
                self._touches.append((field.decode(), last))

    def tables(self) -> Iterator[tuple[Table, list[Row]]]:
        """Yield every table with the rows to write."""
        yield schema.batches, self._batches
        yield schema.ledger, self._ledger
        yield schema.touches, self._touches
        yield schema.items, list(self._items())
        yield schema.locations, list(self._locations())
        yield schema.reservations, [_reservation(*hold) for hold in self._holds.items()]

    def _items(self) -> Iterator[Row]:
        for field, row in self._fields.items():
            if US_BYTE not in field:
                sku = field.decode()
                level = decode_level(sku, row)
                _sku, on_hand, held, committed, backordered, _owed, revision, *_ = level
                counters = (on_hand, held, committed, backordered, level.safety_stock)
                yield (sku, *counters, revision, row)

    def _locations(self) -> Iterator[Row]:
        for field, row in self._fields.items():
            sku, separator, location = field.partition(US_BYTE)
            if separator and sku:  # a field without a SKU is what a principal holds
                on_hand, held, committed, revision = PLACE.unpack_from(row)
                where = (sku.decode(), location.decode())
                yield (*where, on_hand, held, committed, int(revision), row)


def _reservation(key: bytes, record: bytes) -> Row:
    """Return the row of a reservation, by the head of its record and the first word of its text."""
    state, _flags, count, sequence, created, expires, ended, note = HOLD.unpack_from(record)
    text_at = HOLD.size + count * LINE.size + note
    principal = record[text_at : record.index(_GS, text_at)]
    times = (int(created), int(expires), int(ended))
    return (key.decode(), state.decode(), principal.decode(), *times, int(sequence), record)
