"""The store made as new as the archive: noticed, rebuilt, and what it had beyond applied again.

The archive is the system of record: what it has is never lost.  A store that is behind it (emptied,
torn, a failover to a stale replica), or that went another way after a common past, is sealed, built
anew from the archive under a higher epoch, and given what only it had as operations to decide
again.  These have the ids of then, so they change nothing twice; what no longer fits goes to a
person.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

import structlog

from holdfast_server.errors import StoreFault, StoreUnavailable
from holdfast_server.kernel.records import DAMAGE
from holdfast_server.ledger.archive import Archive, Archived
from holdfast_server.ledger.faults import ArchivePurged
from holdfast_server.ledger.leaf import StoredBatch, leaves_of, read_batch
from holdfast_server.ledger.origins import events_of
from holdfast_server.ledger.reapplying import LeftOver
from holdfast_server.ledger.restoring import Built, Restoring, Store
from holdfast_server.model import Head, Kind

log = structlog.get_logger(__name__)

LOOK_S = 0.5
PAGE = 64


class Trouble(StrEnum):
    """Why a store cannot be gone on with."""

    SEALED = "a rebuild of it was not finished"
    BEHIND = "it is behind the archive"
    DIVERGED = "it has another past than the archive"


class Source(Protocol):
    """The store's ledger."""

    async def head(self) -> Head:
        """Return the end of the ledger."""
        ...

    async def bodies(self, from_sequence: int, *, count: int) -> list[bytes]:
        """Return the batch that holds a sequence and those after it, as they are stored."""
        ...


@dataclass
class Report:
    """What a recovery did."""

    trouble: str
    old_epoch: int
    new_epoch: int
    found: int
    archived: int
    common: int
    restored: dict[str, int] = field(default_factory=dict)
    applied: int = 0
    ended: int = 0
    reviewed: int = 0
    seconds: float = 0.0


def judge(archived: Archived, head: Head, at_mark: bytes | None) -> Trouble | None:
    """Return what is wrong with a store, by the batch that it has where the archive ends.

    That batch may be trimmed; then only a lower epoch gives another past away.
    """
    if not archived.sequence:
        return None
    if head.sequence < archived.sequence:
        return Trouble.BEHIND
    if at_mark is None:
        return Trouble.DIVERGED if head.epoch < archived.epoch else None
    return None if sha256(at_mark).digest() == archived.digest else Trouble.DIVERGED


class Recovery:
    """Compares store and archive, and mends the store.  `mend` is the leader's alone."""

    def __init__(
        self, source: Source, store: Store, archive: Archive, *, cell: int, retention_ms: int
    ) -> None:
        self._source, self._store, self._archive = source, store, archive
        self._cell, self._retention_ms = cell, retention_ms

    async def trouble(self) -> Trouble | None:
        """Return why the store has to be rebuilt, or None.  Raises StoreUnavailable."""
        archived = await self._archive.archived()
        if await self._store.is_sealed():
            return Trouble.SEALED
        head = await self._source.head()
        at_mark = None
        if 0 < archived.sequence <= head.sequence and head.first_sequence <= archived.sequence:
            found = await self._source.bodies(archived.sequence, count=1)
            if found and _read(found[0]).first <= archived.sequence:  # not trimmed meanwhile
                at_mark = found[0]
        return judge(archived, head, at_mark)

    async def until_trouble(self, _token: int) -> None:
        """Return when the store has to be rebuilt; one that is out of reach is waited for."""
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(StoreFault):
                if await self.trouble() is not None:
                    return

    async def mend(self, token: int) -> None:
        """Rebuild the store if it has to be.  Safe to cancel, and to begin again, at any point.

        Raises StoreUnavailable, Fenced.
        """
        trouble = await self.trouble()
        if trouble is None:
            return
        began, head = time.monotonic(), await self._source.head()
        archived = await self._archive.archived()
        log.error("recovering the store", trouble=str(trouble), found=head, archived=archived[:2])
        sealed = await self._store.seal(token, archived.epoch)
        common = sealed.common
        if not sealed.is_exchanged:
            common = await self._common(await self._source.head(), archived.sequence)
        report = Report(
            str(trouble), head.epoch, sealed.epoch, head.sequence, archived.sequence, common
        )
        if not sealed.is_exchanged:
            report.restored = await self._rebuild(token, sealed.epoch, archived, common)
        left = LeftOver(self._store, sealed.epoch, self._store.left_over(common))
        await left.apply()
        await self._archive.add_reviews(left.reviews)
        await self._store.open(token, sealed.epoch)
        report.applied, report.ended, report.reviewed = left.applied, left.ended, len(left.reviews)
        report.seconds = round(time.monotonic() - began, 3)
        log.warning("store recovered", **vars(report))

    async def _rebuild(
        self, token: int, epoch: int, archived: Archived, common: int
    ) -> dict[str, int]:
        await self._store.discard()
        built, sold = Built(self._store), await self._sold(common)
        await Restoring(self._archive, built, self._retention_ms, sold).run(archived)
        await self._store.exchange(
            token, epoch, sequence=archived.sequence, clock_ms=archived.time_ms, common=common
        )
        return dict(Counter(built.counts))

    async def _sold(self, common: int) -> set[bytes]:
        """Return what the store has sold since it had what the archive has."""
        sold: set[bytes] = set()
        while bodies := await self._source.bodies(common + 1, count=PAGE):
            for batch in map(_read, bodies):
                sold |= {event.id for event in events_of(batch) if event.kind == Kind.COMMIT}
                common = batch.last
        return sold

    async def _common(self, head: Head, archived: int) -> int:
        """Return the last sequence up to which store and archive have the same entries.

        Once they differ they differ for good, so it is found by halving.  What the archive keeps no
        more is the same: it was archived from this store long ago.
        """
        low, high = head.first_sequence - 1, min(head.sequence, archived)
        while low < high:
            middle = (low + high + 1) // 2
            found = await self._source.bodies(middle, count=1)
            if not found:
                high = middle - 1
                continue
            batch = _read(found[0])
            leaves = leaves_of(batch, self._cell)
            if await self._is_archived(batch.first, leaves):
                low = max(middle, min(batch.last, high))
            else:
                high = batch.first - 1
        return low

    async def _is_archived(self, first: int, leaves: list[bytes]) -> bool:
        try:
            return leaves == await self._archive.leaves("ledger", first - 1, len(leaves))
        except ArchivePurged:
            return True


def _read(body: bytes) -> StoredBatch:
    """Return a batch of the store.  Raises StoreUnavailable: a person has to look at it."""
    try:
        return read_batch(body)
    except DAMAGE as fault:
        raise StoreUnavailable(f"the store's ledger cannot be read: {fault}") from fault
