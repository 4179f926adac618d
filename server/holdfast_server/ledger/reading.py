"""What is asked of the archive: entries, batches, records, and the state they add up to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Select, bindparam, func, select

from holdfast_server.kernel.records import decode_reservation
from holdfast_server.ledger import schema
from holdfast_server.ledger.audit import AuditRecord, read_record, whole
from holdfast_server.ledger.database import Database
from holdfast_server.ledger.faults import ArchivePurged
from holdfast_server.ledger.leaf import entry_of
from holdfast_server.model import Kind, LedgerEntry, Reservation

PAGE = 1_000


class BatchRecord(NamedTuple):
    """One batch as it is kept: the rows it wrote, fields and values by turns, and its leaves."""

    epoch: int
    time_ms: int
    first: int
    last: int
    rows: Sequence[bytes]
    leaves: Sequence[bytes]


class Reading:
    """Reads of an archive.  Each sees one state; raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def leaves(self, stream: str, after: int, limit: int) -> list[bytes]:
        """Return the leaves that come after a sequence, or number, without a gap.

        Raises ArchivePurged.
        """
        table = schema.ledger if stream == "ledger" else schema.queries
        place = table.c.sequence if stream == "ledger" else table.c.number
        found = await self._all(
            select(place, table.c.leaf).where(place > after).order_by(place).limit(limit)
        )
        if found and found[0][0] != after + 1:
            raise ArchivePurged(found[0][0])
        return [leaf for _place, leaf in found]

    async def first_sequence(self) -> int:
        """Return the oldest sequence that is left, 0 when there is none."""
        return int((await self._all(select(func.min(schema.ledger.c.sequence))))[0][0] or 0)

    async def entries(self, from_sequence: int, *, limit: int) -> list[LedgerEntry]:
        """Return entries from a sequence on, gapless and in order.  Raises ArchivePurged."""
        return [entry_of(leaf) for leaf in await self.leaves("ledger", from_sequence - 1, limit)]

    async def entries_of(self, key: str) -> list[LedgerEntry]:
        """Return all entries of a reservation, or of a request by `~` and its id, in order.

        Raises ArchivePurged where a reservation is known, and its first entry is gone.
        """
        table = schema.ledger
        found = await self._all(
            select(table.c.leaf).where(table.c.id == key).order_by(table.c.sequence)
        )
        entries = [entry_of(leaf) for (leaf,) in found]
        await self._refuse_cut(key, entries[0].kind if entries else None)
        return entries

    async def _refuse_cut(self, key: str, began: int | None) -> None:
        """Raise ArchivePurged if what is left of a reservation begins with another entry."""
        if began != Kind.RESERVE and await self.reservation(key):
            raise ArchivePurged(await self.first_sequence())

    async def reservation(self, reservation_id: str) -> Reservation | None:
        """Return a reservation as its last entry left it."""
        table = schema.reservations
        found = await self._all(select(table.c.record).where(table.c.id == reservation_id))
        return decode_reservation(reservation_id, found[0][0]) if found else None

    async def batches(self, from_sequence: int, *, limit: int) -> list[BatchRecord]:
        """Return the batch that holds a sequence, and those after it.

        Raises ArchivePurged, with the first sequence of a batch that is left whole.
        """
        table = schema.batches
        found = await self._all(
            select(table).where(table.c.last >= from_sequence).order_by(table.c.last).limit(limit)
        )
        if not found:
            return []
        began = found[0].first
        try:
            leaves = await self.leaves("ledger", began - 1, found[-1].last - began + 1)
        except ArchivePurged as purged:
            raise ArchivePurged(found[0].last + 1) from purged
        return [
            BatchRecord(
                row.epoch,
                row.time_ms,
                row.first,
                row.last,
                msgpack.unpackb(row.rows),
                leaves[row.first - began : row.last - began + 1],
            )
            for row in found
        ]

    async def sequence_at(self, time_ms: int) -> int:
        """Return the last sequence that is not later than a time, 0 before the first."""
        table = schema.batches
        found = await self._all(select(func.max(table.c.last)).where(table.c.time_ms <= time_ms))
        return int(found[0][0] or 0)

    async def touches(self, sku: str, *, through: int, limit: int) -> list[int]:
        """Return the last sequences of the batches that changed an item, the newest first.

        Those that begin at `through` or before; the newest may end after it.
        """
        table, batches = schema.touches, schema.batches
        found = await self._all(
            select(table.c.last)
            .join(batches, batches.c.last == table.c.last)
            .where(table.c.sku == sku, batches.c.first <= through)
            .order_by(table.c.last.desc())
            .limit(limit)
        )
        return [last for (last,) in found]

    async def newest_touches(self, skus: Collection[str], *, through: int) -> dict[str, int]:
        """Return, by item, the last sequence of the newest batch that changed it.

        As `touches`; an item that was not there yet is left out.  Raises ArchivePurged where that
        cannot be told.
        """
        table, batches = schema.touches, schema.batches
        newest = (
            select(table.c.last)
            .join(batches, batches.c.last == table.c.last)
            .where(table.c.sku == bindparam("sku"), batches.c.first <= bindparam("through"))
            .order_by(table.c.last.desc())
            .limit(1)
        )
        found = {}
        async with self._database.reading() as connection:
            for sku in skus:
                values = {"sku": sku, "through": through}
                last = (await connection.execute(newest, values)).scalar()
                if last is not None:
                    found[sku] = int(last)
        if len(found) < len({*skus}) and (first := await self.first_sequence()) > 1:
            raise ArchivePurged(first)
        return found

    async def rows_written(self, last: int) -> list[bytes]:
        """Return the rows that a batch wrote, fields and values by turns; none for no batch."""
        table = schema.batches
        found = await self._all(select(table.c.rows).where(table.c.last == last))
        return msgpack.unpackb(found[0][0]) if found else []

    async def leaf_before(self, key: str, sequence: int) -> bytes | None:
        """Return the newest leaf of a reservation before a sequence; None: it was not there yet.

        Raises ArchivePurged where that cannot be told.
        """
        table = schema.ledger
        query = select(table.c.kind, table.c.leaf).where(table.c.id == key).limit(1)
        found = await self._all(
            query.where(table.c.sequence < sequence).order_by(table.c.sequence.desc())
        )
        if found:
            return bytes(found[0].leaf)
        after = await self._all(query.order_by(table.c.sequence))
        await self._refuse_cut(key, after[0].kind if after else None)
        return None

    # ---- Queries ----

    async def queries_of(self, name: str) -> list[AuditRecord]:
        """Return the records of a query, or of a reservation's refusals, in order."""
        table = schema.queries
        return await self._records(table.c.id == name)

    async def has_query(self, leaf: bytes) -> bool:
        """Tell whether an audit record is archived, byte for byte."""
        table = schema.queries
        query = select(table.c.number).where(
            table.c.id == read_record(leaf).id, table.c.leaf == leaf
        )
        return bool(await self._all(query.limit(1)))

    async def queries_in(
        self, principal: str, session: str, *, before_ms: int, limit: int
    ) -> list[AuditRecord]:
        """Return what a principal asked in a session up to a time: the newest, in order.

        In place of a session WATCHES asks for what is on record of its watches.
        """
        table = schema.queries
        found = await self._all(
            select(table.c.leaf)
            .where(table.c.session == session, table.c.principal == principal)
            .where(table.c.time_ms <= before_ms)
            .order_by(table.c.number.desc())
            .limit(limit)
        )
        return whole(read_record(leaf) for (leaf,) in reversed(found))

    async def _older(self, stream: str, before_ms: int) -> tuple[int, int]:
        """Return the first leaf that is left, and the last that is older than a time, or 0."""
        table = schema.queries
        if stream == "ledger":
            return await self.first_sequence() or 1, await self.sequence_at(before_ms - 1)
        least = select(func.min(table.c.number))
        first = (await self._all(least))[0][0] or 1
        # Servers' records come interleaved, so an older one may stand behind one that stays.
        staying = (await self._all(least.where(table.c.time_ms >= before_ms)))[0][0]
        newest = (await self._all(select(func.max(table.c.number))))[0][0] or 0
        return first, staying - 1 if staying else newest

    async def _records(self, which: Any) -> list[AuditRecord]:
        table = schema.queries
        found = await self._all(select(table.c.leaf).where(which).order_by(table.c.number))
        return whole(read_record(leaf) for (leaf,) in found)

    # ---- The state ----

    async def due(self, time_ms: int) -> list[tuple[str, bytes]]:
        """Return the records of reservations that are held, and by then should not be."""
        table = schema.reservations
        return [
            (row.id, row.record)
            for row in await self._all(
                select(table.c.id, table.c.record)
                .where(schema.IS_HELD, table.c.expires_ms <= time_ms)
                .order_by(table.c.expires_ms)
            )
        ]

    def items(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield every item and its row, in order of SKU."""
        table = schema.items
        return self._pages(select(table.c.sku, table.c.row), table.c.sku)

    async def locations(self) -> AsyncIterator[tuple[str, str, bytes]]:
        """Yield stock at every location, in order of SKU and location."""
        table = schema.locations
        order = (table.c.sku, table.c.location)
        async with self._database.reading() as connection:
            query = select(*order, table.c.row).order_by(*order)
            async for row in await connection.stream(query):
                yield row[0], row[1], row[2]

    async def location(self, sku: str, location: str) -> bytes | None:
        """Return the row of stock at a location as it is now."""
        table = schema.locations
        found = await self._all(
            select(table.c.row).where(table.c.sku == sku, table.c.location == location)
        )
        return bytes(found[0][0]) if found else None

    async def table_rows(self, query: Select[Any]) -> list[tuple[Any, ...]]:
        """Return whole rows of a table, as they are kept."""
        return [tuple(row) for row in await self._all(query)]

    def held(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the records of all reservations that are held, in order of id."""
        table = schema.reservations
        query = select(table.c.id, table.c.record).where(schema.IS_HELD)
        return self._pages(query, table.c.id)

    async def since(self, time_ms: int) -> AsyncIterator[bytes]:
        """Yield the leaves of entries that are not older than a time, in order."""
        at = await self.sequence_at(time_ms - 1)
        while leaves := await self.leaves("ledger", at, PAGE):
            for leaf in leaves:
                yield leaf
            at += len(leaves)

    async def _pages(self, query: Select[Any], key: Any) -> AsyncIterator[tuple[str, bytes]]:
        async with self._database.reading() as connection:
            async for row in await connection.stream(query.order_by(key)):
                yield row[0], row[1]

    async def _all(self, query: Select[Any]) -> Sequence[Any]:
        async with self._database.reading() as connection:
            found: Sequence[Any] = (await connection.execute(query)).all()
            return found
