"""A ledger entry as it is kept for good: the bytes that the archive stores and the log proves.

A leaf is made once, from the entry as the store recorded it, and never again; so equal bytes are
the same entry, and a proof is about exactly what was decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgpack

from holdfast_server.kernel.records import decode_entries
from holdfast_server.model import LedgerEntry

FORMAT = 1
LEAF_BYTES_MAX = 65_535  # what an entry bundle of C2SP tlog-tiles can hold
EVENT_SIZE = 5


class Leaf(NamedTuple):
    """The fields of a leaf, in the order they are packed; `moves` is False for whole lines."""

    format: int
    cell: int
    epoch: int
    sequence: int
    time_ms: int
    kind: int
    key: bytes
    record: bytes
    moves: bytes | bool
    note: bytes


class StoredBatch(NamedTuple):
    """One batch of the ledger as the store keeps it: its entries as events, and the rows it wrote.

    `rows` are fields of the items hash and their new values by turns: items, locations, budgets.
    """

    epoch: int
    time_ms: int
    first: int
    events: Sequence[Any]
    rows: Sequence[bytes]

    @property
    def last(self) -> int:
        """Return the sequence of the last entry."""
        return self.first + len(self.events) // EVENT_SIZE - 1


def read_batch(body: bytes) -> StoredBatch:
    """Return a batch from the bytes of its stream entry.  Raises one of DAMAGE."""
    _version, epoch, now, first, events, rows = msgpack.unpackb(body, raw=True)
    return StoredBatch(int(epoch), int(now), int(first), events, rows)


def leaves_of(batch: StoredBatch, cell: int) -> list[bytes]:
    """Return the leaf of every entry of a batch, in order."""
    epoch, time_ms, first, events, _rows = batch
    return [
        msgpack.packb(
            (FORMAT, cell, epoch, first + index, time_ms, *events[at : at + EVENT_SIZE]),
            use_bin_type=True,
        )
        for index, at in enumerate(range(0, len(events), EVENT_SIZE))
    ]


def logged(leaf: bytes) -> bytes:
    """Return what a Merkle log has of a leaf: the leaf, or its digest if no bundle can hold it.

    A hundred lines of the longest names in the widest script make an entry of 170,000 bytes.
    """
    if len(leaf) <= LEAF_BYTES_MAX:
        return leaf
    return bytes(msgpack.packb(("sha256", sha256(leaf).digest(), len(leaf))))


def read_leaf(raw: bytes) -> Leaf:
    """Return the fields of a leaf.  Raises ValueError for what is none."""
    fields = msgpack.unpackb(raw)
    if not isinstance(fields, list) or len(fields) != len(Leaf._fields) or fields[0] != FORMAT:
        raise ValueError("not a leaf of format 1")
    return Leaf._make(fields)


def entry_of(raw: bytes) -> LedgerEntry:
    """Return the entry that a leaf records."""
    leaf = read_leaf(raw)
    event = [leaf.kind, leaf.key, leaf.record, leaf.moves, leaf.note]
    (entry,) = decode_entries([FORMAT, leaf.epoch, leaf.time_ms, leaf.sequence, event, ()])
    return entry
