"""Levels as of a moment: after an entry, or at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast_server.errors import ResumeTokenExpired
from holdfast_server.kernel.records import HOLD, decode_level, decode_reservation
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.origins import events_of
from holdfast_server.ledger.past import Past, Rows
from holdfast_server.ledger.redeciding import Redecider
from holdfast_server.model import Kind, Level

SWEEP_MIN = 64  # fewer expiries than this in a batch: nothing more was due
BATCHES_STEP = 16
HELD = b"H"


class Moment(NamedTuple):
    """Levels by SKU as of a moment; one that was not there yet is None."""

    levels: dict[str, Level | None]
    sequence: int
    time_ms: int


async def at_sequence(archive: Archive, skus: Sequence[str], sequence: int) -> Moment:
    """Return the levels after an entry.  Raises ResumeTokenExpired where there is none."""
    past = Past(archive)
    rows = await past.items(skus, sequence)
    return Moment(_levels(skus, rows), sequence, (await past.batch(sequence)).time_ms)


async def at_time(archive: Archive, skus: Sequence[str], time_ms: int) -> Moment:
    """Return the levels at a time: after the last entry not later, and what is due ended.

    Raises ResumeTokenExpired for a time before the first entry.
    """
    sequence = await archive.sequence_at(time_ms)
    if not sequence:
        raise ResumeTokenExpired("the time is before the first entry of the ledger")
    past = Past(archive)
    rows = await past.items(skus, sequence)
    ended = await _ended(past, set(skus), sequence, time_ms)
    after = {field: row for field, row in ended.items() if field in rows}
    levels = _levels(skus, rows | after)
    for sku, level in _levels(skus, rows).items():
        found = levels[sku]
        if level and found:  # no entry has ended those holds yet
            levels[sku] = found._replace(revision=level.revision)
    return Moment(levels, sequence, time_ms)


def _levels(skus: Sequence[str], rows: Rows) -> dict[str, Level | None]:
    found = {sku: rows.get(sku.encode()) for sku in skus}
    return {sku: decode_level(sku, row) if row else None for sku, row in found.items()}


async def _ended(past: Past, skus: set[str], sequence: int, time_ms: int) -> Rows:
    """Return the rows that the end of the holds leaves that were due by a time, and still held."""
    due = await _due(past, sequence, time_ms)
    touched = {
        id_: {line.sku for line in decode_reservation(id_.decode(), record).lines}
        for id_, record in due.items()
    }
    ids = [id_ for id_ in due if touched[id_] & skus]
    if not ids:
        return {}
    redecider = Redecider()
    items = await past.items(set().union(*(touched[id_] for id_ in ids)), sequence)
    redecider.keep(items, {id_: due[id_] for id_ in ids})
    return redecider.expire(ids, time_ms=time_ms, sequence=sequence)


async def _due(past: Past, sequence: int, time_ms: int) -> Rows:
    """Return the holds that were live after an entry and due by a time, the first due first.

    Batches after the time begin by ending them, as many as one sweep may; what no batch has ended
    is still held.
    """
    due = {
        id_.encode(): record
        for id_, record in await past.archive.due(time_ms)
        if HOLD.unpack_from(record)[3] <= sequence
    }
    head = (await past.archive.archived()).sequence
    has_more = True
    while has_more and sequence < head:
        for batch in await past.batches(sequence + 1, limit=BATCHES_STEP):
            expired = [event for event in events_of(batch) if event.kind == Kind.EXPIRE]
            for event in expired:
                if HOLD.unpack_from(event.record)[5] <= time_ms:
                    due[event.id] = HELD + event.record[1:]
            sequence = batch.last
            has_more = len(expired) >= SWEEP_MIN
            if not has_more:
                break
    return dict(sorted(due.items(), key=lambda hold: (HOLD.unpack_from(hold[1])[5], hold[0])))
