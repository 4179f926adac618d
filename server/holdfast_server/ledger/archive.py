"""The archive: the ledger kept for good in SQL, and its fold, applied in order exactly once.

It is what auditors read, what the store is rebuilt from, and what stays when the store has trimmed.
The position stands in the same transaction as what it is the position of; so after a crash the
archive goes on where it stood, with nothing lost and nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, Table, bindparam, delete, insert, select

from holdfast_server.errors import StoreUnavailable
from holdfast_server.kernel.records import DAMAGE
from holdfast_server.ledger import schema
from holdfast_server.ledger.audit import read_record, session_key
from holdfast_server.ledger.database import Database
from holdfast_server.ledger.faults import ArchiveConflict, ArchiveGap, EntryDamaged
from holdfast_server.ledger.folding import Folding
from holdfast_server.ledger.leaf import StoredBatch, read_batch
from holdfast_server.ledger.reading import Reading
from holdfast_server.ledger.upserts import Row, put

LEDGER, QUERIES = "ledger", "queries"
T = TypeVar("T")
SLICE = 64  # audit records read before calls go in between: 0.4 ms
RANGE = 65_536  # leaves that go together: 256 bundles of the log


class Archived(NamedTuple):
    """How far a stream is archived: nothing yet when the sequence is 0."""

    epoch: int = 0
    sequence: int = 0
    time_ms: int = 0
    mark: str = ""
    digest: bytes = b""


# Built once: that costs as much as the query.
_POSITION = select(*[schema.positions.c[name] for name in Archived._fields]).where(
    schema.positions.c.stream == bindparam("stream")
)


class Review(NamedTuple):
    """Something that a person has to look at, and by when."""

    reason: str
    sku: str
    reservation_id: str
    sequence: int
    units: int
    detail: str
    opened_ms: int
    due_ms: int


class Archive(Reading):
    """The archive of one cell.  One process writes it at a time; any number reads.

    What cannot be reached raises StoreUnavailable, and a write has then changed nothing.
    """

    def __init__(self, database: Database, cell: int = 0) -> None:
        super().__init__(database)
        self.cell = cell

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, cell: int = 0, *, is_patient: bool = False
    ) -> AsyncIterator[Archive]:
        """Open an archive, and make or migrate its tables where that is due.

        One that is out of reach may be waited for patiently, as `Database.open` has it.
        Raises ArchiveUnusable, StoreUnavailable.
        """
        database = await Database.open(url, is_patient=is_patient)
        try:
            yield cls(database, cell)
        finally:
            await database.aclose()

    async def archived(self, stream: str = LEDGER) -> Archived:
        """Return how far a stream is archived."""
        async with self._database.reading() as connection:
            return await connection.run_sync(_position, stream)

    async def at_rest(self, read: Callable[[], Awaitable[T]]) -> tuple[int, T]:
        """Return what several reads find together, and the sequence that all of it is as of."""
        while True:
            before = await self.archived()
            found = await read()
            if await self.archived() == before:
                return before.sequence, found

    async def apply(self, bodies: Sequence[bytes], at: Archived | None = None) -> Archived:
        """Archive stream entries of the ledger in one transaction; return how far it is then.

        `at` is how far it was, where that is known.  What is archived already is left out.  Raises
        ArchiveGap where entries are missing, ArchiveConflict where they are of another history,
        EntryDamaged where the next one cannot be read, and StoreUnavailable where it was not as far
        as `at`, or farther.
        """
        began = at = at or await self.archived()
        folding = Folding(self.cell)
        for index, body in enumerate(bodies):
            try:
                batch = read_batch(body)
                if _is_due(batch, body, at):
                    folding.add(batch)
                    at = _after(batch, body)
            except DAMAGE as fault:
                if at != began:
                    return await self.apply(bodies[:index], began)
                raise EntryDamaged(f"entry {at.sequence + 1} cannot be read: {fault}") from fault
            await asyncio.sleep(0)  # a batch is a millisecond: calls go in between
        if at != began:
            await self._put(LEDGER, began, at, folding.tables())
        return at

    async def apply_queries(
        self, records: Sequence[bytes], mark: str, at: Archived | None = None
    ) -> Archived:
        """Archive audit records in one transaction with their place in the store's stream.

        `at` is as in `apply`.
        """
        at = at or await self.archived(QUERIES)
        rows, time_ms, epoch = [], at.time_ms, at.epoch
        for number, leaf in enumerate(records, start=at.sequence + 1):
            record = read_record(leaf)
            who = (record.principal, session_key(record))
            said = (number, record.time_ms, int(record.kind), record.id, *who)
            rows.append((*said, record.sequence, leaf))
            time_ms, epoch = max(time_ms, record.time_ms), max(epoch, record.epoch)
            if not number % SLICE:
                await asyncio.sleep(0)
        now = Archived(epoch, at.sequence + len(rows), time_ms, mark)
        await self._put(QUERIES, at, now, [(schema.queries, rows)])
        return now

    async def _put(
        self, stream: str, began: Archived, now: Archived, tables: Iterable[tuple[Table, list[Row]]]
    ) -> None:
        """Write rows and the position they lead to, from the one they were made for."""

        def work(connection: Connection) -> None:
            if _position(connection, stream) != began:
                raise StoreUnavailable(f"another one archives the {stream}")
            for table, rows in tables:
                put(connection, table, rows)
            put(connection, schema.positions, [(stream, *now)])

        await self._database.write(work)

    async def purge(self, stream: str, before_ms: int, *, now_ms: int) -> int:
        """Drop the leaves of whole sealed ranges that are older than a time; the fold stays.

        The newest leaf stays, however old, and so does the row of the last batch that is gone: by
        these two a reader tells what is gone from what never was.
        Returns the last sequence, or number, that is gone; 0 when nothing was due.
        """
        ledger, queries = schema.ledger, schema.queries
        place = ledger.c.sequence if stream == LEDGER else queries.c.number
        first, last = await self._older(stream, before_ms)
        newest = (await self.archived(stream)).sequence
        through = min(last, newest - 1) // RANGE * RANGE
        if first > through:
            return 0

        def work(connection: Connection) -> None:
            if stream == LEDGER:
                for table in (schema.batches, schema.touches):
                    connection.execute(delete(table).where(table.c.last < through))
            connection.execute(delete(place.table).where(place <= through))
            put(connection, schema.purges, [(stream, first, through, now_ms)])

        await self._database.write(work)
        return through

    async def add_reviews(self, reviews: Sequence[Review]) -> None:
        """Note what a person has to look at, but for what is open already.

        So whoever was cut off may note the same again.
        """
        if reviews:
            await self._database.write(lambda connection: _add_reviews(connection, reviews))


def _position(connection: Connection, stream: str) -> Archived:
    found = connection.execute(_POSITION, {"stream": stream}).first()
    return Archived(*found) if found else Archived()


def _add_reviews(connection: Connection, reviews: Sequence[Review]) -> None:
    table, sequences = schema.reviews, [review.sequence for review in reviews]
    same = (table.c.reason, table.c.reservation_id, table.c.sequence)
    near = table.c.sequence.between(min(sequences), max(sequences))
    found = connection.execute(select(*same).where(near, table.c.resolved_ms == 0))
    known = {tuple(row) for row in found}
    rows = [
        {**review._asdict(), "resolved_ms": 0, "resolution": ""}
        for review in reviews
        if (review.reason, review.reservation_id, review.sequence) not in known
    ]
    if rows:
        connection.execute(insert(table), rows)


def _is_due(batch: StoredBatch, body: bytes, at: Archived) -> bool:
    """Tell whether a batch comes next; one that is archived already is not due.

    Raises ArchiveGap, ArchiveConflict.
    """
    if batch.last <= at.sequence:
        if batch.last == at.sequence and sha256(body).digest() != at.digest:
            raise ArchiveConflict(
                f"the store has another entry {batch.last} than the archive: "
                f"epoch {batch.epoch}, archived was {at.epoch}"
            )
        return False
    if batch.first <= at.sequence or batch.epoch < at.epoch:
        raise ArchiveConflict(
            f"entries {batch.first} to {batch.last} of epoch {batch.epoch} do not follow on "
            f"{at.epoch}/{at.sequence}"
        )
    if batch.first > at.sequence + 1:
        raise ArchiveGap(f"entries {at.sequence + 1} to {batch.first - 1} are missing")
    return True


def _after(batch: StoredBatch, body: bytes) -> Archived:
    mark = f"{batch.last}-0"
    return Archived(batch.epoch, batch.last, batch.time_ms, mark, sha256(body).digest())
