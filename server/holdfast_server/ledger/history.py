"""The whole ledger: what the store still has, and what only the archive has."""

from __future__ import annotations

from typing import Protocol

from holdfast_server.ledger.archive import Archive
from holdfast_server.model import Head, LedgerEntry, Reservation


class Recent(Protocol):
    """The ledger as far as the store has it."""

    async def head(self) -> Head:
        """Return the end of the ledger, and the oldest entry that is left."""
        ...

    async def entries(self, from_sequence: int, *, limit: int) -> list[LedgerEntry]:
        """Return entries from a sequence on, gapless and in order."""
        ...


class History:
    """Reads the ledger of a cell from wherever it is.  Raises StoreUnavailable."""

    def __init__(self, recent: Recent, archive: Archive | None) -> None:
        self._recent, self._archive = recent, archive

    async def head(self) -> Head:
        """Return the end of the ledger, and the oldest entry that can be read."""
        head = await self._recent.head()
        if self._archive is None or head.first_sequence == 1:
            return head
        first = await self._archive.first_sequence()
        return head._replace(first_sequence=min(first, head.first_sequence)) if first else head

    async def entries(self, from_sequence: int, *, limit: int) -> list[LedgerEntry]:
        """Return up to `limit` entries from a sequence on, gapless and in order."""
        recent = await self._recent.entries(from_sequence, limit=limit)
        if self._archive is None or (recent and recent[0].sequence == from_sequence):
            return recent
        missing = recent[0].sequence - from_sequence if recent else limit
        kept = await self._archive.entries(from_sequence, limit=min(missing, limit))
        return [*kept, *recent][:limit] if len(kept) == missing or not recent else kept

    async def reservation(self, reservation_id: str) -> Reservation | None:
        """Return a reservation that the store no longer has, as its last entry left it."""
        if self._archive is None:
            return None
        return await self._archive.reservation(reservation_id)
