"""The state that a ledger leaves, and one name for it: its digest.

Two ways lead there: `Fold` takes the rows that each batch wrote, `Redecider` makes them again.
A live store and the archive's tables have the same state, so all of them have the same digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from struct import Struct

from holdfast_server.ledger.leaf import EVENT_SIZE, StoredBatch
from holdfast_server.model import Kind

US = b"\x1f"
HELD = b"H"
_SIZE = Struct(">I")


class Fold:
    """Rows by field, and the records of live holds by id, after the batches taken so far."""

    def __init__(self) -> None:
        self.sequence = 0
        self.rows: dict[bytes, bytes] = {}
        self.holds: dict[bytes, bytes] = {}

    def take(self, batch: StoredBatch) -> None:
        """Take the next batch.  Raises ValueError where it does not follow."""
        if batch.first != self.sequence + 1:
            raise ValueError(f"sequence {self.sequence + 1} should be here, not {batch.first}")
        self.sequence = batch.last
        self.rows.update(zip(batch.rows[::2], batch.rows[1::2], strict=True))
        events = batch.events
        for at in range(0, len(events), EVENT_SIZE):
            id_, record = events[at + 1], events[at + 2]
            if record[:1] == HELD:
                self.holds[id_] = record
            elif events[at] < Kind.PUT_ITEM:
                self.holds.pop(id_, None)


def state_digest(rows: Mapping[bytes, bytes], records: Mapping[bytes, bytes]) -> bytes:
    """Return the SHA-256 of a state: rows in order of field, then live holds in order of id.

    Each part begins with its number, each name and value with its length.  What a principal holds
    counts only while it is something, so that a state rebuilt from its holds is the same.
    """
    digest = sha256()
    present = {name: row for name, row in rows.items() if not _is_empty(name, row)}
    live = {id_: record for id_, record in records.items() if record[:1] == HELD}
    for part in (present, live):
        digest.update(_SIZE.pack(len(part)))
        for name, value in sorted(part.items()):
            digest.update(_SIZE.pack(len(name)) + name + _SIZE.pack(len(value)) + value)
    return digest.digest()


def _is_empty(field: bytes, row: bytes) -> bool:
    return field.startswith(US) and not any(row)
