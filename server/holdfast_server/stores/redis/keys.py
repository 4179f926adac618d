"""Names of a cell's keys: one hash tag, so one slot, and every key is declared to every script."""

from __future__ import annotations

from typing import NamedTuple


class LedgerKeys(NamedTuple):
    """The keys of a cell beside those of a batch: who leads, and what waits for the archive."""

    fences: str
    queries: str
    archived: str  # a channel

    @classmethod
    def of(cls, cell: int) -> LedgerKeys:
        """Return the keys of the cell with this number."""
        return cls(*(f"{{c{cell}}}:{name}" for name in cls._fields))


class CellKeys(NamedTuple):
    """The keys of one cell, in the order of KEYS in lua/redis/execute.lua."""

    meta: str
    items: str
    holds: str
    expiry: str
    ended: str
    ledger: str
    skus: str

    @classmethod
    def of(cls, cell: int) -> CellKeys:
        """Return the keys of the cell with this number."""
        return cls(*(f"{{c{cell}}}:{name}" for name in cls._fields))
