"""What was decided about a reservation: what each decision saw, made, and makes when made again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast_server.kernel.records import decode_item
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.leaf import EVENT_SIZE
from holdfast_server.ledger.past import Past
from holdfast_server.model import Item, LedgerEntry


class Decision(NamedTuple):
    """One decision: the items it was made on as they stood just before, and its entry.

    It is reproduced when the kernel made the same entry, and the same rows, from the ledger alone.
    """

    entry: LedgerEntry
    seen: Sequence[Item]
    is_reproduced: bool


async def decisions_of(archive: Archive, reservation_id: str) -> list[Decision]:
    """Return every decision about a reservation, in order; none for one that never was.

    Raises ResumeTokenExpired where what they were made on is no longer kept.
    """
    past = Past(archive)
    entries = await archive.entries_of(reservation_id)
    return [await _decision(past, entry) for entry in entries]


async def _decision(past: Past, entry: LedgerEntry) -> Decision:
    batch = await past.batch(entry.sequence)
    made = await past.redecided(batch)
    at = (entry.sequence - batch.first) * EVENT_SIZE
    written = dict(zip(batch.rows[::2], batch.rows[1::2], strict=True))
    is_same = made.events[at : at + EVENT_SIZE] == list(batch.events[at : at + EVENT_SIZE])
    return Decision(entry, await _seen(past, entry), is_same and made.rows == written)


async def _seen(past: Past, entry: LedgerEntry) -> list[Item]:
    if entry.reservation is None or entry.sequence == 1:
        return []
    skus = dict.fromkeys(line.sku for line in entry.reservation.lines)
    rows = await past.items(skus, entry.sequence - 1)
    return [decode_item(sku, rows[sku.encode()]) for sku in skus if sku.encode() in rows]
