"""Looking back: the state as of any sequence, item by item, from the archive.

Between two batches it is the rows that the last ones wrote; within a batch it is what the kernel
makes of the entries up to there, decided again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

from holdfast_server.errors import ResumeTokenExpired
from holdfast_server.kernel.lua import LuaError
from holdfast_server.kernel.records import PLACE, US, US_BYTE, decode_entries
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.faults import ArchivePurged
from holdfast_server.ledger.leaf import StoredBatch, read_leaf
from holdfast_server.ledger.origins import BUDGETED, asked_of, events_of
from holdfast_server.ledger.reading import BatchRecord
from holdfast_server.ledger.redeciding import Redecided, Redecider
from holdfast_server.model import Kind, LedgerEntry

PLACE_BATCHES_MAX = 1_000  # looked through for stock at a place that a batch read and left alone

Rows = dict[bytes, bytes]


def stored(record: BatchRecord) -> StoredBatch:
    """Return a batch of the archive as the store kept it."""
    events = chain.from_iterable(read_leaf(leaf)[5:] for leaf in record.leaves)
    return StoredBatch(record.epoch, record.time_ms, record.first, list(events), record.rows)


class Past:
    """One look back.  What it has read it remembers, so each call makes its own.

    Raises ResumeTokenExpired for what is not in the archive, StoreUnavailable.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.redecider = Redecider()
        self._batches: dict[int, StoredBatch] = {}
        self._written: dict[int, Rows] = {}
        self._before: dict[int, tuple[Rows, Rows]] = {}

    async def batch(self, sequence: int) -> StoredBatch:
        """Return the batch that holds an entry."""
        for known in self._batches.values():
            if known.first <= sequence <= known.last:
                return known
        return (await self.batches(sequence, limit=1))[0]

    async def batches(self, sequence: int, *, limit: int) -> list[StoredBatch]:
        """Return the batch that holds an entry, and those after it."""
        with _kept():
            found = await self.archive.batches(sequence, limit=limit)
        if not found or not found[0].first <= sequence:
            raise _lost(f"sequence {sequence} is not in the ledger")
        read = [stored(record) for record in found]
        self._batches.update((batch.first, batch) for batch in read)
        return read

    async def entries_of(self, reservation_id: str) -> list[LedgerEntry]:
        """Return all entries of a reservation, in order; none of one that never was."""
        with _kept():
            return await self.archive.entries_of(reservation_id)

    async def items(self, skus: Iterable[str], sequence: int) -> Rows:
        """Return the rows of items after an entry, without those that were not there yet."""
        return await self.rows([sku.encode() for sku in skus], sequence)

    async def rows(self, fields: Iterable[bytes], sequence: int) -> Rows:
        """Return rows of items and of stock at places after an entry."""
        batch = await self.batch(sequence)
        if sequence == batch.last:
            return await self._rows_at(fields, sequence)
        made = (await self.redecided(batch, sequence)).rows
        found = {field: made[field] for field in fields if field in made}
        return found | await self._rows_before(batch, set(fields) - found.keys())

    async def record(self, id_: str, sequence: int) -> bytes | None:
        """Return the record of a reservation after an entry; None: it was not there yet."""
        with _kept():
            leaf = await self.archive.leaf_before(id_, sequence + 1)
        return None if leaf is None else read_leaf(leaf).record

    async def redecided(self, batch: StoredBatch, through: int | None = None) -> Redecided:
        """Decide a batch again, or its entries up to a sequence, from the state before it.

        Raises ResumeTokenExpired where that cannot be done: the archive is not whole.
        """
        rows, records = await self._state_before(batch)
        self.redecider.keep(rows, records)
        try:
            return self.redecider.decide(batch, through)
        except (LuaError, ValueError) as fault:
            raise _lost(f"entry {batch.first} cannot be decided again: {fault}") from fault

    async def _state_before(self, batch: StoredBatch) -> tuple[Rows, Rows]:
        if batch.first not in self._before:
            records = await self._records_before(batch)
            fields = self.redecider.reads(asked_of(batch), records)
            self._before[batch.first] = await self._rows_before(batch, fields), records
        return self._before[batch.first]

    async def _records_before(self, batch: StoredBatch) -> Rows:
        fresh = set(asked_of(batch).fresh)
        ids = {event.id for event in events_of(batch) if event.kind < Kind.PUT_ITEM} - fresh
        records = {}
        for id_ in ids:
            record = await self.record(id_.decode(), batch.first - 1)
            if record is not None:
                records[id_] = record
        return records

    async def _rows_before(self, batch: StoredBatch, fields: Iterable[bytes]) -> Rows:
        """Return the rows that a batch read.

        Of a place that it changed, and of what a principal held, the counters before are those
        after less what the batch moved.
        """
        written = dict(zip(batch.rows[::2], batch.rows[1::2], strict=True))
        places, held = _moved(batch)
        rows, others = {}, []
        for field in fields:
            sku, separator, _location = field.partition(US_BYTE)
            if not separator or field not in written:
                others.append(field)
            elif sku:
                counters = zip(PLACE.unpack(written[field])[:3], places[field], strict=True)
                rows[field] = PLACE.pack(*(after - moved for after, moved in counters), 0)
            else:
                units = int.from_bytes(written[field], "little", signed=True) - held[field]
                rows[field] = units.to_bytes(4, "little", signed=True)
        return rows | await self._rows_at(others, batch.first - 1)

    async def _rows_at(self, fields: Iterable[bytes], sequence: int) -> Rows:
        """Return the rows of items and places after a batch that ends with an entry."""
        names = list(fields)
        rows = await self._items(
            [field.decode() for field in names if US_BYTE not in field], sequence
        )
        for field in names:
            sku, separator, _location = field.partition(US_BYTE)
            if sku and separator:
                rows |= await self._place(field, sequence)
        return rows

    async def _items(self, skus: Iterable[str], sequence: int) -> Rows:
        with _kept():
            newest = await self.archive.newest_touches([*skus], through=sequence)
        return {
            sku.encode(): (await self._rows(last))[sku.encode()] for sku, last in newest.items()
        }

    async def _place(self, field: bytes, sequence: int) -> Rows:
        sku, _separator, location = field.decode().partition(US)
        now = await self.archive.location(sku, location)
        if now is None or PLACE.unpack(now)[3] <= sequence:
            return {} if now is None else {field: now}
        touches = await self.archive.touches(sku, through=sequence, limit=PLACE_BATCHES_MAX)
        for last in touches:
            rows = await self._rows(last)
            if field in rows:
                return {field: rows[field]}
        if len(touches) == PLACE_BATCHES_MAX or await self.archive.first_sequence() > 1:
            raise _lost(f"stock of {sku} at {location} as of {sequence} is too far back")
        return {}

    async def _rows(self, last: int) -> Rows:
        if last not in self._written:
            flat = await self.archive.rows_written(last)
            self._written[last] = dict(zip(flat[::2], flat[1::2], strict=True))
        return self._written[last]


def _moved(batch: StoredBatch) -> tuple[dict[bytes, list[int]], Counter[bytes]]:
    """Return what a batch moved: on_hand, held and committed by place, held by principal."""
    places: dict[bytes, list[int]] = defaultdict(lambda: [0, 0, 0])
    held: Counter[bytes] = Counter()
    events = events_of(batch)
    for event, entry in zip(events, decode_entries([1, *batch]), strict=True):
        for move in entry.movements:
            if move.location or entry.reservation is None:  # a count is always of a place
                field = move.sku.encode() + US_BYTE + move.location.encode()
                changes = (move.on_hand, move.held, move.committed)
                places[field] = [a + b for a, b in zip(places[field], changes, strict=True)]
            if entry.reservation is not None and event.record[1] & BUDGETED:
                held[US_BYTE + entry.reservation.principal.encode()] += move.held
    return places, held


@contextmanager
def _kept() -> Iterator[None]:
    """Raise ResumeTokenExpired for what is gone by its retention."""
    try:
        yield
    except ArchivePurged as purged:
        raise _lost(f"the ledger starts at sequence {purged.first}") from purged


def _lost(words: str) -> ResumeTokenExpired:
    return ResumeTokenExpired(words)
